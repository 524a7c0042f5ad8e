//! One pass over the shards' tables: captions, image sizes, failures. Memory does not grow with the number of samples.

use std::collections::BTreeMap;
use std::fs::File;

use anyhow::{Context, Result, bail};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_schema::DataType;
use concepts::sidecar::Metadata;
use concepts::tables::{Table, Texts};
use loader::shards::{Archive, Member};
use loader::{images, shards};
use parquet::file::reader::ChunkReader;
use storage::Location;

use super::distributions::{Distribution, Sizes};
use crate::input::folder_of;

/// Longer captions are counted as captions of this many words.
const MAX_WORDS: usize = 1024;
/// Maximum number of causes counted separately: other tools write URLs into the cause, so every cause may be different.
const MAX_CAUSES: usize = 500;
/// The cause that all others are counted under after that.
pub(crate) const OTHER_CAUSES: &str = "other causes";
/// Bytes of an image file that normally contain its header, from which its size is read.
const HEADER: u64 = 1 << 16;

/// Rows of a table read at a time.
const BATCH: usize = 1024;

/// A tagger: its name, the hash of its data, the version of its grammar.
pub(crate) type Tagger = (String, String, u32);

/// Sums over the shards read.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) shards: u64,
    /// Size of the tar files.
    pub(crate) bytes: u64,
    /// Rows of the tables, including failed samples.
    pub(crate) attempts: u64,
    pub(crate) samples: u64,
    /// Samples with a caption that is not blank.
    pub(crate) captions: u64,
    /// Words per caption.
    pub(crate) words: Distribution,
    /// Image sizes in the tar files.
    pub(crate) stored: Sizes,
    /// Image sizes before resizing.
    pub(crate) original: Sizes,
    /// Failed samples by cause.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Number of shards by tagger.
    pub(crate) taggers: BTreeMap<Tagger, u64>,
    /// Columns of the tables, in the order of their first appearance.
    pub(crate) columns: Vec<(String, DataType)>,
}

impl Survey {
    pub(crate) fn new() -> Self {
        Self {
            shards: 0,
            bytes: 0,
            attempts: 0,
            samples: 0,
            captions: 0,
            words: Distribution::up_to(MAX_WORDS),
            stored: Sizes::new(),
            original: Sizes::new(),
            failures: BTreeMap::new(),
            taggers: BTreeMap::new(),
            columns: Vec::new(),
        }
    }

    /// Adds a shard whose sidecar, already checked against it, has this metadata.
    pub(crate) fn add(&mut self, path: &Location, metadata: &Metadata) -> Result<()> {
        self.shards += 1;
        self.bytes += storage::length(path)?;
        let tagger = (metadata.tagger.clone(), metadata.tagger_hash.clone(), metadata.grammar);
        *self.taggers.entry(tagger).or_default() += 1;
        let before = self.samples;
        let table = shards::table_path(path);
        let has_table = storage::exists(&table)?;
        let place = if has_table { &table } else { path };
        if has_table {
            self.add_table(&table).with_context(|| format!("cannot read {table}"))?;
        } else {
            self.add_tar(path)?;
        }
        let samples = self.samples - before;
        if samples != u64::from(metadata.samples) {
            bail!(
                "{place} has {samples} samples but its sidecar {} was made from {}; write the shard again, then \
                 run `ingest tag {}`",
                shards::sidecar_path(path),
                metadata.samples,
                folder_of(path)
            );
        }
        Ok(())
    }

    fn add_table(&mut self, path: &Location) -> Result<()> {
        match path {
            Location::Local(path) => self.add_columns(File::open(path)?),
            Location::Remote(_) => self.add_columns(storage::read(path)?),
        }
    }

    fn add_columns(&mut self, table: impl ChunkReader + 'static) -> Result<()> {
        const COLUMNS: [&str; 7] =
            ["status", "error_message", "caption", "width", "height", "original_width", "original_height"];
        let table = Table::open(table, Texts::Views)?;
        if !table.has("status") {
            bail!("it has no column \"status\", so it is not the table of a shard");
        }
        for field in table.schema().fields() {
            if !self.columns.iter().any(|(name, _)| name == field.name()) {
                self.columns.push((field.name().clone(), field.data_type().clone()));
            }
        }
        for batch in table.batches(Some(&COLUMNS), BATCH)? {
            self.add_rows(&batch?)?;
        }
        Ok(())
    }

