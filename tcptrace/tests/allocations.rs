//! On the path of one event nothing is allocated, once the tables have grown to what a busy host needs.

#[path = "../benches/churn.rs"]
mod churn;

use tcptrace::{
    kernel::clock::Clock,
    model::{
        event::Event,
        tally::{By, Tally, meter::Meter},
        tracker::{Fate, Reasons, Tracker},
    },
    view::{
        Connections, Csv, Json, View,
        text::{Text, TextOptions},
    },
};

use churn::{RECORDS_EACH, churn};

const CONNECTIONS: u64 = 3_000;
/// After ten all ports have been used, and what is kept of TIME_WAIT grows no more.
const ROUNDS: u64 = 11;

/// Allocations in the last round.
fn allocations(whole: bool, mut each: impl FnMut(Event)) -> u64 {
    let mut tracker = Tracker::new(Reasons::new(), false, whole);
    let mut events = 0;
    let mut count = 0;
    for round in 0..ROUNDS {
        let records = churn(round * CONNECTIONS, CONNECTIONS);
        events = 0;
        let info = allocation_counter::measure(|| {
            for (record, detail) in &records {
                tracker.feed(record, detail.as_ref(), &mut |event| {
                    events += 1;
                    each(event);
                    Fate::Keep
                });
            }
        });
        count = info.count_total;
    }
    let expected = if whole { 2 * CONNECTIONS } else { CONNECTIONS * RECORDS_EACH as u64 };
    assert!(events >= expected, "{events} events");
    count
}

/// A view that is read before it holds much.
fn written(whole: bool, mut view: impl View) -> u64 {
    let (mut out, mut count) = (Vec::with_capacity(1 << 20), 0);
    allocations(whole, |event| {
        view.event(&event);
        count += 1;
        if count % 100 == 0 {
            out.clear();
            view.take(&mut out);
        }
    })
}

#[test]
fn nothing_is_allocated_to_track() {
    assert_eq!(allocations(false, drop), 0);
}

#[test]
fn nothing_is_allocated_to_count() {
    let mut tally = Tally::new(By::Port, 32_768..=60_999, true);
    assert_eq!(allocations(false, |event| tally.event(&event)), 0);
}

#[test]
fn nothing_is_allocated_to_count_for_metrics() {
    let mut tally = Tally::new(By::Port, 32_768..=60_999, false);
    let mut meter = Meter::new(200, true);
    let counted = |event: Event| {
        tally.event(&event);
        meter.event(&event, &tally);
    };
    assert_eq!(allocations(false, counted), 0);
}

#[test]
fn nothing_is_allocated_to_write() {
    assert_eq!(written(false, Text::new(Clock::now(), TextOptions::default())), 0);
    assert_eq!(written(false, Json::new(Clock::now())), 0);
}

/// The writer of CSV gives away its buffer, so it needs another each time it is read.
#[test]
fn csv_allocates_only_when_it_is_read() {
    let events = CONNECTIONS * RECORDS_EACH as u64;
    let count = written(false, Csv::new(Clock::now(), true));
    assert!(count < events / 10, "{count}");
}

/// The times of its states travel with a whole connection, so each end has one allocation.
#[test]
fn a_whole_connection_has_one_allocation() {
    let ends = 2 * CONNECTIONS;
    assert_eq!(allocations(true, drop), ends);
    assert_eq!(written(true, Connections::new(Clock::now(), TextOptions::default())), ends);
}
