#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    process,
    sync::Arc,
};

use ::parquet::{
    file::{
        metadata::{ColumnChunkMetaData, FileMetaData, KeyValue, ParquetMetaData, RowGroupMetaData},
        properties::WriterProperties,
        writer::SerializedFileWriter,
    },
    schema::{parser::parse_message_type, types::SchemaDescriptor},
};
use tcptrace_common::record::{Addr, Tuple};

use super::{
    schema::{self, COLUMNS},
    *,
};
use crate::{
    kernel::clock::Clock,
    model::{
        event::{Comm, Id, Kind, Owner},
        health::Snmp,
    },
    view::tests::{connections, events},
};

/// Its times are ns since 1970.
fn clock() -> Clock {
    Clock::fixed(0, 0)
}

fn origin(host: &str) -> Origin {
    Origin { host: host.to_owned(), kernel: "6.12.1".to_owned(), reasons: true, ephemeral: 32_768..=60_999 }
}

/// A folder of a test's own, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("tcptrace-recording-{}-{name}", process::id())))
    }

    fn write(&self, origin: &Origin, start_ns: u64, rows: &[Row]) {
        let mut writer = FileWriter::begin(&self.0, origin, clock(), start_ns).unwrap();
        writer.push(rows.to_vec()).unwrap();
        writer.finish().unwrap();
    }

    fn read(&self) -> Result<Vec<Row>, FileError> {
        let mut rows = Vec::new();
        let mut recording = Recording::open(&self.0)?;
        while recording.read(&mut rows)? {}
        Ok(rows)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test that failed has its own message.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn rows() -> Vec<Row> {
    let (ts_ns, netns) = (5_000_000_123, 4_026_531_833);
    let counters = Snmp { netns, at_ns: ts_ns, out_rsts: 7, estab_resets: 3, ..Snmp::default() };
    let mut rows = vec![
        Row::Namespace { ts_ns, netns, counters: Some(counters) },
        Row::Namespace { ts_ns, netns: 1, counters: None },
        Row::Snapshot { ts_ns },
        Row::Lost { ts_ns, lost: Loss { unreadable: 12, gaps: 2, beyond: 1, ..Loss::default() } },
    ];
    for event in events().into_iter().chain(connections()) {
        let open = event.kind == Kind::Connection && event.verdict.is_none();
        rows.push(if open { Row::Socket(event) } else { Row::Event(event) });
    }
    rows
}

/// Every row is what it was, to the ns, through as many row groups as it takes.
#[test]
fn what_is_written_is_read() {
    let folder = Folder::new("same");
    let rows: Vec<Row> = rows().into_iter().cycle().take(100_000).collect();
    folder.write(&origin("one"), 5_000_000_000, &rows);
    let read = folder.read().unwrap();
    for (number, (read, written)) in read.iter().zip(&rows).enumerate() {
        assert_eq!(read, &as_json_has_it(written), "row {number}");
    }
    assert_eq!(read.len(), rows.len());
}

/// What no format tells: the name of the task where there is no task.
fn as_json_has_it(row: &Row) -> Row {
    let mut row = row.clone();
    if let Row::Event(event) | Row::Socket(event) = &mut row {
        let text = |comm: Comm| {
            let mut bytes = [0; 16];
            let text = comm.text().into_owned();
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            Comm(bytes)
        };
        event.task_comm = event.task_pid.map_or(Comm::default(), |_| text(event.task_comm));
        event.owner = event.owner.map(|owner| Owner { comm: text(owner.comm), ..owner });
        if event.tuple.rport == 0 {
            event.tuple.raddr = if event.tuple.is_v4() { Addr::from_be32(0) } else { Addr::default() };
        }
    }
    row
}

/// Files are read in the order of their times, whatever they are called; those that are not complete are not read.
#[test]
fn files_make_one_recording() {
    let folder = Folder::new("order");
    let row = |number: u64| {
        Row::Event(Event {
            id: Some(Id(number)),
            ..Event::new(number * 3_600_000_000_000, Kind::RstSent, Tuple::default())
        })
    };
    for number in [3, 1, 2] {
        folder.write(&origin("one"), number * 3_600_000_000_000, &[row(number)]);
    }
    let mut unfinished = FileWriter::begin(&folder.0, &origin("one"), clock(), 9).unwrap();
    unfinished.push(vec![row(4)]).unwrap();
    let ids =
        |rows: Vec<Row>| -> Vec<u64> { rows.iter().map(|row| row.ts_ns() / 3_600_000_000_000).collect() };
    assert_eq!(ids(folder.read().unwrap()), [1, 2, 3]);
    // Another recorder holds it.
    assert_eq!(folder::clear(&folder.0, "one").unwrap(), 0);
    drop(unfinished);
    assert_eq!(folder::clear(&folder.0, "one").unwrap(), 0);
    assert_eq!(Recording::open(&folder.0).unwrap().origin(), Some(&origin("one")));
    let hours = folder.0.join("host=one/date=1970-01-01");
    assert_eq!(fs::read_dir(hours).unwrap().count(), 4);
}

/// Whoever else may write to the folder does not lead a recorder out of it.
#[test]
fn links_are_not_followed() {
    let folder = Folder::new("links");
    let begin = || FileWriter::begin(&folder.0.join("root"), &origin("one"), clock(), 9);
    let elsewhere = folder.0.join("elsewhere");
    fs::create_dir_all(elsewhere.join("hour=00")).unwrap();
    let other = elsewhere.join(".x.parquet.tmp");
    fs::write(&other, "").unwrap();
    for below in ["root/host=one", "root/host=one/date=1970-01-01", "root/host=one/date=1970-01-01/hour=00"] {
        let link = folder.0.join(below);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&elsewhere, &link).unwrap();
        let error = begin().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(below) && error.contains("a link"), "{error}");
        let cleared = folder::clear(&folder.0.join("root"), "one");
        assert!(cleared.is_err() || cleared.unwrap() == 0);
        fs::remove_file(link).unwrap();
    }
    // Nor does it touch what no recorder has left there.
    let hour = folder.0.join("root/host=one/date=1970-01-01/hour=00");
    fs::create_dir(&hour).unwrap();
    let kept = ["x.parquet.tmp", ".x.tmp", "x.parquet", ".link.parquet.tmp"].map(|name| hour.join(name));
    let [plain @ .., link] = &kept;
    for path in plain {
        fs::write(path, "").unwrap();
    }
    symlink(&other, link).unwrap();
    fs::write(hour.join(".left.parquet.tmp"), "").unwrap();
    assert_eq!(folder::clear(&folder.0.join("root"), "one").unwrap(), 1);
    assert!(other.exists() && kept.iter().all(|path| path.symlink_metadata().is_ok()));
}

