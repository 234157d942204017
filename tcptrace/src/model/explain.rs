//! What the kernel's words mean, each in a sentence.

use super::state::State;

mod pages;

pub use pages::{Kind, Page, Part, Section, find, finding, index, reason, similar};

/// What the kernel's reason for a RST that this host sent means (enum sk_rst_reason of include/net/rstreason.h, without
/// its prefix). `None` for a name that is not known here.
#[must_use]
pub fn sent_reset(reason: &str) -> Option<&'static str> {
    Some(match reason {
        // tcp_v4_rcv(), tcp_v6_rcv(): no socket has these ends.
        "NO_SOCKET" => {
            "Nothing listens on that port here, or the connection is long gone: wrong port, or service down."
        }
        "TCP_FLAGS" => {
            "A segment, and no SYN, came to a listener that knows no such connection: the peer's state is stale."
        }
        // tcp_check_req(), tcp_abort_on_overflow.
        "INVALID_SYN" => {
            "A wrong SYN for a half-open connection, or the accept queue is full with tcp_abort_on_overflow=1."
        }
        "TCP_INVALID_ACK_SEQUENCE" => {
            "Our SYN was answered with a wrong acknowledgment: the peer has an older connection with these ends."
        }
        "TCP_RFC7323_PAWS" => {
            "Our SYN was answered with an old timestamp: the peer has an older connection, or a NAT mixes hosts."
        }
        "TCP_OLD_ACK" => "The handshake was ended by an acknowledgment of something older: a late duplicate.",
        "TCP_TOO_OLD_ACK" => {
            "The handshake was ended by an acknowledgment of something far older: stale, or forged."
        }
        "TCP_ACK_UNSENT_DATA" => {
            "The handshake was ended by an acknowledgment of what was never sent: stale, or forged."
        }
        // tcp_rcv_state_process()
        "TCP_ABORT_ON_DATA" => "The peer sent data after our application had closed the socket.",
        // tcp_timewait_state_process()
        "TCP_TIMEWAIT_SOCKET" => {
            "The peer sent to a connection that had been closed and was only kept in TIME_WAIT or FIN_WAIT2."
        }
        // __tcp_close()
        "TCP_ABORT_ON_CLOSE" => "Our application closed the socket with received data unread.",
        "TCP_ABORT_ON_LINGER" => {
            "Our application set TCP_LINGER2 below 0: it does not wait for the peer's FIN."
        }
        "TCP_ABORT_ON_MEMORY" => {
            "Too many orphaned sockets, or no TCP memory left: see tcp_max_orphans and tcp_mem."
        }
        "TCP_STATE" => {
            "Our side gave it up: SO_LINGER 0, a listener closed before accept(), or an administrator (ss -K)."
        }
        "TCP_KEEPALIVE_TIMEOUT" => {
            "The peer answered no keepalive probe: it is dead, or a firewall forgot the connection."
        }
        "TCP_DISCONNECT_WITH_DATA" => "Our application disconnected with data not yet sent or acknowledged.",
        // RFC 8684, 3.6
        "MPTCP_RST_EUNSPEC" => "A subflow of MPTCP was ended, for no stated reason.",
        "MPTCP_RST_EMPTCP" => "A subflow of MPTCP broke the protocol.",
        "MPTCP_RST_ERESOURCE" => "There was no room for another subflow of MPTCP.",
        "MPTCP_RST_EPROHIBIT" => "A subflow of MPTCP is not allowed here.",
        "MPTCP_RST_EWQ2BIG" => "A subflow of MPTCP was ended: too much waited to be sent on it.",
        "MPTCP_RST_EBADPERF" => "A subflow of MPTCP was ended: it was too slow.",
        "MPTCP_RST_EMIDDLEBOX" => "A subflow of MPTCP was ended: a middlebox tampered with it.",
        "NOT_SPECIFIED" => {
            "The kernel gives no reason; 6.10 and 6.11 give none for what the application causes."
        }
        "ERROR" => "The kernel's own code went wrong here: this should not be seen.",
        _ => return None,
    })
}

