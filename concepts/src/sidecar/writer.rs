//! Writes a sidecar. Rows are buffered for a few pages only, so memory hardly grows with the shard: by 8 bytes per sample.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::builder::{StringBuilder, UInt32Builder};
use arrow_array::{ArrayRef, DictionaryArray, Int32Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::captions::{CaptionCheck, CaptionChecks};
use super::{FOOTER_KEY, MentionRow, Metadata, OLDEST_VERSION};
use crate::{Error, Extractor, Mention, MentionView};
use disk::files::AtomicFile;

/// Rows per row group: DuckDB's unit of scanning.
pub(super) const ROW_GROUP: usize = 122_880;

/// Rows that are buffered before they are passed to the encoder.
const ROWS: usize = 16_384;

/// Rows are sorted by `sample`, the second column.
const SAMPLE_ORDER: SortingColumn = SortingColumn { column_idx: 1, descending: false, nulls_first: false };

/// Zstandard level: higher levels are slower and hardly make the files smaller.
const ZSTD_LEVEL: i32 = 3;

/// Writes one sidecar: a file, which appears under its name only when [`Writer::finish`] is called, or its bytes.
pub struct Writer<W: Write + Send = AtomicFile> {
    /// For errors.
    path: PathBuf,
    /// With the counts so far.
    metadata: Metadata,
    parquet: ArrowWriter<W>,
    /// The rows that `parquet` does not have yet.
    columns: Columns,
    /// Of the captions so far; written between the last row and the footer.
    checks: CaptionChecks,
}

impl<W: Write + Send> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("path", &self.path)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts the sidecar at `path`, in an existing folder. The counts in `metadata` are ignored; the writer counts.
    pub fn create(path: &Path, metadata: Metadata) -> Result<Self, Error> {
        let file = AtomicFile::create(path).map_err(Error::io(path, "write"))?;
        Self::to(file, path, metadata)
    }

    /// Writes the remaining rows and the footer, and renames the file into place. Returns the metadata with the counts.
    pub fn finish(self) -> Result<Metadata, Error> {
        let path = self.path.clone();
        let (file, metadata) = self.complete()?;
        file.commit().map_err(Error::io(&path, "write"))?;
        Ok(metadata)
    }
}

impl Writer<Vec<u8>> {
    /// Starts a sidecar in memory, whose name in errors is `path`.
    pub fn in_memory(path: &Path, metadata: Metadata) -> Result<Self, Error> {
        Self::to(Vec::new(), path, metadata)
    }

    /// The bytes of the complete sidecar, and the metadata with the counts.
    pub fn into_bytes(self) -> Result<(Vec<u8>, Metadata), Error> {
        self.complete()
    }
}

