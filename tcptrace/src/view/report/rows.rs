//! What the rows of a report say, for JSON and CSV. docs/counts.md says what each field means.

use std::{borrow::Cow, net::IpAddr};

use super::{Cgroups, Page, Resets, ip};
use crate::{
    model::{
        container::CgroupPath,
        event::{Comm, Owner, Role},
        explain,
        loss::Loss,
        state::State,
        tally::{By, Distribution, Key, Matrix, Reconciled, Reset, Row, Table, Times},
    },
    view::Summary,
};

/// The value of a field.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Number(u64),
    Signed(i64),
    /// A time in µs, given in ns.
    Micros(u64),
    /// A time in µs.
    Mean(f64),
    /// A flag that is set.
    Flag,
    /// A time of day, given in ns of `CLOCK_MONOTONIC`.
    Time(u64),
    Addr(IpAddr),
    Text(Cow<'static, str>),
    /// Sockets by state.
    Sockets([u64; State::COUNT]),
    /// Counts: from, to, both in µs, and how many.
    Powers(Vec<(u64, u64, u64)>),
}

/// Names and values; what has no value is absent.
pub(super) type Fields = Vec<(&'static str, Option<Cell>)>;

/// When the page was made, and its rows.
pub(super) fn of(page: &Page<'_>, cgroups: &mut Cgroups) -> (u64, Vec<Fields>) {
    match page {
        Page::Ports(table) => {
            let mut rows: Vec<Fields> =
                table.rows.iter().chain(&table.other).map(|row| port(table, row)).collect();
            for (fields, row) in rows.iter_mut().zip(&table.rows) {
                if let Key::Cgroup(id) | Key::Container(id) = row.key {
                    fields.extend(place(table.by, cgroups(id).as_ref()));
                }
            }
            let mut total = port(table, &table.total);
            total.retain(|(name, _)| !matches!(*name, "kind" | "other"));
            total.insert(0, ("kind", Some(word("total"))));
            rows.push(total);
            (table.at_ns, rows)
        }
        Page::Times(times, table) => (table.at_ns, times_of(times, table)),
        Page::Matrix(matrix, table) => (table.at_ns, matrix_of(matrix)),
        Page::Resets(resets) => (resets.at_ns, resets_of(resets)),
    }
}

/// What the path of a row's cgroup tells.
fn place(by: By, path: Option<&CgroupPath>) -> Fields {
    let told = |tell: fn(&CgroupPath) -> Option<&str>| path.and_then(tell).map(|told| text(told.to_owned()));
    let container = path.and_then(CgroupPath::container);
    match by {
        By::Cgroup => vec![("cgroup_path", told(|path| Some(path)))],
        By::Container => vec![
            ("container", told(|path| path.container().map(|container| &*container.id))),
            ("container_runtime", container.and_then(|container| container.runtime).map(word)),
            ("pod", told(CgroupPath::pod)),
            ("unit", told(CgroupPath::unit)),
            ("cgroup_path", told(|path| path.is_elsewhere().then_some(path))),
        ],
        _ => Vec::new(),
    }
}

/// A row of each kind that the page can have.
pub(super) fn kinds(page: &Page<'_>) -> Vec<Fields> {
    match page {
        Page::Ports(table) => {
            let mut fields = port(table, &table.total);
            fields.extend(place(table.by, None));
            vec![fields]
        }
        Page::Times(..) => vec![time(&Key::Other, State::CLOSE, None, None)],
        Page::Matrix(..) => vec![transition(State::CLOSE, State::CLOSE, 0)],
        Page::Resets(resets) => {
            let compared = Reconciled { netns: 0, out_rsts: 0, sent: 0, estab_resets: 0, reset: 0 };
            vec![reset(&Reset::default(), resets), reconciled(&compared)]
        }
    }
}

pub(super) fn lost(lost: &Loss) -> Fields {
    let cell = |name, count| (name == "lost" || count > 0).then_some(Cell::Number(count));
    let counts = lost.counts().map(|(name, count)| (name, cell(name, count)));
    [("kind", Some(word("lost")))].into_iter().chain(counts).collect()
}

pub(super) fn summary(summary: &Summary) -> Fields {
    let number = |(name, count)| (name, Some(Cell::Number(count)));
    [("kind", Some(word("summary")))]
        .into_iter()
        .chain([("events", summary.events)].map(number))
        .chain(summary.lost.counts().map(number))
        .chain([("elapsed_us", summary.elapsed_us)].map(number))
        .collect()
}

fn word(word: &'static str) -> Cell {
    Cell::Text(Cow::Borrowed(word))
}

fn text(text: String) -> Cell {
    Cell::Text(Cow::Owned(text))
}

fn comm_of(comm: Comm) -> Cell {
    text(comm.to_string())
}

/// What names a row.
fn name(key: &Key, owner: Option<Owner>) -> Fields {
    let number = |number: u32| Some(Cell::Number(number.into()));
    let (mut pid, mut comm) = (owner.map(|owner| owner.pid), owner.map(|owner| owner.comm));
    match *key {
        Key::Pid(key) => pid = key,
        Key::Comm(key) | Key::Client { comm: key, .. } => comm = key,
        _ => {}
    }
    vec![
        ("netns", key.netns().and_then(number)),
        ("port", key.port().map(|port| Cell::Number(port.into()))),
        ("role", key.role().map(Role::name).map(word)),
        ("raddr", if let Key::Raddr(addr) = key { Some(Cell::Addr(ip(*addr))) } else { None }),
        ("cgroup", if let Key::Cgroup(id) = key { Some(Cell::Number(*id)) } else { None }),
        ("cause", if let Key::Cause(Some(cause)) = key { Some(word(cause.name())) } else { None }),
        ("other", (*key == Key::Other).then_some(Cell::Flag)),
        ("pid", pid.and_then(number)),
        ("comm", comm.map(comm_of)),
    ]
}

fn port(table: &Table, row: &Row) -> Fields {
    let mut fields = vec![("kind", Some(word(table.by.name())))];
    fields.extend(name(&row.key, row.owner));
    let owners = u64::try_from(row.owners).unwrap_or(u64::MAX);
    fields.extend([
        ("owners", Some(Cell::Number(owners))),
        ("sockets", Some(Cell::Sockets(row.sockets))),
        ("opened", Some(Cell::Number(row.opened))),
        ("closed", Some(Cell::Number(row.closed))),
        ("rst", Some(Cell::Number(row.rst))),
        ("close_wait_growth", Some(Cell::Signed(row.close_wait_growth))),
        ("oldest_close_wait_us", row.oldest_close_wait_ns.map(Cell::Micros)),
        ("interval_us", Some(Cell::Micros(table.interval_ns))),
    ]);
    fields
}

/// The distributions in the order of the table's rows, each row's in the order of a life.
pub(super) fn sorted<'a>(
    times: &'a Times,
    table: &'a Table,
) -> Vec<(&'a Key, State, Option<Owner>, &'a Distribution)> {
    let place = |key: &Key| table.rows.iter().position(|row| row.key == *key);
    let life = |state: State| State::LIFE.iter().position(|known| *known == state);
    let mut all: Vec<_> = times
        .iter()
        .filter(|(_, state, _)| *state != State::LISTEN)
        .map(|(key, state, distribution)| {
            let at = place(key);
            let owner = at.and_then(|at| table.rows.get(at)?.owner);
            (at.unwrap_or(usize::MAX), key, state, owner, distribution)
        })
        .collect();
    all.sort_by_key(|(at, key, state, ..)| {
        (*at, key.netns(), key.role() != Some(Role::Server), key.port(), life(*state))
    });
    all.into_iter().map(|(_, key, state, owner, distribution)| (key, state, owner, distribution)).collect()
}