    fn add_rows(&mut self, batch: &RecordBatch) -> Result<()> {
        let column = |name: &str, kind: &DataType| -> Result<Option<ArrayRef>> {
            batch.column_by_name(name).map(|column| Ok(cast(column, kind)?)).transpose()
        };
        let texts = |name: &str| column(name, &DataType::Utf8View);
        let sides = |name: &str| column(name, &DataType::Int64);
        let (statuses, messages, captions) = (texts("status")?, texts("error_message")?, texts("caption")?);
        let stored = (sides("width")?, sides("height")?);
        let original = (sides("original_width")?, sides("original_height")?);
        for row in 0..batch.num_rows() {
            let status = text(statuses.as_ref(), row).unwrap_or_default();
            // Neither a sample nor a failure: it was taken out.
            if status == "removed" {
                continue;
            }
            self.attempts += 1;
            if status != "success" {
                self.add_failure(text(messages.as_ref(), row).filter(|it| !it.is_empty()).unwrap_or(status));
                continue;
            }
            self.samples += 1;
            self.add_caption(text(captions.as_ref(), row).unwrap_or_default());
            if let Some((width, height)) = size(&stored, row) {
                self.stored.add(width, height);
            }
            if let Some((width, height)) = size(&original, row) {
                self.original.add(width, height);
            }
        }
        Ok(())
    }

    /// A shard without a table: all its samples succeeded, and captions and sizes come from the tar itself.
    fn add_tar(&mut self, path: &Location) -> Result<()> {
        let archive = Archive::open(path)?;
        for sample in archive.samples()? {
            self.attempts += 1;
            self.samples += 1;
            if let Some(member) = sample.caption() {
                let text = archive.read(member.offset, member.length)?;
                self.add_caption(&String::from_utf8_lossy(&text));
            }
            if let Some(member) = sample.image()
                && let Some((width, height)) = dimensions(&archive, member)
            {
                self.stored.add(width, height);
            }
        }
        Ok(())
    }

    fn add_caption(&mut self, caption: &str) {
        let words = caption.split_whitespace().count();
        if words > 0 {
            self.captions += 1;
            self.words.add(words);
        }
    }

    fn add_failure(&mut self, cause: &str) {
        let known = self.failures.contains_key(cause) || self.failures.len() < MAX_CAUSES;
        let cause = if known { cause } else { OTHER_CAUSES };
        match self.failures.get_mut(cause) {
            Some(count) => *count += 1,
            None => {
                self.failures.insert(cause.to_owned(), 1);
            }
        }
    }
}

fn text(column: Option<&ArrayRef>, row: usize) -> Option<&str> {
    let column = column?.as_string_view_opt()?;
    column.is_valid(row).then(|| column.value(row))
}

fn size((widths, heights): &(Option<ArrayRef>, Option<ArrayRef>), row: usize) -> Option<(u32, u32)> {
    let side = |column: &Option<ArrayRef>| {
        let column = column.as_ref()?.as_primitive_opt::<Int64Type>()?;
        let side = column.is_valid(row).then(|| column.value(row))?;
        u32::try_from(side).ok().filter(|&side| side > 0)
    };
    Some((side(widths)?, side(heights)?))
}

/// Width and height of an image; none when it cannot be decoded.
pub(crate) fn dimensions(archive: &Archive, member: &Member) -> Option<(u32, u32)> {
    let of = |length| {
        let bytes = archive.read(member.offset, length).ok()?;
        images::size(&bytes).ok()
    };
    // A large colour profile or preview may come before the header: then the whole file is read.
    of(member.length.min(HEADER)).or_else(|| of(member.length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_causes_is_bounded() {
        let mut survey = Survey::new();
        for host in 0..2000 {
            survey.add_failure(&format!("no answer from host-{host}"));
        }
        survey.add_failure("no answer from host-3");
        assert_eq!(survey.failures.len(), MAX_CAUSES + 1);
        assert_eq!(survey.failures.values().sum::<u64>(), 2001);
        assert_eq!(survey.failures["no answer from host-3"], 2);
        assert_eq!(survey.failures[OTHER_CAUSES], 2000 - MAX_CAUSES as u64);
    }
}