/// What a RST means that this host sent and that the kernel gives no reason for (before 6.10), by the state of the
/// connection.
#[must_use]
pub fn sent_without_reason(state: Option<State>) -> &'static str {
    match state {
        Some(State::LISTEN) => "A segment, and no SYN, came to a listener that knows no such connection.",
        Some(State::SYN_SENT) => {
            "Our SYN was answered wrongly: the peer has an older connection with these ends."
        }
        Some(State::SYN_RECV) => {
            "The handshake was ended wrongly, or nobody may accept the connection any more."
        }
        Some(State::TIME_WAIT) => {
            "The peer sent to a connection that had been closed and was only kept in TIME_WAIT."
        }
        Some(State::FIN_WAIT1 | State::FIN_WAIT2 | State::CLOSING | State::LAST_ACK) => {
            "The peer sent data after our application had closed the socket, or our side gave up waiting."
        }
        Some(State::ESTABLISHED | State::CLOSE_WAIT) => {
            "Our application closed with received data unread or with SO_LINGER 0, or keepalive ran out."
        }
        _ => "A segment came for a connection that is not there any more.",
    }
}

/// What a RST that arrived means, by the state that it met.
#[must_use]
pub fn received_reset(state: Option<State>) -> &'static str {
    match state {
        Some(State::SYN_SENT) => {
            "Refused: nothing listens on that port of the peer, or a firewall rejects it."
        }
        Some(State::SYN_RECV) => {
            "The client gave up during the handshake: a port scan, a health check, or it was restarted."
        }
        Some(State::ESTABLISHED) => {
            "The peer, or a box between, ended an open connection: a crash, a restart, or an idle timeout."
        }
        Some(State::CLOSE_WAIT) => {
            "The peer had closed its half and did not want what our application still sent."
        }
        Some(State::FIN_WAIT1 | State::FIN_WAIT2) => {
            "We had closed; the peer closed with data unread, or is gone."
        }
        Some(State::LAST_ACK | State::CLOSING) => {
            "Both ends had closed; the peer does not know the connection any more."
        }
        Some(State::TIME_WAIT) => "The peer ended what was only kept in TIME_WAIT.",
        _ => "The peer does not know this connection.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of 6.12 to 7.3.
    const REASONS: [&str; 25] = [
        "NOT_SPECIFIED",
        "NO_SOCKET",
        "TCP_INVALID_ACK_SEQUENCE",
        "TCP_RFC7323_PAWS",
        "TCP_TOO_OLD_ACK",
        "TCP_ACK_UNSENT_DATA",
        "TCP_FLAGS",
        "TCP_OLD_ACK",
        "TCP_ABORT_ON_DATA",
        "TCP_TIMEWAIT_SOCKET",
        "INVALID_SYN",
        "TCP_ABORT_ON_CLOSE",
        "TCP_ABORT_ON_LINGER",
        "TCP_ABORT_ON_MEMORY",
        "TCP_STATE",
        "TCP_KEEPALIVE_TIMEOUT",
        "TCP_DISCONNECT_WITH_DATA",
        "MPTCP_RST_EUNSPEC",
        "MPTCP_RST_EMPTCP",
        "MPTCP_RST_ERESOURCE",
        "MPTCP_RST_EPROHIBIT",
        "MPTCP_RST_EWQ2BIG",
        "MPTCP_RST_EBADPERF",
        "MPTCP_RST_EMIDDLEBOX",
        "ERROR",
    ];

    #[test]
    fn every_reason_has_a_sentence_of_its_own() {
        let mut told = Vec::new();
        for reason in REASONS {
            let sentence = sent_reset(reason).unwrap_or_default();
            assert!(!told.contains(&sentence), "{reason}: {sentence}");
            told.push(sentence);
        }
        assert_eq!(sent_reset("NO_SUCH"), None);
        let states = || State::all().map(Some).chain([None]);
        told.extend(states().map(sent_without_reason));
        told.extend(states().map(received_reset));
        for sentence in told {
            assert!(sentence.ends_with('.') && sentence.len() <= 110, "{}: {sentence}", sentence.len());
        }
    }
}
