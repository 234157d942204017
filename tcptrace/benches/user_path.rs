//! The user side's path of one event: `cargo bench`. One iteration is one event.

#[path = "churn.rs"]
mod churn;

use divan::{Bencher, counter::ItemsCount};
use tcptrace::{
    kernel::clock::Clock,
    model::{
        event::Event,
        tally::{By, Tally},
        tracker::{Fate, Reasons, Tracker},
    },
    source::decode::decode,
    view::{
        Csv, Json, View,
        text::{Text, TextOptions},
    },
};
use tcptrace_common::record::CloseRecord;
use zerocopy::IntoBytes as _;

use churn::{Churned, RECORDS_EACH, churn};

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

/// Connections of one sample; enough for the tables to be as large as on a busy host.
const CONNECTIONS: usize = 10_000;
const EVENTS: usize = CONNECTIONS * RECORDS_EACH;

fn main() {
    divan::main();
}

/// Feeds samples to a tracker that has seen as many before, and hands on what it says.
fn bench(bencher: Bencher<'_, '_>, whole: bool, mut each: impl FnMut(Event)) {
    let mut tracker = Tracker::new(Reasons::new(), false, whole);
    let mut first = 0;
    let mut feed = |records: &[Churned]| {
        for (record, detail) in records {
            tracker.feed(record, detail.as_ref(), &mut |event| {
                each(event);
                Fate::Keep
            });
        }
    };
    feed(&churn(0, CONNECTIONS as u64));
    bencher
        .counter(ItemsCount::new(EVENTS))
        .with_inputs(|| {
            first += CONNECTIONS as u64;
            churn(first, CONNECTIONS as u64)
        })
        .bench_local_refs(|records| feed(records));
}

#[divan::bench]
fn decoded(bencher: Bencher<'_, '_>) {
    let bytes: Vec<Vec<u64>> = churn(0, CONNECTIONS as u64)
        .into_iter()
        .map(|(record, detail)| {
            let close = CloseRecord { record, detail: detail.unwrap_or_default() };
            let len = if detail.is_some() { size_of::<CloseRecord>() } else { size_of_val(&record) };
            let mut words = vec![0; len / 8];
            words.as_mut_bytes().copy_from_slice(&close.as_bytes()[..len]);
            words
        })
        .collect();
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        for record in &bytes {
            let _ = divan::black_box(decode(divan::black_box(record.as_bytes())));
        }
    });
}

#[divan::bench]
fn tracked(bencher: Bencher<'_, '_>) {
    bench(bencher, false, |event| _ = divan::black_box(event));
}

#[divan::bench]
fn tracked_whole(bencher: Bencher<'_, '_>) {
    bench(bencher, true, |event| _ = divan::black_box(event));
}

#[divan::bench]
fn tracked_and_tallied(bencher: Bencher<'_, '_>) {
    let mut tally = Tally::new(By::Port, 32_768..=60_999, false);
    bench(bencher, false, |event| tally.event(&event));
}

#[divan::bench]
fn tracked_and_json(bencher: Bencher<'_, '_>) {
    written(bencher, Json::new(Clock::now()));
}

#[divan::bench]
fn tracked_and_csv(bencher: Bencher<'_, '_>) {
    written(bencher, Csv::new(Clock::now(), true));
}

#[divan::bench]
fn tracked_and_text(bencher: Bencher<'_, '_>) {
    written(bencher, Text::new(Clock::now(), TextOptions::default()));
}

fn written(bencher: Bencher<'_, '_>, mut view: impl View) {
    let (mut out, mut count) = (Vec::new(), 0);
    bench(bencher, false, |event| {
        view.event(&event);
        count += 1;
        // As often as the ring is looked into.
        if count % 1_000 == 0 {
            out.clear();
            view.take(&mut out);
        }
    });
}
