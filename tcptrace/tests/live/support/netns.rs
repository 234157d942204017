//! Network namespaces without a name: they are gone when nobody is in them and no socket is left.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{fd::AsFd as _, linux::fs::MetadataExt as _},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, PoisonError},
    thread,
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::host::run;

/// The name of the process that runs the scenarios: what the owner of their sockets is called.
pub(crate) const COMM: &str = "live-scenario";

/// A network namespace in which only `lo` is up.
pub(crate) struct Netns {
    file: File,
    inode: u64,
}

/// Runs a scenario in a network namespace of its own, and no other at the same time: a process that one of them
/// starts would hold the sockets of the others until it executes its program, and then be the one that closes them.
///
/// One that fails is run once more, and that is told: on 6.18 a softirq now and then runs without any tracepoint, for
/// bpftrace too, so what a timer did goes untold (docs/kernels.md). What is wrong with tcptrace is wrong again.
pub(crate) fn scenario(body: impl Fn(&Netns) + Sync) {
    static ONE: Mutex<()> = Mutex::new(());
    // A scenario that failed has left nothing behind.
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // libtest's first thread has the name of the whole process; in /proc/self any thread may set it.
    fs::write("/proc/self/comm", COMM).unwrap();
    let once = || {
        let net = Netns::new();
        net.enter(|| body(&net));
    };
    if catch_unwind(AssertUnwindSafe(once)).is_err() {
        // Past libtest, which keeps what a test that passes prints.
        let test = thread::current().name().map(str::to_owned);
        let _ = writeln!(io::stderr(), "{} failed, and is run once more", test.unwrap_or_default());
        once();
    }
}

impl Netns {
    /// A new one.
    pub(crate) fn new() -> Self {
        in_thread(|| {
            #[expect(unsafe_code, reason = "rustix has no safe call that leaves a namespace")]
            // SAFETY: not UnshareFlags::FILES; the descriptors stay shared by all threads.
            let left = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
            left.expect("the live tests make network namespaces: run them as root, outside a container");
            run("ip", &["link", "set", "lo", "up"]);
            let file = File::open("/proc/thread-self/ns/net").unwrap();
            let inode = file.metadata().unwrap().st_ino();
            Self { file, inode }
        })
    }

    /// Its number, as `-N` takes it.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Does something in it. Sockets stay in the namespace that they were made in, processes in that in
    /// which they were started.
    pub(crate) fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            body()
        })
    }
}

/// Threads have namespaces and users of their own, and those of libtest are not ours to change.
pub(crate) fn in_thread<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(body).join().unwrap_or_else(|panic| resume_unwind(panic)))
}
