//! Who is who: addresses, roles, owners, ids.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
};

use socket2::SockRef;

use crate::{
    close::{ACTIVE_CLIENT, LISTENER, PASSIVE_SERVER},
    support::{
        host::KERNEL,
        netns::scenario,
        story::End,
        tcp::{self, Pair, ends_of, pair},
        trace::{Log, Trace},
    },
};

/// What the events of an end say of its ends.
fn addresses(log: &Log, end: End) -> BTreeSet<(&str, &str, Option<&str>)> {
    let events = log.of(end).into_iter();
    events
        .map(|event| (event.text("family").unwrap(), event.text("laddr").unwrap(), event.text("raddr")))
        .collect()
}

/// Connects to an address and closes in order, and checks how both ends are addressed.
fn family_and_text(listen: IpAddr, to: IpAddr, family: &str, text: &str) {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let listener = TcpListener::bind((listen, 0)).unwrap();
        let client = TcpStream::connect((to, listener.local_addr().unwrap().port())).unwrap();
        let (server, _) = listener.accept().unwrap();
        let ends = ends_of(&client);
        tcp::close_in_order(client, server);
        drop(listener);
        let log = trace.tells(&[
            (ends.listener, LISTENER),
            (ends.client, ACTIVE_CLIENT),
            (ends.server, PASSIVE_SERVER),
        ]);
        for end in [ends.client, ends.server] {
            assert_eq!(addresses(&log, end), BTreeSet::from([(family, text, Some(text))]), "{end}");
        }
        let listen_text = listen.to_string();
        let listen_family = if listen.is_ipv4() { "ipv4" } else { "ipv6" };
        let expected = BTreeSet::from([(listen_family, listen_text.as_str(), None)]);
        assert_eq!(addresses(&log, ends.listener), expected);
        for event in &log.events {
            assert_eq!(event.number("netns"), Some(net.inode()), "{event:?}");
        }
    });
}

#[test]
fn ipv4() {
    family_and_text(Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into(), "ipv4", "127.0.0.1");
}

#[test]
fn ipv6() {
    family_and_text(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), "ipv6", "::1");
}

/// An IPv6 socket talks IPv4 under mapped addresses (tcp_v6_connect() to `::ffff:0:0/96`, and the children of
/// a listener on `::`). That is IPv4.
#[test]
fn ipv4_on_ipv6_sockets() {
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    family_and_text(Ipv6Addr::UNSPECIFIED.into(), mapped.into(), "ipv4", "127.0.0.1");
}

/// The owner is who called connect() or listen(); an accepted connection is the listener's until its own
/// process acts on it.
#[test]
fn owners_are_learned() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        let cookies = [SockRef::from(&listener), SockRef::from(&client), SockRef::from(&server)]
            .map(|socket| format!("{:x}", socket.cookie().unwrap()));
        tcp::close_in_order(client, server);
        drop(listener);
        let log = trace.tells(&[
            (ends.listener, LISTENER),
            (ends.client, ACTIVE_CLIENT),
            (ends.server, PASSIVE_SERVER),
        ]);
        let sources = |end| -> Vec<_> {
            log.of(end).into_iter().map(|event| event.text("owner_src").unwrap()).collect()
        };
        assert_eq!(sources(ends.listener), ["listen"; 2]);
        assert_eq!(sources(ends.client), ["connect"; 5]);
        // CLOSE_WAIT>LAST_ACK is its own close().
        assert_eq!(sources(ends.server), ["listener", "listener", "listener", "close", "close"]);
        for (end, cookie) in [ends.listener, ends.client, ends.server].into_iter().zip(&cookies) {
            for event in log.of(end) {
                assert_eq!(event.number("uid"), Some(0), "{event:?}");
                assert_eq!(event.text("id") == Some(cookie), KERNEL.cookies, "{cookie}: {event:?}");
            }
        }
    });
}

/// Of a connection from before tcptrace nobody knows how long it had been in its state. Who has it open, and which end
/// sent the SYN, the survey of the sockets that exist tells.
#[test]
fn a_connection_from_before() {
    scenario(|net| {
        let Pair { listener, client, server, ends } = pair();
        let trace = Trace::of(net, &[]);
        tcp::close_in_order(client, server);
        drop(listener);
        let log = trace.compared_with(&[
            (ends.listener, &["LISTEN>CLOSE"]),
            (ends.client, &["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>FIN_WAIT2", "FIN_WAIT2>TIME_WAIT (CLOSE)"]),
            (ends.server, &["ESTABLISHED>CLOSE_WAIT", "CLOSE_WAIT>LAST_ACK", "LAST_ACK>CLOSE"]),
        ]);
        let own = Some(u64::from(std::process::id()));
        for (end, role) in [(ends.client, "client"), (ends.server, "server"), (ends.listener, "listener")] {
            for event in log.of(end) {
                assert_eq!(event.text("role"), Some(role), "{event:?}");
                assert_eq!(event.number("pid"), own, "{event:?}");
                assert_eq!(event.text("owner_src"), Some("snapshot"), "{event:?}");
            }
        }
        assert_eq!(log.of(ends.listener)[0].text("role"), Some("listener"));
    });
}
