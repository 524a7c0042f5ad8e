//! One shard in the making. Samples arrive in any order and wait in a scratch file; when all are in, the tar, the table
//! and the statistics are written in the order of the input, so the same pictures always give the same bytes.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use concepts::files::temporary_path;
use loader::source;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::rows::{Extra, Row};
use crate::sample::{Picture, Problem, Sample, Status};
use crate::set::Set;
use crate::staging::Staging;
use crate::stats::ShardStats;
use crate::table::{Line, Table};
use crate::tar::TarWriter;

/// Bytes in another file's future: where a picture waits.
struct Parked {
    /// Everything but the bytes.
    picture: Picture,
    start: u64,
    length: usize,
}

struct Entry {
    row: Row,
    outcome: Result<Parked, Problem>,
}

/// Pictures of a shard that is not complete yet; removed when dropped.
struct Scratch {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Scratch {
    fn create(beside: &Path) -> Result<Self, Error> {
        let path = temporary_path(&beside.with_extension("scratch"));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(Error::file("write", &path))?;
        Ok(Self { path, file, length: 0 })
    }

    fn park(&mut self, mut picture: Picture) -> Result<Parked, Error> {
        let bytes = std::mem::take(&mut picture.bytes);
        self.file.write_all(&bytes).map_err(Error::file("write", &self.path))?;
        let start = self.length;
        self.length += bytes.len() as u64;
        Ok(Parked { picture, start, length: bytes.len() })
    }

    fn read(&mut self, parked: &Parked) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; parked.length];
        self.file
            .seek(SeekFrom::Start(parked.start))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(Error::file("read", &self.path))?;
        Ok(bytes)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Collects a shard's samples and writes its files.
pub(crate) struct ShardWriter {
    set: Set,
    shard: u32,
    extra: Vec<Extra>,
    captioned: bool,
    staging: Staging,
    scratch: Scratch,
    entries: Vec<Option<Entry>>,
    stats: ShardStats,
    expected: Option<u32>,
    started: (SystemTime, Instant),
}

impl ShardWriter {
    /// Opens the scratch file. `captioned`: whether samples have a `.txt` and a caption column.
    pub(crate) fn create(set: &Set, shard: u32, extra: &[Extra], captioned: bool) -> Result<Self, Error> {
        let staging = Staging::new(&set.folder)?;
        let scratch = Scratch::create(&staging.path(&set.table(shard)))?;
        Ok(Self {
            set: set.clone(),
            shard,
            extra: extra.to_vec(),
            captioned,
            staging,
            scratch,
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
            Ok(picture) => Ok(self.scratch.park(picture)?),
            Err(problem) => Err(problem),
        };
        self.entries[index] = Some(Entry { row: sample.row, outcome });
        Ok(())
    }

    /// Says how many samples there will be.
    pub(crate) fn expect(&mut self, count: u32) {
        self.expected = Some(count);
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.expected.is_some_and(|count| u64::from(count) == self.stats.count)
    }

    /// Writes tar, table and, last, the statistics.
    pub(crate) fn finish(mut self) -> Result<ShardStats, Error> {
        let target = self.set.tar(self.shard);
        let tar_path = self.staging.path(&target);
        let mut tar =
            TarWriter::create(&tar_path, self.set.compress).map_err(Error::file("write", &tar_path))?;
        let mut table = Table::new(&self.extra, self.captioned, self.set.image.hash);
        let extension = self.set.image.encoding.extension();
        for (index, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            // Complete: every index up to the expected count has been pushed once.
            let Some(Entry { row, outcome }) = entry else { continue };
            let key = self.set.key(self.shard, index as u32);
            let mut place = None;
            if let Ok(parked) = &outcome {
                let bytes = self.scratch.read(parked)?;
                let json = self.sample_json(&row, &key, &parked.picture);
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
                place = Some((add().map_err(Error::file("write", &tar_path))?, bytes.len() as u64));
            }
            let outcome = outcome.as_ref().map(|parked| &parked.picture);
            table.push(&Line { row: &row, key: &key, outcome, place });
        }
        let path = self.set.table(self.shard);
        let table = table.bytes().map_err(Error::parquet("write", &path))?;
        // A shard that is made again is not complete between its new tar and its new table.
        let stats_path = self.set.stats(self.shard);
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

    /// The `.json` member: the table's row, in the order of img2dataset's fields.
    fn sample_json(&self, row: &Row, key: &str, picture: &Picture) -> String {
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
            ("width", picture.width.into()),
            ("height", picture.height.into()),
            ("original_width", picture.original_width.into()),
            ("original_height", picture.original_height.into()),
            ("exif", picture.exif.as_str().into()),
        ];
        fields.extend(rest.map(|(name, value)| (name.to_owned(), value)));
        if let (Some(name), Some(hash)) = (self.set.image.hash.column(), &picture.hash) {
            fields.insert(name.to_owned(), hash.as_str().into());
        }
        format!("{:#}", Value::Object(fields))
    }
}
