//! A row while its columns are read, one by one.

use std::{net::IpAddr, sync::Arc};

use tcptrace_common::record::{Addr, Tuple};

use super::{
    Row,
    schema::{KINDS, LOST, NAMESPACE, SNAPSHOT, SOCKET, Shape},
};
use crate::{
    model::{
        cause::{Cause, Verdict},
        container::CgroupPath,
        event::{Comm, Event, History, Id, Kind, Owner, OwnerSource, Role, Totals},
        health::Snmp,
        loss::Loss,
        state::State,
    },
    view::errno,
};

/// A value that was read.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Number(i64),
    Kind(What),
    State(State),
    States(u16),
    Role(Role),
    Source(OwnerSource),
    Cause(Cause),
    Addr(Addr),
    Comm(Comm),
    Name(Arc<str>),
    Path(CgroupPath),
    Flag(bool),
}

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Event(Kind),
    Snapshot,
    Socket,
    Namespace,
    Lost,
    /// The last line of a stream.
    Summary,
}

/// Makes a value of a text; `None`: the text makes no sense.
pub(super) type Parse = fn(&str) -> Option<Cell>;
/// Puts a value where it belongs; `None`: it is out of bounds there.
pub(super) type Set = fn(&mut Draft, &Cell) -> Option<()>;

/// A row, as far as it is read.
#[derive(Debug)]
pub(super) struct Draft {
    what: Option<What>,
    event: Event,
    v4: bool,
    laddr: Option<Addr>,
    raddr: Option<Addr>,
    cause_inferred: bool,
    retransmits: Option<u32>,
    /// What the times are beyond their µs, in ns.
    ts_nanos: u64,
    opened_nanos: u64,
    loss: Loss,
    out_rsts: Option<u64>,
    estab_resets: Option<u64>,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            what: None,
            event: Event::new(0, Kind::Transition, Tuple::default()),
            v4: false,
            laddr: None,
            raddr: None,
            cause_inferred: false,
            retransmits: None,
            ts_nanos: 0,
            opened_nanos: 0,
            loss: Loss::default(),
            out_rsts: None,
            estab_resets: None,
        }
    }
}

impl Draft {
    fn owner(&mut self) -> &mut Owner {
        let nobody = Owner { pid: 0, comm: Comm::default(), source: OwnerSource::Fd };
        self.event.owner.get_or_insert(nobody)
    }

    fn totals(&mut self) -> &mut Totals {
        self.event.totals.get_or_insert_default()
    }

    fn history(&mut self) -> &mut History {
        self.event.history.get_or_insert_default()
    }

    /// The row; `None` for one that is of no use to anybody.
    pub(super) fn finish(self) -> Option<Row> {
        let Self { what, mut event, v4, .. } = self;
        event.ts_ns += self.ts_nanos;
        let unspecified = if v4 { Addr::from_be32(0) } else { Addr::default() };
        event.tuple.laddr = self.laddr.unwrap_or(unspecified);
        event.tuple.raddr = self.raddr.unwrap_or(unspecified);
        if let Some(verdict) = &mut event.verdict {
            verdict.inferred = self.cause_inferred;
        }
        if let Some(opened_ns) = event.history.as_mut().and_then(|history| history.opened_ns.as_mut()) {
            *opened_ns += self.opened_nanos;
        }
        match (&mut event.totals, self.retransmits) {
            (Some(totals), Some(retransmits)) => totals.retransmits = retransmits,
            (None, retransmits) => event.retransmits = retransmits,
            _ => {}
        }
        let ts_ns = event.ts_ns;
        match what? {
            What::Event(kind) => {
                event.kind = kind;
                if kind == Kind::Connection {
                    event.history.get_or_insert_default();
                    if event.verdict.is_none() {
                        return Some(Row::Socket(event));
                    }
                }
                Some(Row::Event(event))
            }
            What::Snapshot => Some(Row::Snapshot { ts_ns }),
            What::Socket => Some(Row::Socket(Event { kind: Kind::Connection, ..event })),
            What::Namespace => {
                let netns = event.tuple.netns;
                let counters = self.out_rsts.zip(self.estab_resets).map(|(out_rsts, estab_resets)| Snmp {
                    netns,
                    at_ns: ts_ns,
                    out_rsts,
                    estab_resets,
                    ..Snmp::default()
                });
                Some(Row::Namespace { ts_ns, netns, counters })
            }
            What::Lost => Some(Row::Lost { ts_ns, lost: self.loss }),
            What::Summary => None,
        }
    }
}

