//! Writes one shard. Samples arrive in any order and are spooled to a temporary file; when all have arrived, the tar, the
//! table and the statistics are written in the order of the input, so that the same images always give the same bytes.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use concepts::files::temporary_path;
use loader::source;
use serde_json::{Map, Value};

use crate::dataset::Dataset;
use crate::error::Error;
use crate::rows::{Extra, Row};
use crate::sample::{EncodedImage, Problem, Sample, Status};
use crate::staging::Staging;
use crate::stats::ShardStats;
use crate::table::{Line, Table};
use crate::tar::TarWriter;

/// An image whose bytes are in the spool file.
struct Spooled {
    /// Everything except the bytes.
    image: EncodedImage,
    start: u64,
    length: usize,
}

struct Entry {
    row: Row,
    outcome: Result<Spooled, Problem>,
}

/// Temporary file with the images of an incomplete shard; removed when dropped.
struct Spool {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Spool {
    fn create(table: &Path) -> Result<Self, Error> {
        let path = temporary_path(&table.with_extension("spool"));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(Error::file("write", &path))?;
        Ok(Self { path, file, length: 0 })
    }

    fn append(&mut self, mut image: EncodedImage) -> Result<Spooled, Error> {
        let bytes = std::mem::take(&mut image.bytes);
        self.file.write_all(&bytes).map_err(Error::file("write", &self.path))?;
        let start = self.length;
        self.length += bytes.len() as u64;
        Ok(Spooled { image, start, length: bytes.len() })
    }

    fn read(&mut self, spooled: &Spooled) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; spooled.length];
        self.file
            .seek(SeekFrom::Start(spooled.start))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(Error::file("read", &self.path))?;
        Ok(bytes)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Collects the samples of a shard and writes its files.
pub(crate) struct ShardWriter {
    dataset: Dataset,
    shard: u32,
    extra: Vec<Extra>,
    captioned: bool,
    staging: Staging,
    spool: Spool,
    entries: Vec<Option<Entry>>,
    stats: ShardStats,
    expected: Option<u32>,
    started: (SystemTime, Instant),
}

impl ShardWriter {
    /// Creates the spool file. `captioned`: whether samples have a `.txt` file and a caption column.
    pub(crate) fn create(
        dataset: &Dataset,
        shard: u32,
        extra: &[Extra],
        captioned: bool,
    ) -> Result<Self, Error> {
        let staging = Staging::new(&dataset.folder)?;
        let spool = Spool::create(&staging.path(&dataset.table(shard)))?;
        Ok(Self {
            dataset: dataset.clone(),
            shard,
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

    pub(crate) fn push(&mut self, sample: Sample) -> Result<(), Error> {
        self.stats.sample(&sample);
        let index = sample.index as usize;
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        let outcome = match sample.outcome {
            Ok(image) => Ok(self.spool.append(image)?),
            Err(problem) => Err(problem),
        };
        self.entries[index] = Some(Entry { row: sample.row, outcome });
        Ok(())
    }

    /// Sets the number of samples.
    pub(crate) fn expect(&mut self, count: u32) {
        self.expected = Some(count);
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.expected.is_some_and(|count| u64::from(count) == self.stats.count)
    }

    /// Writes the tar, the table and, last, the statistics.
    pub(crate) fn finish(mut self) -> Result<ShardStats, Error> {
        let target = self.dataset.tar(self.shard);
        let tar_path = self.staging.path(&target);
        let mut tar =
            TarWriter::create(&tar_path, self.dataset.compress).map_err(Error::file("write", &tar_path))?;
        let mut table = Table::new(&self.extra, self.captioned, self.dataset.image.hash);
        let extension = self.dataset.image.encoding.extension();
        for (index, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            // The shard is complete: every index up to the expected count has been pushed once.
            let Some(Entry { row, outcome }) = entry else { continue };
            let key = self.dataset.key(self.shard, index as u32);
            let mut location = None;
            if let Ok(spooled) = &outcome {
                let bytes = self.spool.read(spooled)?;
                let json = self.sample_json(&row, &key, &spooled.image);
                let mut add = || {
                    let start = tar.add(&format!("{key}.{extension}"), &bytes)?;
                    tar.add(&format!("{key}.json"), json.as_bytes())?;
                    if self.captioned {
                        tar.add(
                            &format!("{key}.txt"),
                            row.caption.as_deref().unwrap_or_default().as_bytes(),
                        )?;
                    }
                    Ok(start)
                };
                location = Some((add().map_err(Error::file("write", &tar_path))?, bytes.len() as u64));
            }
            let outcome = outcome.as_ref().map(|spooled| &spooled.image);
            table.push(&Line { row: &row, key: &key, outcome, location });
        }
        let path = self.dataset.table(self.shard);
        let table = table.bytes().map_err(Error::parquet("write", &path))?;
        // While its tar and table are replaced, a shard that is made again must not count as complete.
        let stats_path = self.dataset.stats(self.shard);
        source::remove(&stats_path)?;
        tar.commit().map_err(Error::file("write", &tar_path))?;
        self.staging.deliver(&target)?;
        source::write(&path, table)?;
        let stats = self.stats.timed(self.started.0, self.started.1.elapsed());
        let text = serde_json::to_string_pretty(&stats)
            .map_err(|error| Error::input(&stats_path, error.to_string()))?;
        source::write(&stats_path, text.into_bytes())?;
        Ok(stats)
    }

    /// The `.json` file of a sample: its row of the table, in the order of img2dataset's fields.
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
