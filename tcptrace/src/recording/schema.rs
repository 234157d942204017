//! The columns: those of the fields that JSON has, by the same names, and a few that only a recording needs.

use std::sync::{Arc, LazyLock};

use ::parquet::{
    basic::{Compression, Encoding, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel},
    errors::Result,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr},
    },
    schema::types::{ColumnPath, Type, TypePtr},
};

use super::Row;
use crate::{
    kernel::clock::Clock,
    model::{
        event::{Event, Kind},
        state::State,
    },
    view::fields::{FIELDS, Value},
};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A string.
    Text,
    /// BIGINT.
    Number,
    /// µs with three decimals, DECIMAL(18, 3): its unscaled numbers are ns.
    Micros,
    /// µs since 1970, TIMESTAMP. ns are more than Spark reads; a column beside it has what they are beyond the µs.
    Time,
    /// BOOLEAN, as which nothing is stored but true.
    Flag,
}

/// A column.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) shape: Shape,
    get: Get,
}

/// Where the values of a column come from.
#[derive(Clone, Copy, Debug)]
enum Get {
    Ts,
    TsNanos,
    Kind,
    Netns,
    Field(fn(&Event) -> Option<Value<'_>>),
    StateTime(State),
    OpenedNanos,
    States,
    Unaccepted,
    Closed,
    Lost(usize),
    OutRsts,
    EstabResets,
}

/// The fields that are no text.
fn shape_of(field: &str) -> Shape {
    match field {
        "netns" | "lport" | "rport" | "pid" | "uid" | "task_pid" | "cgroup" | "retransmits" | "tx_bytes"
        | "rx_bytes" | "srtt_us" => Shape::Number,
        "in_state_us" | "duration_us" => Shape::Micros,
        "opened_ts" => Shape::Time,
        _ => Shape::Text,
    }
}

/// All columns, in order.
pub(super) static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let column = |name: &str, shape, get| Column { name: name.to_owned(), shape, get };
    let mut columns =
        vec![column("ts", Shape::Time, Get::Ts), column("ts_nanos", Shape::Number, Get::TsNanos)];
    for field in FIELDS {
        match field.name {
            "kind" => columns.push(column("kind", Shape::Text, Get::Kind)),
            "netns" => columns.push(column("netns", Shape::Number, Get::Netns)),
            "state_us" => columns.extend(State::LIFE.map(|state| {
                column(&format!("state_us_{}", state.name()), Shape::Micros, Get::StateTime(state))
            })),
            name => columns.push(column(name, shape_of(name), Get::Field(field.get))),
        }
        if field.name == "opened_ts" {
            columns.push(column("opened_ts_nanos", Shape::Number, Get::OpenedNanos));
        }
    }
    columns.extend([
        column("states", Shape::Text, Get::States),
        column("unaccepted", Shape::Flag, Get::Unaccepted),
        column("closed", Shape::Flag, Get::Closed),
        column("lost", Shape::Number, Get::Lost(0)),
        column("gaps", Shape::Number, Get::Lost(1)),
        column("beyond", Shape::Number, Get::Lost(2)),
        column("out_rsts", Shape::Number, Get::OutRsts),
        column("estab_resets", Shape::Number, Get::EstabResets),
    ]);
    columns
});

impl Column {
    /// Appends the row's text, if it has one. Returns whether it has.
    pub(super) fn text(&self, row: &Row, out: &mut String) -> bool {
        match (self.get, row) {
            (Get::Kind, row) => out.push_str(kind(row)),
            (Get::Field(get), Row::Event(event) | Row::Socket(event)) => match get(event) {
                Some(value) => value.write(out),
                None => return false,
            },
            (Get::States, Row::Event(event) | Row::Socket(event)) => {
                let Some(history) = event.history.as_deref() else { return false };
                for state in State::all().filter(|state| history.has_visited(*state)) {
                    out.push_str(state.name());
                    out.push(' ');
                }
                out.pop();
            }
            _ => return false,
        }
        true
    }

