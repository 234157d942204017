//! MPTCP: its subflows are the TCP. The MPTCP connection itself reports transitions of its own through the same
//! tracepoint (`sk_protocol` 262); those are nobody's packets and are not told.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    close::LISTENER,
    support::{
        host::KERNEL,
        netns::{COMM, scenario},
        story::story_of,
        tcp::{self, LOCALHOST, ends_of},
        trace::Trace,
    },
};

/// `IPPROTO_MPTCP`
const MPTCP: i32 = 262;

/// The ways in which an end can come to its end. A worker of the kernel's closes the subflows
/// (mptcp_worker()), on both ends at about the same time.
const ENDINGS: [&[&str]; 4] = [
    &["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>FIN_WAIT2", "FIN_WAIT2>TIME_WAIT (CLOSE)"],
    &["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>FIN_WAIT2", "FIN_WAIT2>FIN_WAIT2 (CLOSE)"],
    &["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>CLOSING", "CLOSING>TIME_WAIT (CLOSE)"],
    &["ESTABLISHED>CLOSE_WAIT", "CLOSE_WAIT>LAST_ACK", "LAST_ACK>CLOSE"],
];

fn socket() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(MPTCP)))
}

#[test]
fn subflows_are_told_once() {
    scenario(|net| {
        if !KERNEL.mptcp {
            let error = socket().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::PROTONOSUPPORT.raw_os_error()));
            return;
        }
        let trace = Trace::of(net, &[]);
        let listener = socket().unwrap();
        listener.bind(&SocketAddr::new(LOCALHOST, 0).into()).unwrap();
        listener.listen(1).unwrap();
        let listener = TcpListener::from(listener);
        let client = socket().unwrap();
        client.connect(&listener.local_addr().unwrap().into()).unwrap();
        let client = TcpStream::from(client);
        let (server, _) = listener.accept().unwrap();
        let ends = ends_of(&client);
        tcp::send(&client, 10);
        tcp::receive(&server, 10);
        tcp::close_in_order(client, server);
        trace.until("both ends have ended", |events| {
            events.iter().filter(|event| event.number("tx_bytes").is_some()).count() == 2
        });
        drop(listener);
        let log = trace.stop();
        let story = story_of(&log.events);
        let words = |end| -> Vec<_> { story[&end].iter().map(|event| event.words()).collect() };
        assert_eq!(story.keys().len(), 3, "a listener and two ends: {:?}", story.keys());
        assert_eq!(words(ends.listener), LISTENER);
        for (end, beginning) in [
            (ends.client, ["CLOSE>SYN_SENT", "SYN_SENT>ESTABLISHED"]),
            (ends.server, ["LISTEN>SYN_RECV", "SYN_RECV>ESTABLISHED"]),
        ] {
            let words = words(end);
            let (told, ending) = words.split_at(2);
            assert_eq!(told, beginning);
            assert!(ENDINGS.iter().any(|possible| ending == *possible), "{ending:?}");
        }
        log.is_of(std::process::id(), COMM);
    });
}
