//! Writes one shard. Samples arrive in any order and are spooled to a temporary file; when all have arrived, the tar, the
//! table, the signals, their checksums and the statistics are written in the order of the input, so that the same images always
//! give the same bytes.

pub(crate) mod records;
pub(crate) mod spool;
pub(crate) mod table;
pub(crate) mod tar;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use concepts::checksums::{Checksums, sha256};
use loader::shards::signals::{self, HASH};
use program::interrupted;
use serde_json::{Map, Value};

use self::spool::{Place, Spool};
use self::table::{Line, Table};
use self::tar::TarWriter;
use crate::dataset::Dataset;
use crate::dataset::ShardStats;
use crate::dataset::claim::Claim;
use crate::dataset::publish::{self, Files};
use crate::dataset::staging::Staging;
use crate::error::Error;
use crate::image::EncodedImage;
use crate::problem::Status;
use crate::rows::{Extra, Row};
use crate::sample::Sample;
use crate::signals::{Columns, Hashed};

/// How long a shard that is complete is still written after the program was asked to stop.
const STOP_AFTER: Duration = Duration::from_secs(2);

/// Collects the samples of a shard and writes its files.
pub(crate) struct ShardWriter {
    dataset: Dataset,
    shard: u32,
    claim: Claim,
    extra: Vec<Extra>,
    captioned: bool,
    staging: Staging,
    spool: Arc<Spool>,
    entries: Vec<Option<Place>>,
    stats: ShardStats,
    expected: Option<u32>,
    started: (SystemTime, Instant),
}

impl ShardWriter {
    /// Creates the spool file. `captioned`: whether samples have a `.txt` file and a caption column.
    pub(crate) fn create(
        dataset: &Dataset,
        shard: u32,
        claim: Claim,
        extra: &[Extra],
        captioned: bool,
    ) -> Result<Self, Error> {
        let staging = Staging::new(&dataset.folder)?;
        let spool = Arc::new(Spool::create(&staging.folder(&dataset.folder))?);
        Ok(Self {
            dataset: dataset.clone(),
            shard,
            claim,
            extra: extra.to_vec(),
            captioned,
            staging,
            spool,
            entries: Vec::new(),
            stats: ShardStats::default(),
            expected: None,
            started: (SystemTime::now(), Instant::now()),
        })
    }

    pub(crate) fn shard(&self) -> u32 {
        self.shard
    }

    pub(crate) fn push(&mut self, sample: &Sample) -> Result<(), Error> {
        self.stats.sample(sample);
        let index = sample.index as usize;
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        self.entries[index] = Some(self.spool.put_sample(sample)?);
        Ok(())
    }

    /// The temporary file of this shard.
    pub(crate) fn spool(&self) -> Arc<Spool> {
        Arc::clone(&self.spool)
    }

    /// Sets the number of samples.
    pub(crate) fn expect(&mut self, count: u32) {
        self.expected = Some(count);
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.expected.is_some_and(|count| u64::from(count) == self.stats.count)
    }

