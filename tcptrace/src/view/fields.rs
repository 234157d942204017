//! The one list of field names, for JSON and CSV. docs/events.md says what each means.

use std::{fmt::Write as _, net::IpAddr};

use super::{digits, errno};
use crate::model::{
    container::CgroupPath,
    event::{Comm, Event, History, Id},
};

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// A count, a number of bytes, a port, an inode.
    Number(u64),
    /// A time in µs, to the ns.
    Micros(u64),
    /// Text of ours.
    Word(&'static str),
    /// Text of the kernel's.
    Name(&'a str),
    /// Text of the user's.
    Comm(Comm),
    /// A connection.
    Id(Id),
    /// An address.
    Addr(IpAddr),
    /// An errno that has no name.
    Errno(i32),
    /// A time, `CLOCK_MONOTONIC` in ns.
    Time(u64),
    /// Time spent in states.
    States(&'a History),
}

impl Value<'_> {
    /// Appends what is a number or a word as it stands, without quotes; times of day and times in states are laid out
    /// by each format in its own way.
    pub fn write(&self, out: &mut String) {
        match *self {
            Self::Number(number) => digits::number(out, number),
            Self::Micros(ns) => digits::micros(out, ns),
            Self::Word(word) => out.push_str(word),
            Self::Name(name) => out.push_str(name),
            Self::Comm(comm) => out.push_str(&comm.text()),
            Self::Id(id) => digits::hex(out, id.0),
            Self::Addr(addr) => digits::address(out, addr),
            Self::Errno(errno) => {
                out.push('E');
                digits::number(out, errno);
            }
            Self::Time(_) | Self::States(_) => {}
        }
    }
}

/// A field: its name and where it comes from. A field without a value is absent.
pub struct Field {
    /// The name in JSON and in the header of CSV.
    pub name: &'static str,
    /// The same as the key of an object's next member: `,"name":`.
    pub key: &'static str,
    /// The value in an event.
    pub get: fn(&Event) -> Option<Value<'_>>,
}

macro_rules! fields {
    ($( $name:ident = |$event:ident| $value:expr; )+) => {
        /// Every field of an event, in order, after `ts`, the time of day, which every object begins with.
        pub const FIELDS: &[Field] = &[
            $( Field { name: stringify!($name), key: concat!(",\"", stringify!($name), "\":"), get: |$event| $value }, )+
        ];
    };
}

fields! {
    kind = |e| Some(Value::Word(e.kind.name()));
    id = |e| e.id.map(Value::Id);
    netns = |e| (e.tuple.netns != 0).then(|| Value::Number(e.tuple.netns.into()));
    family = |e| Some(Value::Word(if e.tuple.is_v4() { "ipv4" } else { "ipv6" }));
    laddr = |e| Some(Value::Addr(e.laddr()));
    lport = |e| port(e.tuple.lport);
    raddr = |e| (e.tuple.rport != 0).then(|| Value::Addr(e.raddr()));
    rport = |e| port(e.tuple.rport);
    old = |e| e.old.map(|state| Value::Word(state.name()));
    new = |e| e.new.map(|state| Value::Word(state.name()));
    kernel_new = |e| e.kernel_new.map(|state| Value::Word(state.name()));
    in_state_us = |e| e.in_state_ns.map(Value::Micros);
    role = |e| e.role.map(|role| Value::Word(role.name()));
    pid = |e| e.owner.map(|owner| Value::Number(owner.pid.into()));
    comm = |e| e.owner.map(|owner| Value::Comm(owner.comm));
    uid = |e| e.uid.map(|uid| Value::Number(uid.into()));
    owner_src = |e| e.owner.map(|owner| Value::Word(owner.source.name()));
    task_pid = |e| e.task_pid.map(|pid| Value::Number(pid.into()));
    task_comm = |e| e.task_pid.map(|_| Value::Comm(e.task_comm));
    cgroup = |e| e.cgroup.map(Value::Number);
    cgroup_path = |e| e.cgroup_path.as_deref().map(Value::Name);
    container = |e| path(e).and_then(CgroupPath::container).map(|container| Value::Name(&container.id));
    container_runtime = |e| path(e).and_then(CgroupPath::container).and_then(|container| container.runtime).map(Value::Word);
    pod = |e| path(e).and_then(CgroupPath::pod).map(Value::Name);
    unit = |e| path(e).and_then(CgroupPath::unit).map(Value::Name);
    reason = |e| e.reason.as_deref().map(Value::Name);
    prev_state = |e| e.prev_state.map(|state| Value::Word(state.name()));
    cause = |e| e.verdict.map(|verdict| Value::Word(verdict.cause.name()));
    cause_src = |e| e.verdict.map(|verdict| Value::Word(verdict.source()));
    sk_err = |e| e.totals.filter(|totals| totals.sk_err != 0).map(|totals| {
        errno::name(totals.sk_err).map_or(Value::Errno(totals.sk_err), Value::Word)
    });
    retransmits = |e| e.totals.map(|totals| totals.retransmits).or(e.retransmits).map(|count| Value::Number(count.into()));
    tx_bytes = |e| e.totals.map(|totals| Value::Number(totals.tx_bytes));
    rx_bytes = |e| e.totals.map(|totals| Value::Number(totals.rx_bytes));
    srtt_us = |e| e.totals.filter(|totals| totals.srtt_us != 0).map(|totals| Value::Number(totals.srtt_us.into()));
    opened_ts = |e| e.history.as_ref().and_then(|history| history.opened_ns).map(Value::Time);
    duration_us = |e| e.history.as_ref().and_then(|history| history.duration_ns).map(Value::Micros);
    state_us = |e| e.history.as_deref().filter(|history| history.timed != 0).map(Value::States);
}

fn path(event: &Event) -> Option<&CgroupPath> {
    event.cgroup_path.as_ref()
}

fn port<'a>(port: u16) -> Option<Value<'a>> {
    (port != 0).then(|| Value::Number(port.into()))
}

/// A time of day as RFC 3339 with nanoseconds, in UTC. Most events share their second with the one before,
/// whose text is kept.
#[derive(Debug, Default)]
pub struct TimeText {
    second: i128,
    text: String,
    /// Length of the text up to the second.
    whole: usize,
}

impl TimeText {
    /// The text of a time in ns since 1970; empty for a time that no calendar has.
    pub fn render(&mut self, wall_ns: i128) -> &str {
        let (second, nanos) = (wall_ns.div_euclid(1_000_000_000), wall_ns.rem_euclid(1_000_000_000));
        if second != self.second || self.text.is_empty() {
            let time =
                i64::try_from(second).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
            self.text.clear();
            if let Some(time) = time {
                // Memory takes every byte.
                let _ = write!(self.text, "{time}");
            }
            self.text.pop();
            self.whole = self.text.len();
            self.second = second;
        }
        self.text.truncate(self.whole);
        if self.whole > 0 {
            self.text.push('.');
            digits::padded(&mut self.text, u32::try_from(nanos).unwrap_or(0), 9);
            self.text.push('Z');
        }
        &self.text
    }
}
