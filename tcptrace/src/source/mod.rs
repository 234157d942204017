//! Where records come from. A source yields them in order, and what was lost, where it was lost.

pub mod decode;
pub mod live;
