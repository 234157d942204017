//! The flags. Each command's help stands on its own in 80 columns.

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use clap::{Arg, Args, Parser, Subcommand, ValueEnum};

use super::{
    serve::{SERVE_EXAMPLES, Serve},
    values::{self, Blocks, Causes, Names, Numbers, Ports, StateTimes, States},
};
use crate::{
    kernel::{KernelError, cgroup, netns},
    model::{
        doctor::Setting,
        event::printable,
        filter::{Family, Filter},
        tally::{By, Sort},
    },
};

const EXAMPLES: &str = "\
Examples:
  sudo tcptrace                        every transition and every RST, live
  sudo tcptrace -L 443                 the connections of this host's port 443
  sudo tcptrace -p 4123 --state close-wait
                                       where process 4123 enters or leaves CLOSE_WAIT
  sudo tcptrace --raddr 10.0.0.0/8 -o json > events.json
  sudo tcptrace -N web -c 100          100 events in the network namespace web
  sudo tcptrace -r -d 10s              10 seconds, with retransmits
  sudo tcptrace conns                  a line per connection when it ends, and why it did
  sudo tcptrace hist 1                 sockets per port and state, every second
  sudo tcptrace rst                    who sends RSTs, and why
  sudo tcptrace top                    all of that live, on the terminal
  sudo tcptrace doctor                 what is wrong here, and what to do
  sudo tcptrace serve                  all that is counted, for Prometheus to scrape
  tcptrace explain close-wait          what a word means, and what to do about it
  sudo tcptrace probes                 what this kernel lets be seen, and a self-test

Exit status: 0 done; 1 could not run; 2 wrong usage; 3 events lost with --strict.";

const CONNS_EXAMPLES: &str = "\
Examples:
  sudo tcptrace conns                  every connection when it ends
  sudo tcptrace conns -w -L 443        those of this host's port 443, with the time in each state
  sudo tcptrace conns --live           first those that are open now
  sudo tcptrace conns --cause peer_rst,timeout
  sudo tcptrace conns --state-times close-wait=10s
                                       those that waited 10 s for this host to close

Exit status: 0 done; 1 could not run; 2 wrong usage; 3 events lost with --strict.";

const HIST_EXAMPLES: &str = "\
Examples:
  sudo tcptrace hist 1                 every second, a row for each port
  sudo tcptrace hist 1 1               once, at once
  sudo tcptrace hist 5 --sort close-wait --top 10
                                       every 5 s, the ten ports with most in CLOSE_WAIT
  sudo tcptrace hist 1 --by comm       a row for each command name
  sudo tcptrace hist -d 60s --time-in-state -L 443
                                       how long port 443 stays in each state
  sudo tcptrace hist -d 10s --matrix   which state followed which

A row `443` is this host's service, `to 5432` what a process here has open to others.
With a narrow terminal, columns of states that no socket is in give way; -w keeps all.

Exit status: 0 done; 1 could not run; 2 wrong usage; 3 events lost with --strict.";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  tcptrace explain                     the states, and every word that there is a page for
  tcptrace explain close-wait          why sockets pile up in CLOSE_WAIT, and what helps
  tcptrace explain NO_SOCKET           why this host sends such RSTs
  tcptrace explain handshake           how connections open; `teardown`: how they close

Exit status: 0 done; 1 could not run; 2 wrong usage, or a word that nothing is known of.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  sudo tcptrace doctor                 looks for 10 s, then says what is wrong, and what to do
  sudo tcptrace doctor -d 1m -N web    longer, and only in the network namespace web
  sudo tcptrace doctor --set close-wait-leak.age=30s
  tcptrace doctor --rules              what it looks for, and from where on; needs no root
  tcptrace explain close-wait-leak     all about a finding

Exit status: 0 nothing wrong; 10 warnings; 11 something critical; 1 could not run;
2 wrong usage; 3 events lost with --strict.";

