//! Writes a sidecar. The rows of a row group are kept until it is complete; of the rest of the shard only 8 bytes per sample.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnDescPtr;

use super::captions::{CaptionCheck, CaptionChecks};
use super::pages::{Chunk, Encoder, Texts};
use super::{FOOTER_KEY, MentionRow, Metadata, OLDEST_VERSION};
use crate::{Error, Extractor, Mention, MentionView};
use disk::files::AtomicFile;

/// Rows per row group: DuckDB's unit of scanning.
pub(super) const ROW_GROUP: usize = 122_880;

/// A row group ends early when its texts have this many bytes.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// Rows are sorted by `sample`, the second column.
const SAMPLE_ORDER: SortingColumn = SortingColumn { column_idx: 1, descending: false, nulls_first: false };

/// Writes one sidecar: a file, which appears under its name only when [`Writer::finish`] is called, or its bytes.
pub struct Writer<W: Write + Send = AtomicFile> {
    /// For errors.
    path: PathBuf,
    /// With the counts so far.
    metadata: Metadata,
    parquet: SerializedFileWriter<W>,
    encoder: Encoder,
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
        let several = metadata.field.is_some();
        let (parquet, encoder) = start(file, several).map_err(|e| Error::write(path, e))?;
        let metadata =
            Metadata { captions: None, samples: 0, captions_without_mention: 0, mentions: 0, ..metadata };
        let checks = CaptionChecks::default();
        let columns = Columns { caption: several.then(Vec::new), ..Columns::default() };
        Ok(Self { path: path.to_owned(), metadata, parquet, encoder, columns, checks })
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
            self.row(&row((sample, 0), key, canonical, &MentionView::from(mention)))?;
        }
        self.end(mentions.len() as u64);
        Ok(())
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
        let (mut mentions, mut written) = (0, Ok(()));
        for (caption, canonical) in (0..).zip(canonicals) {
            let canonical = canonical.as_ref();
            extractor.visit(canonical, |mention| {
                if written.is_ok() {
                    written = self.row(&row((sample, caption), key, canonical, &mention));
                }
                mentions += 1;
            });
        }
        self.end(mentions);
        written.map(|()| mentions)
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
            self.row(&MentionRow { key, sample, ..mention })?;
            count += 1;
        }
        self.end(count);
        Ok(())
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

    fn row(&mut self, row: &MentionRow<'_>) -> Result<(), Error> {
        self.columns.push(row);
        let full = self.columns.rows() >= ROW_GROUP || self.columns.bytes() >= ROW_GROUP_BYTES;
        if full { self.write_rows() } else { Ok(()) }
    }

    fn end(&mut self, mentions: u64) {
        self.metadata.mentions += mentions;
        self.metadata.captions_without_mention += u32::from(mentions == 0);
    }

    /// Writes the remaining rows and the footer. Returns the metadata with the counts.
    fn complete(mut self) -> Result<(W, Metadata), Error> {
        self.write_rows()?;
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
        let offset = self.parquet.bytes_written() as u64;
        self.metadata.version = self.metadata.expected_version();
        self.metadata.captions = Some(self.checks.at(offset));
        self.parquet.write_all(self.checks.bytes()).map_err(Error::io(&self.path, "write"))
    }

    fn write_rows(&mut self) -> Result<(), Error> {
        if self.columns.rows() == 0 {
            return Ok(());
        }
        let written = self.columns.write(&mut self.parquet, &mut self.encoder);
        written.map_err(|e| Error::write(&self.path, e))
    }
}

