//! All that reads the host or loads programs into its kernel.

pub mod attach;
pub mod btf;
pub mod cgroup;
pub mod clock;
pub mod config;
pub mod diag;
mod error;
pub mod files;
mod layout;
pub mod netns;
mod privilege;
pub mod processes;
pub mod runs;
pub mod survey;
pub mod usage;

pub use error::KernelError;
pub use layout::reset_reasons;
