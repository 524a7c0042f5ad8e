//! Some samples of a complete shard, with what belongs to them.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use loader::shards::signals::{Metadata, Signals, path as signals_path};
use loader::shards::{self, Archive, CAPTION_EXTENSION, MemberData};
use storage::Location;

use crate::dataset::sums;
use crate::error::Error;
use crate::rewrite::companions::Carried;
use crate::rewrite::mentions::Mentions;
use crate::rewrite::tables;

/// Samples of one shard.
pub(crate) struct Samples {
    shard: Location,
    /// The open shard; `None` if it is opened for each sample.
    archive: Option<Archive>,
    samples: Vec<Place>,
    /// Their rows of the table, in the columns that were asked for.
    pub(crate) rows: RecordBatch,
    /// For each producer that is carried, the footer and the samples' rows.
    pub(crate) signals: Vec<(Metadata, RecordBatch)>,
    pub(crate) mentions: Option<Mentions>,
}

/// The bytes of a sample in the uncompressed tar, and its key.
struct Place {
    key: String,
    from: u64,
    to: u64,
}

impl Samples {
    /// Those for whose position and key `wanted` is true; `columns` are those of the rows.
    ///
    /// # Errors
    /// The shard, its table, its sidecar or its signals cannot be read, or do not describe the same samples.
    pub(crate) fn read(
        shard: &Location,
        wanted: impl Fn(u32, &str) -> bool,
        columns: &SchemaRef,
        carried: &Carried,
    ) -> Result<Self, Error> {
        let archive = Archive::open(shard)?;
        let all = archive.samples()?;
        let count = all.len() as u32;
        let (mut samples, mut positions, mut from) = (Vec::new(), Vec::new(), 0);
        let mut captions = Vec::new();
        let table_path = shards::table_path(shard);
        let has_table = storage::exists(&table_path)?;
        for (position, sample) in (0..).zip(&all) {
            let to = sample.end();
            if wanted(position, &sample.key) {
                positions.push(position);
                samples.push(Place { key: sample.key.clone(), from, to });
                if !has_table {
                    let caption = sample.member(CAPTION_EXTENSION);
                    let read = |at: &shards::Member| archive.read(at.offset, at.length);
                    let text = caption.map(read).transpose()?;
                    captions.push(text.and_then(|text| String::from_utf8(text).ok()));
                }
            }
            from = to;
        }
        let keys: Vec<String> = samples.iter().map(|sample| sample.key.clone()).collect();
        let rows = if has_table {
            tables::of_samples(&table_path, &tables::read(&table_path, None)?, &keys)?
        } else {
            tables::minimal(&table_path, &keys, captions)?
        };
        let rows = tables::conform(&rows, columns).map_err(Error::parquet("read", &table_path))?;
        let mut signals = Vec::new();
        for producer in &carried.producers {
            signals.push(signals_of(shard, producer, count, &positions, &keys)?);
        }
        let mentions = carried.mentions.then(|| Mentions::read(shard, count, &positions)).transpose()?;
        Ok(Self { shard: shard.clone(), archive: Some(archive), samples, rows, signals, mentions })
    }

    /// Number of samples.
    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    /// Key of a sample.
    pub(crate) fn key(&self, sample: usize) -> &str {
        &self.samples[sample].key
    }

    /// The members of a sample, in tar order.
    pub(crate) fn members(&self, sample: usize) -> Result<Vec<MemberData>, Error> {
        let place = &self.samples[sample];
        let members = match &self.archive {
            Some(archive) => archive.members(place.from, place.to)?,
            None => Archive::open(&self.shard)?.members(place.from, place.to)?,
        };
        // Nothing else is between two samples but what belongs to none.
        match members.iter().find(|member| member.key != place.key) {
            None if !members.is_empty() => Ok(members),
            _ => {
                Err(Error::input(&self.shard, format!("changed while it was read, at sample {}", place.key)))
            }
        }
    }

    /// Closes the shard; it is then opened for each sample.
    pub(crate) fn close(&mut self) {
        self.archive = None;
    }
}

/// The footer of signals, and the rows of these samples.
fn signals_of(
    shard: &Location,
    producer: &str,
    count: u32,
    positions: &[u32],
    keys: &[String],
) -> Result<(Metadata, RecordBatch), Error> {
    let signals = Signals::open(shard, producer, Some(count), None)?;
    let path = signals_path(shard, producer);
    let sums = sums::read(&shards::sums_path(shard))?.unwrap_or_default();
    if let Some(sha256) = sums.get(&shard.file_name()) {
        signals.metadata.refuse_unless_sha256(&path, sha256)?;
    }
    let other = positions.iter().zip(keys).find(|(position, key)| signals.key(**position) != key.as_str());
    if let Some((_, key)) = other {
        let problem = format!("it describes other samples than the tar, starting with {key}: make it again");
        return Err(Error::input(path, problem));
    }
    let rows = tables::take(&path, signals.columns(), positions.to_vec())?;
    Ok((signals.metadata, rows))
}