const RST_EXAMPLES: &str = "\
Examples:
  sudo tcptrace rst                    until Ctrl-C, then the ledger
  sudo tcptrace rst 5                  every 5 s
  sudo tcptrace rst -d 60s -o json     a minute, an object for each row

Exit status: 0 done; 1 could not run; 2 wrong usage; 3 events lost with --strict.";

const PROBES_EXAMPLES: &str = "\
Examples:
  sudo tcptrace probes                 what is attached, a self-test, the cost
  sudo tcptrace probes -o json         an object for each line of that

The self-test makes three connections on 127.0.0.1 and looks for each of their
events. 200 more tell the cost; the kernel keeps statistics of BPF programs then.

Exit status: 0 all is seen; 1 could not run, or not all is seen; 2 wrong usage.";

const RECORD_EXAMPLES: &str = "\
Examples:
  sudo tcptrace record -O /var/lib/tcptrace
                                       a file each minute, by host and hour
  sudo tcptrace record -O . -d 10m -L 443
                                       ten minutes of port 443
  sudo tcptrace record -O DIR --rotate 10s
                                       a crash costs 10 s at most
  tcptrace hist --from DIR             what port was in which state, at the end
  tcptrace hist 1 --from DIR           the same for every second
  tcptrace conns --from DIR --cause peer_rst
  duckdb -c \"SELECT kind, count(*) FROM 'DIR/**/*.parquet' GROUP BY 1\"

A file is complete when it appears: it is written under a hidden name, and
renamed when it is on the disk. So a crash, or kill -9, costs what came after
the last file: --rotate at most, and the moment that finishing a file takes.
docs/recordings.md has the columns.

Exit status: 0 done; 1 could not run; 2 wrong usage; 3 events lost with --strict.";

const TOP_EXAMPLES: &str = "\
Examples:
  sudo tcptrace top                    all of this host
  sudo tcptrace top -N web -L 443      one port in one network namespace

Keys: 1 ports, 2 owners, 3 RSTs, 4 stream, Enter opens, Esc goes back, / filters, s sorts,
space pauses, ? shows all keys, q ends.

Exit status: 0 done; 1 could not run; 2 wrong usage; 3 events lost with --strict.";

/// Watches the Linux kernel change the state of every TCP socket, live: a line for every transition and
/// every RST, which connection, whose, from which state to which, and how long it had been there
#[derive(Clone, Debug, Parser)]
#[command(name = "tcptrace", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub struct Cli {
    /// What to do; `trace` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The flags of `trace`.
    #[command(flatten)]
    pub trace: Trace,
}

/// A command.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Prints every transition and every RST as it happens (the default)
    #[command(after_help = EXAMPLES, max_term_width = 100)]
    Trace(Trace),
    /// Prints a line per connection when it ends: whose, how long, how much, and why it ended
    #[command(after_help = CONNS_EXAMPLES, max_term_width = 100)]
    Conns(Conns),
    /// Prints how many sockets each port has in each state, and what happens there
    #[command(after_help = HIST_EXAMPLES, max_term_width = 100)]
    Hist(Hist),
    /// Prints the ledger of RSTs: who sent them, why, from which state, how many
    #[command(after_help = RST_EXAMPLES, max_term_width = 100)]
    Rst(Rst),
    /// Looks for 10 s (or as -d says), then tells what is wrong on this host, with evidence and the remedy
    #[command(after_help = DOCTOR_EXAMPLES, max_term_width = 100, mut_args(hide_source))]
    Doctor(Doctor),
    /// Records all of that into Parquet files, for --from and for SQL
    #[command(after_help = RECORD_EXAMPLES, max_term_width = 100, mut_args(hide_printing))]
    Record(Record),
    /// Prints what this kernel lets tcptrace see, proves it, and says what it costs
    #[command(after_help = PROBES_EXAMPLES, max_term_width = 100)]
    Probes(Probes),
    /// Shows all of that live, on the terminal
    #[command(after_help = TOP_EXAMPLES, max_term_width = 100)]
    Top(Top),
    /// Serves what it counts to Prometheus, over HTTP
    #[command(after_help = SERVE_EXAMPLES, max_term_width = 100, mut_args(hide_source))]
    Serve(Serve),
    /// Explains a state, a cause, a RST reason, a finding, a metric or a word of tcptrace's; needs no root
    #[command(after_help = EXPLAIN_EXAMPLES, max_term_width = 100)]
    Explain(Explain),
    /// Attaches a program that does nothing, until a signal comes: what any tracer costs at least (cargo xtask bench)
    #[command(hide = true)]
    Empty,
}