    /// The row's number, if it has one: of ns where the column holds µs, of µs where it holds times.
    pub(super) fn number(&self, row: &Row, clock: &Clock) -> Option<i64> {
        let wall_ns = |ns: u64| i64::try_from(clock.wall_ns(ns)).ok();
        let signed = |number: u64| i64::try_from(number).ok();
        let event = match row {
            Row::Event(event) | Row::Socket(event) => Some(event),
            Row::Snapshot { .. } | Row::Namespace { .. } | Row::Lost { .. } => None,
        };
        match (self.get, row) {
            (Get::Ts, row) => wall_ns(row.ts_ns()).map(|ns| ns.div_euclid(1000)),
            (Get::TsNanos, row) => wall_ns(row.ts_ns()).map(|ns| ns.rem_euclid(1000)),
            (Get::Netns, Row::Namespace { netns, .. }) => Some((*netns).into()),
            (Get::Netns, _) => event.map(|event| event.tuple.netns.into()).filter(|netns| *netns != 0),
            (Get::Field(get), _) => match get(event?)? {
                Value::Number(number) | Value::Micros(number) => signed(number),
                Value::Time(ns) => wall_ns(ns).map(|ns| ns.div_euclid(1000)),
                _ => None,
            },
            (Get::OpenedNanos, _) => {
                let opened_ns = event?.history.as_ref()?.opened_ns?;
                wall_ns(opened_ns).map(|ns| ns.rem_euclid(1000))
            }
            (Get::StateTime(state), _) => {
                let mut times = event?.history.as_ref()?.times();
                times.find(|(known, _)| *known == state).and_then(|(_, ns)| signed(ns))
            }
            (Get::Lost(which), Row::Lost { lost, .. }) => {
                let (_, count) = *lost.counts().get(which)?;
                signed(count).filter(|count| which == 0 || *count > 0)
            }
            (Get::OutRsts, Row::Namespace { counters: Some(counters), .. }) => signed(counters.out_rsts),
            (Get::EstabResets, Row::Namespace { counters: Some(counters), .. }) => {
                signed(counters.estab_resets)
            }
            _ => None,
        }
    }

    /// Whether the row has the flag.
    pub(super) fn flag(&self, row: &Row) -> bool {
        match (self.get, row) {
            (Get::Unaccepted, Row::Event(event) | Row::Socket(event)) => event.unaccepted,
            (Get::Closed, Row::Event(event) | Row::Socket(event)) => event.closed,
            _ => false,
        }
    }

    fn physical(&self) -> Physical {
        match self.shape {
            Shape::Text => Physical::BYTE_ARRAY,
            Shape::Number | Shape::Micros | Shape::Time => Physical::INT64,
            Shape::Flag => Physical::BOOLEAN,
        }
    }

    fn logical(&self) -> Option<LogicalType> {
        match self.shape {
            Shape::Text => Some(LogicalType::String),
            Shape::Micros => Some(LogicalType::decimal(3, 18)),
            Shape::Time => Some(LogicalType::timestamp(true, TimeUnit::MICROS)),
            Shape::Number | Shape::Flag => None,
        }
    }

    /// Whether every row has a value.
    pub(super) fn is_required(&self) -> bool {
        matches!(self.get, Get::Ts | Get::TsNanos | Get::Kind)
    }

    fn parquet(&self) -> Result<TypePtr> {
        let repetition = if self.is_required() { Repetition::REQUIRED } else { Repetition::OPTIONAL };
        let digits = if self.shape == Shape::Micros { (18, 3) } else { (-1, -1) };
        let column = Type::primitive_type_builder(&self.name, self.physical())
            .with_repetition(repetition)
            .with_logical_type(self.logical())
            .with_precision(digits.0)
            .with_scale(digits.1);
        column.build().map(Arc::new)
    }
}

/// What a row is called in the column `kind`.
fn kind(row: &Row) -> &'static str {
    match row {
        Row::Event(event) => event.kind.name(),
        Row::Snapshot { .. } => SNAPSHOT,
        Row::Socket(_) => SOCKET,
        Row::Namespace { .. } => NAMESPACE,
        Row::Lost { .. } => LOST,
    }
}

/// The kinds of rows that are no events.
pub(super) const SNAPSHOT: &str = "snapshot";
pub(super) const SOCKET: &str = "socket";
pub(super) const NAMESPACE: &str = "namespace";
pub(super) const LOST: &str = "lost";

/// Those of events.
pub(super) const KINDS: [Kind; 5] =
    [Kind::Transition, Kind::RstSent, Kind::RstReceived, Kind::Retransmit, Kind::Connection];

/// The schema of a file.
pub(super) fn schema() -> Result<TypePtr> {
    let columns = COLUMNS.iter().map(Column::parquet).collect::<Result<_>>()?;
    Type::group_type_builder("tcptrace").with_fields(columns).build().map(Arc::new)
}

/// How it is written. Words are few, so dictionaries take them, and a connection's number comes a dozen times; of times
/// it is written what they grow by.
pub(super) fn properties(metadata: Vec<KeyValue>) -> Result<WriterPropertiesPtr> {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("tcptrace ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_key_value_metadata(Some(metadata));
    for column in COLUMNS.iter() {
        let encoding = match (column.get, column.shape) {
            (_, Shape::Micros | Shape::Time) | (Get::TsNanos | Get::OpenedNanos, _) => {
                Some(Encoding::DELTA_BINARY_PACKED)
            }
            _ => None,
        };
        if let Some(encoding) = encoding {
            let path = ColumnPath::from(column.name.as_str());
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, encoding);
        }
    }
    Ok(Arc::new(properties.build()))
}
