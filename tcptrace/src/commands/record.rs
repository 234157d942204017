//! `tcptrace record`: all that happens, into files that other tools read.
//!
//! The loop hands rows on in batches; a thread of its own makes columns of them, and writes. What it is behind with is
//! bounded: then the loop leaves the ring alone, and what does not fit there is counted as lost, as everywhere.

#[cfg(test)]
mod tests;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use rustc_hash::FxHashMap;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{
    sink::{Plan, Scene, Sink, Start, wanted},
    stop::Stop,
    watch::{self, Outcome},
};
use crate::{
    cli::{Format, Record as Args},
    kernel::{
        cgroup::Paths,
        clock::{self, Clock},
    },
    model::{
        event::{Event, Id, Kind},
        filter::Filter,
        found::Survey,
        loss::Loss,
        socket::Socket,
        state::State,
        tally::Small,
    },
    recording::{FileWriter, Origin, Row, folder},
    view::Summary,
};

/// Rows that are handed on at once.
const BATCH: usize = 1 << 12;
/// Rows that may wait for the writer; more wait in the ring.
const WAITING: usize = 1 << 16;
/// How long until it is seen again whether a writer that was behind has caught up, in ns.
const RETRY_NS: u64 = 100_000_000;
/// How long the end waits for the disk before it says so, and how long from then on before it gives up.
const NOTICE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(90);
const HOUR_NS: i128 = 3_600_000_000_000;

/// Records until it is told to stop.
pub async fn run(args: &Args) -> anyhow::Result<Outcome> {
    if args.shared.output != Format::Text || args.shared.from.is_some() {
        anyhow::bail!(
            "record watches the kernel and writes Parquet\nwhy: -o and --from are for what prints\nfix: leave them out; -O DIR says where to"
        );
    }
    let plan = Plan {
        retransmits: args.retransmits,
        whole: true,
        open: true,
        paths: true,
        ..Plan::new(&args.shared)
    };
    let mut written = None;
    let outcome = watch::run(plan, |start| {
        let (recorder, result) = Recorder::begin(args, start)?;
        written = Some(result);
        Ok(recorder)
    })
    .await?;
    if let Some(written) = written {
        let Written { files, bytes } = finished(args, written).await?;
        log::info!("{files} files, {bytes} bytes in {}", args.directory.display());
    }
    Ok(outcome)
}

/// What the writer has done, once it is done.
async fn finished(args: &Args, written: oneshot::Receiver<io::Result<Written>>) -> anyhow::Result<Written> {
    let directory = args.directory.display();
    let mut stop = Stop::new().context("cannot listen for signals")?;
    let begun = Instant::now();
    let given_up = async {
        sleep(NOTICE).await;
        log::warn!("waiting for the disk to take the last file in {directory}; Ctrl-C gives it up");
        stop.after(Some(PATIENCE));
        stop.asked().await;
    };
    let written = tokio::select! {
        biased;
        written = written => Some(written),
        () = given_up => None,
    };
    match written {
        Some(Ok(Ok(written))) => Ok(written),
        Some(Ok(Err(error))) => {
            let fix = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "make room, or record to another file system"
                }
                _ => "check the folder and its file system",
            };
            anyhow::bail!("cannot record to {directory}\nwhy: {error}; finished files are whole\nfix: {fix}")
        }
        Some(Err(_)) => anyhow::bail!(
            "cannot record to {directory}\nwhy: the thread that writes has ended\nfix: report this"
        ),
        None => anyhow::bail!(
            "cannot finish the last file in {directory}\nwhy: the disk has not taken it in {} s\nfix: check the file system; finished files are whole",
            begun.elapsed().as_secs()
        ),
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    files: u64,
    bytes: u64,
}

/// What the loop tells the writer.
enum Message {
    /// What came before is one file, what comes now the next, which begins at a time, `CLOCK_MONOTONIC` in ns.
    Begin(u64),
    Rows(Vec<Row>),
}

/// What both know of each other.
#[derive(Default)]
struct Between {
    /// Rows handed on and not taken.
    waiting: AtomicUsize,
    /// The number of the file that has grown as large as files may.
    large: AtomicU64,
    /// The writer cannot go on.
    over: AtomicBool,
}

/// Makes rows of what happens.
struct Recorder {
    clock: Clock,
    paths: Paths,
    sender: Sender<Message>,
    between: Arc<Between>,
    rows: Vec<Row>,
    /// The minisocks and requests that exist.
    small: Small,
    /// Connections that were open at the start, with more than their sockets tell.
    open: FxHashMap<Id, Event>,
    rotate_ns: i128,
    /// Files begun.
    files: u64,
    /// When the next begins, in ns since 1970.
    next_ns: i128,
    /// The last has begun, and does not say yet which sockets exist.
    bare: bool,
    /// Rows of the last that say so, and all others.
    told: usize,
    others: usize,
}

