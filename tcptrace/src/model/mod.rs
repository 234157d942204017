//! What tcptrace knows of connections. Pure: no clock, no files, no terminal, no kernel; records go in,
//! events come out.

pub mod cause;
pub mod close;
pub mod container;
pub mod doctor;
pub mod event;
pub mod explain;
pub mod filter;
pub mod found;
pub mod gate;
pub mod health;
pub mod loss;
pub mod socket;
pub mod standing;
pub mod state;
pub mod tally;
pub mod tracker;
