//! Every TCP socket there is, in every network namespace, and who has it open.
//!
//! All of this blocks and enters other network namespaces: it is for a thread of its own, which ends afterwards. No
//! namespace and no netlink socket stays open, because that would keep a namespace alive whose container is gone.

use std::{
    fs, io,
    ops::RangeInclusive,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        linux::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use rustc_hash::{FxHashMap, FxHashSet};
use rustix::{
    fs::{Mode, OFlags, fstat, open},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tcptrace_common::record::{Addr, Tuple};

use super::{
    clock,
    diag::{self, Diag},
    netns, processes,
};
use crate::model::{
    event::OwnerSource,
    found::{Form, Found, Survey, Whereabouts},
    health::{Health, SYSCTLS, Snmp, Sockstat, Sysctls, numbers},
    state::State,
};

/// Up to so many minisocks of a namespace are asked for one by one (2.3 µs each where it was measured); a walk over the
/// kernel's table costs 14 ms and more, and 1 µs for each that is there.
const ONE_BY_ONE: usize = 2048;

/// Where network namespaces can be entered: paths by inode number. Kept between surveys, so that those found only by
/// looking through all descriptors are found again at once.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    paths: FxHashMap<u32, PathBuf>,
    /// Whether it was said that entering is refused: then the own one is all there is.
    refused: bool,
    /// Whether it was said that processes do not let their descriptors be seen.
    closed: bool,
}

impl Namespaces {
    /// Looks in the cheap places: those of all processes, and those that are mounted.
    fn refresh(&mut self) {
        self.paths.retain(|inode, path| inode_of(path) == Some(*inode));
        for pid in processes::all() {
            self.add(PathBuf::from(format!("/proc/{pid}/ns/net")));
            // Any thread can be in a namespace of its own. A directory has a link more for each that it holds.
            let tasks = PathBuf::from(format!("/proc/{pid}/task"));
            if fs::metadata(&tasks).is_ok_and(|tasks| tasks.st_nlink() > 3) {
                let threads = fs::read_dir(tasks).into_iter().flatten().flatten();
                threads.for_each(|thread| self.add(thread.path().join("ns/net")));
            }
        }
        mounted(&netns::mountinfo()).for_each(|path| self.add(path));
    }

    fn add(&mut self, path: PathBuf) {
        if let Some(inode) = inode_of(&path) {
            self.paths.entry(inode).or_insert(path);
        }
    }

    /// Does something in a namespace; the thread stays there. `None`: it cannot be entered.
    fn within<T>(&mut self, inode: u32, work: impl FnOnce() -> T) -> Option<T> {
        let inside = |at: &Path| inode_of(at) == Some(inode);
        if !inside(Path::new("/proc/thread-self/ns/net")) {
            let file = open_namespace(self.paths.get(&inode)?, inode)?;
            if let Err(error) = move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)) {
                if !self.refused {
                    log::info!(
                        "sockets of other network namespaces cannot be read ({error}): CAP_SYS_ADMIN is missing"
                    );
                }
                self.refused = true;
                return None;
            }
        }
        Some(work())
    }
}

fn inode_of(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().and_then(|data| u32::try_from(data.st_ino()).ok())
}

/// Opens a namespace if it is still there: a descriptor of another process can by now be anything, and opening a FIFO
/// would wait.
fn open_namespace(path: &Path, inode: u32) -> Option<OwnedFd> {
    let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let is_it = fstat(&place).is_ok_and(|data| data.st_ino == u64::from(inode));
    let again = format!("/proc/thread-self/fd/{}", place.as_raw_fd());
    if is_it { open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok() } else { None }
}

/// The places where namespaces are mounted (`ip netns` does that), by /proc/self/mountinfo, given as text.
pub fn mounted(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    let namespaces = netns::mounts(mountinfo).filter(|(root, _)| root.starts_with("net:["));
    namespaces.map(|(_, place)| PathBuf::from(place.replace("\\040", " ")))
}

