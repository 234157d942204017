//! Records as a busy host brings them: connections on loopback, both ends, opened and closed in order.

use tcptrace::model::state::State;
use tcptrace_common::record::{Addr, CloseDetail, Kind, NO_REASON, Record, Tuple, UNKNOWN, flags};

/// Records of one connection.
pub(crate) const RECORDS_EACH: usize = 10;
/// Ports that the kernel hands out, as many as are used in turn.
const EPHEMERAL: u64 = 28_000;
/// Memory for sockets is used again at once.
const SOCKETS: u64 = 64;

/// A record, with its detail if it is to CLOSE.
pub(crate) type Churned = (Record, Option<CloseDetail>);

/// The records of so many connections, of which the first has a number of its own.
#[must_use]
pub(crate) fn churn(first: u64, connections: u64) -> Vec<Churned> {
    (first..first + connections).flat_map(connection).collect()
}

/// One connection: the client closes first, every other time before the server does.
fn connection(number: u64) -> [Churned; RECORDS_EACH] {
    let port = 32_768 + u16::try_from(number % EPHEMERAL).unwrap_or(0);
    let address = Addr::from_be32(u32::from_ne_bytes([127, 0, 0, 1]));
    let end = |lport, rport| Tuple { laddr: address, raddr: address, lport, rport, netns: 4_026_531_840 };
    let (client, server) = (end(port, 443), end(443, port));
    let at = |step: u64, tuple: Tuple, old: State, new: State, more: u32| {
        let own = u64::from(tuple.lport == 443);
        let record = Record {
            ts_ns: 1_000_000_000 + number * 30_000 + step * 3_000,
            sk: 0xffff_8880_0000_0000 + (2 * number % SOCKETS + own) * 4096,
            cookie: 10_000 + 2 * number + own,
            cgroup: 7_000,
            ino: if more & flags::SOCKET != 0 { 90_000 + 2 * number + own } else { 0 },
            tuple,
            uid: 33,
            task_pid: 4_000 + u32::from(own == 1),
            task_comm: if own == 1 { [0x0078_6e69_676e, 0] } else { [0x6c72_7563, 0] },
            flags: more,
            reason: NO_REASON,
            kind: if new == State::CLOSE { Kind::CLOSE } else { Kind::TRANSITION },
            old: old.number(),
            new: new.number(),
            shutdown: 0,
            unused: 0,
        };
        let detail = CloseDetail {
            bytes_acked: 1_235,
            bytes_received: 4_322,
            bytes_sent: 1_234,
            srtt_8us: 200,
            segs_in: 6,
            segs_out: 6,
            tw_count: if old == State::FIN_WAIT2 { 100 } else { UNKNOWN },
            tw_max: if old == State::FIN_WAIT2 { 131_072 } else { UNKNOWN },
            ..CloseDetail::default()
        };
        (record, (new == State::CLOSE).then_some(detail))
    };
    let (owned, closed, done) = (flags::OWNED | flags::SOCKET, flags::DEAD, flags::DEAD | flags::DONE);
    // An orphan leaves its full socket before the peer's FIN comes.
    let orphan = number % 2 == 1;
    let (fin_wait_close, last_ack) = (
        at(
            if orphan { 7 } else { 9 },
            client,
            State::FIN_WAIT2,
            State::CLOSE,
            if orphan { closed } else { done },
        ),
        at(8, server, State::CLOSE_WAIT, State::LAST_ACK, owned | flags::DONE),
    );
    let (eighth, ninth) = if orphan { (fin_wait_close, last_ack) } else { (last_ack, fin_wait_close) };
    [
        at(0, client, State::CLOSE, State::SYN_SENT, owned),
        at(1, client, State::SYN_SENT, State::ESTABLISHED, flags::SOCKET),
        at(2, server, State::LISTEN, State::SYN_RECV, 0),
        at(3, server, State::SYN_RECV, State::ESTABLISHED, 0),
        at(4, client, State::ESTABLISHED, State::FIN_WAIT1, owned),
        at(5, server, State::ESTABLISHED, State::CLOSE_WAIT, flags::SOCKET | flags::DONE),
        at(6, client, State::FIN_WAIT1, State::FIN_WAIT2, closed),
        eighth,
        ninth,
        at(10, server, State::LAST_ACK, State::CLOSE, done),
    ]
}
