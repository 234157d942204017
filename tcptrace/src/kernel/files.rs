//! Files that the user names.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

/// No certificate or token is larger.
const MOST: u64 = 1 << 20;

/// Reads a file. Returns whether everybody may read it, too. One of more than 1 MiB is refused.
pub fn read(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let mut file = File::open(path)?;
    let of_all = file.metadata()?.permissions().mode() & 0o004 != 0;
    let mut bytes = Vec::new();
    file.by_ref().take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok((bytes, of_all))
}