impl Command {
    /// The flags that all watching commands have, if it watches.
    #[must_use]
    pub fn shared(&self) -> Option<&Shared> {
        match self {
            Self::Trace(args) => Some(&args.shared),
            Self::Conns(args) => Some(&args.shared),
            Self::Hist(args) => Some(&args.shared),
            Self::Rst(args) => Some(&args.shared),
            Self::Top(args) => Some(&args.shared),
            Self::Doctor(args) => Some(&args.shared),
            Self::Serve(args) => Some(&args.shared),
            Self::Record(args) => Some(&args.shared),
            Self::Probes(_) | Self::Explain(_) | Self::Empty => None,
        }
    }
}

/// The flags of `top`.
#[derive(Clone, Debug, Args)]
pub struct Top {
    /// What all watching commands share.
    #[command(flatten)]
    pub shared: Shared,
}

/// The flags of `doctor`.
#[derive(Clone, Debug, Args)]
pub struct Doctor {
    /// From where on something is a finding: close-wait-leak.age=30s (may be repeated)
    #[arg(long, value_name = "RULE.THRESHOLD=VALUE", help_heading = RULES)]
    pub set: Vec<Setting>,

    /// A file that sets such thresholds; without it /etc/tcptrace/doctor.toml, if it is there
    #[arg(long, value_name = "FILE", help_heading = RULES)]
    pub config: Option<PathBuf>,

    /// Instead: list the rules and their thresholds
    #[arg(long, help_heading = RULES)]
    pub rules: bool,

    /// What all watching commands share.
    #[command(flatten)]
    pub shared: Shared,
}

/// The flags of `record`.
#[derive(Clone, Debug, Args)]
pub struct Record {
    /// The folder to write to; made if it is not there
    #[arg(short = 'O', long = "directory", value_name = "DIR", help_heading = RECORDING)]
    pub directory: PathBuf,

    /// Begin a new file this often, at whole minutes for 60s; a crash costs that much at most
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = values::rotation, help_heading = RECORDING)]
    pub rotate: Duration,

    /// Begin a new file before this one grows much larger
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = values::bytes, help_heading = RECORDING)]
    pub max_file_size: u32,

    /// The name of this host in folders, instead of its own
    #[arg(long, value_name = "NAME", help_heading = RECORDING)]
    pub host: Option<String>,

    /// Record retransmitted segments and SYN-ACKs too
    #[arg(short = 'r', long, help_heading = RECORDING)]
    pub retransmits: bool,

    /// What all watching commands share.
    #[command(flatten)]
    pub shared: Shared,
}

/// Leaves --from out of a help.
fn hide_source(arg: Arg) -> Arg {
    if arg.get_help_heading() == Some(SOURCE) { arg.hide(true) } else { arg }
}

/// Leaves flags of what prints out of a help, too.
fn hide_printing(arg: Arg) -> Arg {
    let arg = hide_source(arg);
    if arg.get_help_heading() == Some(OUTPUT) { arg.hide(true) } else { arg }
}

/// The flags of `explain`.
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// What to explain: close-wait, peer_rst, NO_SOCKET, a finding, a metric, handshake ...; without it: the state machine and all words
    #[arg(value_name = "WORD")]
    pub word: Vec<String>,
    /// text or json (an object)
    #[arg(short, long, value_name = "FORMAT", default_value = "text", hide_possible_values = true, help_heading = OUTPUT)]
    pub output: Format,
    /// When to use colours: auto, always, never
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_possible_values = true, help_heading = OUTPUT)]
    pub color: Color,
}

