//! Filters on addresses, families and network namespaces.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
};

use crate::{
    close::{ACTIVE_CLIENT, LISTENER, PASSIVE_SERVER},
    support::{
        netns::{Netns, scenario},
        process::{Pipes, Process},
        story::Expected,
        tcp::{self, Ends, LOCALHOST, Pair, ends_of, pair},
        trace::{Trace, command},
    },
};

/// 127.0.1.1 connects to 127.0.2.2.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 2);

/// Connects from one address to another, where a listener on a third (or the same) takes it, and closes.
fn connect_between(client: IpAddr, server: IpAddr, listen: IpAddr) -> Ends {
    let listener = TcpListener::bind((listen, 0)).unwrap();
    let socket = tcp::stream_socket(client);
    socket.bind(&SocketAddr::new(client, 0).into()).unwrap();
    socket.connect(&SocketAddr::new(server, listener.local_addr().unwrap().port()).into()).unwrap();
    let client = TcpStream::from(socket);
    let ends = ends_of(&client);
    let (server, _) = listener.accept().unwrap();
    tcp::close_in_order(client, server);
    ends
}

fn listener(ends: Ends) -> Expected<'static> {
    (ends.listener, LISTENER)
}

fn client(ends: Ends) -> Expected<'static> {
    (ends.client, ACTIVE_CLIENT)
}

fn server(ends: Ends) -> Expected<'static> {
    (ends.server, PASSIVE_SERVER)
}

/// A flag's value that begins with more than the kernel side's table holds.
fn after_others(value: &str) -> String {
    format!("10.0.0.1,10.1.0.0/16,10.2.0.0/16,10.3.0.0/16,2001:db8::/32,{value}")
}

/// Filters with connections from CLIENT to SERVER, and others between 127.0.0.1 and itself.
fn between(args: &[&str], listen: Ipv4Addr, expected: impl Fn(Ends) -> Vec<Expected<'static>> + Sync) {
    scenario(|net| {
        let trace = Trace::of(net, args);
        connect_between(LOCALHOST, LOCALHOST, LOCALHOST);
        let ends = connect_between(CLIENT.into(), SERVER.into(), listen.into());
        connect_between(LOCALHOST, LOCALHOST, LOCALHOST);
        trace.tells(&expected(ends));
    });
}

#[test]
fn local_addresses() {
    for flag in ["127.0.2.2", "127.0.2.0/24", "127.0.2.9/24,127.0.3.0/24", &after_others("127.0.2.2")] {
        between(&["--laddr", flag], SERVER, |ends| vec![listener(ends), server(ends)]);
    }
    between(&["--laddr", "127.0.1.1"], SERVER, |ends| vec![client(ends)]);
}

/// A listener on every address has none that a filter could want; its children have.
#[test]
fn local_addresses_of_children() {
    between(&["--laddr", "127.0.2.2"], Ipv4Addr::UNSPECIFIED, |ends| vec![server(ends)]);
}

#[test]
fn remote_addresses() {
    for flag in ["127.0.2.2", "127.0.2.0/24", &after_others("127.0.2.2")] {
        between(&["--raddr", flag], SERVER, |ends| vec![client(ends)]);
    }
    between(&["--raddr", "127.0.1.1"], SERVER, |ends| vec![server(ends)]);
}

#[test]
fn either_address() {
    for flag in ["127.0.1.1", "127.0.1.0/31", &after_others("127.0.1.1")] {
        between(&["--addr", flag], SERVER, |ends| vec![server(ends), client(ends)]);
    }
    between(&["--addr", "127.0.2.2"], SERVER, |ends| vec![listener(ends), server(ends), client(ends)]);
}

/// -4 wants IPv4 on IPv6 sockets too, -6 nothing but IPv6; an IPv6 address is wanted like any other.
#[test]
fn families() {
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    for (args, wants_v4) in [
        (&["-4"] as &[_], true),
        (&["-6"], false),
        (&["--addr", "::1"], false),
        (&["--addr", "::/0"], false),
        (&["--addr", "127.0.0.0/8"], true),
        (&["--raddr", "::1", "--laddr", "::/0"], false),
    ] {
        scenario(|net| {
            let trace = Trace::of(net, args);
            let native = connect_between(v6, v6, v6);
            let plain = connect_between(LOCALHOST, LOCALHOST, LOCALHOST);
            let on_v6 = connect_between(mapped, mapped, IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            let only_ends = args.contains(&"--raddr");
            let expected = match (wants_v4, only_ends) {
                (true, _) => {
                    vec![listener(plain), client(plain), server(plain), client(on_v6), server(on_v6)]
                }
                (false, true) => vec![client(native), server(native)],
                // The listener on `::` serves IPv4 too, but it is an IPv6 socket.
                (false, false) if args == ["-6"] || args == ["--addr", "::/0"] => {
                    vec![listener(native), client(native), server(native), listener(on_v6)]
                }
                (false, false) => vec![listener(native), client(native), server(native)],
            };
            trace.tells(&expected);
        });
    }
}

/// A process that does nothing but be in a network namespace, until its stdin is closed.
fn bystander() -> (Process, Pipes) {
    Process::start(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()))
}

/// Opens and closes a connection.
fn one_connection() -> Ends {
    let Pair { listener, client, server, ends } = pair();
    tcp::close_in_order(client, server);
    drop(listener);
    ends
}

/// Watches from a namespace in which nothing happens, while something happens in two others: it is told of the
/// first. `start` is given that and a process in it.
fn told_of_the_first(start: impl FnOnce(&Netns, u32) -> Trace + Send) {
    let (wanted, other) = (Netns::new(), Netns::new());
    let (resident, _stdin) = wanted.enter(bystander);
    let trace = start(&wanted, resident.pid());
    other.enter(one_connection);
    let ends = wanted.enter(one_connection);
    other.enter(one_connection);
    let log = trace.tells(&[listener(ends), client(ends), server(ends)]);
    for event in &log.events {
        assert_eq!(event.number("netns"), Some(wanted.inode()), "{event:?}");
    }
}

#[test]
fn netns_by_inode() {
    told_of_the_first(|wanted, _| Trace::of(wanted, &[]));
}

#[test]
fn netns_by_pid() {
    told_of_the_first(|_, pid| Trace::start(&mut command(&["-N", &format!("pid:{pid}")])));
}

#[test]
fn netns_by_path() {
    told_of_the_first(|_, pid| Trace::start(&mut command(&["--netns", &format!("/proc/{pid}/ns/net")])));
}

/// A name of `ip netns`, given in a mount namespace of tcptrace's own, so that no name is left behind.
#[test]
fn netns_by_name() {
    told_of_the_first(|_, pid| {
        let script = r#"mount -t tmpfs none /run && ip netns attach wanted "$1" && shift && exec "$@""#;
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "sh", "-c", script, "sh", &pid.to_string()]);
        let tcptrace = command(&["-N", "wanted"]);
        Trace::start(shell.arg(tcptrace.get_program()).args(tcptrace.get_args()))
    });
}

/// Six are more than the kernel side's table holds; the result is the same.
#[test]
fn many_netns() {
    told_of_the_first(|wanted, _| {
        let list = format!("1,2,3,4,5,{}", wanted.inode());
        Trace::start(&mut command(&["-N", &list]))
    });
}
