//! Connections that were open before tcptrace was: what it says of them at once, and at their next transition.

use std::net::TcpStream;

use crate::support::{
    actor::{Actor, Held},
    conns::{Conns, end_of, owner_of},
    netns::scenario,
    story::End,
    tcp::{self, LOCALHOST, ends_of, read_to_end},
    trace::Trace,
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

/// `--live`: what is open comes first, each end with its state and its owner; then what ends. The snapshot does not
/// say who connected, but who listens at an end's port is known.
#[test]
fn connections_that_are_open() {
    scenario(|net| {
        let before = Before::new();
        let Before { server, listener, port, client, socket, end, .. } = &before;
        // One that is closed by half.
        let (half, halfs_end) = client.connect(*port);
        server.accept(*listener);
        client.shutdown(half);
        // One that waits to be accepted, without an inode.
        let (_, waiting) = client.connect(*port);
        // One that is over, if the client's TIME_WAIT can be called that.
        let (over, overs_end) = client.connect(*port);
        let overs_peer = server.accept(*listener);
        let _ = (over, overs_end, overs_peer, socket);

        let conns = Conns::of(net, &["--live"]);
        conns.until(6);
        before.close();
        let told = conns.tells(8);
        let (open, ended) = told.0.split_at(6);
        for connection in open { eprintln!("{connection:?}"); }
        for connection in ended { eprintln!("{connection:?}"); }
        let _ = (end, halfs_end, waiting);
    });
}
