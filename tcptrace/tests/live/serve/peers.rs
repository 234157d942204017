//! Prometheus, promtool, curl and openssl, as they are.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::Value;
use socket2::Socket;
use tcptrace::model::doctor;

use crate::{
    hist_cli::{Counts, PORTS, Parked, allow_many_files, by_hist, park},
    programs::Directory,
    support::{
        host::{add_black_hole, run, sysctl},
        netns::scenario,
        process::await_that,
        prometheus::Prometheus,
        serve::{Serve, is_cut_off},
        tables::Tables,
        tcp::{LOCALHOST, abort, await_reset, connect, pair, stream_socket},
    },
};

/// What promtool says of a page; nothing is wrong with it if it says nothing.
fn promtool(page: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the live tests need the program promtool");
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    format!("{}{}", String::from_utf8(said).unwrap(), if output.status.success() { "" } else { "failed" })
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    scenario(|net| {
        let serve = Serve::of(net, &["--by-comm", "--kernel-stats"]);
        let pair = pair();
        abort(pair.client);
        await_reset(&pair.server);
        serve.until("a connection", |metrics| metrics.sum("tcptrace_connections_closed_total", &[]) >= 2);
        assert_eq!(promtool(&serve.get("/metrics").body), "");
        // It does complain.
        assert!(promtool("# TYPE wrong counter\nwrong 1\n").contains("_total"));
        serve.stop();
    });
}

/// A certificate and its key, made by openssl.
fn certificate(directory: &Directory) -> [String; 2] {
    let [certificate, key] =
        ["cert.pem", "key.pem"].map(|name| directory.file(name).to_str().unwrap().to_owned());
    let names = "subjectAltName=IP:127.0.0.1";
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=tcptrace", "-addext", names, "-out", &certificate, "-keyout", &key])
        .output()
        .expect("the live tests need the program openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    [certificate, key]
}

#[test]
fn curl_reads_over_tls_and_only_over_tls() {
    scenario(|net| {
        let directory = Directory::new();
        let [certificate, key] = certificate(&directory);
        let serve = Serve::at("0.0.0.0:9469", net, &["--tls-cert", &certificate, "--tls-key", &key]);
        assert!(serve.said().contains("serving https://"), "{}", serve.said());
        let url = "https://127.0.0.1:9469/metrics";
        for version in ["--tlsv1.2", "--tlsv1.3"] {
            let page = run("curl", &["-sSf", version, "--cacert", &certificate, url]);
            assert!(page.contains("tcptrace_sockets{"), "{page}");
        }
        let fails = |args: &[&str]| {
            !Command::new("curl").args(["-sSf"]).args(args).output().unwrap().status.success()
        };
        assert!(fails(&[url]), "it does not vouch for itself");
        assert!(fails(&["http://127.0.0.1:9469/metrics"]));
        assert!(fails(&["--tlsv1.0", "--tls-max", "1.1", "--cacert", &certificate, url]));
        // Who shakes no hands is cut off.
        assert!(is_cut_off(&serve.dial()));
        serve.stop();
    });
}

/// Connections that come and go, at most: the ring has room for all that they tell, however slowly it is read.
const LOAD: u32 = 20_000;
const BUFFER: &str = "64M";

/// Connections that nobody accepts, on a listener with room for no more.
fn full_queue() -> (Socket, Vec<TcpStream>) {
    let listener: Socket = stream_socket(LOCALHOST);
    listener.bind(&SocketAddr::new(LOCALHOST, 0).into()).unwrap();
    listener.listen(4).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    // One more than the backlog may wait.
    let waiting = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    (listener, waiting)
}

/// Under load: what Prometheus has is what `hist` says, of sockets that stay and of connections that come and go.
#[test]
fn prometheus_has_the_numbers_of_hist() {
    scenario(|net| {
        allow_many_files();
        add_black_hole();
        for (name, value) in [
            ("ipv4/tcp_max_syn_backlog", "4096"),
            ("core/somaxconn", "4096"),
            ("ipv4/tcp_synack_retries", "10"),
        ] {
            sysctl(name, value);
        }
        let serve = Serve::of(net, &["--buffer", BUFFER]);
        let prometheus = Prometheus::of(&serve, None);
        let holds = |what: &str| !Prometheus::query(what).is_empty();
        await_that("Prometheus has a page", || holds("tcptrace_findings"));
        let (rules, severities) = (doctor::RULES.len(), doctor::Severity::ALL.len());
        assert!(holds(&format!("count(tcptrace_findings) == {}", rules * severities)), "{}", serve.metrics());
        assert!(holds("sum(tcptrace_findings) == 0"), "{}", serve.metrics());
        let queue = full_queue();
        let parked: Vec<Parked> = PORTS.iter().map(|port| park(*port)).collect();
        let load = pair().listener;
        let port = load.local_addr().unwrap().port();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let loading = scope.spawn(|| {
                net.enter(|| {
                    let mut count = 0_u32;
                    while count < LOAD && !over.load(Ordering::Relaxed) {
                        let (client, server) = connect(&load);
                        abort(client);
                        await_reset(&server);
                        count += 1;
                    }
                    count
                })
            });
            let hist = Tables::start(&net.inode().to_string(), &["hist", "1", "1"]);
            let mut expected = Counts::new();
            hist.until("a table", |table| {
                expected = by_hist(table, net);
                true
            });
            await_that("Prometheus has the sockets of hist", || {
                PORTS.iter().all(|port| {
                    let series = Prometheus::query(&format!("tcptrace_sockets{{port=\"{port}\"}} > 0"));
                    let text = |series: &Value, label: &str| series[label].as_str().unwrap().to_owned();
                    let found = series.iter().map(|(labels, count)| {
                        let role = if text(labels, "role") == "server" { "server" } else { "client" };
                        #[expect(
                            clippy::cast_possible_truncation,
                            clippy::cast_sign_loss,
                            reason = "it is a count"
                        )]
                        ((role, *port, text(labels, "state").parse().unwrap()), *count as u64)
                    });
                    let expected = expected.iter().filter(|((_, of, _), _)| of == port);
                    found.collect::<std::collections::BTreeMap<_, _>>()
                        == expected.map(|(key, count)| (*key, *count)).collect()
                })
            });
            over.store(true, Ordering::Relaxed);
            let count = loading.join().unwrap();
            let of_it = [("port", &*port.to_string()), ("cause", "peer_rst")];
            serve.until("all connections", |metrics| {
                metrics.sum("tcptrace_connections_closed_total", &of_it) == u64::from(count)
            });
            let closed = format!("tcptrace_connections_closed_total{{port=\"{port}\",cause=\"peer_rst\"}}");
            await_that("Prometheus has all connections", || holds(&format!("sum({closed}) == {count}")));
        });
        let finding = "tcptrace_findings{rule=\"accept-queue-full\",severity=\"critical\"} == 1";
        await_that("Prometheus has the finding", || holds(finding));
        drop(queue);
        assert!(holds("sum(tcptrace_lost_records_total) == 0"), "{}{}", serve.metrics(), serve.said());
        assert_eq!(promtool(&serve.get("/metrics").body), "");
        prometheus.stop();
        drop(parked);
        serve.stop();
    });
}
