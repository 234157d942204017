//! Writes one file: aside, under a name that engines skip; when it is complete it gets its own.

use std::{
    fs::{self, File},
    hash::Hasher as _,
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ::parquet::{
    data_type::{BoolType, ByteArray, ByteArrayType, Int64Type},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::types::SchemaDescriptor,
};
use bytes::Bytes;
use twox_hash::XxHash64;

use super::{
    Origin, Row, VERSION,
    folder::{self, named},
    schema::{self, COLUMNS, Column, Shape},
};
use crate::kernel::clock::Clock;

/// Rows of a row group: what one thread of an engine works at, and what waits in memory (some 30 MB).
const GROUP: usize = 1 << 16;
/// Rows that are turned into columns at once.
const CHUNK: usize = 1 << 12;

/// Names in a file's metadata.
pub(super) mod key {
    pub(crate) const VERSION: &str = "tcptrace.version";
    pub(crate) const HOST: &str = "tcptrace.host";
    pub(crate) const KERNEL: &str = "tcptrace.kernel";
    pub(crate) const REASONS: &str = "tcptrace.reasons";
    pub(crate) const EPHEMERAL: &str = "tcptrace.ephemeral_ports";
    pub(crate) const START: &str = "tcptrace.start_ns";
    /// How many bytes come before the index and the footer, and a hash by xxHash64 without a seed: see
    /// [`sealed`](super::sealed).
    pub(crate) const HASH: &str = "tcptrace.xxh64";
}

/// The hash of a file's data, given that of its bytes, and of what is believed of its footer.
pub(super) fn sealed(mut bytes: XxHash64, schema: &SchemaDescriptor, pairs: &[KeyValue]) -> String {
    for column in schema.columns() {
        bytes.write(column.name().as_bytes());
    }
    for KeyValue { key, value } in pairs.iter().filter(|pair| pair.key != key::HASH) {
        bytes.write(key.as_bytes());
        bytes.write(value.as_deref().unwrap_or_default().as_bytes());
    }
    format!("{:016x}", bytes.finish())
}

/// A file that is being written.
pub struct FileWriter {
    writer: SerializedFileWriter<Hashed>,
    metadata: Vec<KeyValue>,
    clock: Clock,
    aside: PathBuf,
    path: PathBuf,
    rows: Vec<Row>,
    values: Values,
}

impl FileWriter {
    /// Begins a file in the folder of its host and hour below `root`, whose rows have the times of `clock`. `start_ns`
    /// is when it begins, by that clock.
    pub fn begin(root: &Path, origin: &Origin, clock: Clock, start_ns: u64) -> io::Result<Self> {
        let start_ns = clock.wall_ns(start_ns);
        let path = folder::file(root, &origin.host, start_ns);
        let aside = folder::aside(&path);
        folder::make(root, &path)?;
        let file = File::options().write(true).create_new(true).mode(0o640).open(&aside);
        let file = file.map_err(|error| named(&aside, &error))?;
        folder::hold(&file);
        let pair = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
        let metadata = vec![
            pair(key::VERSION, VERSION.to_string()),
            pair(key::HOST, origin.host.clone()),
            pair(key::KERNEL, origin.kernel.clone()),
            pair(key::REASONS, origin.reasons.to_string()),
            pair(key::EPHEMERAL, format!("{}-{}", origin.ephemeral.start(), origin.ephemeral.end())),
            pair(key::START, start_ns.to_string()),
        ];
        let sink = Hashed { file: BufWriter::with_capacity(1 << 18, file), hash: XxHash64::with_seed(0) };
        let made = schema::schema().and_then(|schema| {
            SerializedFileWriter::new(sink, schema, schema::properties(metadata.clone())?)
        });
        let writer = made.map_err(|error| named(&aside, &io_error(error)))?;
        Ok(Self { writer, metadata, clock, aside, path, rows: Vec::new(), values: Values::default() })
    }

    /// Adds rows.
    pub fn push(&mut self, rows: Vec<Row>) -> io::Result<()> {
        for row in rows {
            self.rows.push(row);
            if self.rows.len() >= GROUP {
                self.write_group()?;
            }
        }
        Ok(())
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.writer.bytes_written() as u64
    }

    /// Completes the file, and gives it its name. Returns its size in bytes.
    pub fn finish(mut self) -> io::Result<u64> {
        self.write_group()?;
        let metadata = &self.metadata;
        let complete = |writer: &mut SerializedFileWriter<Hashed>| -> Result<u64, ParquetError> {
            let bytes = writer.bytes_written();
            let hash = sealed(writer.inner().hash.clone(), writer.schema_descr(), metadata);
            writer.append_key_value_metadata(KeyValue::new(key::HASH.to_owned(), format!("{bytes} {hash}")));
            writer.finish()?;
            writer.inner_mut().flush()?;
            writer.inner().file.get_ref().sync_all()?;
            Ok(writer.bytes_written() as u64)
        };
        let completed = complete(&mut self.writer).map_err(io_error);
        let bytes = completed.map_err(|error| named(&self.aside, &error))?;
        fs::rename(&self.aside, &self.path).map_err(|error| named(&self.path, &error))?;
        if let Some(folder) = self.path.parent() {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|error| named(folder, &error))?;
        }
        Ok(bytes)
    }

    fn write_group(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let Self { writer, clock, values, aside, .. } = self;
        let mut write = || -> Result<(), ParquetError> {
            let mut group = writer.next_row_group()?;
            for column in COLUMNS.iter() {
                let Some(mut writer) = group.next_column()? else { break };
                for chunk in rows.chunks(CHUNK) {
                    values.write(column, chunk, clock, &mut writer)?;
                }
                writer.close()?;
            }
            group.close().map(|_| ())
        };
        write().map_err(|error| named(aside, &io_error(error)))?;
        self.rows = rows;
        self.rows.clear();
        Ok(())
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        // What is complete has another name by now.
        let _ = fs::remove_file(&self.aside);
    }
}

