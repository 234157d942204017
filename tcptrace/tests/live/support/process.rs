//! Child processes that never outlive their test.

use std::{
    io::{BufRead as _, BufReader, Read},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::Instant,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::PATIENCE;

/// A running child; killed when dropped.
pub(crate) struct Process {
    name: String,
    pid: u32,
    pidfd: OwnedFd,
    ended: Receiver<ExitStatus>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a command. The ends of its pipes are in the returned child, to be taken.
    pub(crate) fn start(command: &mut Command) -> (Self, Pipes) {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("the live tests need the program {name}: {error}"));
        let pipes =
            Pipes { stdin: child.stdin.take(), stdout: child.stdout.take(), stderr: child.stderr.take() };
        (Self::of(&name, child), pipes)
    }

    /// Takes over a child that nobody has waited for yet.
    pub(crate) fn of(name: &str, child: Child) -> Self {
        let pid = child.id();
        // So the number is its own.
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        Self { name: name.to_owned(), pid, pidfd, ended: reap(child), status: None }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; to a process that has ended, nothing.
    pub(crate) fn signal(&self, signal: Signal) {
        // ESRCH is the only error there can be: it is our child.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn terminate(&mut self) {
        self.signal(Signal::TERM);
        // When it does not it is killed in the end.
        self.status = self.status.or_else(|| self.ended.recv_timeout(PATIENCE).ok());
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        if self.status.is_none() {
            match self.ended.recv_timeout(PATIENCE) {
                Ok(status) => self.status = Some(status),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{} ({}) has not ended after {PATIENCE:?}", self.name, self.pid)
                }
                Err(RecvTimeoutError::Disconnected) => panic!("nobody waits for {}", self.name),
            }
        }
        self.status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.signal(Signal::KILL);
            let _ = self.ended.recv();
        }
    }
}

/// The ends of a child's pipes, where it was started with pipes.
pub(crate) struct Pipes {
    pub(crate) stdin: Option<std::process::ChildStdin>,
    pub(crate) stdout: Option<std::process::ChildStdout>,
    pub(crate) stderr: Option<std::process::ChildStderr>,
}

fn reap(mut child: Child) -> Receiver<ExitStatus> {
    let (sender, ended) = channel();
    thread::spawn(move || {
        let status = child.wait().unwrap();
        // Who asks no more has been dropped.
        let _ = sender.send(status);
    });
    ended
}

/// Asks again and again until the answer is yes, for what nobody announces.
pub(crate) fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not after {PATIENCE:?}: {what}");
        thread::yield_now();
    }
}

/// A value that other threads change and a test waits for.
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Condvar::new() }
    }

    /// The value; a thread that panicked meanwhile has its own message.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until the predicate holds; false when it still does not after [`PATIENCE`].
    pub(crate) fn wait(&self, mut holds: impl FnMut(&T) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut value = self.lock();
        while !holds(&value) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            value = self.changed.wait_timeout(value, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// The lines that come out of a pipe, and whether it has been closed.
#[derive(Default)]
pub(crate) struct Lines {
    pub(crate) lines: Vec<String>,
    pub(crate) closed: bool,
}

/// Reads lines in a thread of its own, until the other end is closed.
pub(crate) fn lines_of(pipe: impl Read + Send + 'static) -> Arc<Watched<Lines>> {
    let lines = Arc::new(Watched::new(Lines::default()));
    let theirs = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { break };
            theirs.change(|lines| lines.lines.push(line));
        }
        theirs.change(|lines| lines.closed = true);
    });
    lines
}
