//! What crosses the boundary between the kernel side and the user side: the [records](record) that
//! the probes write into the ring, the [field offsets](layout) and the [filter](filter) that the
//! loader hands over as read-only globals.
//!
//! Both sides are built from this one source, for the same machine, so plain `repr(C)` is the whole
//! wire format.
#![no_std]

pub mod filter;
pub mod layout;
pub mod record;