/// The values of some rows in one column; kept for their memory.
#[derive(Default)]
struct Values {
    levels: Vec<i16>,
    numbers: Vec<i64>,
    flags: Vec<bool>,
    ends: Vec<usize>,
    texts: Vec<ByteArray>,
}

impl Values {
    fn write(
        &mut self,
        column: &Column,
        rows: &[Row],
        clock: &Clock,
        writer: &mut SerializedColumnWriter<'_>,
    ) -> Result<(), ParquetError> {
        let Self { levels, numbers, flags, ends, texts } = self;
        levels.clear();
        match column.shape {
            Shape::Text => {
                let mut text = String::new();
                ends.clear();
                for row in rows {
                    let there = column.text(row, &mut text);
                    levels.push(there.into());
                    if there {
                        ends.push(text.len());
                    }
                }
                // One piece of memory for all.
                let all = Bytes::from(text);
                let starts = [0].into_iter().chain(ends.iter().copied());
                texts.clear();
                texts.extend(starts.zip(&*ends).map(|(start, end)| ByteArray::from(all.slice(start..*end))));
                let levels = (!column.is_required()).then_some(&**levels);
                writer.typed::<ByteArrayType>().write_batch(texts, levels, None)?;
            }
            Shape::Number | Shape::Micros | Shape::Time => {
                numbers.clear();
                for row in rows {
                    let number = column.number(row, clock);
                    levels.push(number.is_some().into());
                    numbers.extend(number);
                }
                let levels = (!column.is_required()).then_some(&**levels);
                writer.typed::<Int64Type>().write_batch(numbers, levels, None)?;
            }
            Shape::Flag => {
                flags.clear();
                for row in rows {
                    let flag = column.flag(row);
                    levels.push(flag.into());
                    flags.extend(flag.then_some(true));
                }
                writer.typed::<BoolType>().write_batch(flags, Some(levels), None)?;
            }
        }
        Ok(())
    }
}

/// A file, and the hash of what was written to it.
struct Hashed {
    file: BufWriter<File>,
    hash: XxHash64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.write(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}
