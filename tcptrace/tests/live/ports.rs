//! Filters on ports: the wanted end complete, from its first transition on, and nothing else.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use socket2::SockRef;

use crate::{
    abort::REFUSED,
    close::{ACTIVE_CLIENT, LISTENER, PASSIVE_SERVER},
    support::{
        host::sysctl,
        netns::scenario,
        story::{End, Expected},
        tcp::{self, LOCALHOST, connect},
        trace::Trace,
    },
};

/// The port that every client in these tests gets from the kernel, and only when it connects: at CLOSE>SYN_SENT
/// it has none yet (tcp_v4_connect() sets the state before inet_hash_connect()).
const CLIENT: u16 = 40_000;
/// The port of the wanted listener.
const WANTED: u16 = 50_001;
/// The port of the other one.
const OTHER: u16 = 50_002;

const HANDSHAKE: &[&str] = &["CLOSE>SYN_SENT", "SYN_SENT>ESTABLISHED"];
const LISTENER_END: Expected<'_> = (End::listener(WANTED), LISTENER);
const SERVER_END: Expected<'_> = (End::new(WANTED, CLIENT), PASSIVE_SERVER);
const CLIENT_END: Expected<'_> = (End::new(CLIENT, WANTED), ACTIVE_CLIENT);
const OTHER_LISTENER_END: Expected<'_> = (End::listener(OTHER), LISTENER);
const OTHER_SERVER_END: Expected<'_> = (End::new(OTHER, CLIENT), PASSIVE_SERVER);
const OTHER_CLIENT_END: Expected<'_> = (End::new(CLIENT, OTHER), ACTIVE_CLIENT);

