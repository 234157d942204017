//! The ledger of RSTs, and what the kernel's own counters say to it.

use std::{cmp::Reverse, sync::Arc};

use rustc_hash::FxHashMap;
use tcptrace_common::record::Addr;

use super::{Ports, Service};
use crate::model::{
    event::{Event, Kind, Owner},
    health::Snmp,
    state::State,
};

/// Rows kept at most. What has none loses its peer first, then its port.
const ROWS: usize = 8192;

/// RSTs by what they have in common.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: FxHashMap<ResetKey, Counts>,
    /// What the kernel's counters are compared with, by network namespace.
    namespaces: FxHashMap<u32, Namespace>,
}

/// What the kernel counted in a network namespace, and what was seen of it.
#[derive(Debug, Default)]
struct Namespace {
    seen: Seen,
    /// The first reading, and the latest.
    readings: Option<(Reading, Reading)>,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// RSTs sent.
    sent: u64,
    /// Connections that went to CLOSE from ESTABLISHED or CLOSE_WAIT.
    reset: u64,
}

/// The kernel's counters at a time, and what had been seen by then.
#[derive(Clone, Copy, Debug)]
struct Reading {
    kernel: Snmp,
    seen: Seen,
}

/// The kernel's counters of a network namespace against what was seen, since the first reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconciled {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// RSTs that the kernel counted as sent (TcpOutRsts).
    pub out_rsts: u64,
    /// RSTs that were seen being sent.
    pub sent: u64,
    /// Connections that the kernel counted as reset (TcpEstabResets): to CLOSE from ESTABLISHED or CLOSE_WAIT.
    pub estab_resets: u64,
    /// Those that were seen.
    pub reset: u64,
}

/// What the RSTs of a row have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResetKey {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Whether this host sent them.
    pub sent: bool,
    /// The kernel's reason, for those sent.
    pub reason: Option<Arc<str>>,
    /// The state that the connection was in.
    pub prev_state: Option<State>,
    /// This host's port, if it is the service.
    pub lport: Option<u16>,
    /// The peer's port, if that is.
    pub rport: Option<u16>,
    /// The peer; `None`: several, in a ledger that is full.
    pub raddr: Option<Addr>,
    /// Process id of the owner, when known.
    pub pid: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    count: u64,
    /// Since the rows were last taken.
    recent: u64,
    last_ns: u64,
    owner: Option<Owner>,
}

/// A row of the ledger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reset {
    /// What its RSTs have in common.
    pub key: ResetKey,
    /// The owner, when known.
    pub owner: Option<Owner>,
    /// How many there were since the start.
    pub count: u64,
    /// How many of those since the rows were last taken.
    pub recent: u64,
    /// When the last came, `CLOCK_MONOTONIC` in ns.
    pub last_ns: u64,
}

impl Ledger {
    /// Takes a RST.
    pub(super) fn event(&mut self, event: &Event, ports: &Ports) {
        let sent = event.kind == Kind::RstSent;
        let Service { ours, port } = ports.service(&event.tuple, event.role);
        let mut key = ResetKey {
            netns: event.tuple.netns,
            sent,
            reason: event.reason.clone(),
            prev_state: event.prev_state,
            lport: port.filter(|_| ours),
            rport: port.filter(|_| !ours),
            raddr: Some(event.tuple.raddr),
            pid: event.owner.map(|owner| owner.pid),
        };
        if self.rows.len() >= ROWS && !self.rows.contains_key(&key) {
            key.raddr = None;
            if !self.rows.contains_key(&key) {
                (key.lport, key.rport, key.pid) = (None, None, None);
            }
        }
        let counts = self.rows.entry(key).or_default();
        counts.count += 1;
        counts.recent += 1;
        counts.last_ns = counts.last_ns.max(event.ts_ns);
        counts.owner = event.owner.or(counts.owner);
    }

    /// The rows, those with most RSTs since they were last taken first, then those with most ever.
    pub fn take(&mut self) -> Vec<Reset> {
        let mut rows = self.rows();
        self.rows.values_mut().for_each(|counts| counts.recent = 0);
        rows.sort_by(|one, other| {
            let weight = |row: &Reset| Reverse((row.recent, row.count));
            let place = |row: &Reset| {
                let ResetKey { netns, sent, lport, rport, raddr, pid, .. } = row.key;
                (netns, sent, lport, rport, raddr.map(Addr::octets), pid)
            };
            weight(one).cmp(&weight(other)).then_with(|| place(one).cmp(&place(other)))
        });
        rows
    }

    /// The rows, in no order.
    #[must_use]
    pub fn rows(&self) -> Vec<Reset> {
        let row = |(key, counts): (&ResetKey, &Counts)| Reset {
            key: key.clone(),
            owner: counts.owner,
            count: counts.count,
            recent: counts.recent,
            last_ns: counts.last_ns,
        };
        self.rows.iter().map(row).collect()
    }

    /// Counts what the kernel counts, too.
    pub(super) fn count(&mut self, event: &Event) {
        let from = |state| event.old == Some(state);
        let reset = event.kind == Kind::Transition
            && event.new == Some(State::CLOSE)
            && (from(State::ESTABLISHED) || from(State::CLOSE_WAIT));
        let sent = event.kind == Kind::RstSent;
        if !reset && !sent {
            return;
        }
        let Namespace { seen, readings } = self.namespaces.entry(event.tuple.netns).or_default();
        let count = |seen: &mut Seen| {
            seen.sent += u64::from(sent);
            seen.reset += u64::from(reset);
        };
        count(seen);
        // A reading overtakes what was still on its way.
        for reading in readings.iter_mut().flat_map(|(first, latest)| [first, latest]) {
            if event.ts_ns <= reading.kernel.at_ns {
                count(&mut reading.seen);
            }
        }
    }

    /// Takes the kernel's own counters. All that was counted before was seen before they were read.
    pub(super) fn read(&mut self, kernel: Snmp) {
        let Namespace { seen, readings } = self.namespaces.entry(kernel.netns).or_default();
        let reading = Reading { kernel, seen: *seen };
        match readings {
            Some((_, latest)) => *latest = reading,
            None => *readings = Some((reading, reading)),
        }
    }

    /// The comparison, for each network namespace where there is something to compare.
    #[must_use]
    pub fn reconciled(&self) -> Vec<Reconciled> {
        let compare = |(netns, namespace): (&u32, &Namespace)| {
            let (first, latest) = namespace.readings?;
            Some(Reconciled {
                netns: *netns,
                out_rsts: latest.kernel.out_rsts.saturating_sub(first.kernel.out_rsts),
                sent: latest.seen.sent.saturating_sub(first.seen.sent),
                estab_resets: latest.kernel.estab_resets.saturating_sub(first.kernel.estab_resets),
                reset: latest.seen.reset.saturating_sub(first.seen.reset),
            })
        };
        let mut all: Vec<Reconciled> = self.namespaces.iter().filter_map(compare).collect();
        all.sort_by_key(|compared| compared.netns);
        all
    }
}
