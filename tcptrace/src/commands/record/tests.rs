#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::mpsc::channel;

use tcptrace_common::record::Tuple;

use super::*;
use crate::{
    commands::sink::{Known, Moment},
    model::{event::Role, loss::Loss, standing::Standing},
};

fn recorder() -> (Recorder, Receiver<Message>) {
    let (sender, messages) = channel();
    let recorder = Recorder {
        clock: Clock::fixed(0, 0),
        paths: Paths::recorded(),
        sender,
        between: Arc::default(),
        rows: Vec::new(),
        small: Small::default(),
        open: FxHashMap::default(),
        rotate_ns: HOUR_NS,
        files: 1,
        next_ns: HOUR_NS,
        bare: true,
        told: 0,
        others: 0,
    };
    (recorder, messages)
}

fn draw(recorder: &mut Recorder, standing: &Standing, now_ns: u64) {
    let summary = Summary { ts_ns: now_ns, events: 0, lost: Loss::default(), elapsed_us: 0 };
    recorder.draw(&Scene {
        known: Known::Standing(standing),
        filter: &Filter::default(),
        paths: &Paths::recorded(),
        now_ns,
        summary,
        moment: Moment::Due,
    });
}

fn established() -> Event {
    let event = Event::new(1, Kind::Transition, Tuple::default());
    Event { id: Some(Id(7)), new: Some(State::ESTABLISHED), ..event }
}

/// A connection that the survey found open, and that went on while the survey was taken.
#[test]
fn a_snapshot_tells_what_a_socket_is_now() {
    let (mut recorder, _messages) = recorder();
    recorder.event(&Event { kind: Kind::Connection, history: Some(Box::default()), ..established() });
    let mut standing = Standing::default();
    let moved = Event { ts_ns: 2, new: Some(State::CLOSE_WAIT), role: Some(Role::Server), ..established() };
    standing.event(&moved);
    draw(&mut recorder, &standing, 5);
    let [Row::Snapshot { ts_ns: 5 }, Row::Socket(event)] = &recorder.rows[..] else {
        panic!("{:?}", recorder.rows)
    };
    assert_eq!((event.ts_ns, event.new, event.role), (5, Some(State::CLOSE_WAIT), Some(Role::Server)));
    assert_eq!(event.in_state_ns, Some(3));
    assert!(event.history.as_ref().unwrap().has_visited(State::CLOSE_WAIT));
}

/// A file that the snapshot alone makes too large is not followed by another at once.
#[test]
fn a_large_snapshot_begins_one_file() {
    let (mut recorder, messages) = recorder();
    let mut standing = Standing::default();
    for id in 0..3 {
        standing.event(&Event { id: Some(Id(id)), ..established() });
    }
    draw(&mut recorder, &standing, 5);
    recorder.between.large.store(1, Ordering::Relaxed);
    let is_due = |recorder: &Recorder| recorder.due_ns() == Some(0);
    assert!(!is_due(&recorder));
    for _ in 0..3 {
        recorder.event(&established());
    }
    assert!(is_due(&recorder));
    draw(&mut recorder, &standing, 6);
    assert_eq!(recorder.files, 2);
    assert!(messages.try_iter().any(|message| matches!(message, Message::Begin(6))));
}

/// While the disk stands still nothing is told that could be told later.
#[test]
fn who_is_behind_gets_no_snapshot() {
    let (mut recorder, _messages) = recorder();
    draw(&mut recorder, &Standing::default(), 5);
    recorder.next_ns = 6;
    assert_eq!(recorder.due_ns(), Some(6));
    recorder.between.waiting.store(WAITING, Ordering::Relaxed);
    assert!(recorder.due_ns() > Some(6));
    recorder.rotate(7);
    assert_eq!(recorder.files, 1);
    recorder.between.waiting.store(0, Ordering::Relaxed);
    recorder.rotate(7);
    assert_eq!(recorder.files, 2);
}
