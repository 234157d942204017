//! Records as the ring could hold them, through the tracker to every view.
//!
//! The first byte of an input chooses how the tracker and the views are set. Then come steps, each a byte that says
//! what it is, and what it takes: a record, a look at the clock, an answer of sock_diag. Nothing may panic or wrap,
//! whatever a record holds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tcptrace::{
    kernel::clock::Clock,
    model::{
        event::Event,
        found::Whereabouts,
        gate::Gate,
        loss::Loss,
        state::State,
        tally::{By, Sort, Tally},
        tracker::{Doubt, Fate, Tracker},
    },
    source::decode::decode,
    view::{
        Connections, Csv, Json, Summary, Text, View,
        text::{TextOptions, TimeStyle},
    },
};
use tcptrace_common::record::{CloseRecord, Record};
use zerocopy::IntoBytes as _;

/// Takes so many bytes from the front, or what is left.
fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (front, after) = rest.split_at(len.min(rest.len()));
    *rest = after;
    front
}

/// Copies the bytes to where a record may stand.
fn aligned(bytes: &[u8]) -> Vec<u64> {
    let mut words = vec![0_u64; bytes.len().div_ceil(8)];
    words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
    words
}

fn number(rest: &mut &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let front = take(rest, 8);
    bytes[..front.len()].copy_from_slice(front);
    u64::from_le_bytes(bytes)
}

fn views(how: u8) -> [Box<dyn View>; 5] {
    // Some day in 2023, where CLOCK_MONOTONIC stood at 1 s.
    let clock = Clock::fixed(1_000_000_000, 1_700_000_000_000_000_000);
    let wide = TextOptions { wide: true, color: true, verbose: true, header: true, ..TextOptions::default() };
    let narrow = TextOptions {
        columns: Some(u16::from(how)),
        // Local time needs the host's time zone, which is read once.
        time: if how & 8 == 0 { TimeStyle::Clock } else { TimeStyle::SinceStart },
        ..TextOptions::default()
    };
    [
        Box::new(Json::new(clock)),
        Box::new(Csv::new(clock, true)),
        Box::new(Text::new(clock, wide.clone())),
        Box::new(Text::new(clock, narrow.clone())),
        Box::new(Connections::new(clock, if how & 16 == 0 { wide } else { narrow })),
    ]
}

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let Some(&how) = take(&mut rest, 1).first() else { return };
    let mut tracker = Tracker::new([(3, "TCP_STATE".into())].into(), how & 1 != 0, how & 2 != 0);
    let mut gate = Gate::default();
    let mut tally = Tally::new(By::ALL[usize::from(how) % By::ALL.len()], 32_768..=60_999, true);
    let mut views = views(how);
    let mut out = Vec::new();
    let mut show = |event: Event, tally: &mut Tally| {
        if how & 4 != 0 && event.closed {
            return Fate::Forget;
        }
        gate.pass(event, &mut |event| {
            tally.event(&event);
            for view in &mut views {
                view.event(&event);
            }
        })
    };
    let mut now_ns = 0;
    while let Some(&step) = take(&mut rest, 1).first() {
        match step {
            0..128 => {
                let len = match step & 3 {
                    0 => size_of::<Record>(),
                    1 => size_of::<CloseRecord>(),
                    _ => usize::from(step),
                };
                let bytes = take(&mut rest, len);
                let words = aligned(bytes);
                if let Ok(decoded) = decode(&words.as_bytes()[..bytes.len()]) {
                    now_ns = decoded.record.ts_ns;
                    tracker.feed(decoded.record, decoded.detail, &mut |event| show(event, &mut tally));
                }
            }
            128..192 => {
                now_ns = number(&mut rest);
                tracker.tick(now_ns, &mut |event| show(event, &mut tally));
                let _ = tracker.deadline_ns();
            }
            _ => {
                let expires_ms = u32::try_from(number(&mut rest) & 0xffff_ffff).unwrap_or(0);
                let found = match step & 3 {
                    0 => Whereabouts::Gone,
                    1 => Whereabouts::Unknown,
                    2 => Whereabouts::There { state: State::TIME_WAIT, expires_ms },
                    _ => Whereabouts::There { state: State::FIN_WAIT2, expires_ms },
                };
                let doubts: Vec<Doubt> = tracker.doubts().collect();
                for doubt in doubts {
                    tracker.settle(&doubt, found, now_ns, &mut |event| show(event, &mut tally));
                }
            }
        }
    }
    let table = tally.table(tracker.sockets(), Sort::Oldest, 3, now_ns);
    assert!(table.rows.len() <= 3, "a table has as many rows as were asked for");
    tracker.tick(u64::MAX, &mut |event| show(event, &mut tally));
    let lost = Loss { unreadable: 1, ..Loss::default() };
    for view in &mut views {
        view.lost(now_ns, &lost);
        view.summary(&Summary { ts_ns: now_ns, ..Summary::default() });
        view.resize(u16::from(how));
        view.take(&mut out);
    }
    assert!(str::from_utf8(&out).is_ok(), "the views write text");
});