fn start<W: Write + Send>(file: W, several: bool) -> ParquetResult<(SerializedFileWriter<W>, Encoder)> {
    let mut properties = WriterProperties::builder()
        // Minimum and maximum values help to find samples; for phrases, in the order of captions, they would not.
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_sorting_columns(Some(vec![SAMPLE_ORDER]))
        .set_created_by(concat!("concepts ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let schema = schema(several);
    add_encoded_arrow_schema_to_metadata(&schema, &mut properties);
    let schema = ArrowSchemaConverter::new().convert(&schema)?;
    let parquet = SerializedFileWriter::new(file, schema.root_schema_ptr(), Arc::new(properties))?;
    Ok((parquet, Encoder::new()?))
}

/// The table's columns, in order; with the number of the caption if samples may have several.
fn schema(several: bool) -> Schema {
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
    Schema::new(fields)
}

fn row<'a>(
    (sample, caption): (u32, u32),
    key: &'a str,
    canonical: &'a str,
    mention: &MentionView<'a>,
) -> MentionRow<'a> {
    let span = |span: &std::ops::Range<usize>| span.start as u32..span.end as u32;
    MentionRow {
        key,
        sample,
        caption,
        phrase: canonical.get(mention.phrase.clone()).unwrap_or_default(),
        concept: mention.concept,
        head: mention.head,
        phrase_span: span(&mention.phrase),
        concept_span: span(&mention.concept_span),
        tags: mention.tags,
    }
}

/// The rows of a row group.
#[derive(Default)]
struct Columns {
    key: Texts,
    sample: Vec<u32>,
    phrase: Texts,
    concept: Texts,
    head: Texts,
    spans: [Vec<u32>; 4],
    tags: Texts,
    /// Number of the caption; present if samples may have several.
    caption: Option<Vec<u32>>,
    /// The numbers of the concept, the head and the tags with which a phrase came last; they are nearly always the same.
    alike: Vec<[u32; 3]>,
}

impl Columns {
    fn rows(&self) -> usize {
        self.sample.len()
    }

    /// Of all texts.
    fn bytes(&self) -> usize {
        [&self.key, &self.phrase, &self.concept, &self.head, &self.tags].map(Texts::bytes).iter().sum()
    }

    fn push(&mut self, row: &MentionRow<'_>) {
        if self.sample.last() == Some(&row.sample) {
            self.key.push_last();
        } else {
            self.key.push_new(row.key);
        }
        self.sample.push(row.sample);
        let phrase = self.phrase.push(row.phrase) as usize;
        let likely = self.alike.get(phrase).copied();
        let alike = [
            self.concept.push_likely(row.concept, likely.map(|it| it[0])),
            self.head.push_likely(row.head, likely.map(|it| it[1])),
            self.tags.push_likely(row.tags, likely.map(|it| it[2])),
        ];
        match self.alike.get_mut(phrase) {
            Some(likely) => *likely = alike,
            None => self.alike.push(alike),
        }
        let (phrase, concept) = (&row.phrase_span, &row.concept_span);
        let bytes = [phrase.start, phrase.end, concept.start, concept.end];
        self.spans.iter_mut().zip(bytes).for_each(|(column, byte)| column.push(byte));
        if let Some(column) = &mut self.caption {
            column.push(row.caption);
        }
    }

    /// Writes the rows as a row group, and removes them.
    fn write<W: Write + Send>(
        &mut self,
        file: &mut SerializedFileWriter<W>,
        encoder: &mut Encoder,
    ) -> ParquetResult<()> {
        let columns = file.schema_descr().columns().to_vec();
        let mut columns = columns.into_iter();
        let mut group = file.next_row_group()?;
        let mut append = |encode: &mut dyn FnMut(ColumnDescPtr) -> ParquetResult<Chunk>| {
            let column =
                columns.next().ok_or_else(|| ParquetError::General("too many columns".to_owned()))?;
            let (bytes, close) = encode(column)?;
            group.append_column(&bytes, close)
        };
        append(&mut |column| encoder.texts(column, &mut self.key, true))?;
        append(&mut |column| encoder.numbers(column, &mut self.sample, true))?;
        for texts in [&mut self.phrase, &mut self.concept, &mut self.head] {
            append(&mut |column| encoder.texts(column, texts, false))?;
        }
        for numbers in &mut self.spans {
            append(&mut |column| encoder.numbers(column, numbers, false))?;
        }
        append(&mut |column| encoder.texts(column, &mut self.tags, false))?;
        if let Some(numbers) = &mut self.caption {
            append(&mut |column| encoder.numbers(column, numbers, false))?;
        }
        self.alike.clear();
        group.close().map(drop)
    }
}
