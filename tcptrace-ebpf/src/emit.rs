//! The ring and the count of what did not fit. Nothing else touches them.

use core::arch::asm;

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use tcptrace_common::record::{CloseDetail, CloseRecord, Kind, Record, Tuple};

use crate::{sock::Facts, task::Task};

/// The records. The loader sets the real size.
#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Records that found no room, by [`Kind`].
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(Kind::COUNT as u32, 0);

/// Not 0 while the reader sleeps; the first event takes it down and wakes the reader.
#[map]
static BELL: Array<u32> = Array::with_max_entries(1, 0);

/// What happened, as the probe knows it.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    /// Address of the socket, or 0.
    pub(crate) sk: u64,
    pub(crate) tuple: Tuple,
    pub(crate) old: u8,
    pub(crate) new: u8,
    pub(crate) reason: i32,
}

/// Writes a record of an event into the ring, or counts it as lost. `facts` are read only when there is room.
#[inline(always)]
pub(crate) fn emit(event: Event, facts: impl FnOnce() -> Facts) {
    let Some(mut entry) = RECORDS.reserve::<Record>(0) else {
        lost(event.kind);
        return;
    };
    // SAFETY: any bytes are a Record, and all of them are written.
    fill(unsafe { entry.assume_init_mut() }, event, facts());
    entry.submit(wake());
}

/// As [`emit`], with what only a socket that goes to CLOSE has. `fill_detail` writes every field.
#[inline(always)]
pub(crate) fn emit_close(
    event: Event,
    facts: impl FnOnce() -> Facts,
    fill_detail: impl FnOnce(&mut CloseDetail),
) {
    let Some(mut entry) = RECORDS.reserve::<CloseRecord>(0) else {
        lost(event.kind);
        return;
    };
    // SAFETY: any bytes are a CloseRecord, and all of them are written.
    let CloseRecord { record, detail } = unsafe { entry.assume_init_mut() };
    fill(record, event, facts());
    fill_detail(detail);
    entry.submit(wake());
}

/// Writes every field where it stands: a record made elsewhere and copied would cost more than all the reading.
#[inline(always)]
fn fill(record: &mut Record, event: Event, facts: Facts) {
    let Record {
        ts_ns,
        sk,
        cookie,
        cgroup,
        ino,
        tuple,
        uid,
        task_pid,
        task_comm,
        flags,
        reason,
        kind,
        old,
        new,
        shutdown,
        unused,
    } = record;
    let task = Task::current();
    // SAFETY: the helper has no preconditions.
    *ts_ns = unsafe { bpf_ktime_get_ns() };
    *sk = event.sk;
    *cookie = facts.cookie;
    *cgroup = facts.cgroup;
    *ino = facts.ino;
    *tuple = event.tuple;
    *uid = facts.uid;
    *task_pid = task.pid;
    *task_comm = task.comm;
    *flags = facts.flags | task.flags;
    *reason = event.reason;
    *kind = event.kind;
    *old = event.old;
    *new = event.new;
    *shutdown = facts.shutdown;
    *unused = 0;
}

/// How to submit. Waking the reader costs more than all the rest, so it comes by itself every few
/// milliseconds while there is something to read. Before it sleeps for longer it sets the bell.
#[inline(always)]
fn wake() -> u64 {
    let Some(bell) = BELL.get_ptr_mut(0) else { return u64::from(BPF_RB_NO_WAKEUP) };
    // SAFETY: the map's value is a u32 that lives as long as the program. Two CPUs that both see it set both ring,
    // which does no harm.
    unsafe {
        if bell.read_volatile() == 0 {
            return u64::from(BPF_RB_NO_WAKEUP);
        }
        bell.write_volatile(0);
    }
    u64::from(BPF_RB_FORCE_WAKEUP)
}

#[cold]
#[inline(always)]
fn lost(kind: Kind) {
    if let Some(count) = LOST.get_ptr_mut(u32::from(kind.0)) {
        // Atomic, because before 6.1 a softirq may run the same probe on this CPU in between. Rust offers no
        // atomic addition for this target.
        // SAFETY: the map's value is a u64 that lives as long as the program.
        unsafe { asm!("lock *(u64 *)({count} + 0) += {one}", count = in(reg) count, one = in(reg) 1u64) };
    }
}
