//! Socket options that neither the standard library nor socket2 has.

use std::{io, os::fd::AsRawFd};

/// `TCP_LINGER2`: how long an orphan waits in FIN_WAIT2, in seconds; below 0, not at all.
pub(crate) fn set_linger2(socket: &impl AsRawFd, seconds: i32) {
    set_tcp_option(socket, libc::TCP_LINGER2, seconds);
}

/// `TCP_FASTOPEN`: the listener takes data with the SYN, and holds so many connections that came so.
pub(crate) fn set_fast_open(listener: &impl AsRawFd, queue: i32) {
    set_tcp_option(listener, libc::TCP_FASTOPEN, queue);
}

fn set_tcp_option(socket: &impl AsRawFd, name: i32, value: i32) {
    let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap();
    #[expect(unsafe_code, reason = "setsockopt() takes a pointer")]
    // SAFETY: the pointer is to as many bytes as are said.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, name, (&raw const value).cast(), length)
    };
    assert_eq!(result, 0, "TCP option {name} = {value}: {}", io::Error::last_os_error());
}
