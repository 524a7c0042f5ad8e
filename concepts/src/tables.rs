//! Reads Parquet files, which may be damaged or made to do harm. Everything in this project that reads one does it through
//! this module:
//!
//! - what a file claims (numbers of rows and values, sizes of pages and of lists) is compared with the file's own size
//!   before memory is allocated for it;
//! - the Arrow schema that a file may embed (`ARROW:schema`) is not read: the types follow from Parquet's own schema;
//! - a panic of the library becomes an error ([`guarded`]).
//!
//! A reader that keeps rows counts them with a [`Budget`], because a dictionary can repeat a long text in every row, and
//! rows that are all the same take next to nothing in the file.

mod error;
mod limits;
mod thrift;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::{FileMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::ChunkReader;

pub use self::error::TableError;
pub use self::limits::{Budget, Checked};

/// How text columns are read. None of the ways makes a copy of a value per row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texts {
    /// As dictionaries (`Dictionary(Int32, Utf8)`): values that repeat are looked up once.
    Dictionaries,
    /// As `Utf8View`.
    Views,
}

/// A Parquet file of this project's own formats, whose footer has been read and checked.
#[derive(Debug)]
pub struct Table<C: ChunkReader> {
    chunks: C,
    metadata: ArrowReaderMetadata,
}

impl<C: ChunkReader + 'static> Table<C> {
    /// Reads and checks the footer.
    ///
    /// # Errors
    /// The bytes are not those of a Parquet file, or it claims more than a file of its size can contain.
    pub fn open(chunks: C, texts: Texts) -> Result<Self, TableError> {
        let metadata = load(&chunks)?;
        let metadata = guarded(|| with_texts(&metadata, texts))??;
        Ok(Self { chunks, metadata })
    }

    /// As [`Table::open`], for a table in which no column has another value in every row, so that it compresses better: it may claim
    /// 64 times as many rows. The caller must keep no memory for rows that it cannot expect.
    ///
    /// # Errors
    /// Those of [`Table::open`].
    pub fn open_repetitive(chunks: C, texts: Texts) -> Result<Self, TableError> {
        let metadata = load_with(&chunks, limits::REPETITIVE_ROWS_PER_BYTE)?;
        let metadata = guarded(|| with_texts(&metadata, texts))??;
        Ok(Self { chunks, metadata })
    }

    /// Names and types of the columns.
    pub fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// The footer.
    pub fn footer(&self) -> &FileMetaData {
        self.metadata.metadata().file_metadata()
    }

    /// Size of the file, bytes.
    pub fn bytes(&self) -> u64 {
        self.chunks.len()
    }

    /// Whether it has a column of this name.
    pub fn has(&self, column: &str) -> bool {
        self.schema().column_with_name(column).is_some()
    }

    /// The rows, at most `rows` at a time, with these columns (those that the file does not have are left out), or with
    /// all.
    pub fn batches(self, columns: Option<&[&str]>, rows: usize) -> Result<Batches, TableError> {
        let chunks = Checked::of_our_own(self.chunks);
        guarded(|| {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(chunks, self.metadata);
            let mask = match columns {
                Some(columns) => ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied()),
                None => ProjectionMask::all(),
            };
            builder.with_projection(mask).with_batch_size(rows).build()
        })?
        .map(Batches)
        .map_err(TableError::damaged)
    }
}

/// The rows of a table. After an error there are no more.
#[derive(Debug)]
pub struct Batches(ParquetRecordBatchReader);

impl Batches {
    /// The rows that a builder describes, which must read from a [`Checked`] file.
    pub fn build<C: ChunkReader + 'static>(
        builder: ParquetRecordBatchReaderBuilder<Checked<C>>,
    ) -> Result<Self, TableError> {
        guarded(|| builder.build())?.map(Self).map_err(TableError::damaged)
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        match guarded(|| self.0.next()) {
            Ok(batch) => batch.map(|batch| batch.map_err(TableError::damaged)),
            Err(panic) => Some(Err(panic)),
        }
    }
}

/// Reads and checks the footer of a file: of this project or of others.
pub fn load<C: ChunkReader>(chunks: &C) -> Result<ArrowReaderMetadata, TableError> {
    load_with(chunks, limits::ROWS_PER_BYTE)
}

fn load_with<C: ChunkReader>(chunks: &C, rows_per_byte: u64) -> Result<ArrowReaderMetadata, TableError> {
    guarded(|| {
        let length = chunks.len();
        limits::check_end(chunks, length)?;
        let metadata = ArrowReaderMetadata::load(chunks, options()).map_err(TableError::damaged)?;
        limits::check_footer(metadata.metadata(), length, rows_per_byte)?;
        Ok(metadata)
    })?
}

/// The footer of a file of `length` bytes, from its last bytes.
pub(crate) fn load_end(end: &Bytes, length: u64) -> Result<ParquetMetaData, TableError> {
    guarded(|| {
        limits::check_end(end, length)?;
        let mut reader = ParquetMetaDataReader::new();
        reader.try_parse_sized(end, length).map_err(TableError::damaged)?;
        let metadata = reader.finish().map_err(TableError::damaged)?;
        limits::check_footer(&metadata, length, limits::ROWS_PER_BYTE)?;
        Ok(metadata)
    })?
}

/// Without the embedded Arrow schema, which the library decodes with panics.
fn options() -> ArrowReaderOptions {
    ArrowReaderOptions::new().with_skip_arrow_metadata(true)
}

/// The metadata with another type of text columns.
fn with_texts(metadata: &ArrowReaderMetadata, texts: Texts) -> Result<ArrowReaderMetadata, TableError> {
    let wanted = match texts {
        Texts::Dictionaries => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        Texts::Views => DataType::Utf8View,
    };
    let fields: Vec<_> = metadata
        .schema()
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(wanted.clone())),
            _ => Arc::clone(field),
        })
        .collect();
    let options = options().with_schema(Arc::new(Schema::new(fields)));
    ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options).map_err(TableError::damaged)
}

thread_local! {
    /// Whether a panic of this thread will be reported as an error, so that its message need not be printed.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs code of a library that may panic when it reads a damaged file. The panic becomes an error with its message, which is
/// not printed.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, TableError> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                print(panic);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    done.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let text = text.lines().next().unwrap_or("the library panicked");
        TableError::damaged(format!("it is damaged ({text})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        let panicking = || -> u32 { panic!("offset {} is beyond the end", 7) };
        let error = guarded(panicking).unwrap_err().to_string();
        assert_eq!(error, "it is damaged (offset 7 is beyond the end)");
        assert_eq!(guarded(|| 3), Ok(3));
        // Not the ones of the code around it.
        assert!(!GUARDED.get());
    }
}