/// Connects to both ports, the wanted one in between.
fn tells(args: &[&str], expected: &[Expected<'_>]) {
    scenario(|net| {
        sysctl("ipv4/ip_local_port_range", &format!("{CLIENT} {CLIENT}"));
        let trace = Trace::of(net, args);
        let other = TcpListener::bind((LOCALHOST, OTHER)).unwrap();
        let (others_client, others_server) = connect(&other);
        let wanted = TcpListener::bind((LOCALHOST, WANTED)).unwrap();
        let (client, server) = connect(&wanted);
        tcp::close_in_order(client, server);
        tcp::close_in_order(others_client, others_server);
        drop((wanted, other));
        trace.tells(expected);
    });
}

#[test]
fn local_port() {
    tells(&["-L", "50001"], &[LISTENER_END, SERVER_END]);
}

/// CLOSE>SYN_SENT is there although nobody could tell then that it was wanted.
#[test]
fn local_port_of_clients() {
    tells(&["-L", "40000"], &[CLIENT_END, OTHER_CLIENT_END]);
}

#[test]
fn remote_port() {
    tells(&["-D", "50001"], &[CLIENT_END]);
}

#[test]
fn remote_port_of_servers() {
    tells(&["-D", "40000"], &[SERVER_END, OTHER_SERVER_END]);
}

#[test]
fn either_port() {
    tells(&["-P", "50001"], &[LISTENER_END, SERVER_END, CLIENT_END]);
}

#[test]
fn either_port_of_clients() {
    tells(&["-P", "40000"], &[SERVER_END, CLIENT_END, OTHER_SERVER_END, OTHER_CLIENT_END]);
}

#[test]
fn both_ports() {
    tells(&["-L", "40000", "-D", "50001"], &[CLIENT_END]);
}

#[test]
fn a_range_of_ports() {
    tells(&["-L", "1,49000-50001"], &[LISTENER_END, SERVER_END]);
    let all = [OTHER_LISTENER_END, OTHER_SERVER_END, LISTENER_END, SERVER_END];
    tells(&["-L", "50001-50002"], &all);
}

/// Twenty are more than the kernel side's table holds; the result is the same.
#[test]
fn many_ports() {
    let ports: Vec<String> = (1..20).map(|port| port.to_string()).chain(["50001".to_owned()]).collect();
    let ports = ports.join(",");
    tells(&["-L", &ports], &[LISTENER_END, SERVER_END]);
    tells(&["-D", &ports], &[CLIENT_END]);
    tells(&["-P", &ports], &[LISTENER_END, SERVER_END, CLIENT_END]);
}

/// A refused connect has two sides too: the client, and the RST that no socket stands behind. And a connect
/// that never gets a port has no local port that a filter could want.
#[test]
fn refused_connects() {
    let client = (End::new(CLIENT, WANTED), REFUSED);
    let stray: Expected<'_> = (End::stray(WANTED, CLIENT), &["RST> NO_SOCKET"]);
    let no_port: Expected<'_> = (End::new(0, OTHER), &["CLOSE>SYN_SENT", "SYN_SENT>CLOSE"]);
    for (args, expected) in [
        (["-L", "40000"], &[client] as &[_]),
        (["-L", "50001"], &[stray]),
        (["-D", "40000"], &[stray]),
        (["-D", "50001"], &[client]),
        (["-D", "50001,50002"], &[client, no_port]),
        (["-P", "40000"], &[client, stray]),
        (["-P", "50001"], &[client, stray]),
        (["-P", "50002"], &[no_port]),
    ] {
        scenario(|net| {
            sysctl("ipv4/ip_local_port_range", &format!("{CLIENT} {CLIENT}"));
            let trace = Trace::of(net, &args);
            TcpStream::connect((LOCALHOST, WANTED)).unwrap_err();
            // Somebody sits on the only port there is.
            let squatter = tcp::stream_socket(LOCALHOST);
            squatter.bind(&SocketAddr::new(LOCALHOST, CLIENT).into()).unwrap();
            TcpStream::connect((LOCALHOST, OTHER)).unwrap_err();
            trace.tells(expected);
        });
    }
}

/// --state shows the transitions that leave or enter a state, by our name or by the kernel's, and the RSTs that
/// meet it.
#[test]
fn states() {
    let met_by_a_rst: Expected<'_> =
        (OTHER_SERVER_END.0, &["ESTABLISHED>CLOSE_WAIT", "CLOSE_WAIT>CLOSE", "RST> TCP_STATE in CLOSE_WAIT"]);
    let passed: Expected<'_> = (SERVER_END.0, &["ESTABLISHED>CLOSE_WAIT", "CLOSE_WAIT>LAST_ACK"]);
    let waits: Expected<'_> = (CLIENT_END.0, &["FIN_WAIT2>TIME_WAIT (CLOSE)"]);
    for (state, expected) in [
        ("close-wait", &[passed, met_by_a_rst] as &[_]),
        ("TIME_WAIT", &[waits]),
        ("time-wait,CLOSEWAIT", &[waits, passed, met_by_a_rst]),
        (
            "fin-wait-2",
            &[
                (CLIENT_END.0, &["FIN_WAIT1>FIN_WAIT2", "FIN_WAIT2>TIME_WAIT (CLOSE)"]),
                (
                    OTHER_CLIENT_END.0,
                    &["FIN_WAIT1>FIN_WAIT2", "RST< in FIN_WAIT2", "FIN_WAIT2>CLOSE ECONNRESET"],
                ),
            ],
        ),
        ("syn-sent", &[(CLIENT_END.0, HANDSHAKE), (OTHER_CLIENT_END.0, HANDSHAKE)]),
    ] {
        scenario(|net| {
            sysctl("ipv4/ip_local_port_range", &format!("{CLIENT} {CLIENT}"));
            let trace = Trace::of(net, &["--state", state]);
            let wanted = TcpListener::bind((LOCALHOST, WANTED)).unwrap();
            let (client, server) = connect(&wanted);
            tcp::close_in_order(client, server);
            let other = TcpListener::bind((LOCALHOST, OTHER)).unwrap();
            let (client, server) = connect(&other);
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(tcp::read_to_end(&server), b"");
            // Acknowledges the FIN now and not some time later (__tcp_sock_set_quickack()).
            SockRef::from(&server).set_tcp_quickack(true).unwrap();
            tcp::abort(server);
            tcp::await_reset(&client);
            drop(client);
            trace.lists(expected);
        });
    }
}
