//! What `serve` exposes, in the text formats of OpenMetrics and of Prometheus. docs/metrics.md has each metric.

use std::{borrow::Cow, fmt, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet, prometheus_text,
        text,
    },
    metrics::MetricType,
    registry::{Registry, Unit},
};
use tcptrace_common::record::Kind;

use crate::model::{
    cause::Cause,
    container::Home,
    doctor::Severity,
    loss::Loss,
    state::State,
    tally::meter::{Buckets, Counts, Label, Resets, Service, Side},
};

/// The label of all that has none of its own.
const OTHER: &str = "other";
/// The label of what is not known.
const UNKNOWN: &str = "unknown";
/// Records that found no room in the ring, by their kind.
const FULL: [&str; Kind::COUNT] = [
    "full_transition",
    "full_close",
    "full_rst_sent",
    "full_rst_received",
    "full_retransmit",
    "full_retransmit_synack",
];

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own, 0.0.4.
    Prometheus,
}

impl Format {
    /// What it is called in HTTP.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// All that a scrape shows.
#[derive(Debug)]
pub struct Exposition {
    /// What happened, and what is there.
    pub counts: Counts,
    /// Whether labels have the owner's name.
    pub by_comm: bool,
    /// Whether labels have the container or unit.
    pub by_container: bool,
    /// How much is wrong on this host, by rule.
    pub findings: Vec<(&'static str, Severity, u64)>,
    /// Events so far.
    pub events: u64,
    /// Lost so far.
    pub lost: Loss,
    /// The kernel's release.
    pub kernel: String,
    /// CPU time of this process, in ns.
    pub cpu_ns: u64,
    /// Its resident memory, in bytes.
    pub memory: u64,
    /// How often the probes ran, and for how long, where the kernel keeps statistics.
    pub runs: Option<(u64, Duration)>,
    /// How many sockets may be in TIME_WAIT, where the kernel tells.
    pub time_wait_limit: Option<u64>,
}

/// It as a registry, which is what can be encoded.
#[must_use]
pub fn registry(exposition: Exposition) -> Registry {
    let mut registry = Registry::with_prefix("tcptrace");
    registry.register_collector(Box::new(exposition));
    registry
}

/// The text of what is registered.
#[must_use]
pub fn encode(registry: &Registry, format: Format) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail, nor does anything of ours.
    let _ = match format {
        Format::OpenMetrics => text::encode(&mut out, registry),
        Format::Prometheus => prometheus_text::encode(&mut out, registry),
    };
    out
}

impl Collector for Exposition {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let services: Vec<Named<'_>> =
            self.counts.services.iter().map(|service| Named::new(service, self)).collect();
        standing(&mut to, &services)?;
        happened(&mut to, &services)?;
        self.times(&mut to)?;
        findings(&mut to, &self.findings)?;
        self.own(&mut to)
    }
}

/// The sockets that there are.
fn standing(to: &mut DescriptorEncoder<'_>, services: &[Named<'_>]) -> fmt::Result {
    let mut family = gauge(to, "sockets", "Sockets in each state", None)?;
    for (named, role, side) in sides(services) {
        for state in State::all() {
            let count = side.sockets.get(usize::from(state.number())).copied().unwrap_or(0);
            family.gauge(&named.with(&[("role", role), ("state", state.name())]), count)?;
        }
    }
    let help = "How long the socket that has been there longest is in CLOSE_WAIT; 0 if there is none";
    let mut family = gauge(to, "close_wait_oldest", help, Some(&Unit::Seconds))?;
    for (named, role, side) in sides(services) {
        family.gauge(&named.with(&[("role", role)]), seconds(side.oldest_close_wait_ns))?;
    }
    Ok(())
}

/// What happened.
fn happened(to: &mut DescriptorEncoder<'_>, services: &[Named<'_>]) -> fmt::Result {
    let mut family = counter(to, "transitions", "Changes of state", None)?;
    for named in services {
        for (from, row) in (0..).zip(named.service.transitions.iter()) {
            for (to, count) in (0..).zip(row).filter(|(_, count)| **count > 0) {
                let (Some(from), Some(to)) = (State::from_kernel(from), State::from_kernel(to)) else {
                    continue;
                };
                family.counter(&named.with(&[("from", from.name()), ("to", to.name())]), *count)?;
            }
        }
    }
    let mut family = counter(to, "resets", "RSTs sent and received, with the kernel's reason", None)?;
    for named in services {
        for Resets { sent, reason, count } in &named.service.resets {
            let direction = if *sent { "sent" } else { "received" };
            let reason = reason.as_deref().unwrap_or(UNKNOWN);
            family.counter(&named.with(&[("direction", direction), ("reason", reason)]), *count)?;
        }
    }
    let mut family = counter(to, "connections_opened", "Connections opened", None)?;
    for (named, role, side) in sides(services) {
        family.counter(&named.with(&[("role", role)]), side.opened)?;
    }
    let mut family = counter(to, "connections_closed", "Connections that ended, and why", None)?;
    for (named, role, side) in sides(services) {
        for (cause, count) in Cause::ALL.iter().zip(side.closed).filter(|(_, count)| *count > 0) {
            family.counter(&named.with(&[("cause", cause.name()), ("role", role)]), count)?;
        }
    }
    let mut family = counter(to, "retransmits", "Segments and SYN-ACKs sent again", None)?;
    for named in services {
        family.counter(&named.with(&[]), named.service.retransmits)?;
    }
    Ok(())
}

