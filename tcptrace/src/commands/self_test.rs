//! Connections on loopback of which every event is known beforehand, and whether each was seen.

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket, sockopt::set_socket_linger};

use crate::{
    kernel::usage,
    model::{
        event::{Event, Id, Kind},
        filter::{Family, Filter},
    },
    view::probes::Check,
};

/// How long anything on loopback may take: where a firewall drops its packets nothing comes at all.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is sent over the connection that is closed in order.
const PAYLOAD: &[u8] = b"tcptrace";
/// Connections in a listener's queue at most.
const BACKLOG: i32 = 16;

/// Ports of this host: one that will listen, one that never does, and one that listens already, for many connections.
pub(super) struct Ground {
    open: OwnedFd,
    closed: OwnedFd,
    crowd: TcpListener,
    /// Inode number of the network namespace.
    netns: u32,
}

impl Ground {
    pub(super) fn take(netns: u32) -> io::Result<Self> {
        let bound = || {
            let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
            bind(&fd, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            io::Result::Ok(fd)
        };
        let crowd = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Self { open: bound()?, closed: bound()?, crowd, netns })
    }

    fn ports(&self) -> io::Result<[u16; 2]> {
        let port = |fd: &OwnedFd| {
            let name = SocketAddrV4::try_from(getsockname(fd)?)?;
            io::Result::Ok(name.port())
        };
        Ok([port(&self.open)?, port(&self.closed)?])
    }

    /// Lets only what happens here pass.
    pub(super) fn filter(&self) -> io::Result<Filter> {
        let [open, closed] = self.ports()?;
        let ports = [open, closed, self.crowd.local_addr()?.port()];
        Ok(Filter {
            netns: vec![self.netns],
            ports: ports.map(|port| port..=port).into(),
            family: Some(Family::V4),
            ..Filter::default()
        })
    }

    /// Makes a connection closed in order, one that is reset, and one that is refused. Tells the ports to look for, and
    /// the listener for [`churn`].
    pub(super) fn make_connections(self) -> io::Result<(Made, TcpListener)> {
        let [open, closed] = self.ports()?;
        listen(&self.open, BACKLOG)?;
        let listener = TcpListener::from(self.open);

        let (mut client, mut server) = connected(&listener)?;
        let orderly = client.local_addr()?.port();
        client.write_all(PAYLOAD)?;
        client.shutdown(std::net::Shutdown::Write)?;
        server.read_to_end(&mut Vec::new())?;
        drop(server);
        client.read_to_end(&mut Vec::new())?;
        drop(client);

        let reset = reset_one(&listener)?;

        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, closed));
        match TcpStream::connect_timeout(&to, PATIENCE) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(io::Error::other("a port where nobody listens took a connection")),
        }
        drop(self.closed);
        let made = Made { open, closed, orderly, reset, netns: self.netns, comm: usage::comm() };
        Ok((made, self.crowd))
    }
}

/// Makes connections that are reset, so that nothing is left of them.
pub(super) fn churn(listener: &TcpListener, count: usize) -> io::Result<()> {
    (0..count).try_for_each(|_| reset_one(listener).map(drop))
}

/// Makes a connection that its client resets. Returns the client's port.
fn reset_one(listener: &TcpListener) -> io::Result<u16> {
    let (client, mut server) = connected(listener)?;
    let port = client.local_addr()?.port();
    set_socket_linger(&client, Some(Duration::ZERO))?;
    drop(client);
    match server.read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(port),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("a connection was not reset")),
    }
}

fn connected(listener: &TcpListener) -> io::Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    let (server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((client, server))
}

/// The connections that were made.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// The port that listened, and the one where nobody did.
    open: u16,
    closed: u16,
    /// The clients' ports.
    orderly: u16,
    reset: u16,
    netns: u32,
    /// The name of the process that made them.
    comm: String,
}

/// What is to be seen of one end, in order: its ports (0: any), and its events.
struct Expected {
    ports: (u16, u16),
    events: Vec<&'static str>,
}

