//! `tcptrace serve`, as a child, and what it answers.

use std::{
    collections::BTreeMap,
    fmt,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use rustix::process::Signal;

use super::{
    PATIENCE,
    netns::Netns,
    process::{Lines, Process, Watched, lines_of},
    trace::await_attached,
};

/// A tcptrace that serves.
pub(crate) struct Serve {
    process: Process,
    stdout: Arc<Watched<Lines>>,
    stderr: Arc<Watched<Lines>>,
    address: SocketAddr,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Samples by their name and labels, as they stand in the text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(pub(crate) BTreeMap<String, f64>);

impl Serve {
    /// Watches a network namespace, in which it listens on a port of its own. What was there before is known when this
    /// returns.
    pub(crate) fn of(net: &Netns, args: &[&str]) -> Self {
        Self::at("127.0.0.1:0", net, args)
    }

    /// The same, where it is told to listen.
    pub(crate) fn at(listen: &str, net: &Netns, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.args(["serve", "-v", "--listen", listen, "-N", &net.inode().to_string()]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (process, pipes) = Process::start(&mut command);
        let (stdout, stderr) = (lines_of(pipes.stdout.unwrap()), lines_of(pipes.stderr.unwrap()));
        await_attached(&stderr);
        let address = {
            let told = &stderr.lock().lines;
            let url = told.iter().find_map(|line| line.split_once("serving http")).unwrap().1;
            let host = url.trim_start_matches('s').strip_prefix("://").unwrap();
            host.strip_suffix("/metrics").unwrap().parse().unwrap()
        };
        Self { process, stdout, stderr, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// What it said.
    pub(crate) fn said(&self) -> String {
        self.stderr.lock().lines.join("\n")
    }

    /// A connection on which nothing was sent yet.
    pub(crate) fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The answer to a request; `None` if there is none, or only a part of it.
    pub(crate) fn ask(&self, request: &str) -> Option<Answer> {
        ask(self.address, request)
    }

    /// The answer to a GET.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .unwrap_or_else(|| panic!("no answer for {path}\n{}", self.said()))
    }

    /// The metrics now.
    pub(crate) fn metrics(&self) -> Metrics {
        let Answer { status, head, body } = self.get("/metrics");
        assert_eq!(status, 200, "{head}\n{body}");
        Metrics::parse(&body)
    }

    /// Waits until the metrics satisfy a predicate. Returns them.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&Metrics) -> bool) -> Metrics {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics();
            if holds(&metrics) {
                return metrics;
            }
            assert!(Instant::now() < deadline, "not after {PATIENCE:?}: {what}\n{metrics}\n{}", self.said());
        }
    }

    /// Ends the run as systemd does; it must end well, without a loss, and nothing may have been printed.
    pub(crate) fn stop(mut self) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait();
        self.stderr.wait(|lines| lines.closed);
        assert!(status.success(), "{status}\n{}", self.said());
        assert!(self.said().contains(" events, 0 lost, "), "{}", self.said());
        assert!(!self.said().contains("panicked"), "{}", self.said());
        self.stdout.wait(|lines| lines.closed);
        assert_eq!(self.stdout.lock().lines, Vec::<String>::new());
    }
}

/// The answer of a server to a request; `None` if there is none, or only a part of it.
pub(crate) fn ask(address: SocketAddr, request: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).ok()?;
    answer_of(&mut stream)
}

/// Waits until the server closes a connection on which it said nothing. False if it does not, or says something.
pub(crate) fn is_cut_off(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// What comes on a connection until it is closed.
pub(crate) fn answer_of(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    // A RST after the answer takes nothing from it.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let whole = length.is_none_or(|length: usize| length == body.len());
    let status = head.split(' ').nth(1)?.parse().ok()?;
    whole.then(|| Answer { status, head: head.to_owned(), body: body.to_owned() })
}

impl Metrics {
    /// Reads either format.
    pub(crate) fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
        });
        Self(samples.collect())
    }

    /// The sum of a metric's samples that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let of_it = self.samples(name).filter(|(has, _)| labels.iter().all(|label| has.contains(label)));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only counts are summed")]
        of_it.map(|(_, value)| value as u64).sum()
    }

    /// A metric's samples: labels and value. No label of a test has a comma in it.
    pub(crate) fn samples<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (Vec<(&'a str, &'a str)>, f64)> + 'a {
        self.0.iter().filter_map(move |(sample, value)| {
            let rest = sample.strip_prefix(name)?;
            let labels = if rest.is_empty() { "" } else { rest.strip_prefix('{')?.strip_suffix('}')? };
            let labels = labels.split(',').filter_map(|label| label.split_once('='));
            Some((labels.map(|(name, value)| (name, value.trim_matches('"'))).collect(), *value))
        })
    }

    /// The value of a metric's one sample.
    pub(crate) fn value(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no {name}\n{self}"))
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .filter(|(_, value)| **value != 0.0)
            .try_for_each(|(name, value)| writeln!(f, "{name} {value}"))
    }
}
