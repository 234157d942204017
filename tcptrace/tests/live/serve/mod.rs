//! `tcptrace serve`: its numbers, who may read them, and who cannot hurt it.

mod access;
mod crowd;
mod hostile;
mod numbers;
mod peers;