/// What is wrong.
fn findings(to: &mut DescriptorEncoder<'_>, findings: &[(&str, Severity, u64)]) -> fmt::Result {
    let mut family = gauge(to, "findings", "What is wrong on this host, as doctor finds it", None)?;
    for (rule, severity, count) in findings {
        family.gauge(&[("rule", *rule), ("severity", severity.name())], *count)?;
    }
    Ok(())
}

impl Exposition {
    /// How long things took.
    fn times(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "How long connections stayed in a state that they left";
        let mut family = histogram(to, "state_duration", help)?;
        for (state, buckets) in self.counts.durations() {
            family.histogram(&[("state", state.name())], buckets)?;
        }
        let help = "From SYN_SENT (client) or SYN_RECV (server) to ESTABLISHED";
        let mut family = histogram(to, "handshake", help)?;
        for (role, buckets) in self.counts.handshakes() {
            family.histogram(&[("role", role.name())], buckets)?;
        }
        Ok(())
    }

    /// About tcptrace itself.
    fn own(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let second = Some(&Unit::Seconds);
        counter(to, "events", "Events seen and not filtered out", None)?.counter(&[], self.events)?;
        let mut family = counter(to, "lost_records", "Events that were not seen, and why", None)?;
        let Loss { full, skipped, unreadable, gaps, beyond } = self.lost;
        for (kind, count) in FULL.into_iter().zip(full) {
            family.counter(&[("kind", kind)], count)?;
        }
        for (kind, count) in
            [("skipped", skipped), ("unreadable", unreadable), ("gaps", gaps), ("beyond", beyond)]
        {
            family.counter(&[("kind", kind)], count)?;
        }
        if let Some(limit) = self.time_wait_limit {
            let help = "How many sockets may be in TIME_WAIT in a network namespace (tcp_max_tw_buckets)";
            gauge(to, "time_wait_limit", help, None)?.gauge(&[], limit)?;
        }
        if let Some((runs, time)) = self.runs {
            counter(to, "kernel_runs", "How often the probes ran", None)?.counter(&[], runs)?;
            let help = "CPU time that the probes took in the kernel";
            counter(to, "kernel", help, second)?.counter(&[], time.as_secs_f64())?;
        }
        let help = "CPU time that tcptrace took, without its probes";
        counter(to, "process_cpu", help, second)?.counter(&[], seconds(self.cpu_ns))?;
        let help = "Resident memory of tcptrace, with the ring";
        gauge(to, "process_resident_memory", help, Some(&Unit::Bytes))?.gauge(&[], self.memory)?;
        let version = env!("CARGO_PKG_VERSION");
        to.encode_descriptor("build", "This tcptrace, and the kernel under it", None, MetricType::Info)?
            .encode_info(&[("version", version), ("kernel", &self.kernel)])
    }
}

/// A service, and its labels as text.
struct Named<'a> {
    service: &'a Service,
    port: String,
    comm: Option<Cow<'a, str>>,
    container: Option<&'a str>,
}

impl<'a> Named<'a> {
    fn new(service: &'a Service, exposition: &Exposition) -> Self {
        let Label { port, comm, container } = &service.label;
        let comm = || match (port, comm) {
            (None, _) => OTHER.into(),
            (_, None) => UNKNOWN.into(),
            (_, Some(comm)) => comm.text(),
        };
        let container = || match (port, container) {
            (None, _) => OTHER,
            (_, None) => UNKNOWN,
            (_, Some(Home(path))) => path.home(),
        };
        Self {
            service,
            port: port.map_or(OTHER.to_owned(), |port| port.to_string()),
            comm: exposition.by_comm.then(comm),
            container: exposition.by_container.then(container),
        }
    }

    /// Its labels and more.
    fn with<'b>(&'b self, more: &[(&'static str, &'b str)]) -> Vec<(&'static str, &'b str)> {
        let comm = self.comm.as_deref().map(|comm| ("comm", comm));
        let container = self.container.map(|container| ("container", container));
        let own = [("port", self.port.as_str())].into_iter().chain(comm).chain(container);
        own.chain(more.iter().copied()).collect()
    }
}

/// What there ever was anything to count of, with the role.
fn sides<'a>(services: &'a [Named<'a>]) -> impl Iterator<Item = (&'a Named<'a>, &'static str, &'a Side)> {
    let sides =
        |named: &'a Named<'a>| named.service.sides().map(move |(role, side)| (named, role.name(), side));
    services.iter().flat_map(sides)
}

/// The samples of a metric.
struct Family<'a>(MetricEncoder<'a>);

impl Family<'_> {
    fn gauge(&mut self, labels: &[(&str, &str)], value: impl EncodeGaugeValue + Copy) -> fmt::Result {
        self.0.encode_family(&labels)?.encode_gauge(&value)
    }

    fn counter(&mut self, labels: &[(&str, &str)], value: impl EncodeCounterValue + Copy) -> fmt::Result {
        self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn histogram(&mut self, labels: &[(&str, &str)], buckets: &Buckets) -> fmt::Result {
        let bounds: Vec<(f64, u64)> = buckets.seconds().collect();
        let (sum, count) = (buckets.sum_seconds(), buckets.count());
        self.0.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &bounds, None)
    }
}

fn gauge<'a>(
    to: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
    unit: Option<&'a Unit>,
) -> Result<Family<'a>, fmt::Error> {
    to.encode_descriptor(name, help, unit, MetricType::Gauge).map(Family)
}

/// The name is without `_total`, which the encoder adds.
fn counter<'a>(
    to: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
    unit: Option<&'a Unit>,
) -> Result<Family<'a>, fmt::Error> {
    to.encode_descriptor(name, help, unit, MetricType::Counter).map(Family)
}

/// Of seconds.
fn histogram<'a>(
    to: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<Family<'a>, fmt::Error> {
    to.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram).map(Family)
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}
