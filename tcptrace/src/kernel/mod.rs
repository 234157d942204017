//! All that reads the host or loads programs into its kernel.

pub mod attach;
pub mod btf;
pub mod cgroup;
pub mod clock;
mod error;
mod layout;
pub mod netns;
mod privilege;

pub use error::KernelError;
