//! The one way to stdout.
//!
//! A pipe whose reader is slow must not keep the stop signals from being heard, so it is opened anew,
//! without blocking (on the inherited descriptor the flag would be shared with whoever else has it), and
//! waited for. Files and terminals are written straight.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
};

use rustix::fs::FileType;
use tokio::{io::Interest, net::unix::pipe};

enum Sink {
    /// A file, a terminal, or what cannot be opened anew.
    Plain(File),
    /// A pipe.
    Pipe(pipe::Sender),
}

/// Whether stdout is a terminal.
#[must_use]
pub fn is_terminal() -> bool {
    rustix::termios::isatty(io::stdout())
}

/// Writes to stdout at once, past what waits: for the end of a screen, when there may be nothing left to wait with.
pub fn write_now(bytes: &[u8]) {
    let mut stdout = io::stdout();
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}

/// Writes to stdout what is all there is to write.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Standard output.
pub struct Output {
    sink: Sink,
    waiting: Vec<u8>,
    /// How much of `waiting` is written.
    written: usize,
    terminal: bool,
}

impl Output {
    /// Takes hold of stdout.
    pub fn stdout() -> io::Result<Self> {
        let stdout = io::stdout();
        let fd = stdout.as_fd();
        let terminal = rustix::termios::isatty(fd);
        let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
        let pipe = match kind {
            FileType::Fifo => pipe::OpenOptions::new().open_sender("/proc/self/fd/1").ok(),
            _ => None,
        };
        let sink = match pipe {
            Some(pipe) => Sink::Pipe(pipe),
            None => Sink::Plain(File::from(fd.try_clone_to_owned()?)),
        };
        Ok(Self { sink, waiting: Vec::new(), written: 0, terminal })
    }

    /// Columns of the terminal; `None` where stdout is none.
    #[must_use]
    pub fn columns(&self) -> Option<u16> {
        if !self.terminal {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        (size.ws_col > 0).then_some(size.ws_col)
    }

    /// Where to put what is to be written.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.waiting
    }

    /// How many bytes nobody has taken yet.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        self.waiting.len() - self.written
    }

    /// Writes all that waits. Cancel-safe: what was written stays written.
    pub async fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.waiting.get(self.written..)
            && !rest.is_empty()
        {
            let result = match &mut self.sink {
                Sink::Plain(file) => file.write(rest),
                Sink::Pipe(pipe) => {
                    pipe.writable().await?;
                    pipe.try_write(rest)
                }
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
        self.waiting.clear();
        self.written = 0;
        Ok(())
    }

    /// Comes back when nobody reads the pipe any more; never for a file or a terminal.
    pub async fn closed(&self) {
        if let Sink::Pipe(pipe) = &self.sink
            && let Ok(_error) = pipe.ready(Interest::ERROR).await
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}
