//! What the two views for people have in common: cells, and lines that end at the terminal's edge.

use std::{
    fmt::{Display, Result, Write as _},
    net::IpAddr,
};

/// Where to cut a line that is to fit so many columns, and the mark that says that there is more: it takes the last
/// column.
pub(super) fn cut(line: &str, room: usize) -> (usize, &'static str) {
    let at = |column: usize| line.char_indices().nth(column).map(|(index, _)| index);
    match at(room) {
        Some(_) => (at(room.saturating_sub(1)).unwrap_or(line.len()), "…"),
        None => (line.len(), ""),
    }
}

/// A value, or `-` where there is none.
pub(super) fn or_dash(cell: &mut String, value: Option<impl Display>) -> Result {
    match value {
        Some(value) => write!(cell, "{value}"),
        None => write!(cell, "-"),
    }
}

/// An address. One that is longer than there is room for loses its middle.
pub(super) fn address(cell: &mut String, ip: IpAddr, room: usize) -> Result {
    let ip = ip.to_string();
    if ip.len() <= room {
        return cell.write_str(&ip);
    }
    let keep = room.saturating_sub(1);
    let (head, tail) = (keep.div_ceil(2), keep / 2);
    let (head, tail) = (ip.get(..head).unwrap_or(""), ip.get(ip.len().saturating_sub(tail)..).unwrap_or(""));
    write!(cell, "{head}…{tail}")
}

/// Seconds with as many decimals, six at most, as fit eight columns.
pub(super) fn seconds(cell: &mut String, ns: u64) -> Result {
    let (whole, micros) = (ns / 1_000_000_000, ns / 1000 % 1_000_000);
    let start = cell.len();
    write!(cell, "{whole}.{micros:06}")?;
    let dot = start + cell[start..].find('.').unwrap_or(0);
    cell.truncate(cell.len().min((start + 8).max(dot + 2)));
    Ok(())
}

pub(super) fn time_of_day(cell: &mut String, wall_ns: i128) -> Result {
    let Ok(time) = jiff::Timestamp::from_nanosecond(wall_ns) else { return write!(cell, "-") };
    let time = time.to_zoned(jiff::tz::TimeZone::system());
    write!(cell, "{:02}:{:02}:{:02}.{:03}", time.hour(), time.minute(), time.second(), time.millisecond())
}

/// Milliseconds, to the µs where they are few.
pub(super) fn millis(cell: &mut String, ns: u64) -> Result {
    let micros = ns / 1000;
    match micros {
        0..10_000 => write!(cell, "{}.{:03}", micros / 1000, micros % 1000),
        10_000..1_000_000 => write!(cell, "{}.{}", micros / 1000, micros / 100 % 10),
        _ => write!(cell, "{}", micros / 1000),
    }
}
