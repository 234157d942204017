//! What a survey mends while tcptrace runs: records that were lost, and owners that no record tells.

use std::{collections::BTreeMap, net::TcpListener};

use rustix::process::Signal;

use crate::support::{
    actor::Actor,
    event::Event,
    netns::scenario,
    story::End,
    tables::{Tables, sockets},
    tcp::{Ends, LOCALHOST, close_in_order, connect, ends_of, read_to_end},
    trace::Trace,
};

/// Connections whose end does not fit a ring of one page.
const CONNECTIONS: usize = 100;

/// tcptrace does not read while a hundred connections end, so most of those records are lost. The sockets that are not there
/// any more are given up: every end is told once, with what can still be known of it; and nothing stays in the counts.
/// Meanwhile a worker is found to have the connection open that it accepted and never touched.
#[test]
fn lost_records_and_silent_workers() {
    scenario(|net| {
        let nets = net.inode().to_string();
        let mut conns = std::process::Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        conns.args(["conns", "-v", "-o", "json", "--buffer", "4K", "-N", &nets]);
        let conns = Trace::start(&mut conns);
        let hist = Tables::start(&nets, &["hist", "0.1", "--buffer", "4K"]);

        let parent = Actor::start("parent");
        let (listener, port) = parent.listen();
        let (worker, inherited) = parent.starts("worker", listener);
        let quiet = std::net::TcpStream::connect((LOCALHOST, port)).unwrap();
        let quiet_end = ends_of(&quiet).server;
        let accepted = worker.accept(inherited);

        let own = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let mut pairs = Vec::new();
        let mut expected: Vec<End> = Vec::new();
        for _ in 0..CONNECTIONS {
            let (client, server) = connect(&own);
            let Ends { client: one, server: other, .. } = ends_of(&client);
            expected.extend([one, other]);
            pairs.push((client, server));
            // A few at a time: the ring has room for some thirty records.
            if pairs.len() % 4 == 0 {
                let known = expected.len() as u64;
                hist.until("the connections", |table| sockets(table.last().unwrap(), "ESTABLISHED") >= known);
            }
        }
        for process in [conns.process(), hist.process()] {
            process.signal(Signal::STOP);
        }
        for (client, server) in pairs {
            close_in_order(client, server);
        }
        for process in [conns.process(), hist.process()] {
            process.signal(Signal::CONT);
        }
        let told = |events: &[Event]| {
            let mut told: BTreeMap<End, Vec<String>> = BTreeMap::new();
            for event in events.iter().filter(|event| event.kind() == "connection") {
                let end = End::new(event.port("lport"), event.port("rport"));
                told.entry(end).or_default().push(event.text("cause").unwrap().to_owned());
            }
            told
        };
        conns.until("all ends", |events| {
            let told = told(events);
            expected.iter().all(|end| told.contains_key(end))
        });
        hist.until("only those that are open", |table| sockets(table.last().unwrap(), "ESTABLISHED") == 2);

        // The peer closes; the worker does nothing, and is known all the same.
        quiet.shutdown(std::net::Shutdown::Write).unwrap();
        worker.read_to_end(accepted);
        worker.close(accepted);
        assert_eq!(read_to_end(&quiet), b"");
        conns.until("the worker's connection", |events| told(events).contains_key(&quiet_end));
        conns.process().signal(Signal::INT);
        let log = conns.ended();
        assert!(log.status.success() && log.lost > 0, "{}\n{:?}", log.status, log.summary);
        assert!(log.summary.number("gaps") > Some(0), "{:?}", log.summary);
        let told = told(&log.events);
        for end in &expected {
            let causes = &told[end];
            assert_eq!(causes.len(), 1, "{end}: {causes:?}");
            let known = ["local_fin", "peer_fin", "unknown"];
            assert!(known.contains(&&*causes[0]), "{end}: {causes:?}");
        }
        assert!(told.values().flatten().any(|cause| cause == "unknown"));
        let of_worker = log.events.iter().find(|event| {
            event.kind() == "connection"
                && (event.port("lport"), event.port("rport")) == (port, quiet_end.rport)
        });
        let of_worker = of_worker.unwrap();
        assert_eq!(
            (of_worker.text("comm"), of_worker.text("owner_src")),
            (Some("worker"), Some("fd")),
            "{of_worker:?}"
        );
        drop(own);
    });
}