fn times_of(times: &Times, table: &Table) -> Vec<Fields> {
    sorted(times, table)
        .into_iter()
        .map(|(key, state, owner, distribution)| time(key, state, owner, Some(distribution)))
        .collect()
}

fn time(key: &Key, state: State, owner: Option<Owner>, distribution: Option<&Distribution>) -> Fields {
    let percentile = |percent| distribution.map(|all| Cell::Number(all.percentile_us(percent)));
    let mut fields = vec![("kind", Some(word("state_time")))];
    fields.extend(name(key, owner));
    fields.extend([
        ("state", Some(word(state.name()))),
        ("count", distribution.map(|all| Cell::Number(all.count()))),
        ("mean_us", distribution.map(|all| Cell::Mean(all.mean_us()))),
        ("p50_us", percentile(50.0)),
        ("p90_us", percentile(90.0)),
        ("p99_us", percentile(99.0)),
        ("max_us", distribution.map(|all| Cell::Number(all.max_us()))),
        ("buckets", distribution.map(|all| Cell::Powers(all.powers().collect()))),
    ]);
    fields
}

fn matrix_of(matrix: &Matrix) -> Vec<Fields> {
    let mut rows = Vec::new();
    for old in State::all() {
        for new in State::all() {
            let count = super::text::counted(matrix, old, new);
            if count > 0 {
                rows.push(transition(old, new, count));
            }
        }
    }
    rows
}

