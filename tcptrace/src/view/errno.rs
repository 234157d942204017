//! The names of the errors that a TCP socket can end with.

/// The name of an errno; `None` for 0 and for those that no TCP socket meets.
#[must_use]
pub fn name(errno: i32) -> Option<&'static str> {
    // include/uapi/asm-generic/errno.h; the same on every architecture that tcptrace runs on.
    Some(match errno {
        1 => "EPERM",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        22 => "EINVAL",
        32 => "EPIPE",
        71 => "EPROTO",
        90 => "EMSGSIZE",
        92 => "ENOPROTOOPT",
        95 => "EOPNOTSUPP",
        98 => "EADDRINUSE",
        99 => "EADDRNOTAVAIL",
        100 => "ENETDOWN",
        101 => "ENETUNREACH",
        102 => "ENETRESET",
        103 => "ECONNABORTED",
        104 => "ECONNRESET",
        105 => "ENOBUFS",
        107 => "ENOTCONN",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        112 => "EHOSTDOWN",
        113 => "EHOSTUNREACH",
        _ => return None,
    })
}

/// The errno of a name, or of `E` and a number: the reverse of what formats write.
#[must_use]
pub fn number(text: &str) -> Option<i32> {
    let bare = || text.strip_prefix('E')?.parse().ok();
    (1..=133).find(|errno| name(*errno) == Some(text)).or_else(bare)
}