impl Cell {
    fn number<T: TryFrom<i64>>(&self) -> Option<T> {
        let Self::Number(number) = self else { return None };
        T::try_from(*number).ok()
    }

    /// A time in µs, as ns; with those beyond it less than `i64::MAX` (the year 2262).
    fn time(&self) -> Option<u64> {
        let ns = self.number::<i64>()?.checked_mul(1000)?;
        u64::try_from(ns).ok().filter(|_| ns < i64::MAX - 1000)
    }

    /// What a time is beyond its µs.
    fn nanos(&self) -> Option<u64> {
        self.number().filter(|ns| *ns < 1000)
    }

    fn state(&self) -> Option<State> {
        if let Self::State(state) = self { Some(*state) } else { None }
    }
}

/// A number, in columns that hold no text.
pub(super) fn no_text(_: &str) -> Option<Cell> {
    None
}

fn state(text: &str) -> Option<Cell> {
    State::all().find(|state| state.name() == text).map(Cell::State)
}

fn comm(text: &str) -> Option<Cell> {
    let mut bytes = [0; 16];
    bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some(Cell::Comm(Comm(bytes)))
}

fn address(text: &str) -> Option<Cell> {
    let octets = match text.parse().ok()? {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    Some(Cell::Addr(Addr::from_octets(octets)))
}

fn what(text: &str) -> Option<Cell> {
    let what = match text {
        SNAPSHOT => What::Snapshot,
        SOCKET => What::Socket,
        NAMESPACE => What::Namespace,
        LOST => What::Lost,
        "summary" => What::Summary,
        _ => What::Event(KINDS.into_iter().find(|kind| kind.name() == text)?),
    };
    Some(Cell::Kind(what))
}

macro_rules! put {
    (|$draft:ident, $cell:ident| $body:expr) => {
        |$draft: &mut Draft, $cell: &Cell| {
            $body;
            Some(())
        }
    };
    ($variant:ident, |$draft:ident, $value:ident| $body:expr) => {
        |$draft: &mut Draft, cell: &Cell| {
            let Cell::$variant($value) = cell else { return None };
            $body;
            Some(())
        }
    };
}

/// How a column is read: its shape, its words, and where its values go; `None` for what is not read back, because
/// other columns tell it, or because a newer version wrote it.
pub(super) fn reader(column: &str) -> Option<(Shape, Parse, Set)> {
    if let Some(name) = column.strip_prefix("state_us_") {
        return State::LIFE
            .into_iter()
            .find(|state| state.name() == name)
            .map(|state| (Shape::Micros, no_text as Parse, spent(state)));
    }
    let number = |set: Set| (Shape::Number, no_text as Parse, set);
    let micros = |set: Set| (Shape::Micros, no_text as Parse, set);
    let time = |set: Set| (Shape::Time, no_text as Parse, set);
    let flag = |set: Set| (Shape::Flag, no_text as Parse, set);
    let text = |parse: Parse, set: Set| (Shape::Text, parse, set);
    let name: Parse = |text| Some(Cell::Name(Arc::from(text)));
    Some(match column {
        "ts" => time(put!(|d, c| d.event.ts_ns = c.time()?)),
        "ts_nanos" => number(put!(|d, c| d.ts_nanos = c.nanos()?)),
        "kind" => text(what, put!(Kind, |d, kind| d.what = Some(*kind))),
        "id" => text(
            |text| u64::from_str_radix(text, 16).ok().map(|id| Cell::Number(id.cast_signed())),
            put!(Number, |d, id| d.event.id = Some(Id(id.cast_unsigned()))),
        ),
        "netns" => number(put!(|d, c| d.event.tuple.netns = c.number()?)),
        "family" => text(
            |text| matches!(text, "ipv4" | "ipv6").then_some(Cell::Flag(text == "ipv4")),
            put!(Flag, |d, v4| d.v4 = *v4),
        ),
        "laddr" => text(address, put!(Addr, |d, addr| d.laddr = Some(*addr))),
        "raddr" => text(address, put!(Addr, |d, addr| d.raddr = Some(*addr))),
        "lport" => number(put!(|d, c| d.event.tuple.lport = c.number()?)),
        "rport" => number(put!(|d, c| d.event.tuple.rport = c.number()?)),
        "old" => text(state, put!(|d, c| d.event.old = Some(c.state()?))),
        "new" => text(state, put!(|d, c| d.event.new = Some(c.state()?))),
        "kernel_new" => text(state, put!(|d, c| d.event.kernel_new = Some(c.state()?))),
        "prev_state" => text(state, put!(|d, c| d.event.prev_state = Some(c.state()?))),
        "in_state_us" => micros(put!(|d, c| d.event.in_state_ns = Some(c.number()?))),
        "role" => text(
            |text| {
                let all = [Role::Client, Role::Server, Role::Listener];
                all.into_iter().find(|role| role.name() == text).map(Cell::Role)
            },
            put!(Role, |d, role| d.event.role = Some(*role)),
        ),
        "pid" => number(put!(|d, c| d.owner().pid = c.number()?)),
        "comm" => text(comm, put!(Comm, |d, comm| d.owner().comm = *comm)),
        "owner_src" => text(
            |text| OwnerSource::ALL.into_iter().find(|source| source.name() == text).map(Cell::Source),
            put!(Source, |d, source| d.owner().source = *source),
        ),
        "uid" => number(put!(|d, c| d.event.uid = Some(c.number()?))),
        "task_pid" => number(put!(|d, c| d.event.task_pid = Some(c.number()?))),
        "task_comm" => text(comm, put!(Comm, |d, comm| d.event.task_comm = *comm)),
        "cgroup" => number(put!(|d, c| d.event.cgroup = Some(c.number()?))),
        "cgroup_path" => text(
            |text| Some(Cell::Path(CgroupPath::from(text))),
            put!(Path, |d, path| d.event.cgroup_path = Some(path.clone())),
        ),
        "reason" => text(name, put!(Name, |d, reason| d.event.reason = Some(Arc::clone(reason)))),
        "cause" => text(
            |text| Cause::ALL.into_iter().find(|cause| cause.name() == text).map(Cell::Cause),
            put!(Cause, |d, cause| d.event.verdict = Some(Verdict::read(*cause))),
        ),
        "cause_src" => text(
            |text| Some(Cell::Flag(text == "inferred")),
            put!(Flag, |d, inferred| d.cause_inferred = *inferred),
        ),
        "sk_err" => text(
            |text| errno::number(text).map(|errno| Cell::Number(errno.into())),
            put!(|d, c| d.totals().sk_err = c.number()?),
        ),
        "retransmits" => number(put!(|d, c| d.retransmits = Some(c.number()?))),
        "tx_bytes" => number(put!(|d, c| d.totals().tx_bytes = c.number()?)),
        "rx_bytes" => number(put!(|d, c| d.totals().rx_bytes = c.number()?)),
        "srtt_us" => number(put!(|d, c| d.totals().srtt_us = c.number()?)),
        "opened_ts" => time(put!(|d, c| d.history().opened_ns = Some(c.time()?))),
        "opened_ts_nanos" => number(put!(|d, c| d.opened_nanos = c.nanos()?)),
        "duration_us" => micros(put!(|d, c| d.history().duration_ns = Some(c.number()?))),
        "states" => text(
            |text| {
                let bit = |name| state(name).and_then(|cell| cell.state()).map(|state| 1 << state.number());
                text.split(' ').try_fold(0, |bits, name| Some(bits | bit(name)?)).map(Cell::States)
            },
            put!(States, |d, states| d.history().visited |= *states),
        ),
        "unaccepted" => flag(put!(Flag, |d, unaccepted| d.event.unaccepted = *unaccepted)),
        "closed" => flag(put!(Flag, |d, closed| d.event.closed = *closed)),
        "lost" => number(put!(|d, c| d.loss.unreadable = c.number()?)),
        "gaps" => number(put!(|d, c| d.loss.gaps = c.number()?)),
        "beyond" => number(put!(|d, c| d.loss.beyond = c.number()?)),
        "out_rsts" => number(put!(|d, c| d.out_rsts = Some(c.number()?))),
        "estab_resets" => number(put!(|d, c| d.estab_resets = Some(c.number()?))),
        _ => return None,
    })
}

/// Where the time spent in a state goes.
fn spent(state: State) -> Set {
    macro_rules! of {
        ($($state:ident)+) => {
            match state {
                $( State::$state => put!(|d, c| d.history().spend(State::$state, Some(c.number()?))), )+
                _ => |_, _| None,
            }
        };
    }
    of!(SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSING CLOSE_WAIT LAST_ACK TIME_WAIT)
}