/// Who is neither owner nor of the group reads nothing.
#[test]
fn others_may_not_read() {
    let folder = Folder::new("modes");
    folder.write(&origin("one"), 9, &rows());
    let mut path = folder::files(&folder.0).unwrap().pop().unwrap();
    loop {
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7, 0, "{mode:o} {}", path.display());
        if path == folder.0 {
            break;
        }
        path.pop();
    }
}

/// A folder that old files are removed from while it is read; and one that has a link to itself in it.
#[test]
fn what_is_gone_is_left_out() {
    let folder = Folder::new("gone");
    let row = |ts_ns| Row::Event(Event::new(ts_ns, Kind::RstSent, Tuple::default()));
    for ts_ns in [1, 2, 3] {
        folder.write(&origin("one"), ts_ns, &[row(ts_ns)]);
    }
    symlink(&folder.0, folder.0.join("link")).unwrap();
    let mut recording = Recording::open(&folder.0).unwrap();
    let second = folder::files(&folder.0).unwrap().into_iter().nth(1).unwrap();
    fs::remove_file(second).unwrap();
    let mut rows = Vec::new();
    while recording.read(&mut rows).unwrap() {}
    assert_eq!(rows.iter().map(Row::ts_ns).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_view_shows_one_host() {
    let folder = Folder::new("hosts");
    folder.write(&origin("one"), 1, &rows());
    folder.write(&origin("an/other"), 2, &rows());
    let error = folder.read().unwrap_err().to_string();
    assert!(error.contains("several hosts (an/other, one)"), "{error}");
    // A name makes no folders of its own.
    assert!(folder.0.join("host=an_other").is_dir());
}

#[test]
fn other_parquet_is_refused() {
    let folder = Folder::new("foreign");
    fs::create_dir(&folder.0).unwrap();
    let write = |properties: WriterProperties| {
        let file = fs::File::create(folder.0.join("other.parquet")).unwrap();
        SerializedFileWriter::new(file, schema::schema().unwrap(), Arc::new(properties))
            .unwrap()
            .close()
            .unwrap();
    };
    write(WriterProperties::builder().build());
    let error = folder.read().unwrap_err().to_string();
    assert!(error.contains("other.parquet\nwhy: it is Parquet, but not of tcptrace"), "{error}");
    let newer = KeyValue::new("tcptrace.version".to_owned(), (VERSION + 1).to_string());
    write(WriterProperties::builder().set_key_value_metadata(Some(vec![newer])).build());
    let error = folder.read().unwrap_err().to_string();
    assert!(error.contains("its schema has version 2") && error.contains("newer tcptrace"), "{error}");
}

/// What a file says of itself that its checksum does not cover, or that one without a right checksum claims.
#[test]
fn columns_that_are_none_of_ours_are_refused() {
    let folder = Folder::new("columns");
    fs::create_dir(&folder.0).unwrap();
    let pairs = [("version", "1"), ("start_ns", "1"), ("ephemeral_ports", "1-2")];
    let pairs = pairs.map(|(key, value)| KeyValue::new(format!("tcptrace.{key}"), value.to_owned()));
    let properties =
        Arc::new(WriterProperties::builder().set_key_value_metadata(Some(pairs.to_vec())).build());
    let refused = |columns: &str| {
        let schema = parse_message_type(&format!("message tcptrace {{ {columns} }}")).unwrap();
        let file = fs::File::create(folder.0.join("made.parquet")).unwrap();
        SerializedFileWriter::new(file, Arc::new(schema), Arc::clone(&properties)).unwrap().close().unwrap();
        folder.read().unwrap_err().to_string()
    };
    let all = "REQUIRED INT64 ts; REQUIRED INT64 ts_nanos; REQUIRED BINARY kind;";
    for (columns, expected) in [
        ("REQUIRED INT64 ts; REQUIRED BINARY kind;".to_owned(), "no column ts_nanos"),
        (all.replace("REQUIRED BINARY", "OPTIONAL BINARY"), "no column kind with a value in every row"),
        (format!("{all} OPTIONAL INT64 pid; OPTIONAL INT64 pid;"), "two columns pid"),
        (format!("{all} OPTIONAL INT32 pid;"), "its column pid is of another type"),
        (all.to_owned(), "it has no checksum"),
    ] {
        let error = refused(&columns);
        assert!(error.contains("made.parquet") && error.contains(expected), "{error}");
    }
}

#[test]
fn numbers_of_rows_must_agree() {
    let schema = Arc::new(SchemaDescriptor::new(schema::schema().unwrap()));
    let agree = |rows: i64, groups: &[(i64, i64)]| {
        let group = |(rows, values): &(i64, i64)| {
            let columns = schema.columns().iter().map(|column| {
                ColumnChunkMetaData::builder(Arc::clone(column)).set_num_values(*values).build().unwrap()
            });
            let group = RowGroupMetaData::builder(Arc::clone(&schema)).set_num_rows(*rows);
            group.set_column_metadata(columns.collect()).build().unwrap()
        };
        let file = FileMetaData::new(2, rows, None, None, Arc::clone(&schema), None);
        parquet::counts(&ParquetMetaData::new(file, groups.iter().map(group).collect()))
    };
    assert!(agree(0, &[]) && agree(5, &[(2, 2), (0, 0), (3, 3)]));
    assert!(!agree(6, &[(2, 2), (3, 3)]), "the file has more");
    assert!(!agree(5, &[(2, 2), (3, 4)]), "a column has more");
    assert!(!agree(1, &[(2, 2), (-1, -1)]), "less than none");
    assert!(!agree(i64::MIN, &[(i64::MAX, i64::MAX), (1, 1)]), "more than there can be");
}

/// Times without end are no times.
#[test]
fn times_have_bounds() {
    let take = |name: &str, number: i64, draft: &mut draft::Draft| {
        let (.., set) = draft::reader(name).unwrap();
        set(draft, &draft::Cell::Number(number)).is_some()
    };
    for name in ["ts", "opened_ts"] {
        let draft = &mut draft::Draft::default();
        assert!(take(name, i64::MAX / 1000 - 2, draft));
        for number in [-1, i64::MAX / 1000, i64::MAX, i64::MIN] {
            assert!(!take(name, number, draft), "{name} {number}");
        }
        let nanos = format!("{name}_nanos");
        assert!(take(&nanos, 999, draft));
        assert!(!take(&nanos, 1000, draft) && !take(&nanos, -1, draft));
    }
}

/// Every column is read as what it is written as, or tells again what others do.
#[test]
fn what_is_a_column_is_read() {
    // What the path of a cgroup tells.
    let told = ["container", "container_runtime", "pod", "unit"];
    for column in COLUMNS.iter().filter(|column| !told.contains(&&*column.name)) {
        let shape = draft::reader(&column.name).map(|(shape, ..)| shape);
        assert_eq!(shape, Some(column.shape), "{}", column.name);
    }
}

/// docs/recordings.md has every column that is not a field of docs/events.md.
#[test]
fn columns_are_documented() {
    let read =
        |name: &str| fs::read_to_string(format!("{}/../docs/{name}.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let docs = [read("recordings"), read("events")].concat();
    let told = |name: &str| docs.contains(&format!("`{name}`"));
    let times = |name: &str| name.starts_with("state_us_");
    let missing: Vec<&str> =
        COLUMNS.iter().map(|column| &*column.name).filter(|name| !told(name) && !times(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
