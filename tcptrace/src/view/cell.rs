//! What the two views for people have in common: cells, and lines that end at the terminal's edge.

use std::{fmt::Write as _, net::IpAddr};

use super::digits::{self, number, padded};
use crate::model::event::{Event, printable};

/// Columns for what [`container`] writes.
pub(super) const CONTAINER: usize = 20;

/// Where to cut a line that is to fit so many columns, and the mark that says that there is more: it takes the last
/// column.
pub(super) fn cut(line: &str, room: usize) -> (usize, &'static str) {
    // A line has no more columns than bytes.
    if line.len() <= room {
        return (line.len(), "");
    }
    let at = |column: usize| line.char_indices().nth(column).map(|(index, _)| index);
    match at(room) {
        Some(_) => (at(room.saturating_sub(1)).unwrap_or(line.len()), "…"),
        None => (line.len(), ""),
    }
}

/// A value, written as told, or `-` where there is none.
pub(super) fn or_dash<T>(cell: &mut String, value: Option<T>, write: impl FnOnce(&mut String, T)) {
    match value {
        Some(value) => write(cell, value),
        None => cell.push('-'),
    }
}

/// The container, or the unit, or what else the cgroup is called.
pub(super) fn container(cell: &mut String, event: &Event) {
    or_dash(cell, event.cgroup_path.as_ref(), |cell, path| {
        cell.push_str(&printable(first(path.name(), CONTAINER)));
    });
}

/// The first characters of a text.
pub(super) fn first(text: &str, count: usize) -> &str {
    text.char_indices().nth(count).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// Text, padded with spaces to so many columns.
pub(super) fn pad(line: &mut String, text: &str, width: usize) {
    line.push_str(text);
    // Most is ASCII, which counting bytes is enough for.
    let columns = if text.is_ascii() { text.len() } else { text.chars().count() };
    line.extend(std::iter::repeat_n(' ', width.saturating_sub(columns)));
}

/// An address. One that is longer than there is room for loses its middle.
pub(super) fn address(cell: &mut String, ip: IpAddr, room: usize) {
    let start = cell.len();
    digits::address(cell, ip);
    let len = cell.len() - start;
    if len > room {
        let keep = room.saturating_sub(1);
        let (head, tail) = (start + keep.div_ceil(2), start + len - keep / 2);
        cell.replace_range(head..tail, "…");
    }
}

/// Seconds with as many decimals, six at most, as fit eight columns.
pub(super) fn seconds(cell: &mut String, ns: u64) {
    let start = cell.len();
    number(cell, ns / 1_000_000_000);
    let dot = cell.len();
    cell.push('.');
    padded(cell, (ns / 1000 % 1_000_000) as u32, 6);
    cell.truncate(cell.len().min((start + 8).max(dot + 2)));
}

/// HH:MM:SS.mmm, local time.
pub(super) fn time_of_day(cell: &mut String, wall_ns: i128) {
    let Ok(time) = jiff::Timestamp::from_nanosecond(wall_ns) else { return cell.push('-') };
    let time = time.to_zoned(jiff::tz::TimeZone::system());
    // Memory takes every byte.
    let _ = write!(
        cell,
        "{:02}:{:02}:{:02}.{:03}",
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    );
}

/// Milliseconds, to the µs where they are few.
pub(super) fn millis(cell: &mut String, ns: u64) {
    let micros = ns / 1000;
    number(cell, micros / 1000);
    match micros {
        0..10_000 => {
            cell.push('.');
            padded(cell, (micros % 1000) as u32, 3);
        }
        10_000..1_000_000 => {
            cell.push('.');
            number(cell, micros / 100 % 10);
        }
        _ => {}
    }
}
