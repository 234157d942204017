//! The running kernel as a source.
//!
//! Waking the reader costs the host more than writing the event, so while there is something to read the reader comes by
//! itself, every few milliseconds. When a look brings nothing it asks to be woken by the next event, and sleeps.

use std::{io, time::Duration};

use aya::maps::{MapData, RingBuf};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Instant,
};

use super::decode::{Decoded, decode};
use crate::kernel::{
    KernelError,
    attach::{self, Attached, Settings, Sight, Tap},
    clock,
};
use crate::model::loss::Loss;

/// The pause after a look that found something.
const BUSY: Duration = Duration::from_millis(4);
/// The pause after the first look that found nothing although the bell is set: an event that was being written while the
/// bell was set does not ring.
const SETTLING: Duration = Duration::from_millis(50);
/// The longest pause. Nothing is late by it but what only time brings out (see `Tracker::tick`).
const IDLE: Duration = Duration::from_secs(1);
/// How often the costlier loss counters are read.
const THOROUGH: Duration = Duration::from_secs(1);
/// Records taken in one go, so that signals and output are looked at in between.
const BATCH: u64 = 16_384;

/// Bytes that the ring adds to each record (BPF_RINGBUF_HDR_SZ).
const RING_HEADER: usize = 8;

/// Reads the ring.
pub struct Live {
    ring: AsyncFd<RingBuf<MapData>>,
    attached: Attached,
    pace: Pace,
    /// Lost since the start.
    loss: Loss,
    /// As much of it as was said.
    told: Loss,
    thorough_at: Instant,
    /// Records that came, and their bytes in the ring.
    carried: (u64, usize),
}

/// How the reader comes to look into the ring.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// By timer.
    Busy,
    /// At once, because the bell was just set.
    Again,
    /// By the bell, or by a short timer.
    Settling,
    /// By the bell, or by a long timer.
    Idle,
}

/// What one look into the ring brought.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Whether there may be more at once.
    pub more: bool,
    /// When the ring was looked at, `CLOCK_MONOTONIC` in ns.
    pub now_ns: u64,
    /// What was lost since the last batch.
    pub lost: Loss,
}

impl Live {
    /// Attaches the probes. Returns what the kernel lets be seen beside the source.
    pub fn open(settings: &Settings) -> Result<(Self, Sight), KernelError> {
        let Tap { attached, ring, sight } = attach::attach(settings)?;
        #[expect(
            unsafe_code,
            reason = "the ring reader's one: tokio cannot know that a ring keeps its descriptor"
        )]
        // SAFETY: a RingBuf owns its map's descriptor, open and the same, for as long as it lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|error| KernelError::Object(format!("its ring cannot be waited for: {error}")))?;
        let live = Self {
            ring,
            attached,
            pace: Pace::Busy,
            loss: Loss::default(),
            told: Loss::default(),
            thorough_at: Instant::now() + THOROUGH,
            carried: (0, 0),
        };
        Ok((live, sight))
    }

    /// Waits until it is time to look into the ring again. Cancel-safe.
    pub async fn wait(&mut self) -> io::Result<()> {
        let pause = match self.pace {
            Pace::Again => return Ok(()),
            Pace::Busy => BUSY,
            Pace::Settling => SETTLING,
            Pace::Idle => IDLE,
        };
        match tokio::time::timeout(pause, self.ring.readable()).await {
            Ok(woken) => {
                woken?.clear_ready();
                Ok(())
            }
            Err(_elapsed) => Ok(()),
        }
    }

    /// Hands on what is in the ring, in order, until `each` returns false.
    pub fn drain(&mut self, mut each: impl FnMut(Decoded<'_>) -> bool) -> Batch {
        let now_ns = clock::monotonic_ns();
        let ring = self.ring.get_mut();
        let (mut count, mut bytes) = (0, 0);
        while count < BATCH
            && let Some(item) = ring.next()
        {
            count += 1;
            bytes += item.len() + RING_HEADER;
            match decode(&item) {
                Ok(decoded) if each(decoded) => {}
                Ok(_) => break,
                Err(error) => {
                    log::debug!("a record from the ring is unreadable: {error}");
                    self.loss.unreadable += 1;
                }
            }
        }
        self.carried = (self.carried.0 + count, self.carried.1 + bytes);
        self.pace = match self.pace {
            _ if count > 0 => Pace::Busy,
            Pace::Busy => {
                self.attached.set_bell();
                Pace::Again
            }
            Pace::Again => Pace::Settling,
            Pace::Settling | Pace::Idle => Pace::Idle,
        };
        Batch { more: count == BATCH, now_ns, lost: self.lost(count > 0) }
    }

    /// The probes.
    #[must_use]
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// Records that came, and their bytes in the ring.
    #[must_use]
    pub fn carried(&self) -> (u64, usize) {
        self.carried
    }

    /// Takes the probes out of the kernel; what is in the ring can still be drained.
    pub fn detach(&mut self) {
        self.attached.detach();
        self.thorough_at = Instant::now();
    }

    /// What was lost since this was last asked.
    fn lost(&mut self, busy: bool) -> Loss {
        let thorough = Instant::now() >= self.thorough_at;
        if thorough {
            self.thorough_at = Instant::now() + THOROUGH;
        }
        if busy || thorough {
            self.loss = self.attached.loss(thorough, self.loss);
        }
        let lost = self.loss - self.told;
        self.told = self.loss;
        lost
    }
}
