//! Which transitions the first probe has handled on this CPU and the second has not seen yet.
//!
//! The kernel calls the second right after the first, for every event; but between the two, and in the middle of either, an
//! interrupt can bring others, for which it skips whichever is at work. So the first writes down what it handles, and the
//! second does what is not written down.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use tcptrace_common::layout::HANDLED_WORDS;

/// By CPU: events, each as the socket's address (0: there is room) and its states, outermost first; the last word counts
/// those that the second did.
#[map]
static HANDLED: PerCpuArray<[u64; HANDLED_WORDS]> = PerCpuArray::with_max_entries(1, 0);

const ROOM: usize = HANDLED_WORDS / 2;

/// What tells an event from another. The verifier lets an address be compared and kept, not reckoned with.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    pub(crate) sk: u64,
    pub(crate) states: u64,
}

/// The first probe handles an event.
#[inline(always)]
pub(crate) fn note(event: Event) {
    let Some(words) = HANDLED.get_ptr_mut(0) else { return };
    let words: *mut u64 = words.cast();
    for at in 0..ROOM {
        // SAFETY: `at` is within the map's value, which lives as long as the program; only this CPU touches it, and
        // what interrupts this leaves it so that the worst is an event reported twice, which the reader sees.
        unsafe {
            let place = words.add(2 * at);
            // What was left over because the second was skipped gives way in the end.
            if at == ROOM - 1 || place.read_volatile() == 0 {
                place.add(1).write_volatile(event.states);
                place.write_volatile(event.sk);
                return;
            }
        }
    }
}

/// Whether the first probe has handled an event. If not, it is counted as the second's.
#[inline(always)]
pub(crate) fn is_noted(event: Event) -> bool {
    let Some(words) = HANDLED.get_ptr_mut(0) else { return true };
    let words: *mut u64 = words.cast();
    let mut noted = false;
    for at in 0..ROOM {
        // SAFETY: as above.
        unsafe {
            let place = words.add(2 * at);
            if !noted && place.read_volatile() == event.sk {
                noted = place.add(1).read_volatile() == event.states;
            }
            // What is further in is over: it interrupted this one.
            if noted {
                place.write_volatile(0);
            }
        }
    }
    if !noted {
        // SAFETY: as above; the kernel does not let the second be interrupted by itself.
        unsafe {
            let count = words.add(HANDLED_WORDS - 1);
            count.write_volatile(count.read_volatile() + 1);
        }
    }
    noted
}
