//! What is exposed, against `hist` and against what was done.

use std::{collections::BTreeMap, net::TcpListener, os::fd::OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect as begin_to_connect, socket_with};
use tcptrace::model::state::State;

use crate::{
    hist_cli::{Counts, PORTS, Parked, allow_many_files, by_hist, park},
    support::{
        host::{KERNEL, add_black_hole, sysctl},
        netns::{COMM, scenario},
        serve::{Metrics, Serve},
        tables::Tables,
        tcp::{LOCALHOST, abort, await_reset, close_in_order, connect, pair, read_to_end},
    },
};

/// What the metrics say of the parked ports.
fn by_metrics(metrics: &Metrics) -> Counts {
    let mut counts = Counts::new();
    for (labels, value) in metrics.samples("tcptrace_sockets") {
        let labels: BTreeMap<_, _> = labels.into_iter().collect();
        let role = if labels["role"] == "server" { "server" } else { "client" };
        let (Ok(port), state) = (labels["port"].parse(), labels["state"].parse::<State>().unwrap()) else {
            continue;
        };
        if PORTS.contains(&port) && value > 0.0 {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a count")]
            counts.insert((role, port, state), value as u64);
        }
    }
    counts
}

/// Right from the first page on, TIME_WAIT, minisocks and requests included, whether it was there before or came after.
#[test]
fn the_sockets_are_those_of_hist() {
    scenario(|net| {
        allow_many_files();
        add_black_hole();
        for (name, value) in [
            ("ipv4/tcp_max_syn_backlog", "4096"),
            ("core/somaxconn", "4096"),
            ("ipv4/tcp_syncookies", "0"),
            ("ipv4/tcp_tw_reuse", "0"),
            ("ipv4/tcp_synack_retries", "10"),
        ] {
            sysctl(name, value);
        }
        let mut parked: Vec<Parked> = PORTS[..2].iter().map(|port| park(*port)).collect();
        let serve = Serve::of(net, &[]);
        let hist = || {
            let mut counts = Counts::new();
            let hist = Tables::start(&net.inode().to_string(), &["hist", "1", "1"]);
            hist.until("a table", |table| {
                counts = by_hist(table, net);
                true
            });
            counts.retain(|(_, port, _), _| PORTS.contains(port));
            counts
        };
        let expected = hist();
        // Seven states on each of two ports.
        assert_eq!(expected.len(), 14, "{expected:?}");
        let metrics = serve.metrics();
        assert_eq!(by_metrics(&metrics), expected, "{metrics}");
        for port in &PORTS[..2] {
            for role in ["server", "client"] {
                let port = port.to_string();
                let states = metrics.samples("tcptrace_sockets").filter(|(labels, _)| {
                    labels.contains(&("port", &port)) && labels.contains(&("role", role))
                });
                assert_eq!(states.count(), State::all().count(), "{port} {role}");
            }
        }
        parked.push(park(PORTS[2]));
        let expected = hist();
        assert_eq!(expected.len(), 21, "{expected:?}");
        serve.until("the sockets of hist", |metrics| by_metrics(metrics) == expected);
        drop(parked);
        serve.stop();
    });
}