/// Finds every TCP socket, in the given namespaces, or, if none is given, in all. `source` says how the owners were
/// learned, `waiting` whether sockets in TIME_WAIT are wanted, of which a busy host has most.
#[must_use]
pub fn take(namespaces: &mut Namespaces, only: &[u32], source: OwnerSource, waiting: bool) -> Survey {
    let mut survey = Survey::default();
    let time_wait = 1 << State::TIME_WAIT.number();
    let states = if waiting { diag::ALL_STATES } else { diag::ALL_STATES & !time_wait };
    let own = inode_of(Path::new("/proc/thread-self/ns/net"));
    namespaces.refresh();
    read_new(namespaces, only, states, own, &mut survey);
    let mut seen = processes::look(&inodes(&survey), source);
    let missing =
        |survey: &Survey| only.is_empty() || only.iter().any(|inode| !survey.namespaces.contains(inode));
    if missing(&survey) {
        // Namespaces that only a descriptor keeps, or in which only threads are.
        let before = survey.sockets.len();
        for (inode, path) in std::mem::take(&mut seen.namespaces) {
            namespaces.paths.entry(inode).or_insert(path);
        }
        read_new(namespaces, only, states, own, &mut survey);
        if survey.sockets.len() > before {
            seen = processes::look(&inodes(&survey), source);
        }
    }
    if seen.closed > 0 && !std::mem::replace(&mut namespaces.closed, true) {
        log::info!("{} processes do not let their sockets be seen: CAP_SYS_PTRACE is missing", seen.closed);
    }
    for found in &mut survey.sockets {
        found.owner = seen.owners.get(&found.ino).copied();
    }
    without_doubles(&mut survey.sockets);
    survey
}

/// What a look is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Minisocks and requests, which no probe tells of.
    Small,
    /// All that is not established: listeners with their queues, and whatever opens or closes.
    Unsettled,
}

/// Finds sockets in some states only, in the namespaces that are known, and no owners: much cheaper than [`take`].
#[must_use]
pub fn look(namespaces: &mut Namespaces, only: &[u32], scope: Scope) -> Survey {
    let states = match scope {
        Scope::Small => diag::SMALL_STATES,
        Scope::Unsettled => diag::ALL_STATES & !(1 << State::ESTABLISHED.number()),
    };
    let mut survey = Survey::default();
    let own = inode_of(Path::new("/proc/thread-self/ns/net"));
    namespaces.refresh();
    read_new(namespaces, only, states, own, &mut survey);
    without_doubles(&mut survey.sockets);
    survey
}

/// Settings of the whole host, which only its first network namespace shows.
const OF_THE_HOST: [&str; 2] = ["tcp_max_orphans", "tcp_mem"];

/// A setting of the namespace that the thread is in, and its numbers.
fn setting(name: &'static str) -> Option<(&'static str, Vec<i64>)> {
    let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?;
    Some((name, numbers(name, &text)))
}