impl<W: Write + Send> Writer<W> {
    fn to(file: W, path: &Path, metadata: Metadata) -> Result<Self, Error> {
        let mut properties = WriterProperties::builder()
            // Minimum and maximum values help to find samples; for phrases, in the order of captions, they would not.
            .set_statistics_enabled(EnabledStatistics::None)
            .set_column_statistics_enabled(ColumnPath::from("key"), EnabledStatistics::Chunk)
            .set_column_statistics_enabled(ColumnPath::from("sample"), EnabledStatistics::Chunk)
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default()))
            .set_max_row_group_row_count(Some(ROW_GROUP))
            .set_sorting_columns(Some(vec![SAMPLE_ORDER]))
            .set_created_by(concat!("concepts ", env!("CARGO_PKG_VERSION")).to_owned());
        let several = metadata.field.is_some();
        let schema = schema(several);
        // Numbers change little from row to row, so differences take fewer bits than the indices of a dictionary, and no value
        // has to be hashed.
        for number in schema.fields().iter().filter(|field| field.data_type().is_integer()) {
            let column = ColumnPath::from(number.name().as_str());
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        }
        let parquet = ArrowWriter::try_new(file, schema, Some(properties.build()))
            .map_err(|e| Error::write(path, e))?;
        let metadata =
            Metadata { captions: None, samples: 0, captions_without_mention: 0, mentions: 0, ..metadata };
        let checks = CaptionChecks::default();
        let columns = Columns { caption: several.then(UInt32Builder::new), ..Columns::default() };
        Ok(Self { path: path.to_owned(), metadata, parquet, columns, checks })
    }

    /// Adds the mentions of a sample. Call it once for every sample of the shard, in tar order, including samples
    /// without a caption (empty text) or without a mention.
    ///
    /// `sample` is the position in the tar, from 0. Positions that are left out count as samples without a caption.
    pub fn push(
        &mut self,
        sample: u32,
        key: &str,
        canonical: &str,
        mentions: &[Mention],
    ) -> Result<(), Error> {
        self.begin(sample, key)?;
        for mention in mentions {
            self.columns.push((sample, 0), key, canonical, &MentionView::from(mention));
        }
        self.end(mentions.len() as u64)
    }

    /// As [`Writer::push`], with the mentions that `extractor` finds in the canonical text of each caption of the sample: of
    /// several only if the sidecar is that of a [`Metadata::field`]. Returns the number of mentions.
    pub fn tag(
        &mut self,
        sample: u32,
        key: &str,
        canonicals: &[impl AsRef<str>],
        extractor: &Extractor,
    ) -> Result<u64, Error> {
        self.begin(sample, key)?;
        let mut mentions = 0;
        for (caption, canonical) in (0..).zip(canonicals) {
            let canonical = canonical.as_ref();
            extractor.visit(canonical, |mention| {
                self.columns.push((sample, caption), key, canonical, &mention);
                mentions += 1;
            });
        }
        self.end(mentions)?;
        Ok(mentions)
    }

    /// As [`Writer::push`], with the mentions in another sidecar, whose positions do not count.
    pub fn copy<'a>(
        &mut self,
        sample: u32,
        key: &str,
        mentions: impl IntoIterator<Item = MentionRow<'a>>,
    ) -> Result<(), Error> {
        self.begin(sample, key)?;
        let mut count = 0;
        for mention in mentions {
            self.columns.push_row(&MentionRow { key, sample, ..mention });
            count += 1;
        }
        self.end(count)
    }

    /// Adds the check of a sample's captions as they are stored. Call it for every sample with a caption, in tar order; a
    /// sidecar without checks has [`OLDEST_VERSION`], and cannot tell when a caption changes.
    pub fn check(&mut self, sample: u32, check: CaptionCheck) {
        self.checks.fill(sample);
        self.checks.push(check);
    }

    /// Number of samples so far, which is the position of the next one.
    pub fn samples(&self) -> u32 {
        self.metadata.samples
    }

    fn begin(&mut self, sample: u32, key: &str) -> Result<(), Error> {
        if sample < self.metadata.samples {
            let previous = self.metadata.samples - 1;
            return Err(Error::Order { path: self.path.clone(), sample, key: key.to_owned(), previous });
        }
        self.metadata.samples = sample + 1;
        Ok(())
    }

    fn end(&mut self, mentions: u64) -> Result<(), Error> {
        self.metadata.mentions += mentions;
        self.metadata.captions_without_mention += u32::from(mentions == 0);
        if self.columns.rows >= ROWS { self.write_columns() } else { Ok(()) }
    }

    /// Writes the remaining rows and the footer. Returns the metadata with the counts.
    fn complete(mut self) -> Result<(W, Metadata), Error> {
        self.write_columns()?;
        self.metadata.version = OLDEST_VERSION;
        if self.checks.samples() > 0 || self.metadata.samples == 0 || self.metadata.field.is_some() {
            self.write_checks()?;
        }
        let json = serde_json::to_string(&self.metadata).map_err(|e| Error::write(&self.path, e))?;
        self.parquet.append_key_value_metadata(KeyValue::new(FOOTER_KEY.to_owned(), json));
        let file = self.parquet.into_inner().map_err(|e| Error::write(&self.path, e))?;
        Ok((file, self.metadata))
    }

    fn write_checks(&mut self) -> Result<(), Error> {
        self.checks.fill(self.metadata.samples);
        // What is buffered comes first.
        self.parquet.flush().map_err(|e| Error::write(&self.path, e))?;
        let offset = self.parquet.bytes_written() as u64;
        self.metadata.version = self.metadata.expected_version();
        self.metadata.captions = Some(self.checks.at(offset));
        self.parquet.write_all(self.checks.bytes()).map_err(Error::io(&self.path, "write"))
    }

    fn write_columns(&mut self) -> Result<(), Error> {
        if self.columns.rows == 0 {
            return Ok(());
        }
        let batch = self.columns.take().map_err(|e| Error::write(&self.path, e))?;
        self.parquet.write(&batch).map_err(|e| Error::write(&self.path, e))
    }
}

