//! TCP states by the kernel's names.

use std::{fmt, str::FromStr};

/// How long TIME_WAIT lasts, in ns, unless something ends it: `TCP_TIMEWAIT_LEN` of include/net/tcp.h.
pub const TIME_WAIT_NS: u64 = 60_000_000_000;

/// A state of a TCP socket, numbered as in the kernel's `include/net/tcp_states.h`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State(u8);

const NAMES: [&str; 13] = [
    "-",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];

#[expect(missing_docs, reason = "the names say it; RFC 9293 and `tcptrace explain` say the rest")]
impl State {
    pub const ESTABLISHED: Self = Self(1);
    pub const SYN_SENT: Self = Self(2);
    pub const SYN_RECV: Self = Self(3);
    pub const FIN_WAIT1: Self = Self(4);
    pub const FIN_WAIT2: Self = Self(5);
    pub const TIME_WAIT: Self = Self(6);
    pub const CLOSE: Self = Self(7);
    pub const CLOSE_WAIT: Self = Self(8);
    pub const LAST_ACK: Self = Self(9);
    pub const LISTEN: Self = Self(10);
    pub const CLOSING: Self = Self(11);
    pub const NEW_SYN_RECV: Self = Self(12);
}

impl State {
    /// The states of a connection, in the order in which it can pass through them.
    pub const LIFE: [Self; 9] = [
        Self::SYN_SENT,
        Self::SYN_RECV,
        Self::ESTABLISHED,
        Self::FIN_WAIT1,
        Self::FIN_WAIT2,
        Self::CLOSING,
        Self::CLOSE_WAIT,
        Self::LAST_ACK,
        Self::TIME_WAIT,
    ];

    /// One more than the largest number.
    pub const COUNT: usize = NAMES.len();

    /// The state with the kernel's number; `None` for a number that stands for no state.
    #[must_use]
    pub fn from_kernel(number: u8) -> Option<Self> {
        (1..NAMES.len()).contains(&usize::from(number)).then_some(Self(number))
    }

    /// The kernel's number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// The kernel's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or("-")
    }

    /// Every state, in the kernel's order.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=12).map(Self)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No state has this name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "no TCP state is called that; the states are ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN CLOSING NEW_SYN_RECV"
)]
pub struct UnknownState;

impl FromStr for State {
    type Err = UnknownState;

    /// Any common spelling, in any case: the kernel's, that of `ss`, that of `netstat`, that of the RFC.
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        let bare: String =
            text.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).map(|c| c.to_ascii_lowercase()).collect();
        Ok(match bare.as_str() {
            "established" | "estab" => Self::ESTABLISHED,
            "synsent" => Self::SYN_SENT,
            "synrecv" | "synreceived" | "synrcvd" => Self::SYN_RECV,
            "finwait1" => Self::FIN_WAIT1,
            "finwait2" => Self::FIN_WAIT2,
            "timewait" => Self::TIME_WAIT,
            "close" | "closed" | "unconn" => Self::CLOSE,
            "closewait" => Self::CLOSE_WAIT,
            "lastack" => Self::LAST_ACK,
            "listen" | "listening" => Self::LISTEN,
            "closing" => Self::CLOSING,
            "newsynrecv" => Self::NEW_SYN_RECV,
            _ => return Err(UnknownState),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn every_state_parses_from_its_own_name_and_that_of_ss() {
        for state in State::all() {
            assert_eq!(state.name().parse::<State>().unwrap(), state);
            let ss = state.name().to_lowercase().replace('_', "-");
            assert_eq!(ss.parse::<State>().unwrap(), state);
        }
        for (text, state) in [
            ("ESTAB", State::ESTABLISHED),
            ("fin-wait-1", State::FIN_WAIT1),
            ("FIN-WAIT-2", State::FIN_WAIT2),
            ("unconn", State::CLOSE),
            ("SYN-RECEIVED", State::SYN_RECV),
        ] {
            assert_eq!(text.parse::<State>().unwrap(), state, "{text}");
        }
        assert_eq!("OPEN".parse::<State>(), Err(UnknownState));
    }

    #[test]
    fn numbers_outside_the_kernels_are_no_states() {
        assert_eq!(State::from_kernel(0), None);
        assert_eq!(State::from_kernel(13), None);
        assert_eq!(State::from_kernel(7), Some(State::CLOSE));
    }
}
