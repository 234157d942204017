//! Reads one Parquet file, column by column, some rows at a time.

use std::{
    fs::File,
    hash::Hasher as _,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use ::parquet::{
    basic::Type as Physical,
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, DataType},
    errors::ParquetError,
    file::{
        metadata::{FileMetaData, ParquetMetaData},
        reader::FileReader as _,
        serialized_reader::SerializedFileReader,
    },
};
use twox_hash::XxHash64;

use super::{
    FileError, Origin, Row, VERSION,
    draft::{self, Cell, Draft, Parse, Set},
    schema::Shape,
    source::Head,
    write::{key, sealed},
};

/// Rows that are read at once: what they are made of stays in the cache.
const BATCH: usize = 1 << 10;
/// Words of a column that are remembered with what they mean.
const MEMO: usize = 256;

/// A file that is read.
pub(super) struct Reader {
    path: PathBuf,
    file: SerializedFileReader<File>,
    /// The same, as bytes.
    bytes: File,
    head: Head,
    columns: Vec<Column>,
    /// Row groups not begun.
    groups: std::ops::Range<usize>,
    /// Rows of the group that are still to be read.
    left: usize,
    /// The whole file was found to be as it was written.
    verified: bool,
    drafts: Vec<Draft>,
}

/// A column that is read.
struct Column {
    index: usize,
    name: String,
    required: bool,
    parse: Parse,
    set: Set,
    words: Words,
    /// Its part of the row group.
    pages: Option<ColumnReader>,
    levels: Vec<i16>,
}

impl Reader {
    /// Opens it, and reads what it says of itself.
    pub(super) fn open(path: &Path, file: File) -> Result<Self, FileError> {
        let bytes = file.try_clone().map_err(|error| FileError::damaged(path, error))?;
        let file = SerializedFileReader::new(file).map_err(|error| FileError::damaged(path, error))?;
        let metadata = file.metadata().file_metadata();
        let head = head(path, metadata)?;
        if !counts(file.metadata()) {
            return Err(FileError::damaged(path, "what it says of the numbers of its rows is no sum"));
        }
        let mut columns: Vec<Column> = Vec::new();
        for (index, column) in metadata.schema_descr().columns().iter().enumerate() {
            let name = column.name();
            let Some((shape, parse, set)) = draft::reader(name) else { continue };
            let physical = match shape {
                Shape::Text => Physical::BYTE_ARRAY,
                Shape::Number | Shape::Micros | Shape::Time => Physical::INT64,
                Shape::Flag => Physical::BOOLEAN,
            };
            if column.physical_type() != physical || column.max_rep_level() > 0 || column.max_def_level() > 1
            {
                return Err(FileError::foreign(
                    path,
                    format!("its column {name} is of another type than tcptrace's"),
                ));
            }
            if columns.iter().any(|column| column.name == name) {
                return Err(FileError::foreign(path, format!("it has two columns {name}")));
            }
            columns.push(Column {
                index,
                name: name.to_owned(),
                required: column.max_def_level() == 0,
                parse,
                set,
                words: Words { known: vec![None; MEMO] },
                pages: None,
                levels: Vec::new(),
            });
        }
        for name in ["ts", "ts_nanos", "kind"] {
            if !columns.iter().any(|column| column.name == name && column.required) {
                let why = format!("it has no column {name} with a value in every row");
                return Err(FileError::foreign(path, why));
            }
        }
        let groups = 0..file.metadata().num_row_groups();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
            head,
            columns,
            groups,
            left: 0,
            verified: false,
            drafts: Vec::new(),
        })
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Adds some more rows.
    pub(super) fn read(&mut self, rows: &mut Vec<Row>) -> Result<bool, FileError> {
        if !std::mem::replace(&mut self.verified, true) {
            self.verify()?;
        }
        while self.left == 0 {
            if !self.next_group()? {
                return Ok(false);
            }
        }
        let Self { path, columns, left, drafts, .. } = self;
        let count = BATCH.min(*left);
        *left -= count;
        drafts.clear();
        drafts.resize_with(count, Draft::default);
        for column in columns {
            column
                .read(drafts)
                .map_err(|why| FileError::damaged(path, format!("column {}: {why}", column.name)))?;
        }
        rows.extend(drafts.drain(..).filter_map(Draft::finish));
        Ok(true)
    }

    /// Begins the next row group, if there is one.
    fn next_group(&mut self) -> Result<bool, FileError> {
        let damaged = |error| FileError::damaged(&self.path, error);
        let Some(group) = self.groups.next() else { return Ok(false) };
        let group = self.file.get_row_group(group).map_err(damaged)?;
        for column in &mut self.columns {
            column.pages = Some(group.get_column_reader(column.index).map_err(damaged)?);
        }
        self.left = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        Ok(true)
    }

    /// Compares the file with the hash that it was given when it was complete.
    fn verify(&self) -> Result<(), FileError> {
        let metadata = self.file.metadata().file_metadata();
        let Some((bytes, hash)) = value(metadata, key::HASH).and_then(|text| text.split_once(' ')) else {
            return Err(FileError::damaged(&self.path, "it has no checksum"));
        };
        let hashed = || -> io::Result<String> {
            let (mut at, mut left) = (0, bytes.parse().unwrap_or(0));
            let (mut hash, mut buffer) = (XxHash64::with_seed(0), vec![0; 1 << 18]);
            while left > 0 {
                let count = self.bytes.read_at(&mut buffer, at)?;
                if count == 0 {
                    break;
                }
                let count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
                hash.write(buffer.get(..count).unwrap_or_default());
                (at, left) = (at + count as u64, left - count as u64);
            }
            let pairs = metadata.key_value_metadata().map_or(&[][..], |pairs| pairs);
            Ok(sealed(hash, metadata.schema_descr(), pairs))
        };
        if hashed().map_err(|error| FileError::damaged(&self.path, error))? != hash {
            return Err(FileError::damaged(&self.path, "its checksum is another"));
        }
        Ok(())
    }
}