/// What the kernel says of the namespace that the thread is in; `None` where there is no /proc/net/snmp. `host`: settings
/// of the host.
fn health(netns: u32, host: &[(&'static str, Vec<i64>)]) -> Option<Health> {
    let file = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let text = file("snmp").ok()? + &file("netstat").unwrap_or_default();
    let counters = Snmp::parse(&text, netns, clock::monotonic_ns())?;
    let mut sysctls: Vec<_> =
        SYSCTLS.into_iter().filter(|name| !OF_THE_HOST.contains(name)).filter_map(setting).collect();
    sysctls.extend_from_slice(host);
    let sockstat = Sockstat::parse(&file("sockstat").unwrap_or_default()).unwrap_or_default();
    Some(Health { counters, sysctls: Sysctls(sysctls), sockstat })
}

/// The ports that the kernel hands out in the own network namespace; its own choice where that is not told
/// (inet_init_net()).
#[must_use]
pub fn ephemeral_ports() -> RangeInclusive<u16> {
    port_range(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default())
}

/// See [`ephemeral_ports`]; `text` is that of ip_local_port_range.
#[must_use]
pub fn port_range(text: &str) -> RangeInclusive<u16> {
    let mut ports = text.split_whitespace().filter_map(|port| port.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 32_768..=60_999,
    }
}

fn inodes(survey: &Survey) -> FxHashSet<u64> {
    survey.sockets.iter().map(|found| found.ino).filter(|ino| *ino != 0).collect()
}

/// A dump of a busy host can show a socket twice; the later one is right.
fn without_doubles(sockets: &mut Vec<Found>) {
    let mut seen = FxHashSet::default();
    sockets.reverse();
    // Without cookies: several listeners can share an address, each with a file of its own.
    let name = |found: &Found| match found.cookie {
        0 => (0, Some((found.tuple, found.ino))),
        cookie => (cookie, None),
    };
    sockets.retain(|found| seen.insert(name(found)));
}

/// Reads the namespaces that are not in the survey yet; the own one first, which takes no right to enter it.
fn read_new(namespaces: &mut Namespaces, only: &[u32], states: u32, own: Option<u32>, survey: &mut Survey) {
    let mut inodes: Vec<u32> = namespaces.paths.keys().copied().collect();
    inodes.retain(|inode| !survey.namespaces.contains(inode) && (only.is_empty() || only.contains(inode)));
    inodes.sort_unstable_by_key(|inode| (Some(*inode) != own, *inode));
    // Before any other namespace is entered.
    let host: Vec<_> = OF_THE_HOST.into_iter().filter_map(setting).collect();
    for inode in inodes {
        let before = survey.sockets.len();
        let read = namespaces.within(inode, || {
            read(inode, states, &mut |found| survey.sockets.push(found)).map(|()| health(inode, &host))
        });
        match read {
            Some(Ok(health)) => {
                survey.namespaces.push(inode);
                survey.health.extend(health);
            }
            Some(Err(error)) => {
                survey.sockets.truncate(before);
                log::info!("the sockets of network namespace {inode} cannot be read: {error}");
            }
            None => {}
        }
    }
}

/// Reads the sockets of the namespace that the thread is in, those in one of the states (see [`Diag::dump`]).
fn read(netns: u32, states: u32, each: &mut impl FnMut(Found)) -> io::Result<()> {
    match Diag::open(netns).and_then(|mut diag| diag.dump(states, each)) {
        Err(error) if diag::is_missing(&error) => {
            log::debug!("no tcp_diag: reading /proc/net/tcp");
            for (name, v6) in [("tcp", false), ("tcp6", true)] {
                let text = match fs::read_to_string(format!("/proc/thread-self/net/{name}")) {
                    Err(error) if v6 && error.kind() == io::ErrorKind::NotFound => continue,
                    text => text?,
                };
                let found = text.lines().skip(1).filter_map(|line| line_of_proc(line, v6, netns));
                found.filter(|found| states & 1 << found.state.number() != 0).for_each(&mut *each);
            }
            Ok(())
        }
        result => result,
    }
}

/// A line of /proc/net/tcp or tcp6 (get_tcp4_sock() in net/ipv4/tcp_ipv4.c and its neighbours).
#[must_use]
pub fn line_of_proc(line: &str, v6: bool, netns: u32) -> Option<Found> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    let (queues, timer) = (words.next()?, words.next()?);
    let (retransmits, uid) = (words.next()?, words.next()?);
    let (_timeout, ino) = (words.next()?, words.next()?);
    let end = |text: &str| {
        let (addr, port) = text.split_once(':')?;
        Some((hex_addr(addr, v6)?, u16::from_str_radix(port, 16).ok()?))
    };
    let ((laddr, lport), (raddr, rport)) = (end(local)?, end(remote)?);
    let (timer, when) = timer.split_once(':')?;
    let state = State::from_kernel(u8::from_str_radix(state, 16).ok()?)?;
    let ino = ino.parse().ok()?;
    let form = match state {
        _ if timer == "03" => Form::Minisock,
        State::SYN_RECV if ino == 0 => Form::Request,
        _ => Form::Socket,
    };
    // In hundredths of a second (jiffies_delta_to_clock_t()).
    let expires = u32::from_str_radix(when, 16).ok()?.saturating_mul(10);
    let queue = |text: &str| u32::from_str_radix(text, 16).ok();
    let (sent, received) = queues.split_once(':')?;
    Some(Found {
        ino,
        uid: if form == Form::Socket { uid.parse().ok() } else { None },
        expires_ms: (timer != "00").then_some(expires),
        receive_queue: queue(received)?,
        send_queue: queue(sent)?,
        timer: u8::from_str_radix(timer, 16).ok()?,
        retransmits: queue(retransmits).map_or(0, |count| u8::try_from(count).unwrap_or(u8::MAX)),
        ..Found::new(Tuple { laddr, raddr, lport, rport, netns }, state, form)
    })
}

/// Words of 32 bits as they are in memory, each as a number.
fn hex_addr(text: &str, v6: bool) -> Option<Addr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok();
    if !v6 {
        return Some(Addr::from_be32(word(0)?));
    }
    let mut octets = [0; 16];
    for (index, part) in octets.chunks_exact_mut(4).enumerate() {
        part.copy_from_slice(&word(index * 8)?.to_ne_bytes());
    }
    Some(Addr::from_octets(octets))
}

