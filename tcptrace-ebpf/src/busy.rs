//! Whether the probe of transitions is at work on this CPU.

use aya_ebpf::{macros::map, maps::PerCpuArray};

/// By CPU: whether the probe is at work, and how many events its second took over.
#[map]
static BUSY: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

#[inline(always)]
pub(crate) fn set(value: u64) {
    if let Some(busy) = BUSY.get_ptr_mut(0) {
        // SAFETY: the map's value is a u64 that lives as long as the program; only what interrupts this CPU looks.
        unsafe { busy.write_volatile(value) };
    }
}

#[inline(always)]
pub(crate) fn is_set() -> bool {
    // SAFETY: as above.
    BUSY.get_ptr(0).is_some_and(|busy| unsafe { busy.read_volatile() } != 0)
}

/// An event was taken over.
#[inline(always)]
pub(crate) fn count() {
    if let Some(count) = BUSY.get_ptr_mut(1) {
        // SAFETY: as above; the kernel does not let the second be interrupted by itself, either.
        unsafe { count.write_volatile(count.read_volatile() + 1) };
    }
}