impl Column {
    /// Reads as many values as there are drafts, and puts them where they belong.
    fn read(&mut self, drafts: &mut [Draft]) -> Result<(), String> {
        let Self { pages, levels, required, parse, set, words, .. } = self;
        let put =
            |draft: &mut Draft, cell: &Cell| set(draft, cell).ok_or("a value is out of bounds".to_owned());
        match pages {
            Some(ColumnReader::ByteArrayColumnReader(reader)) => {
                let values = values(reader, levels, *required, drafts.len())?;
                each(&values, levels, *required, drafts, |draft, text| {
                    words.look_up(text, *parse, |cell| put(draft, cell))
                })
            }
            Some(ColumnReader::Int64ColumnReader(reader)) => {
                let values = values(reader, levels, *required, drafts.len())?;
                each(&values, levels, *required, drafts, |draft, number| put(draft, &Cell::Number(*number)))
            }
            Some(ColumnReader::BoolColumnReader(reader)) => {
                let values = values(reader, levels, *required, drafts.len())?;
                each(&values, levels, *required, drafts, |draft, flag| put(draft, &Cell::Flag(*flag)))
            }
            _ => Err("it is missing".to_owned()),
        }
    }
}

/// The next values of a column, with a level for each row: 1 where there is one.
fn values<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    levels: &mut Vec<i16>,
    required: bool,
    count: usize,
) -> Result<Vec<T::T>, String> {
    levels.clear();
    let mut values = Vec::with_capacity(count);
    let read = reader
        .read_records(count, (!required).then_some(levels), None, &mut values)
        .map_err(|error: ParquetError| error.to_string())?;
    if read.0 == count { Ok(values) } else { Err(format!("it ends {} rows early", count - read.0)) }
}

/// Hands the values to the rows that have one.
fn each<T>(
    values: &[T],
    levels: &[i16],
    required: bool,
    drafts: &mut [Draft],
    mut put: impl FnMut(&mut Draft, &T) -> Result<(), String>,
) -> Result<(), String> {
    if values.is_empty() {
        // As in most columns most of the time.
        return Ok(());
    }
    if required {
        return drafts.iter_mut().zip(values).try_for_each(|(draft, value)| put(draft, value));
    }
    let there = drafts.iter_mut().zip(levels).filter(|(_, level)| **level > 0);
    there.zip(values).try_for_each(|((draft, _), value)| put(draft, value))
}

/// What the words of a column mean. A dictionary's words stand in one place each, so that is where they are looked up by;
/// who holds a word keeps its place from being used for another.
struct Words {
    known: Vec<Option<(ByteArray, Cell)>>,
}

impl Words {
    fn look_up(
        &mut self,
        text: &ByteArray,
        parse: Parse,
        put: impl FnOnce(&Cell) -> Result<(), String>,
    ) -> Result<(), String> {
        let bytes = text.data();
        let at = bytes.as_ptr().addr();
        let mut place = self.known.get_mut((at ^ at >> 8) % MEMO);
        if let Some(Some((known, cell))) = &place
            && known.data().as_ptr().addr() == at
            && known.len() == bytes.len()
        {
            return put(cell);
        }
        let cell = std::str::from_utf8(bytes).ok().and_then(parse);
        let cell = cell.ok_or_else(|| format!("{:?} makes no sense", String::from_utf8_lossy(bytes)))?;
        put(&cell)?;
        if let Some(place) = &mut place {
            **place = Some((text.clone(), cell));
        }
        Ok(())
    }
}

/// Whether the file, its row groups and their columns agree on how many rows there are: the checksum does not cover that.
pub(super) fn counts(metadata: &ParquetMetaData) -> bool {
    let sum = metadata.row_groups().iter().try_fold(0_i64, |sum, group| {
        let rows = group.num_rows();
        let agreed = rows >= 0 && group.columns().iter().all(|column| column.num_values() == rows);
        agreed.then(|| sum.checked_add(rows)).flatten()
    });
    sum == Some(metadata.file_metadata().num_rows())
}

fn value<'a>(metadata: &'a FileMetaData, key: &str) -> Option<&'a str> {
    let pairs = metadata.key_value_metadata()?;
    pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
}

fn head(path: &Path, metadata: &FileMetaData) -> Result<Head, FileError> {
    let Some(version) = value(metadata, key::VERSION) else {
        return Err(FileError::foreign(path, "it is Parquet, but not of tcptrace"));
    };
    if version.parse().is_ok_and(|version: u32| version > VERSION) {
        let why = format!("its schema has version {version}, and this tcptrace knows {VERSION}");
        return Err(FileError::read(path, why, "read it with a newer tcptrace"));
    }
    let missing = |what: &str| FileError::damaged(path, format!("it does not say its {what}"));
    let start_ns = value(metadata, key::START).and_then(|start| start.parse().ok());
    let ports = value(metadata, key::EPHEMERAL).and_then(|ports| ports.split_once('-'));
    let ports = ports.and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
    let word = |key| value(metadata, key).unwrap_or_default().to_owned();
    Ok(Head {
        start_ns: start_ns.ok_or_else(|| missing("start"))?,
        origin: Some(Origin {
            host: word(key::HOST),
            kernel: word(key::KERNEL),
            reasons: value(metadata, key::REASONS) == Some("true"),
            ephemeral: ports.ok_or_else(|| missing("ports"))?,
        }),
    })
}