/// What has become of minisocks, each given by its cookie (0 where the kernel gives none) and its ends.
#[must_use]
pub fn check(namespaces: &mut Namespaces, minisocks: &[(u64, Tuple)]) -> Vec<Whereabouts> {
    let mut answers = vec![Whereabouts::Unknown; minisocks.len()];
    let mut by_netns: FxHashMap<u32, Vec<usize>> = FxHashMap::default();
    for (index, (_, tuple)) in minisocks.iter().enumerate() {
        by_netns.entry(tuple.netns).or_default().push(index);
    }
    if by_netns
        .keys()
        .any(|inode| namespaces.paths.get(inode).is_none_or(|path| inode_of(path) != Some(*inode)))
    {
        namespaces.refresh();
        if by_netns.keys().any(|inode| !namespaces.paths.contains_key(inode)) {
            for (inode, path) in processes::look(&FxHashSet::default(), OwnerSource::Fd).namespaces {
                namespaces.paths.entry(inode).or_insert(path);
            }
        }
    }
    for (inode, indexes) in by_netns {
        let asked: Vec<(usize, u64, Tuple)> = indexes
            .into_iter()
            .filter_map(|index| minisocks.get(index).map(|(cookie, tuple)| (index, *cookie, *tuple)))
            .collect();
        match namespaces.within(inode, || check_here(inode, &asked)) {
            Some(Ok(found)) => {
                for (index, answer) in found {
                    if let Some(slot) = answers.get_mut(index) {
                        *slot = answer;
                    }
                }
            }
            Some(Err(error)) => log::debug!("minisocks of network namespace {inode} cannot be read: {error}"),
            None => {}
        }
    }
    answers
}

/// Looks for minisocks of the namespace that the thread is in.
fn check_here(netns: u32, asked: &[(usize, u64, Tuple)]) -> io::Result<Vec<(usize, Whereabouts)>> {
    if asked.len() <= ONE_BY_ONE {
        let one_by_one = Diag::open(netns).and_then(|mut diag| {
            let mut answers = Vec::with_capacity(asked.len());
            for (index, cookie, tuple) in asked {
                answers.push((*index, diag.find(*cookie, tuple)?));
            }
            Ok(answers)
        });
        match one_by_one {
            // A socket that is bound to a device is not found that way; nor any where there is no tcp_diag.
            Ok(answers) if answers.iter().all(|(_, answer)| *answer != Whereabouts::Gone) => {
                return Ok(answers);
            }
            Err(error) if !diag::is_missing(&error) => return Err(error),
            _ => {}
        }
    }
    // Most of those that are there nobody asked for.
    let cookies: FxHashSet<u64> = asked.iter().map(|(_, cookie, _)| *cookie).collect();
    let tuples: FxHashSet<Tuple> = asked.iter().map(|(.., tuple)| *tuple).collect();
    let (mut by_cookie, mut by_tuple) = (FxHashMap::default(), FxHashMap::default());
    let mut have_cookies = false;
    read(netns, diag::MINISOCK_STATES, &mut |found| {
        if found.form == Form::Minisock {
            have_cookies |= found.cookie != 0;
            if found.cookie != 0 && cookies.contains(&found.cookie) {
                by_cookie.insert(found.cookie, diag::there(&found));
            }
            if tuples.contains(&found.tuple) {
                by_tuple.insert(found.tuple, diag::there(&found));
            }
        }
    })?;
    let answer = |cookie: &u64, tuple: &Tuple| {
        let found = if *cookie == 0 || !have_cookies { by_tuple.get(tuple) } else { by_cookie.get(cookie) };
        found.copied().unwrap_or(Whereabouts::Gone)
    };
    Ok(asked.iter().map(|(index, cookie, tuple)| (*index, answer(cookie, tuple))).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let line = "   1: 0100007F:1F90 0200007F:C350 06 00000000:00000000 03:00001770 00000000     0        0 0 3 x";
        let found = line_of_proc(line, false, 7).unwrap();
        assert_eq!(
            (found.state, found.form, found.expires_ms),
            (State::TIME_WAIT, Form::Minisock, Some(60_000))
        );
        assert_eq!((found.tuple.lport, found.tuple.rport, found.uid), (8080, 50000, None));
        assert_eq!(found.tuple.laddr, Addr::from_be32(u32::from_ne_bytes([127, 0, 0, 1])));
        let line = "   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 4711 1 x";
        let found = line_of_proc(line, true, 7).unwrap();
        assert_eq!(
            (found.state, found.form, found.ino, found.uid),
            (State::LISTEN, Form::Socket, 4711, Some(33))
        );
        assert_eq!(found.tuple.laddr.octets(), std::net::Ipv6Addr::LOCALHOST.octets());
        for line in ["", "0: x", "0: 0100007F:1F90 0200007F:C350 99 0:0 0:0 0 0 0 0"] {
            assert!(line_of_proc(line, false, 7).is_none(), "{line}");
        }
    }

    #[test]
    fn mounted_namespaces_are_found() {
        let text = "36 25 0:4 net:[4026532001] /run/netns/web rw shared:1 - nsfs nsfs rw\n22 1 8:1 / / rw - ext4 /dev/sda rw\n";
        assert_eq!(mounted(text).collect::<Vec<_>>(), [PathBuf::from("/run/netns/web")]);
    }
}