impl Made {
    /// Whether all that was to be seen was: a check for each connection. `rsts`: whether this kernel reports RSTs that
    /// belong to no socket.
    pub(super) fn check(&self, events: &[Event], rsts: bool) -> Vec<Check> {
        let Self { open, closed, orderly, reset, .. } = *self;
        let end = |lport, rport, events: &[&'static str]| Expected {
            ports: (lport, rport),
            events: events.to_vec(),
        };
        let refusal: &[&str] = if rsts { &["rst_sent"] } else { &[] };
        let checks = [
            ("a listener", vec![end(open, 0, &["CLOSE > LISTEN", "LISTEN > CLOSE"])]),
            (
                "a connection that is closed in order",
                vec![
                    end(
                        orderly,
                        open,
                        &[
                            "CLOSE > SYN_SENT",
                            "SYN_SENT > ESTABLISHED",
                            "ESTABLISHED > FIN_WAIT1",
                            "FIN_WAIT1 > FIN_WAIT2",
                            "FIN_WAIT2 > TIME_WAIT",
                        ],
                    ),
                    end(
                        open,
                        orderly,
                        &[
                            "LISTEN > SYN_RECV",
                            "SYN_RECV > ESTABLISHED",
                            "ESTABLISHED > CLOSE_WAIT",
                            "CLOSE_WAIT > LAST_ACK",
                            "LAST_ACK > CLOSE",
                        ],
                    ),
                ],
            ),
            (
                "a connection that is reset",
                vec![
                    end(
                        reset,
                        open,
                        &["CLOSE > SYN_SENT", "SYN_SENT > ESTABLISHED", "ESTABLISHED > CLOSE", "rst_sent"],
                    ),
                    end(
                        open,
                        reset,
                        &[
                            "LISTEN > SYN_RECV",
                            "SYN_RECV > ESTABLISHED",
                            "rst_received",
                            "ESTABLISHED > CLOSE",
                        ],
                    ),
                ],
            ),
            (
                "a connection that is refused",
                vec![
                    end(0, closed, &["CLOSE > SYN_SENT", "rst_received", "SYN_SENT > CLOSE"]),
                    end(closed, 0, refusal),
                ],
            ),
        ];
        checks
            .into_iter()
            .map(|(name, ends)| {
                let wrong = ends.iter().find_map(|end| self.what_is_wrong(end, events));
                Check { name, events: ends.iter().map(|end| end.events.len()).sum(), wrong }
            })
            .collect()
    }

    fn what_is_wrong(&self, expected: &Expected, events: &[Event]) -> Option<String> {
        let Expected { ports: (lport, rport), events: words } = expected;
        let is_it = |event: &&Event| {
            let fits = |wanted: u16, port: u16| wanted == 0 || wanted == port;
            match (*lport, *rport) {
                // Of a listener nothing is remote.
                (port, 0) if port == self.open => event.tuple.lport == port && event.tuple.rport == 0,
                _ => fits(*lport, event.tuple.lport) && fits(*rport, event.tuple.rport),
            }
        };
        // The first transition of a client comes before its port is chosen.
        let ids: BTreeSet<Id> = events.iter().filter(is_it).filter_map(|event| event.id).collect();
        let of_end: Vec<&Event> = events
            .iter()
            .filter(|event| event.id.map_or_else(|| is_it(event), |id| ids.contains(&id)))
            .collect();
        let seen: Vec<String> = of_end.iter().map(|event| word(event)).collect();
        // Where the host has no room for one more in TIME_WAIT there is none.
        let same = |(seen, word): (&String, &&str)| {
            seen == word || (*word == "FIN_WAIT2 > TIME_WAIT" && seen == "FIN_WAIT2 > CLOSE")
        };
        if seen.len() != words.len() || !seen.iter().zip(words).all(same) {
            let seen = if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") };
            return Some(format!("expected {}; seen {seen}", words.join(", ")));
        }
        let wrong_owner =
            |event: &&&Event| event.owner.is_some_and(|owner| owner.comm.to_string() != self.comm);
        if let Some(event) = of_end.iter().find(wrong_owner) {
            return Some(format!("{} has another owner: {:?}", word(event), event.owner));
        }
        if of_end.iter().any(|event| event.id.is_some()) && of_end.iter().all(|event| event.owner.is_none()) {
            return Some("nothing has an owner".to_owned());
        }
        if let Some(event) = of_end.iter().find(|event| event.tuple.netns != self.netns) {
            return Some(format!("{} is of network namespace {}", word(event), event.tuple.netns));
        }
        let elsewhere = |event: &&&Event| event.tuple.rport != 0 && event.raddr() != Ipv4Addr::LOCALHOST;
        if let Some(event) = of_end.iter().find(elsewhere) {
            return Some(format!("{} is of {}", word(event), event.raddr()));
        }
        if *lport == self.orderly {
            let sent = of_end.iter().find_map(|event| event.totals).map(|totals| totals.tx_bytes);
            if sent != Some(PAYLOAD.len() as u64) {
                return Some(format!("{} bytes were sent; seen {sent:?}", PAYLOAD.len()));
            }
        }
        None
    }
}

/// An event as a word of the table above.
fn word(event: &Event) -> String {
    match (event.kind, event.old, event.new) {
        (Kind::Transition, Some(old), Some(new)) => format!("{old} > {new}"),
        (kind, ..) => kind.name().to_owned(),
    }
}