/// The flags of `probes`.
#[derive(Clone, Debug, Args)]
pub struct Probes {
    /// text or json (an object per line)
    #[arg(short, long, value_name = "FORMAT", default_value = "text", hide_possible_values = true, help_heading = OUTPUT)]
    pub output: Format,
    /// Size of the ring that the kernel writes events into, made a power of two
    #[arg(long, value_name = "SIZE", default_value = "4M", value_parser = values::bytes, help_heading = OTHER)]
    pub buffer: u32,
    /// Say more on stderr; up to -vvv
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = OTHER)]
    pub verbose: u8,
}

/// When to print, of the commands that print tables.
#[derive(Clone, Copy, Debug, Args)]
pub struct Periods {
    /// Print every so many seconds (or 500ms, 2m), beginning at once; without it, once at the end
    #[arg(value_name = "INTERVAL", value_parser = values::interval)]
    pub interval: Option<Duration>,

    /// Stop after so many tables
    #[arg(value_name = "TABLES", requires = "interval", value_parser = values::tables)]
    pub tables: Option<NonZeroU64>,
}

/// The flags of `hist`.
#[derive(Clone, Debug, Args)]
pub struct Hist {
    /// When to print.
    #[command(flatten)]
    pub periods: Periods,

    /// What makes a row: port, pid, comm, cgroup, container, netns, raddr or cause
    #[arg(long, value_name = "WHAT", default_value = "port", value_parser = values::by, help_heading = "Tables")]
    pub by: By,

    /// Order of the rows: sockets, a state, opened, closed, rst, oldest (CLOSE_WAIT) or port
    #[arg(long, value_name = "COLUMN", default_value = "sockets", value_parser = values::sort, help_heading = "Tables")]
    pub sort: Sort,

    /// Only the first N rows; the others are summed
    #[arg(long, value_name = "N", default_value = "50", help_heading = "Tables")]
    pub top: usize,

    /// Instead: how long connections stayed in each state, as histograms
    #[arg(long, help_heading = "Tables")]
    pub time_in_state: bool,

    /// Instead: how often each state followed each other
    #[arg(long, conflicts_with = "time_in_state", help_heading = "Tables")]
    pub matrix: bool,

    /// What all watching commands share.
    #[command(flatten)]
    pub shared: Shared,
}

/// The flags of `rst`.
#[derive(Clone, Debug, Args)]
pub struct Rst {
    /// When to print.
    #[command(flatten)]
    pub periods: Periods,

    /// Only the first N rows
    #[arg(long, value_name = "N", default_value = "50", help_heading = "Tables")]
    pub top: usize,

    /// What all watching commands share.
    #[command(flatten)]
    pub shared: Shared,
}

/// The flags of `conns`.
#[derive(Clone, Debug, Args)]
pub struct Conns {
    /// Begin with the connections that are open now
    #[arg(long, help_heading = "Connections")]
    pub live: bool,

    /// Only connections that lasted so many ms at least
    #[arg(long, value_name = "MS", help_heading = "Connections")]
    pub min_ms: Option<u64>,

    /// Only connections that ended like this: peer_rst,refused,timeout
    #[arg(long, value_name = "CAUSES", help_heading = "Connections")]
    pub cause: Option<Causes>,

    /// Only connections that spent so long in one of these states: close-wait=10s
    #[arg(long, value_name = "STATE=TIME", help_heading = "Connections")]
    pub state_times: Option<StateTimes>,

    /// What all watching commands share.
    #[command(flatten)]
    pub shared: Shared,
}

/// The flags of `trace`.
#[derive(Clone, Debug, Args)]
pub struct Trace {
    /// Show retransmitted segments and SYN-ACKs too
    #[arg(short = 'r', long, help_heading = "Events")]
    pub retransmits: bool,