impl Recorder {
    /// Starts the writer, too. Its result comes when the recorder is gone.
    fn begin(
        args: &Args,
        start: &Start<'_>,
    ) -> anyhow::Result<(Self, oneshot::Receiver<io::Result<Written>>)> {
        let (nodename, kernel) = start.host.clone();
        let host = args.host.clone().unwrap_or(nodename);
        let origin = Origin { host, kernel, reasons: start.reasons, ephemeral: start.ephemeral.clone() };
        let root = args.directory.clone();
        let writable = || -> io::Result<FileWriter> {
            let removed = folder::clear(&root, &origin.host)?;
            if removed > 0 {
                log::warn!("{removed} files that a killed recorder had not finished were removed");
            }
            FileWriter::begin(&root, &origin, start.clock, start.now_ns)
        };
        let file = writable().map_err(|error| {
            let fix = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "give a folder that the user tcptrace runs as may write to; it has given up the right to all others (docs/privileges.md), which --keep-privileges keeps"
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room, or record to another file system",
                _ => "give -O a folder on a file system that can be written",
            };
            anyhow::anyhow!("cannot record to {}\nwhy: {error}\nfix: {fix}", root.display())
        })?;
        let between = Arc::new(Between::default());
        let (sender, receiver) = channel();
        let (done, result) = oneshot::channel();
        let writer = Writer {
            root,
            origin,
            clock: start.clock,
            max_bytes: args.max_file_size.into(),
            between: Arc::clone(&between),
        };
        thread::Builder::new().name("tcptrace-record".to_owned()).spawn(move || {
            let written = writer.write(file, &receiver);
            writer.between.over.store(true, Ordering::Relaxed);
            // Nobody waits for it any more when the program ends.
            let _ = done.send(written);
        })?;
        log::info!(
            "recording to {}; a file is begun every {} s, so a crash costs as much at most",
            args.directory.display(),
            args.rotate.as_secs_f64()
        );
        let rotate_ns = i128::try_from(args.rotate.as_nanos()).unwrap_or(HOUR_NS);
        let mut recorder = Self {
            clock: start.clock,
            paths: start.paths.clone(),
            sender,
            between,
            rows: Vec::new(),
            small: Small::limited_to(args.shared.max_sockets),
            open: FxHashMap::default(),
            rotate_ns,
            files: 1,
            next_ns: 0,
            bare: true,
            told: 0,
            others: 0,
        };
        recorder.next_ns = recorder.end_of_file(start.now_ns);
        Ok((recorder, result))
    }

    /// When a file that begins at a time ends, in ns since 1970: at the next beat, and with the hour that its folder is
    /// named for.
    fn end_of_file(&self, start_ns: u64) -> i128 {
        let wall_ns = self.clock.wall_ns(start_ns);
        let after = |step_ns: i128| (wall_ns.div_euclid(step_ns) + 1) * step_ns;
        after(self.rotate_ns.max(1)).min(after(HOUR_NS))
    }

    fn push(&mut self, row: Row) {
        match row {
            Row::Socket(_) => self.told += 1,
            _ => self.others += 1,
        }
        self.rows.push(row);
        if self.rows.len() >= BATCH {
            self.hand_on();
        }
    }

    fn hand_on(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        if !rows.is_empty() {
            self.between.waiting.fetch_add(rows.len(), Ordering::Relaxed);
            self.send(Message::Rows(rows));
        }
    }

    fn send(&self, message: Message) {
        // The writer that is gone says why when it is waited for.
        let _ = self.sender.send(message);
    }

    /// Where the sockets that exist are all that makes it large, the next would be as large at once.
    fn is_large(&self) -> bool {
        self.between.large.load(Ordering::Relaxed) == self.files && self.others >= self.told
    }

    /// Begins the next file, if it is time, and the writer is not behind: all sockets come with it.
    fn rotate(&mut self, now_ns: u64) {
        let due = self.clock.wall_ns(now_ns) >= self.next_ns || self.is_large();
        if due && !self.bare && self.has_room() {
            self.hand_on();
            self.send(Message::Begin(now_ns));
            self.files += 1;
            self.next_ns = self.end_of_file(now_ns);
            self.bare = true;
            (self.told, self.others) = (0, 0);
        }
    }

    /// Tells all sockets that exist.
    fn snapshot(&mut self, scene: &Scene<'_>) {
        let now_ns = scene.now_ns;
        self.push(Row::Snapshot { ts_ns: now_ns });
        for socket in scene.sockets() {
            let open = socket.id.and_then(|id| self.open.remove(&id));
            let event = open.map_or_else(|| socket.event(now_ns), |open| still_open(open, &socket, now_ns));
            self.push_socket(&socket, event);
        }
        self.open.clear();
        let small = std::mem::take(&mut self.small);
        for socket in small.sockets(now_ns) {
            let kernel_new = if socket.state == State::SYN_RECV { State::NEW_SYN_RECV } else { State::CLOSE };
            self.push_socket(&socket, Event { kernel_new: Some(kernel_new), ..socket.event(now_ns) });
        }
        self.small = small;
    }

    fn push_socket(&mut self, socket: &Socket, event: Event) {
        let in_state_ns = socket.age_ns(event.ts_ns);
        let cgroup_path = event.cgroup.and_then(|id| self.paths.get(id));
        self.push(Row::Socket(Event { in_state_ns, closed: false, cgroup_path, ..event }));
    }
}

