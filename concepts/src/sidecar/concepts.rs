//! The three columns that counting needs, a row group at a time: memory does not grow with the sidecar.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::{DictionaryArray, StringArray, UInt32Array};
use arrow_array::cast::AsArray;
use arrow_cast::cast;
use arrow_array::types::{Int32Type, UInt32Type};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::{Metadata, reader, writer};
use crate::Error;

/// Reads the concepts of a sidecar's mentions from its start to its end.
#[derive(Debug)]
pub struct ConceptReader {
    /// What the sidecar was made from and by.
    pub metadata: Metadata,
    path: PathBuf,
    batches: ParquetRecordBatchReader,
    /// Rows handed out.
    rows: u64,
    /// Sample of the last of them.
    sample: u32,
}

/// Some mentions, in tar order: column by column, as long as each other, without nulls.
pub(crate) struct ConceptBatch {
    pub(crate) sample: UInt32Array,
    pub(crate) key: StringArray,
    pub(crate) concept: DictionaryArray<Int32Type>,
}

impl ConceptReader {
    /// Opens the sidecar at `path` and reads its footer.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path, "read"))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| broken(path, e))?;
        let metadata =
            reader::metadata_of(builder.metadata().file_metadata()).map_err(|e| broken(path, e))?;
        let columns = ProjectionMask::columns(builder.parquet_schema(), ["key", "sample", "concept"]);
        let batches = builder
            .with_projection(columns)
            .with_batch_size(writer::ROW_GROUP)
            .build()
            .map_err(|e| broken(path, e))?;
        Ok(Self { metadata, path: path.to_owned(), batches, rows: 0, sample: 0 })
    }

    /// The next mentions; none at the end. Fails on what is not a whole sidecar.
    pub(crate) fn next_batch(&mut self) -> Result<Option<ConceptBatch>, Error> {
        match self.batches.next() {
            Some(batch) => batch
                .map_err(|e| e.to_string())
                .and_then(|batch| self.checked(&batch))
                .map(Some)
                .map_err(|e| broken(&self.path, e)),
            None if self.rows == self.metadata.mentions => Ok(None),
            None => Err(broken(&self.path, "its footer counts other rows than it has")),
        }
    }

    fn checked(&mut self, batch: &arrow_array::RecordBatch) -> Result<ConceptBatch, String> {
        let sample = reader::numbers(batch, "sample")?.as_primitive::<UInt32Type>().clone();
        for &sample in sample.values() {
            if sample < self.sample || sample >= self.metadata.samples {
                let samples = self.metadata.samples;
                return Err(format!("sample {sample} of {samples} after sample {}", self.sample));
            }
            self.sample = sample;
        }
        self.rows += batch.num_rows() as u64;
        let key = cast(reader::column(batch, "key")?, &DataType::Utf8).map_err(|e| e.to_string())?;
        let key = key.as_string_opt::<i32>().ok_or("column \"key\" is not text")?.clone();
        Ok(ConceptBatch { sample, key, concept: reader::dictionary(batch, "concept")? })
    }
}

fn broken(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::table(path, format!("not a readable sidecar: {what}; tag the shard again"))
}
