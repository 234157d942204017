//! The task on the CPU. Whether it has anything to do with the socket, `sk_lock.owned` tells.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf};
use tcptrace_common::record::flags;

use crate::{
    globals::{has, layout},
    memory::{Memory, Typed, Untyped},
};

/// `PF_KTHREAD` of include/linux/sched.h: a macro, so not in BTF, and the same since 2.6.
const PF_KTHREAD: u32 = 0x0020_0000;

/// The task on the CPU.
pub(crate) struct Task {
    /// The process.
    pub(crate) pid: u32,
    /// The process's name, that of its first thread: what `ps` and `ss` show. Of a thread it could be anything:
    /// io_uring's call themselves iou-wrk-N.
    pub(crate) comm: [u64; 2],
    /// [`flags::KTHREAD`] or nothing.
    pub(crate) flags: u32,
}

impl Task {
    #[inline(always)]
    pub(crate) fn current() -> Self {
        let (pid, comm, bits) = if has!(has_task_btf) {
            // SAFETY: the helper has no preconditions.
            let task = Typed(unsafe { bpf_get_current_task_btf() }.cast_const().cast());
            // Loads from the task are cheaper than a helper for each.
            (task.read(layout!(task_tgid)), comm(task), task.read::<u32>(layout!(task_flags)))
        } else {
            // SAFETY: the helper has no preconditions.
            let task = Untyped(unsafe { bpf_get_current_task() });
            let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
            (pid, comm(task), task.read::<u32>(layout!(task_flags)))
        };
        let flags = if bits & PF_KTHREAD != 0 { flags::KTHREAD } else { 0 };
        Self { pid, comm, flags }
    }
}

#[inline(always)]
fn comm<M: Memory>(task: M) -> [u64; 2] {
    task.follow(layout!(task_leader)).unwrap_or(task).read(layout!(task_comm))
}
