//! A recording as a source: the rows of one file, or of all files of a host, in the order of their times.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead as _, BufReader, ErrorKind},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{FileError, Origin, Row, folder, ndjson, parquet};

/// What a Parquet file begins with.
const MAGIC: &[u8] = b"PAR1";

/// A recording that is read.
pub struct Recording {
    reader: Option<Reader>,
    left: VecDeque<PathBuf>,
    head: Head,
}

/// What is known of a file before its rows are read.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// When it begins, in ns since 1970.
    pub(super) start_ns: u64,
    /// Where it comes from; lines of JSON do not tell.
    pub(super) origin: Option<Origin>,
}

impl Recording {
    /// Opens a file, or all files below a folder.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let missing = |error| {
            FileError::read(path, error, "give a file, or a folder that tcptrace record -O has written to")
        };
        if !fs::metadata(path).map_err(missing)?.is_dir() {
            let reader = Reader::open(path)?;
            let head = reader.head().clone();
            return Ok(Self { reader: Some(reader), left: VecDeque::new(), head });
        }
        let files = folder::files(path).map_err(missing)?;
        let mut heads = Vec::with_capacity(files.len());
        for file in files {
            if let Some(reader) = Reader::open_if_there(&file)? {
                heads.push((reader.head().clone(), file));
            }
        }
        heads.sort_by(|(one, this), (other, that)| (one.start_ns, this).cmp(&(other.start_ns, that)));
        let Some((head, _)) = heads.first() else {
            return Err(FileError::read(
                path,
                "it holds no recording",
                "give the folder that tcptrace record -O has written to",
            ));
        };
        let head = head.clone();
        one_host(path, &heads)?;
        Ok(Self { reader: None, left: heads.into_iter().map(|(_, file)| file).collect(), head })
    }

    /// When it begins, in ns since 1970.
    #[must_use]
    pub fn start_ns(&self) -> u64 {
        self.head.start_ns
    }

    /// Where it comes from; `None` for lines of JSON, which tell of no sockets that were there before.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.head.origin.as_ref()
    }

    /// Adds some more rows, whose times are in ns since 1970. Returns whether there were any.
    pub fn read(&mut self, rows: &mut Vec<Row>) -> Result<bool, FileError> {
        loop {
            if let Some(reader) = &mut self.reader {
                if reader.read(rows)? {
                    return Ok(true);
                }
                self.reader = None;
            }
            let Some(path) = self.left.pop_front() else { return Ok(false) };
            self.reader = Reader::open_if_there(&path)?;
        }
    }
}

/// A view shows one host: others have the same numbers for other sockets.
fn one_host(path: &Path, heads: &[(Head, PathBuf)]) -> Result<(), FileError> {
    let host = |head: &Head| head.origin.as_ref().map(|origin| origin.host.clone());
    let mut hosts: Vec<String> = heads.iter().filter_map(|(head, _)| host(head)).collect();
    hosts.sort_unstable();
    hosts.dedup();
    if hosts.len() < 2 {
        return Ok(());
    }
    let why = format!("it holds recordings of several hosts ({}), and a view shows one", hosts.join(", "));
    Err(FileError::read(
        path,
        why,
        "give the folder of one, host=NAME; for all of them docs/recordings.md has SQL",
    ))
}

enum Reader {
    Parquet(Box<parquet::Reader>),
    Lines(Box<ndjson::Reader>),
}

impl Reader {
    fn open(path: &Path) -> Result<Self, FileError> {
        let unreadable = |error| FileError::read(path, error, "give a regular file that may be read");
        let file = folder::open(path, OFlags::empty()).map_err(unreadable)?;
        let mut file = BufReader::with_capacity(1 << 16, file);
        let start = file.fill_buf().map_err(unreadable)?;
        if start.starts_with(MAGIC) {
            return parquet::Reader::open(path, file.into_inner())
                .map(|reader| Self::Parquet(Box::new(reader)));
        }
        ndjson::Reader::open(path, file).map(|reader| Self::Lines(Box::new(reader)))
    }

    /// The same for a file that was there a moment ago: whoever keeps recordings removes old ones.
    fn open_if_there(path: &Path) -> Result<Option<Self>, FileError> {
        match Self::open(path) {
            Err(_) if path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) => {
                log::warn!("{} was removed meanwhile, and is left out", super::printable(path));
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    fn head(&self) -> &Head {
        match self {
            Self::Parquet(reader) => reader.head(),
            Self::Lines(reader) => reader.head(),
        }
    }

    fn read(&mut self, rows: &mut Vec<Row>) -> Result<bool, FileError> {
        match self {
            Self::Parquet(reader) => reader.read(rows),
            Self::Lines(reader) => reader.read(rows),
        }
    }
}
