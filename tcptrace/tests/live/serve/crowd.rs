//! More clients, and more ports, than there is room for.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use crate::{
    hist_cli::allow_many_files,
    support::{
        host::{run, sysctl},
        netns::scenario,
        serve::{Serve, is_cut_off},
        tcp::{LOCALHOST, abort, connect},
    },
};

/// A thousand clients that say nothing: a few are let in until their time is over, the others are sent away, and what
/// happens meanwhile is counted.
#[test]
fn a_thousand_clients_hold_up_nothing() {
    scenario(|net| {
        allow_many_files();
        sysctl("core/somaxconn", "4096");
        let serve = Serve::of(net, &[]);
        let silent: Vec<TcpStream> = (0..1_000).map(|_| serve.dial()).collect();
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        for _ in 0..100 {
            let (client, server) = connect(&listener);
            abort(client);
            drop(server);
        }
        // Nobody is kept waiting beyond his time.
        for stream in &silent {
            assert!(is_cut_off(stream));
        }
        let opened = [("port", port.as_str()), ("role", "server")];
        serve.until("all connections", |metrics| {
            metrics.sum("tcptrace_connections_opened_total", &opened) == 100
        });
        serve.stop();
    });
}

/// No host keeps all places: another is let in at once while one has as many connections as it wants.
#[test]
fn one_host_leaves_room_for_others() {
    scenario(|net| {
        run("ip", &["address", "add", "10.9.8.7/32", "dev", "lo"]);
        let serve = Serve::at("0.0.0.0:9469", net, &["--insecure"]);
        // From that address to itself.
        let silent: Vec<TcpStream> =
            (0..40).map(|_| TcpStream::connect(("10.9.8.7", 9_469)).unwrap()).collect();
        assert_eq!(serve.get("/metrics").status, 200);
        drop(silent);
        serve.stop();
    });
}

/// Labels are bounded whatever is touched: all ports from inside, all ports from outside, and hundreds of listeners.
#[test]
fn sixty_thousand_ports_make_few_series() {
    scenario(|net| {
        allow_many_files();
        let serve = Serve::of(net, &["--max-ports", "50"]);
        for port in 1..=60_000 {
            let refused = TcpStream::connect(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port)));
            refused.map(drop).unwrap_or_default();
        }
        // They come later, and have labels all the same.
        let listeners: Vec<TcpListener> =
            (8_001..=8_100).map(|port| TcpListener::bind((LOCALHOST, port)).unwrap()).collect();
        let opened = "tcptrace_connections_opened_total";
        let metrics = serve.until("all of them", |metrics| {
            metrics.sum(opened, &[("role", "client")]) >= 60_000
                && metrics.sum("tcptrace_sockets", &[("state", "LISTEN")]) > 100
        });
        let labels = |name: &'static str| -> std::collections::BTreeSet<String> {
            let labels = metrics.samples(name).flat_map(|(labels, _)| labels);
            labels.filter(|(name, _)| *name == "port").map(|(_, port)| port.to_owned()).collect()
        };
        let all = labels("tcptrace_sockets");
        assert_eq!((all.len(), all.contains("other")), (51, true), "{all:?}");
        assert!(
            labels("tcptrace_transitions_total").len() <= 51 && labels("tcptrace_resets_total").len() <= 51
        );
        let here =
            all.iter().filter_map(|port| port.parse().ok()).filter(|port| (8_001..=8_100).contains(port));
        assert_eq!(here.count(), 24, "half of 50, but for the port that is scraped: {all:?}");
        // 24 gauges of sockets for a port, and what else there is of it.
        assert!(metrics.0.len() < 51 * 60, "{} samples", metrics.0.len());
        assert_eq!(metrics.sum("tcptrace_lost_records_total", &[]), 0, "{metrics}");
        // What has a label keeps it.
        drop(listeners);
        let later = serve
            .until("no listeners", |metrics| metrics.sum("tcptrace_sockets", &[("state", "LISTEN")]) == 1);
        assert!(metrics.0.keys().all(|sample| later.0.contains_key(sample)));
        serve.stop();
    });
}
