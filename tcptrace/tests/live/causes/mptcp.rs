//! MPTCP over the wire: its subflows are connections as any other, with an end each, in whatever way the
//! kernel's worker closes them (mptcp_worker()).

use std::net::TcpStream;

use socket2::{Domain, Protocol, Socket, Type};

use super::fate::{Fate, Watch};
use crate::support::{
    PATIENCE,
    host::KERNEL,
    story::{story_of, told},
    tcp::{self, ends_of},
    wire::{SERVER, server_port, wire_scenario},
};

/// `IPPROTO_MPTCP`
const MPTCP: i32 = 262;

fn socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(MPTCP))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn subflows_have_their_causes() {
    wire_scenario(|wire| {
        if !KERNEL.mptcp {
            // That nothing is told of them there is certain.
            return;
        }
        let watch = Watch::both(wire);
        let listener = wire.server.enter(|| {
            let listener = socket();
            listener.bind(&server_port(0).into()).unwrap();
            listener.listen(1).unwrap();
            std::net::TcpListener::from(listener)
        });
        let client = socket();
        client.connect(&listener.local_addr().unwrap().into()).unwrap();
        let client = TcpStream::from(client);
        let (server, addr) = listener.accept().unwrap();
        assert_ne!(addr.ip(), SERVER);
        let ends = ends_of(&client);
        tcp::send(&client, 10);
        tcp::receive(&server, 10);
        tcp::close_in_order(client, server);
        let (log, lines) = watch.stop(2);
        drop(listener);
        let story = told(&story_of(&log.events));
        for (end, bytes) in [(ends.client, (10, 0)), (ends.server, (0, 10))] {
            let words: Vec<&str> = story[&end].iter().map(String::as_str).collect();
            let cause = match *words.last().unwrap() {
                "LAST_ACK>CLOSE" => "peer_fin",
                "CLOSING>TIME_WAIT (CLOSE)" => "simultaneous_close",
                "FIN_WAIT2>TIME_WAIT (CLOSE)" | "FIN_WAIT2>TIME_WAIT" => "local_fin",
                _ => panic!("{end} ends with {words:?}"),
            };
            Fate::new(end, &words, cause).bytes(bytes.0, bytes.1).check(&log, &lines);
        }
    });
}
