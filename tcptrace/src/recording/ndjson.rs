//! Reads what `trace -o json` and `conns -o json` have written: an object per line.

use std::{
    fmt,
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

use super::{
    FileError, Row,
    draft::{self, Cell, Draft, Parse, Set},
    schema::Shape,
    source::Head,
};
use crate::model::state::State;

/// Bytes that a line has at most: some thousand times what tcptrace writes.
const LONGEST: usize = 1 << 20;
/// Lines that are read at once.
const BATCH: usize = 1 << 10;

/// A file that is read.
pub(super) struct Reader {
    path: PathBuf,
    lines: BufReader<File>,
    head: Head,
    /// The line that was read last.
    number: usize,
    line: String,
    /// Its rows, before any other.
    first: Option<Row>,
    fields: Fields,
}

impl Reader {
    /// Opens it, and reads its first line.
    pub(super) fn open(path: &Path, lines: BufReader<File>) -> Result<Self, FileError> {
        let head = Head { start_ns: 0, origin: None };
        let (line, fields) = (String::new(), FxHashMap::default());
        let mut reader = Self { path: path.to_owned(), lines, head, number: 0, line, first: None, fields };
        reader.first = reader.next()?;
        if reader.number == 0 {
            return Err(FileError::foreign(path, "it is empty"));
        }
        reader.head.start_ns = reader.first.as_ref().map_or(0, Row::ts_ns);
        Ok(reader)
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Adds some more rows.
    pub(super) fn read(&mut self, rows: &mut Vec<Row>) -> Result<bool, FileError> {
        let before = rows.len();
        rows.extend(self.first.take());
        while rows.len() - before < BATCH
            && let Some(row) = self.next()?
        {
            rows.push(row);
        }
        Ok(rows.len() > before)
    }

    /// The next row; `None` at the end.
    fn next(&mut self) -> Result<Option<Row>, FileError> {
        loop {
            self.line.clear();
            let number = self.number + 1;
            let damaged =
                |why: &dyn fmt::Display| FileError::damaged(&self.path, format!("line {number}: {why}"));
            let read = (&mut self.lines).take(LONGEST as u64).read_line(&mut self.line);
            match read.map_err(|error| damaged(&error))? {
                0 => return Ok(None),
                LONGEST if !self.line.ends_with('\n') => return Err(damaged(&"it is longer than 1 MiB")),
                _ => self.number = number,
            }
            let cut = !self.line.ends_with('\n');
            match row(&mut self.fields, &self.line) {
                Ok(Some(row)) => return Ok(Some(row)),
                Ok(None) => {}
                Err(_) if cut && self.number > 1 => {
                    log::warn!("the last line of {} is cut off, and left out", super::printable(&self.path));
                    return Ok(None);
                }
                Err(why) => {
                    return Err(FileError::foreign(
                        &self.path,
                        format!("line {} is no event of tcptrace's: {why}", self.number),
                    ));
                }
            }
        }
    }
}

type Fields = FxHashMap<String, (Shape, Parse, Set)>;

/// The row of a line; `None` for one that nobody needs.
fn row(fields: &mut Fields, line: &str) -> Result<Option<Row>, String> {
    let object: Map<String, Value> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if !object.contains_key("kind") || !object.contains_key("ts") {
        return Err("it has no kind or no ts".to_owned());
    }
    let mut draft = Draft::default();
    for (name, value) in &object {
        if let (true, Value::Object(times)) = (name == "state_us", value) {
            for (state, time) in times {
                put(fields, &format!("state_us_{state}"), time, &mut draft)?;
            }
        } else {
            put(fields, name, value, &mut draft)?;
        }
    }
    Ok(draft.finish().map(|row| match row {
        Row::Event(mut event) => {
            event.closed = matches!(event.new, Some(State::CLOSE | State::TIME_WAIT));
            Row::Event(event)
        }
        row => row,
    }))
}

fn put(fields: &mut Fields, name: &str, value: &Value, draft: &mut Draft) -> Result<(), String> {
    let known = fields.get(name).copied();
    // What nobody knows is not remembered: there may be no end of it.
    let Some((shape, parse, set)) = known.or_else(|| draft::reader(name)) else { return Ok(()) };
    if known.is_none() {
        fields.insert(name.to_owned(), (shape, parse, set));
    }
    let cell = match (shape, value) {
        (Shape::Text, Value::String(text)) => parse(text),
        (Shape::Number, Value::Number(number)) => number.as_i64().map(Cell::Number),
        (Shape::Micros, Value::Number(number)) => number.as_f64().and_then(nanos).map(Cell::Number),
        (Shape::Time, Value::String(text)) => {
            let time: Option<jiff::Timestamp> = text.parse().ok();
            let ns = time.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
            // The columns of a recording have µs and what is beyond them apart.
            if let (Some(ns), Some((_, _, nanos))) = (ns, draft::reader(&format!("{name}_nanos"))) {
                nanos(draft, &Cell::Number(ns.rem_euclid(1000))).ok_or("a time is out of bounds")?;
            }
            ns.map(|ns| Cell::Number(ns.div_euclid(1000)))
        }
        _ => None,
    };
    let done = cell.and_then(|cell| set(draft, &cell));
    done.ok_or_else(|| format!("its {name}, {value}, makes no sense"))
}

/// µs as ns.
#[expect(clippy::cast_possible_truncation, reason = "what is beyond 100 years is refused")]
fn nanos(micros: f64) -> Option<i64> {
    let ns = (micros * 1000.0).round();
    (0.0..4e18).contains(&ns).then_some(ns as i64)
}