fn transition(old: State, new: State, count: u64) -> Fields {
    vec![
        ("kind", Some(word("matrix"))),
        ("old", Some(word(old.name()))),
        ("new", Some(word(new.name()))),
        ("count", Some(Cell::Number(count))),
    ]
}

fn resets_of(resets: &Resets) -> Vec<Fields> {
    let rows = resets.rows.iter().map(|row| reset(row, resets));
    rows.chain(resets.reconciled.iter().flatten().map(reconciled)).collect()
}

fn reset(row: &Reset, resets: &Resets) -> Fields {
    let key = &row.key;
    let number = |number: u32| Cell::Number(number.into());
    let port = |port: u16| Cell::Number(port.into());
    vec![
        ("kind", Some(word("rst"))),
        ("direction", Some(word(if key.sent { "sent" } else { "received" }))),
        ("reason", key.reason.as_ref().map(|reason| text(reason.to_string()))),
        ("prev_state", key.prev_state.map(|state| word(state.name()))),
        ("netns", Some(number(key.netns))),
        ("lport", key.lport.map(port)),
        ("raddr", key.raddr.map(|addr| Cell::Addr(ip(addr)))),
        ("rport", key.rport.map(port)),
        ("pid", key.pid.map(number)),
        ("comm", row.owner.map(|owner| comm_of(owner.comm))),
        ("count", Some(Cell::Number(row.count))),
        ("interval_count", Some(Cell::Number(row.recent))),
        ("interval_us", Some(Cell::Micros(resets.interval_ns))),
        ("last_ts", Some(Cell::Time(row.last_ns))),
        ("explain", Some(word(explanation(row)))),
    ]
}

/// What the RSTs of a row mean.
pub(in crate::view) fn explanation(row: &Reset) -> &'static str {
    let key = &row.key;
    match &key.reason {
        _ if !key.sent => explain::received_reset(key.prev_state),
        Some(reason) => explain::sent_reset(reason)
            .unwrap_or("The kernel gives a reason that this version of tcptrace does not know."),
        None => explain::sent_without_reason(key.prev_state),
    }
}

fn reconciled(compared: &Reconciled) -> Fields {
    vec![
        ("kind", Some(word("snmp"))),
        ("netns", Some(Cell::Number(compared.netns.into()))),
        ("out_rsts", Some(Cell::Number(compared.out_rsts))),
        ("rsts_seen", Some(Cell::Number(compared.sent))),
        ("estab_resets", Some(Cell::Number(compared.estab_resets))),
        ("resets_seen", Some(Cell::Number(compared.reset))),
    ]
}