    /// Repeat the kernel's own words: CLOSE where a connection goes on in TIME_WAIT or as an orphan in
    /// FIN_WAIT2, and transitions from a state to itself
    #[arg(long, conflicts_with = "from", help_heading = "Events")]
    pub raw: bool,

    /// What all watching commands share.
    #[command(flatten)]
    pub shared: Shared,
}

/// An output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Text,
    /// One object per line.
    Json,
    /// A table with a header.
    Csv,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The flags that every watching command has.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Clone, Debug, Args)]
pub struct Shared {
    /// Processes that own the socket
    #[arg(short, long, value_name = "PIDS", help_heading = FILTERS)]
    pub pid: Option<Numbers>,
    /// Command names of the owner
    #[arg(long, value_name = "NAMES", help_heading = FILTERS)]
    pub comm: Option<Names>,
    /// This host's ports: 443, 80,8000-8099
    #[arg(short = 'L', long, value_name = "PORTS", help_heading = FILTERS)]
    pub lport: Option<Ports>,
    /// The peer's ports
    #[arg(short = 'D', long, value_name = "PORTS", help_heading = FILTERS)]
    pub rport: Option<Ports>,
    /// Ports on either side
    #[arg(short = 'P', long, value_name = "PORTS", help_heading = FILTERS)]
    pub port: Option<Ports>,
    /// This host's addresses: 10.0.0.5, 10.0.0.0/8, 2001:db8::/32
    #[arg(long, value_name = "ADDRS", help_heading = FILTERS)]
    pub laddr: Option<Blocks>,
    /// The peer's addresses
    #[arg(long, value_name = "ADDRS", help_heading = FILTERS)]
    pub raddr: Option<Blocks>,
    /// Addresses on either side
    #[arg(long, value_name = "ADDRS", help_heading = FILTERS)]
    pub addr: Option<Blocks>,
    /// IPv4 only, on IPv6 sockets too
    #[arg(short = '4', long, conflicts_with = "ipv6", help_heading = FILTERS)]
    pub ipv4: bool,
    /// IPv6 only
    #[arg(short = '6', long, help_heading = FILTERS)]
    pub ipv6: bool,
    /// Network namespaces: a name of `ip netns`, an inode number, a path, or pid:N
    #[arg(short = 'N', long, value_name = "NETNS", help_heading = FILTERS)]
    pub netns: Option<Names>,
    /// A cgroup and all below it: /system.slice/nginx.service (may be repeated)
    #[arg(long, value_name = "PATH", help_heading = FILTERS)]
    pub cgroup: Vec<String>,
    /// Containers, by the first digits of their ids, and systemd units: 0bacbe1, nginx, worker@1.service
    #[arg(long, value_name = "NAMES", help_heading = FILTERS)]
    pub container: Option<Names>,
    /// Users that own the socket, by number
    #[arg(long, value_name = "UIDS", help_heading = FILTERS)]
    pub uid: Option<Numbers>,
    /// Only events that enter, leave or hit one of these states: close-wait, TIME_WAIT, ESTAB
    #[arg(long, value_name = "STATES", help_heading = FILTERS)]
    pub state: Option<States>,

    /// text, json (an object per line) or csv
    #[arg(short, long, value_name = "FORMAT", default_value = "text", hide_possible_values = true, help_heading = OUTPUT)]
    pub output: Format,
    /// More columns, and room for IPv6
    #[arg(short, long, help_heading = OUTPUT)]
    pub wide: bool,
    /// Time as seconds since the start, even where the terminal is narrow
    #[arg(short = 't', conflicts_with = "time_of_day", help_heading = OUTPUT)]
    pub time_since_start: bool,
    /// Time as HH:MM:SS.mmm
    #[arg(short = 'T', help_heading = OUTPUT)]
    pub time_of_day: bool,
    /// Colours: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_possible_values = true, help_heading = OUTPUT)]
    pub color: Color,
    /// No line of column names
    #[arg(long, help_heading = OUTPUT)]
    pub no_header: bool,

    /// Read a recording instead: a file or a folder of `record`, or a file of -o json; needs no root
    #[arg(long, value_name = "PATH", help_heading = SOURCE)]
    pub from: Option<PathBuf>,

