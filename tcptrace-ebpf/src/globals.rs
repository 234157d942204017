//! What the loader hands over. To the verifier these are constants: a branch that they rule out is not
//! in the program that runs.

use tcptrace_common::{filter::Filter, layout::Layout};

/// Offsets and features of the running kernel.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Layout = Layout::NOTHING;

/// What the user wants to see.
#[unsafe(no_mangle)]
pub(crate) static FILTER: Filter = Filter::ALL;

/// The value of a field of [`LAYOUT`].
macro_rules! layout {
    ($field:ident) => {
        tcptrace_common::filter::constant(&crate::globals::LAYOUT.$field)
    };
}
pub(crate) use layout;

/// Whether the kernel has what a field of [`LAYOUT`] names.
macro_rules! has {
    ($field:ident) => {
        tcptrace_common::layout::is_known(crate::globals::layout!($field))
    };
}
pub(crate) use has;
