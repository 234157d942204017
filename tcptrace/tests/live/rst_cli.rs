//! `tcptrace rst`: the ledger, against what was done and against the kernel's own counters.

use std::net::TcpStream;

use crate::support::{
    event::Event,
    host::{KERNEL, tcp_counters},
    netns::scenario,
    tables::Tables,
    tcp::{LOCALHOST, abort, await_reset, bound_socket, connect, pair},
};

/// RSTs to be.
const REFUSED: u64 = 2_000;
const ABORTED: u64 = 100;

/// Every RST is counted, with its reason, and the kernel counted as many.
#[test]
fn a_storm_is_counted() {
    scenario(|net| {
        let before = tcp_counters();
        let rst = Tables::start(&net.inode().to_string(), &["rst"]);
        // A port that nobody listens on, and that nobody gets.
        let (_bound, closed) = bound_socket();
        for _ in 0..REFUSED {
            TcpStream::connect((LOCALHOST, closed)).unwrap_err();
        }
        let listener = pair().listener;
        let port = u64::from(listener.local_addr().unwrap().port());
        for _ in 0..ABORTED {
            let (client, server) = connect(&listener);
            abort(client);
            await_reset(&server);
        }
        let ledger = rst.stop();
        let after = tcp_counters();
        let delta = |name: &str| u64::try_from(after[name] - before[name]).unwrap();

        let rows: Vec<&Event> = ledger.iter().filter(|row| row.kind() == "rst").collect();
        let count = |holds: &dyn Fn(&Event) -> bool| -> u64 {
            rows.iter().filter(|row| holds(row)).map(|row| row.number("count").unwrap()).sum()
        };
        let is = |row: &Event, direction: &str, state: Option<&str>| {
            row.text("direction") == Some(direction) && row.text("prev_state") == state
        };
        assert_eq!(count(&|row| is(row, "received", Some("SYN_SENT"))), REFUSED);
        let received =
            |row: &Event| is(row, "received", Some("ESTABLISHED")) && row.number("lport") == Some(port);
        assert_eq!(count(&received), ABORTED);
        let sent = |row: &Event| is(row, "sent", Some("ESTABLISHED")) && row.number("rport") == Some(port);
        assert_eq!(count(&sent), ABORTED);
        if KERNEL.stray_resets {
            let refused = |row: &Event| is(row, "sent", None) && row.number("rport").is_none();
            assert_eq!(count(&refused), REFUSED);
        }
        if KERNEL.reasons {
            assert_eq!(count(&|row| row.text("reason") == Some("NO_SOCKET")), REFUSED);
            assert_eq!(count(&|row| row.text("reason") == Some("TCP_STATE")), ABORTED);
        }
        for row in rows.iter().filter(|row| row.number("count") == Some(ABORTED)) {
            assert_eq!(row.number("pid"), Some(std::process::id().into()), "{row:?}");
        }
        for row in &rows {
            assert!(row.text("explain").is_some_and(|text| text.ends_with('.')), "{row:?}");
        }

        let compared = ledger.iter().find(|row| row.kind() == "snmp").unwrap();
        let number = |name| compared.number(name).unwrap();
        assert_eq!(number("out_rsts"), delta("OutRsts"));
        assert_eq!(number("estab_resets"), delta("EstabResets"));
        assert_eq!(number("resets_seen"), number("estab_resets"));
        if KERNEL.stray_resets {
            assert_eq!(number("rsts_seen"), number("out_rsts"));
        } else {
            // What is missing is what belongs to no socket.
            assert_eq!(number("rsts_seen") + REFUSED, number("out_rsts"));
        }
    });
}