/// Each thing that happens is counted once, and no counter goes back.
#[test]
fn what_happened_is_counted() {
    scenario(|net| {
        let serve = Serve::of(net, &[]);
        let listener = pair().listener;
        let port = listener.local_addr().unwrap().port().to_string();
        let closed = {
            let closed = TcpListener::bind((LOCALHOST, 0)).unwrap();
            closed.local_addr().unwrap()
        };
        let mut before = serve.metrics();
        for _ in 0..3 {
            for _ in 0..10 {
                let (client, server) = connect(&listener);
                close_in_order(client, server);
            }
            for _ in 0..4 {
                let (client, server) = connect(&listener);
                abort(client);
                await_reset(&server);
            }
            for _ in 0..3 {
                std::net::TcpStream::connect(closed).unwrap_err();
            }
            let metrics = serve.metrics();
            for (sample, value) in &before.0 {
                let name = sample.split('{').next().unwrap();
                let counts = ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end));
                assert!(
                    !counts || metrics.0[sample] >= *value,
                    "{sample}: {value}, then {}",
                    metrics.0[sample]
                );
            }
            before = metrics;
        }
        let count = |metrics: &Metrics, name: &str, labels: &[(&str, &str)]| {
            let labels: Vec<_> =
                [("port", port.as_str())].into_iter().chain(labels.iter().copied()).collect();
            metrics.sum(name, &labels)
        };
        let ended = |metrics: &Metrics| count(metrics, "tcptrace_connections_closed_total", &[]);
        // The pair has ended, too, as one of its ends saw it first.
        let metrics = serve.until("all ends", |metrics| ended(metrics) == 2 * (30 + 12 + 1));
        let closed_by = |role, cause| {
            count(&metrics, "tcptrace_connections_closed_total", &[("role", role), ("cause", cause)])
        };
        let orderly: u64 = ["client", "server"]
            .into_iter()
            .flat_map(|role| {
                ["local_fin", "peer_fin", "simultaneous_close"].map(|cause| closed_by(role, cause))
            })
            .sum();
        assert_eq!(orderly, 2 * 31, "{metrics}");
        assert!(closed_by("client", "local_fin") >= 30 && closed_by("server", "peer_fin") >= 30, "{metrics}");
        assert_eq!(
            (closed_by("server", "peer_rst"), closed_by("client", "local_abort_linger")),
            (12, 12),
            "{metrics}"
        );
        for role in ["client", "server"] {
            assert_eq!(
                count(&metrics, "tcptrace_connections_opened_total", &[("role", role)]),
                43,
                "{metrics}"
            );
        }
        let changes = |from, to| count(&metrics, "tcptrace_transitions_total", &[("from", from), ("to", to)]);
        assert_eq!(
            (changes("LISTEN", "SYN_RECV"), changes("SYN_SENT", "ESTABLISHED")),
            (43, 43),
            "{metrics}"
        );
        assert_eq!(
            (changes("ESTABLISHED", "CLOSE"), changes("CLOSE_WAIT", "LAST_ACK")),
            (24, 31),
            "{metrics}"
        );
        for direction in ["sent", "received"] {
            assert_eq!(
                count(&metrics, "tcptrace_resets_total", &[("direction", direction)]),
                12,
                "{metrics}"
            );
        }
        if KERNEL.stray_resets {
            // From a port that the kernel hands out, where nobody listens any more.
            assert_eq!(metrics.sum("tcptrace_resets_total", &[("reason", "NO_SOCKET")]), 9, "{metrics}");
        }
        assert_eq!(metrics.sum("tcptrace_connections_closed_total", &[("cause", "refused")]), 9, "{metrics}");
        let handshakes = metrics.sum("tcptrace_handshake_seconds_count", &[("role", "client")]);
        let buckets = metrics.sum("tcptrace_handshake_seconds_bucket", &[("role", "client"), ("le", "+Inf")]);
        assert!(handshakes >= 43 && handshakes == buckets, "{metrics}");
        assert!(
            metrics.sum("tcptrace_state_duration_seconds_count", &[("state", "ESTABLISHED")]) >= 86,
            "{metrics}"
        );
        assert_eq!(metrics.sum("tcptrace_lost_records_total", &[]), 0, "{metrics}");
        assert!(metrics.value("tcptrace_process_cpu_seconds_total") > 0.0);
        assert!(metrics.value("tcptrace_process_resident_memory_bytes") > 4e6);
        serve.stop();
    });
}

/// The age of the oldest CLOSE_WAIT, the owner's name, and a filter.
#[test]
fn a_leak_has_an_age_and_a_name() {
    scenario(|net| {
        let (leak, other) = (pair(), pair());
        let port = leak.ends.listener.lport.to_string();
        let serve = Serve::of(net, &["--by-comm", "-P", &port]);
        drop(leak.client);
        assert_eq!(read_to_end(&leak.server), b"");
        let of_it = [("port", port.as_str()), ("comm", COMM), ("role", "server")];
        let waiting = [&of_it[..], &[("state", "CLOSE_WAIT")]].concat();
        let metrics =
            serve.until("one in CLOSE_WAIT", |metrics| metrics.sum("tcptrace_sockets", &waiting) == 1);
        let age = |metrics: &Metrics| {
            let mut of_it = metrics
                .samples("tcptrace_close_wait_oldest_seconds")
                .filter(|(labels, _)| of_it.iter().all(|label| labels.contains(label)));
            of_it.next().unwrap().1
        };
        let young = age(&metrics);
        serve.until("it is older", |metrics| age(metrics) > young);
        let ports = |metrics: &Metrics| {
            let samples = metrics.samples("tcptrace_sockets");
            samples
                .flat_map(|(labels, _)| labels)
                .filter(|(name, _)| *name == "port")
                .all(|(_, at)| at == port)
        };
        assert!(ports(&metrics), "{metrics}");
        drop(leak.server);
        serve.until("none", |metrics| metrics.sum("tcptrace_sockets", &waiting) == 0 && age(metrics) == 0.0);
        drop(other);
        serve.stop();
    });
}

#[test]
fn retransmits_are_counted_and_the_cost_in_the_kernel_when_asked_for() {
    scenario(|net| {
        add_black_hole();
        let plain = Serve::of(net, &[]).metrics();
        assert!(!plain.0.keys().any(|sample| sample.starts_with("tcptrace_kernel_")), "{plain}");
        let serve = Serve::of(net, &["--kernel-stats"]);
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let silent: OwnedFd = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        begin_to_connect(&silent, &"192.0.2.1:7".parse::<std::net::SocketAddr>().unwrap()).unwrap_err();
        let of_it = [("port", "7")];
        let metrics = serve
            .until("a SYN is sent again", |metrics| metrics.sum("tcptrace_retransmits_total", &of_it) > 0);
        assert!(metrics.value("tcptrace_kernel_runs_total") > 0.0, "{metrics}");
        assert!(metrics.value("tcptrace_kernel_seconds_total") > 0.0, "{metrics}");
        drop(silent);
        serve.stop();
    });
}