    /// Writes the tar, the table, the signals, their checksums and the statistics.
    pub(crate) fn finish(mut self) -> Result<ShardStats, Error> {
        let (tar_name, table_name) = (self.dataset.tar(self.shard), self.dataset.table(self.shard));
        let (signals_name, stats_name) = (signals::path(&tar_name, HASH), self.dataset.stats(self.shard));
        let replaces = self.dataset.finished(self.shard)?.is_some();
        let tar_path = self.staging.path(&publish::place_of_tar(&tar_name, replaces));
        let mut stopping = None;
        let mut tar = TarWriter::create(&tar_path).map_err(Error::file("write", &tar_path))?;
        let mut table =
            Table::new(&self.extra, self.captioned, self.dataset.image.hash, self.dataset.requests);
        // None as soon as the hash of an image is not known: `ingest retry` keeps images that were stored without.
        let mut hashes = self.dataset.image.perceptual_hash.then(|| Columns::new(Hashed::Original));
        let extension = self.dataset.image.encoding.extension();
        for (index, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            // The shard is complete: every index up to the expected count has been pushed once.
            let Some(place) = entry else { continue };
            if interrupted() && stopping.get_or_insert_with(Instant::now).elapsed() > STOP_AFTER {
                return Err(Error::interrupted());
            }
            let key = self.dataset.key(self.shard, index as u32);
            let mut location = None;
            let Sample { row, request, language, outcome, .. } = self.spool.sample(place)?;
            if let Ok(image) = &outcome {
                hashes = hashes.filter(|_| image.phash.is_some());
                if let Some(hashes) = &mut hashes {
                    hashes.push(&key, image.phash, language);
                }
                let json = self.sample_json(&row, &key, image);
                let mut add = || {
                    let start = tar.add(&format!("{key}.{extension}"), &image.bytes)?;
                    tar.add(&format!("{key}.json"), json.as_bytes())?;
                    if self.captioned {
                        tar.add(
                            &format!("{key}.txt"),
                            row.caption.as_deref().unwrap_or_default().as_bytes(),
                        )?;
                    }
                    Ok(start)
                };
                location = Some((add().map_err(Error::file("write", &tar_path))?, image.bytes.len() as u64));
            }
            let line = Line { row: &row, key: &key, request: &request, outcome: outcome.as_ref(), location };
            table.push(&line);
        }
        let table = table.bytes().map_err(Error::parquet("write", &table_name))?;
        let stats = self.stats.timed(self.started.0, self.started.1.elapsed());
        let text = serde_json::to_string_pretty(&stats)
            .map_err(|error| Error::input(&stats_name, error.to_string()))?
            .into_bytes();
        self.claim.confirm()?;
        let mut sums = Checksums::default();
        let tar_sha256 = tar.commit().map_err(Error::file("write", &tar_path))?;
        let tar_bytes = std::fs::metadata(&tar_path).map_err(Error::file("read", &tar_path))?.len();
        let hashes = hashes.map(|hashes| -> Result<Bytes, Error> {
            let signals = hashes.finish(&tar_name, tar_bytes, Some(tar_sha256.clone()))?;
            Ok(signals.to_bytes(&signals_name)?)
        });
        let mut described = Vec::new();
        described.extend(hashes.transpose()?.map(|hashes| (signals_name, hashes)));
        described.push((table_name, table.into()));
        sums.set(&tar_name.file_name(), tar_sha256);
        for (path, bytes) in &described {
            sums.set(&path.file_name(), sha256(bytes));
        }
        described.push((self.dataset.sums(self.shard), sums.text().into()));
        let files = Files { tar: tar_name, described, stats: (stats_name, text.into()) };
        publish::publish(&self.dataset.folder, &files, &tar_path, replaces)?;
        Ok(stats)
    }

    /// The `.json` file of a sample: its row of the table, in the order of img2dataset's fields. Without what its request taught:
    /// the time would make the tar another one in every run.
    fn sample_json(&self, row: &Row, key: &str, image: &EncodedImage) -> String {
        let mut fields = Map::new();
        for (column, value) in self.extra.iter().zip(&row.extra) {
            fields.insert(column.name.clone(), value.clone());
        }
        if self.captioned {
            fields.insert("caption".to_owned(), row.caption.clone().into());
        }
        let rest: [(&str, Value); 9] = [
            ("url", row.url.as_str().into()),
            ("key", key.into()),
            ("status", Status::Success.name().into()),
            ("error_message", Value::Null),
            ("width", image.width.into()),
            ("height", image.height.into()),
            ("original_width", image.original_width.into()),
            ("original_height", image.original_height.into()),
            ("exif", image.exif.as_str().into()),
        ];
        fields.extend(rest.map(|(name, value)| (name.to_owned(), value)));
        if let (Some(name), Some(hash)) = (self.dataset.image.hash.column(), &image.hash) {
            fields.insert(name.to_owned(), hash.as_str().into());
        }
        format!("{:#}", Value::Object(fields))
    }
}
