//! The load of `cargo xtask bench`: connections on loopback, opened and closed as fast as one thread can, or at a rate.
//!
//! Each thread is both ends of its connections: on loopback a handshake is over when connect() returns, so nothing waits
//! for another thread, and what is measured is the kernel's work and what a tracer adds to it.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "counts become rates, of which three digits matter, and numbers of ports"
)]

use std::{
    env,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::{Parser, ValueEnum};
use rustix::{
    net::sockopt,
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};

/// Opens and closes connections on loopback, in the network namespace that it is started in.
#[derive(Parser)]
struct Args {
    /// Threads; each has ports of its own
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Bind each thread to the CPU of its number
    #[arg(long)]
    pin: bool,
    /// Connections per second in all; 0: as many as there can be
    #[arg(long, default_value = "0")]
    rate: u64,
    /// For how many milliseconds
    #[arg(long = "for", value_name = "MS", default_value = "5000")]
    for_ms: u64,
    /// How connections end
    #[arg(long, value_enum, default_value = "orderly")]
    close: Close,
    /// Bytes that the client sends on each
    #[arg(long, default_value = "0", value_parser = clap::value_parser!(u32).range(..=65_536))]
    bytes: u32,
    /// Ports that each thread listens on
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    ports: u16,
    /// IPv6
    #[arg(long)]
    v6: bool,
    /// Connections opened at the start and kept
    #[arg(long, default_value = "0")]
    parked: u32,
    /// First port that is listened on
    #[arg(long, default_value = "20000", value_parser = clap::value_parser!(u16).range(1_024..=30_000))]
    first_port: u16,
    /// Read `MS RATE` from stdin, once for each run
    #[arg(long)]
    control: bool,
}

/// How connections end.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Close {
    /// FINs from both ends, the server's first: TIME_WAIT stays with the server's port and does not use up the client's.
    Orderly,
    /// A RST from the client (SO_LINGER 0).
    Rst,
}

impl Close {
    /// Changes of state that the kernel reports of one connection, both ends together.
    fn transitions(self) -> u64 {
        match self {
            Self::Orderly => 10,
            Self::Rst => 6,
        }
    }
}

/// Longest sleep between connections at a rate.
const NAP: Duration = Duration::from_millis(1);

fn main() -> Result<()> {
    let args = Args::parse();
    let limit = getrlimit(Resource::Nofile);
    // As many as it may without a privilege.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let workers = (0..args.threads).map(|number| Worker::new(&args, number)).collect::<Result<Vec<_>>>()?;
    // Parked connections have two descriptors each, so many of them need many processes.
    let room = u32::try_from(limit.maximum.unwrap_or(1 << 20) / 2).unwrap_or(u32::MAX).saturating_sub(100);
    let here = args.parked.min(room);
    let parked = (0..here).map(|_| workers[0].connect(0)).collect::<Result<Vec<_>>>();
    let _parked = parked.context("cannot keep so many connections")?;
    let _more = (args.parked > here).then(|| park(&args, args.parked - here)).transpose()?;
    let run = |for_ms: u64, rate: u64| -> Result<()> {
        let began = Instant::now();
        let rate = rate as f64 / f64::from(args.threads);
        let counts: Vec<Result<u64>> = thread::scope(|scope| {
            let threads: Vec<_> = workers
                .iter()
                .map(|worker| scope.spawn(move || worker.run(Duration::from_millis(for_ms), rate)))
                .collect();
            let died = |_| Err(anyhow!("a thread died"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(died)).collect()
        });
        let seconds = began.elapsed().as_secs_f64();
        let connections = counts.into_iter().sum::<Result<u64>>()?;
        let transitions = connections * args.close.transitions();
        println!(
            "{}",
            serde_json::json!({ "connections": connections, "seconds": seconds, "transitions": transitions })
        );
        Ok(())
    };
    if !args.control {
        return run(args.for_ms, args.rate);
    }
    println!("ready");
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (for_ms, rate) = line.split_once(' ').context("not `MS RATE`")?;
        run(for_ms.parse()?, rate.parse()?)?;
    }
    Ok(())
}

/// Another process that keeps connections open, until this one has gone.
fn park(args: &Args, parked: u32) -> Result<Child> {
    let first_port = args.first_port + args.threads * args.ports;
    let mut child = Command::new(env::current_exe()?)
        .args(["--control", "--parked", &parked.to_string(), "--first-port", &first_port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start another process")?;
    let mut ready = String::new();
    BufReader::new(child.stdout.as_mut().context("no stdout")?).read_line(&mut ready)?;
    ensure!(ready == "ready\n", "another process could not keep {parked} connections");
    Ok(child)
}

/// A thread's part.
struct Worker<'a> {
    args: &'a Args,
    number: u16,
    listeners: Vec<(TcpListener, SocketAddr)>,
    payload: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(args: &'a Args, number: u16) -> Result<Self> {
        let listen = |port: u16| -> Result<(TcpListener, SocketAddr)> {
            let ip = if args.v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
            let address = SocketAddr::new(ip, port);
            Ok((TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?, address))
        };
        let first = args.first_port + number * args.ports;
        let listeners = (first..first + args.ports).map(listen).collect::<Result<Vec<_>>>()?;
        Ok(Self { args, number, listeners, payload: vec![7; args.bytes as usize] })
    }

    /// A connection, both ends: the client's first.
    fn connect(&self, number: usize) -> Result<(TcpStream, TcpStream)> {
        let (listener, address) = &self.listeners[number % self.listeners.len()];
        let client = TcpStream::connect(address).context("cannot connect")?;
        let (server, _) = listener.accept().context("cannot accept")?;
        Ok((client, server))
    }

    /// Opens and closes connections, so many per second, or as fast as it can.
    fn run(&self, length: Duration, rate: f64) -> Result<u64> {
        if self.args.pin {
            let mut cpus = CpuSet::new();
            cpus.set(usize::from(self.number));
            sched_setaffinity(None, &cpus).context("cannot stay on one CPU")?;
        }
        let began = Instant::now();
        let mut count = 0;
        let mut scratch = vec![0; self.payload.len()];
        loop {
            let passed = began.elapsed();
            if passed >= length {
                return Ok(count);
            }
            if rate > 0.0 && count as f64 >= passed.as_secs_f64() * rate {
                thread::sleep(NAP.min(length.saturating_sub(passed)));
                continue;
            }
            let (mut client, mut server) = self.connect(count as usize)?;
            if !self.payload.is_empty() {
                client.write_all(&self.payload)?;
                server.read_exact(&mut scratch)?;
            }
            if self.args.close == Close::Rst {
                sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
                drop(client);
            } else {
                drop(server);
            }
            count += 1;
        }
    }
}