/// What a survey told of an open connection, with what its socket has become since.
fn still_open(open: Event, socket: &Socket, now_ns: u64) -> Event {
    let Event { new, role, owner, uid, cgroup, .. } = socket.event(now_ns);
    let mut history = open.history;
    if let Some(history) = &mut history {
        history.spend(socket.state, None);
    }
    Event { ts_ns: now_ns, new, role, owner, uid, cgroup, history, ..open }
}

impl Sink for Recorder {
    fn event(&mut self, event: &Event) {
        if let (Kind::Connection, None, Some(id)) = (event.kind, event.verdict, event.id) {
            self.open.insert(id, event.clone());
            return;
        }
        self.small.event(event);
        self.push(Row::Event(event.clone()));
    }

    fn lost(&mut self, ts_ns: u64, lost: &Loss) {
        self.push(Row::Lost { ts_ns, lost: *lost });
    }

    fn surveyed(&mut self, survey: &Survey, filter: &Filter, now_ns: u64) {
        self.rotate(now_ns);
        self.small.surveyed(survey, now_ns, |socket| wanted(filter, socket, now_ns));
        for netns in &survey.namespaces {
            let counters =
                survey.health.iter().map(|health| health.counters).find(|counters| counters.netns == *netns);
            let ts_ns = counters.map_or(now_ns, |counters| counters.at_ns);
            self.push(Row::Namespace { ts_ns, netns: *netns, counters });
        }
    }

    fn turned_away(&mut self) -> u64 {
        self.small.take_turned_away()
    }

    fn counts_sockets(&self) -> bool {
        true
    }

    fn due_ns(&self) -> Option<u64> {
        if !self.has_room() {
            return Some(clock::monotonic_ns() + RETRY_NS);
        }
        if self.bare || self.is_large() {
            return Some(0);
        }
        u64::try_from(self.next_ns - self.clock.wall_ns(0)).ok()
    }

    fn wants_look(&self) -> bool {
        // A file that has begun with a survey, or ended with one, needs no other.
        !self.bare
    }

    fn draw(&mut self, scene: &Scene<'_>) {
        self.rotate(scene.now_ns);
        self.snapshot(scene);
        self.bare = false;
    }

    fn has_room(&self) -> bool {
        self.between.waiting.load(Ordering::Relaxed) < WAITING
    }

    fn prints(&self) -> bool {
        false
    }

    fn full(&self) -> bool {
        self.between.over.load(Ordering::Relaxed)
    }

    fn end(&mut self, _summary: &Summary) {
        self.hand_on();
    }

    fn take(&mut self, _out: &mut Vec<u8>) {}
}

/// The thread that writes.
struct Writer {
    root: PathBuf,
    origin: Origin,
    clock: Clock,
    /// How large files may grow, about.
    max_bytes: u64,
    between: Arc<Between>,
}

impl Writer {
    fn write(&self, mut file: FileWriter, messages: &Receiver<Message>) -> io::Result<Written> {
        let mut written = Written::default();
        let mut number = 1;
        let mut finish = |file: FileWriter| -> io::Result<()> {
            written.bytes += file.finish()?;
            written.files += 1;
            Ok(())
        };
        while let Ok(message) = messages.recv() {
            match message {
                Message::Begin(start_ns) => {
                    finish(file)?;
                    file = FileWriter::begin(&self.root, &self.origin, self.clock, start_ns)?;
                    number += 1;
                }
                Message::Rows(rows) => {
                    let count = rows.len();
                    file.push(rows)?;
                    if file.bytes() >= self.max_bytes {
                        self.between.large.store(number, Ordering::Relaxed);
                    }
                    self.between.waiting.fetch_sub(count, Ordering::Relaxed);
                }
            }
        }
        finish(file)?;
        Ok(written)
    }
}
