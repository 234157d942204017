//! Why connections end: one test for each row of the table of causes, over a wire that does what the row
//! needs, each checked in full ([`fate`]).

pub(crate) mod fate;

mod orderly;
