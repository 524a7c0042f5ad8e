//! Reads the three columns that statistics need, one row group at a time, so that memory does not grow with the
//! sidecar.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt32Type};
use arrow_array::{Array, DictionaryArray, RecordBatch, UInt32Array};
use bytes::Bytes;
use parquet::file::reader::ChunkReader;

use super::{Metadata, reader, writer};
use crate::Error;
use crate::tables::{Batches, Table, TableError, Texts};

/// Reads the concepts of a sidecar's mentions from start to end.
#[derive(Debug)]
pub struct ConceptReader {
    /// What the sidecar was made from, and with which tagger.
    pub metadata: Metadata,
    path: PathBuf,
    batches: Batches,
    /// Number of rows read so far.
    rows: u64,
    /// Sample of the last row read.
    sample: u32,
}

/// Some mentions in tar order, as columns of the same length without nulls.
pub(crate) struct ConceptBatch {
    pub(crate) sample: UInt32Array,
    pub(crate) key: DictionaryArray<Int32Type>,
    pub(crate) concept: DictionaryArray<Int32Type>,
}

impl ConceptReader {
    /// Opens the sidecar at `path` and reads its footer.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::from_chunks(path, File::open(path).map_err(Error::io(path, "read"))?)
    }

    /// The same from the bytes of a sidecar; `path` is its name in errors.
    pub fn from_bytes(path: &Path, bytes: Bytes) -> Result<Self, Error> {
        Self::from_chunks(path, bytes)
    }

    fn from_chunks(path: &Path, chunks: impl ChunkReader + 'static) -> Result<Self, Error> {
        let open = || -> Result<(Metadata, Batches), TableError> {
            let table = Table::open(chunks, Texts::Dictionaries)?;
            let metadata = reader::metadata_of(table.footer())?;
            Ok((metadata, table.batches(Some(&["key", "sample", "concept"]), writer::ROW_GROUP)?))
        };
        let (metadata, batches) = open().map_err(|problem| reader::broken(path, problem))?;
        Ok(Self { metadata, path: path.to_owned(), batches, rows: 0, sample: 0 })
    }

    /// How often each concept is mentioned.
    ///
    /// # Errors
    /// The file is not a complete sidecar.
    pub fn counts(mut self) -> Result<HashMap<String, u64>, Error> {
        let mut counts: HashMap<String, u64> = HashMap::new();
        while let Some(batch) = self.next_batch()? {
            let names = batch.concept.values().as_string::<i32>();
            // Each name is looked up once.
            let mut of_name = vec![0_u64; names.len()];
            for &name in batch.concept.keys().values() {
                of_name[name as usize] += 1;
            }
            for (name, count) in names.iter().zip(of_name).filter(|(_, count)| *count > 0) {
                let name = name.unwrap_or_default();
                match counts.get_mut(name) {
                    Some(sum) => *sum += count,
                    None => drop(counts.insert(name.to_owned(), count)),
                }
            }
        }
        Ok(counts)
    }

    /// The next mentions; `None` at the end. Returns an error if the file is not a complete sidecar.
    pub(crate) fn next_batch(&mut self) -> Result<Option<ConceptBatch>, Error> {
        match self.batches.next() {
            Some(batch) => batch
                .and_then(|batch| self.checked(&batch))
                .map(Some)
                .map_err(|problem| reader::broken(&self.path, problem)),
            None if self.rows == self.metadata.mentions => Ok(None),
            None => {
                let problem = "its number of rows differs from the count in its footer";
                Err(reader::broken(&self.path, problem))
            }
        }
    }

    fn checked(&mut self, batch: &RecordBatch) -> Result<ConceptBatch, TableError> {
        let sample = reader::numbers(batch, "sample")?.as_primitive::<UInt32Type>().clone();
        for &sample in sample.values() {
            if sample < self.sample || sample >= self.metadata.samples {
                let samples = self.metadata.samples;
                let problem = format!("sample {sample} (of {samples}) comes after sample {}", self.sample);
                return Err(TableError::content(problem));
            }
            self.sample = sample;
        }
        self.rows += batch.num_rows() as u64;
        let (key, concept) = (reader::dictionary(batch, "key")?, reader::dictionary(batch, "concept")?);
        Ok(ConceptBatch { sample, key, concept })
    }
}
