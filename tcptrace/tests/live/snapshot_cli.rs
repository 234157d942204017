//! Connections that were open before tcptrace was: what it says of them at once, and at their next transition.

use std::net::TcpStream;

use crate::{
    close::PASSIVE_SERVER,
    support::{
        actor::{Actor, Held},
        conns::{Conns, end_of, owner_of},
        netns::scenario,
        story::End,
        tcp::{LOCALHOST, ends_of, read_to_end},
        trace::Trace,
    },
};

/// What the one end does from ESTABLISHED on that closes its half first, and what the other one does.
const FIRST: &[&str] = &["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>FIN_WAIT2", "FIN_WAIT2>TIME_WAIT (CLOSE)"];
const SECOND: &[&str] = &["ESTABLISHED>CLOSE_WAIT", "CLOSE_WAIT>LAST_ACK", "LAST_ACK>CLOSE"];

/// Both ends of an open connection, in two processes, and the listener.
pub(crate) struct Before {
    pub(crate) server: Actor,
    pub(crate) listener: Held,
    pub(crate) port: u16,
    pub(crate) accepted: Held,
    pub(crate) client: Actor,
    pub(crate) socket: Held,
    /// The client's.
    pub(crate) end: End,
}

impl Before {
    pub(crate) fn new() -> Self {
        let (server, client) = (Actor::start("old-server"), Actor::start("old-client"));
        let (listener, port) = server.listen();
        let (socket, end) = client.connect(port);
        let accepted = server.accept(listener);
        Self { server, listener, port, accepted, client, socket, end }
    }

    /// Closes the client's half, then the server's end, then the client's.
    pub(crate) fn close(&self) {
        self.client.shutdown(self.socket);
        self.server.read_to_end(self.accepted);
        self.server.close(self.accepted);
        self.client.read_to_end(self.socket);
        self.client.close(self.socket);
    }
}

/// The owner that the snapshot found.
fn found(actor: &Actor) -> (u32, &str, &'static str) {
    (actor.pid(), actor.name(), "snapshot")
}

/// `--live`: what is open comes first, each end with its state and its owner; then what ends.
#[test]
fn connections_that_are_open() {
    scenario(|net| {
        let before = Before::new();
        let Before { server, listener, port, client, end, .. } = &before;
        // One that is closed by half.
        let (half, halfs_end) = client.connect(*port);
        let halfs_peer = server.accept(*listener);
        client.shutdown(half);
        server.read_to_end(halfs_peer);
        // One that is over: nobody has a TIME_WAIT open.
        let (over, _) = client.connect(*port);
        let overs_peer = server.accept(*listener);
        client.shutdown(over);
        server.read_to_end(overs_peer);
        server.close(overs_peer);
        client.read_to_end(over);
        client.close(over);
        // One that waits to be accepted: it has no file yet, so no process has it open.
        let (_, waiting) = client.connect(*port);

        let conns = Conns::of(net, &["--live"]);
        conns.until(6);
        before.close();
        let told = conns.tells(8);
        let (open, ended) = told.0.split_at(6);
        for (end, state, owner, role) in [
            (*end, "ESTABLISHED", Some(found(client)), "client"),
            (end.peer(), "ESTABLISHED", Some(found(server)), "server"),
            (halfs_end, "FIN_WAIT2", Some(found(client)), "client"),
            (halfs_end.peer(), "CLOSE_WAIT", Some(found(server)), "server"),
            (waiting, "ESTABLISHED", Some(found(client)), "client"),
        ] {
            let connection = open.iter().find(|connection| end_of(connection) == end).unwrap();
            assert_eq!(connection.text("new"), Some(state), "{connection:?}");
            assert_eq!(owner_of(connection), owner, "{connection:?}");
            assert!(connection.text("role").is_none_or(|told| told == role), "{connection:?}");
            assert_eq!(connection.field("opened_ts"), None, "{connection:?}");
        }
        let connection = open.iter().find(|connection| end_of(connection) == waiting.peer()).unwrap();
        assert_eq!(connection.text("new"), Some("ESTABLISHED"), "{connection:?}");
        let listeners = (server.pid(), server.name(), "listener");
        assert_eq!(owner_of(connection), Some(listeners), "{connection:?}");
        for (end, new, owner, cause) in [
            (*end, "TIME_WAIT", Some(found(client)), "local_fin"),
            (end.peer(), "CLOSE", Some(found(server)), "peer_fin"),
        ] {
            let connection = ended.iter().find(|connection| end_of(connection) == end).unwrap();
            assert_eq!((connection.text("new"), connection.text("cause")), (Some(new), Some(cause)));
            assert_eq!(owner_of(connection), owner, "{connection:?}");
        }
    });
}

/// `trace`, started in the middle of a connection: its next transition has its owner, at either end, although that
/// transition happens in softirq; and its last has the cause.
#[test]
fn the_stream_begins_in_the_middle() {
    scenario(|net| {
        let before = Before::new();
        let Before { end, .. } = before;
        let trace = Trace::of(net, &[]);
        before.close();
        let log = trace.lists(&[(end, FIRST), (end.peer(), SECOND)]);
        for (end, actor, role, cause) in
            [(end, &before.client, "client", "local_fin"), (end.peer(), &before.server, "server", "peer_fin")]
        {
            let events = log.of(end);
            for event in &events {
                assert_eq!(owner_of(event), Some(found(actor)), "{event:?}");
                assert!(event.text("role").is_none_or(|told| told == role), "{event:?}");
            }
            let (last, earlier) = events.split_last().unwrap();
            assert_eq!(last.text("cause"), Some(cause), "{last:?}");
            assert!(earlier.iter().all(|event| event.field("cause").is_none()), "{earlier:?}");
            // Nobody saw ESTABLISHED begin.
            assert_eq!(events[0].field("in_state_us"), None, "{:?}", events[0]);
        }
    });
}

/// `-p` of a process that was there before shows all of its connections, beginning with a transition in which it had
/// no part: the FIN of a peer that another process closed.
#[test]
fn a_process_from_before_is_chosen() {
    scenario(|net| {
        let before = Before::new();
        let Before { server, listener, port, end, .. } = &before;
        let trace = Trace::of(net, &["-p", &server.pid().to_string()]);
        before.close();
        let later = TcpStream::connect((LOCALHOST, *port)).unwrap();
        let after = ends_of(&later).server;
        let accepted = server.accept(*listener);
        later.shutdown(std::net::Shutdown::Write).unwrap();
        server.read_to_end(accepted);
        server.close(accepted);
        assert_eq!(read_to_end(&later), b"");
        drop(later);
        let log = trace.lists(&[(end.peer(), SECOND), (after, PASSIVE_SERVER)]);
        assert!(log.of(end.peer()).iter().all(|event| owner_of(event) == Some(found(server))));
        let sources = log.of(after).iter().map(|event| owner_of(event).unwrap().2).collect::<Vec<_>>();
        assert_eq!(sources, ["listener", "listener", "listener", "close", "close"]);
    });
    scenario(|net| {
        let before = Before::new();
        let trace = Trace::of(net, &["-p", &before.client.pid().to_string()]);
        before.close();
        let log = trace.lists(&[(before.end, FIRST)]);
        assert!(log.of(before.end).iter().all(|event| owner_of(event) == Some(found(&before.client))));
    });
}
