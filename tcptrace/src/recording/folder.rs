//! Where files stand: `host=NAME/date=YYYY-MM-DD/hour=HH/` below a folder, in UTC, as Hive lays out partitions.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process,
};

use rustix::fs::{FlockOperation, OFlags, flock};

/// What the name of a file that is being written ends with.
const ASIDE: &str = ".tmp";

/// The path of a file of a host that begins at a time, in ns since 1970.
pub(super) fn file(root: &Path, host: &str, start_ns: i128) -> PathBuf {
    let time = jiff::Timestamp::from_nanosecond(start_ns).unwrap_or_default();
    let host = host_key(host);
    root.join(format!("host={host}"))
        .join(time.strftime("date=%Y-%m-%d").to_string())
        .join(time.strftime("hour=%H").to_string())
        // By the name alone two processes, and two files of one, are kept apart.
        .join(format!("{}-{}.parquet", time.strftime("%Y%m%dT%H%M%S.%9fZ"), process::id()))
}

/// A host's name as a folder may have it.
fn host_key(host: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let key: String = host.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    if key.is_empty() { "unknown".to_owned() } else { key }
}

/// Where it is until it is complete: engines skip such names.
pub(super) fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}{ASIDE}"))
}

/// Tells others that a file is being written.
pub(super) fn hold(file: &File) {
    // On a file system without locks every other recorder takes it for a leftover only if it starts meanwhile.
    let _ = flock(file, FlockOperation::NonBlockingLockExclusive);
}

/// Opens a file to read it. What is no file is refused, and not waited for.
pub(super) fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | flags).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// Makes the folder of a file below `root`, for its owner and group alone. Whoever else may write there does not get to
/// say where the file stands: what is a symbolic link is refused.
pub(super) fn make(root: &Path, file: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.mode(0o750);
    builder.recursive(true).create(root).map_err(|error| named(root, &error))?;
    builder.recursive(false);
    let folder = file.parent().unwrap_or(root);
    let mut path = root.to_owned();
    for part in folder.strip_prefix(root).unwrap_or(folder) {
        path.push(part);
        let made = match builder.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => is_folder(&path).map(|_| ()),
            made => made,
        };
        made.map_err(|error| named(&path, &error))?;
    }
    Ok(())
}

/// Whether there is a folder; what is none, or a link to one, is refused.
fn is_folder(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(true),
        Ok(_) => Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no folder, or a link to one")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes what a recorder of the host that was killed has left unfinished. Returns how many files those were.
pub fn clear(root: &Path, host: &str) -> io::Result<usize> {
    let mut removed = 0;
    let folder = root.join(format!("host={}", host_key(host)));
    if !is_folder(&folder).map_err(|error| named(&folder, &error))? {
        return Ok(0);
    }
    for path in walk(&folder)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !(name.starts_with('.') && name.ends_with(&format!(".parquet{ASIDE}"))) {
            continue;
        }
        // Another recorder holds its own.
        let unheld = open(&path, OFlags::NOFOLLOW)
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        if unheld && fs::remove_file(&path).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// The error with the file's name, of the same kind.
pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", super::printable(path)))
}

/// The finished files below a folder.
pub(super) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let hidden = |path: &PathBuf| {
        let below = path.strip_prefix(folder).unwrap_or(path);
        below.components().any(|part| {
            let name = part.as_os_str().to_string_lossy();
            name.starts_with(['.', '_']) || name.ends_with(ASIDE)
        })
    };
    // Where links to folders were followed there might be no end.
    let linked = |path: &PathBuf| {
        let linked = path.is_dir();
        if linked {
            log::warn!("{} is a link to a folder, and left out", super::printable(path));
        }
        linked
    };
    let mut files = walk(folder)?;
    files.retain(|path| !hidden(path) && !linked(path));
    Ok(files)
}

/// All files below a folder, in the order of their names.
fn walk(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                left.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