/// The table's columns, in order; with the number of the caption if samples may have several.
fn schema(several: bool) -> SchemaRef {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields = vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("sample", DataType::UInt32, false),
        Field::new("phrase", dictionary.clone(), false),
        Field::new("concept", dictionary.clone(), false),
        Field::new("head", dictionary, false),
        Field::new("phrase_start", DataType::UInt32, false),
        Field::new("phrase_end", DataType::UInt32, false),
        Field::new("concept_start", DataType::UInt32, false),
        Field::new("concept_end", DataType::UInt32, false),
        Field::new("tags", DataType::Utf8, false),
    ];
    fields.extend(several.then(|| Field::new("caption", DataType::UInt32, false)));
    Arc::new(Schema::new(fields))
}

/// Buffered rows. Dictionaries are left to the Parquet writer, which makes its own in any case.
#[derive(Default)]
struct Columns {
    rows: usize,
    key: StringBuilder,
    sample: UInt32Builder,
    phrase: StringBuilder,
    concept: StringBuilder,
    head: StringBuilder,
    spans: [UInt32Builder; 4],
    tags: StringBuilder,
    /// Number of the caption; present if samples may have several.
    caption: Option<UInt32Builder>,
}

impl Columns {
    fn push(&mut self, (sample, caption): (u32, u32), key: &str, canonical: &str, mention: &MentionView<'_>) {
        let span = |span: &std::ops::Range<usize>| span.start as u32..span.end as u32;
        self.push_row(&MentionRow {
            key,
            sample,
            caption,
            phrase: canonical.get(mention.phrase.clone()).unwrap_or_default(),
            concept: mention.concept,
            head: mention.head,
            phrase_span: span(&mention.phrase),
            concept_span: span(&mention.concept_span),
            tags: mention.tags,
        });
    }

    fn push_row(&mut self, row: &MentionRow<'_>) {
        self.rows += 1;
        self.key.append_value(row.key);
        self.sample.append_value(row.sample);
        self.phrase.append_value(row.phrase);
        self.concept.append_value(row.concept);
        self.head.append_value(row.head);
        let (phrase, concept) = (&row.phrase_span, &row.concept_span);
        for (column, byte) in
            self.spans.iter_mut().zip([phrase.start, phrase.end, concept.start, concept.end])
        {
            column.append_value(byte);
        }
        self.tags.append_value(row.tags);
        if let Some(column) = &mut self.caption {
            column.append_value(row.caption);
        }
    }

    fn take(&mut self) -> Result<RecordBatch, arrow_schema::ArrowError> {
        let each = Int32Array::from_iter_values(0..self.rows as i32);
        self.rows = 0;
        let dictionary = |column: &mut StringBuilder| -> Result<ArrayRef, arrow_schema::ArrowError> {
            Ok(Arc::new(DictionaryArray::try_new(each.clone(), Arc::new(column.finish()))?))
        };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.key.finish()),
            Arc::new(self.sample.finish()),
            dictionary(&mut self.phrase)?,
            dictionary(&mut self.concept)?,
            dictionary(&mut self.head)?,
        ];
        columns.extend(self.spans.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef));
        columns.push(Arc::new(self.tags.finish()));
        columns.extend(self.caption.as_mut().map(|column| Arc::new(column.finish()) as ArrayRef));
        RecordBatch::try_new(schema(self.caption.is_some()), columns)
    }
}