    /// Stop after N events
    #[arg(short, long, value_name = "N", value_parser = values::count, help_heading = STOPPING)]
    pub count: Option<NonZeroU64>,
    /// Stop after a time: 10s, 2m
    #[arg(short, long, value_name = "TIME", value_parser = values::duration, help_heading = STOPPING)]
    pub duration: Option<Duration>,
    /// Exit with status 3 if any event was lost
    #[arg(long, help_heading = STOPPING)]
    pub strict: bool,

    /// Size of the ring that the kernel writes events into, made a power of two
    #[arg(long, value_name = "SIZE", default_value = "4M", value_parser = values::bytes, help_heading = OTHER)]
    pub buffer: u32,
    /// Sockets remembered at most, some 420 bytes each; others are told of, not counted
    #[arg(long, value_name = "N", default_value = "500000", help_heading = OTHER)]
    pub max_sockets: usize,
    /// Keep all capabilities and the way to new ones, for debugging
    #[arg(long, help_heading = OTHER)]
    pub keep_privileges: bool,
    /// Say more on stderr; up to -vvv
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = OTHER)]
    pub verbose: u8,
    /// Say only errors on stderr
    #[arg(short, long, conflicts_with = "verbose", help_heading = OTHER)]
    pub quiet: bool,
}

const FILTERS: &str = "Filters (all must match; a list with commas matches any)";
const OUTPUT: &str = "Output";
const STOPPING: &str = "Stopping";
const SOURCE: &str = "Source";
const RECORDING: &str = "Recording";
const OTHER: &str = "Other";
const RULES: &str = "Rules";

impl Shared {
    /// The filter, with names looked up on this host.
    pub fn filter(&self) -> Result<Filter, KernelError> {
        let netns = self.netns.iter().flat_map(|names| &names.0);
        let netns = netns.map(|name| netns::resolve(name)).collect::<Result<_, _>>()?;
        let cgroups = self.cgroup.iter().map(|path| cgroup::resolve(path)).collect::<Result<_, _>>()?;
        Ok(Filter { netns, cgroups, ..self.plain_filter() })
    }

    /// The filter of a recording, which may be of another host, or of other days of this one.
    pub fn recorded_filter(&self) -> anyhow::Result<Filter> {
        let number = |name: &String| {
            name.parse().map_err(|_| {
                let name = printable(name);
                anyhow::anyhow!(
                    "cannot look up network namespace {name}\nwhy: a recording has their inode numbers, no names\nfix: give the number; tcptrace --from ... -w shows it"
                )
            })
        };
        let netns = self.netns.iter().flat_map(|names| &names.0).map(number).collect::<Result<_, _>>()?;
        let cgroups = self.cgroup.iter().map(|path| cgroup::named(path)).collect();
        Ok(Filter { netns, cgroups, ..self.plain_filter() })
    }

    /// The part of it that is no matter of the host.
    fn plain_filter(&self) -> Filter {
        let numbers = |list: &Option<Numbers>| list.clone().unwrap_or_default().0;
        let ports = |list: &Option<Ports>| list.clone().unwrap_or_default().0;
        let blocks = |list: &Option<Blocks>| list.clone().unwrap_or_default().0;
        Filter {
            pids: numbers(&self.pid),
            comms: self.comm.clone().unwrap_or_default().0,
            lports: ports(&self.lport),
            rports: ports(&self.rport),
            ports: ports(&self.port),
            laddrs: blocks(&self.laddr),
            raddrs: blocks(&self.raddr),
            addrs: blocks(&self.addr),
            family: match (self.ipv4, self.ipv6) {
                (true, _) => Some(Family::V4),
                (_, true) => Some(Family::V6),
                _ => None,
            },
            uids: numbers(&self.uid),
            containers: self.container.clone().unwrap_or_default().0,
            states: self.state.clone().unwrap_or_default().0,
            ..Filter::default()
        }
    }
}
