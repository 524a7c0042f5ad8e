//! A folder of shards and its manifest `ingest.json`, which records the input and the settings. A folder therefore never
//! mixes two datasets, and a later run can tell that it resumes the same one.

pub(crate) mod claim;
pub(crate) mod part;
pub(crate) mod publish;
pub(crate) mod staging;
mod stats;
pub(crate) mod sums;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use disk::files::TEMPORARY;
use disk::foreign_files::is_apple_double;
use loader::shards::set_index::SetIndex;
use loader::shards::{self, SUFFIXES, signals};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::Location;

pub use self::part::Part;
pub use self::stats::ShardStats;
use crate::error::Error;
use crate::image;

/// Name of the manifest in a folder of shards.
pub const MANIFEST: &str = "ingest.json";

/// The command that made a dataset whose images come from the web, in its manifest.
pub(crate) const DOWNLOAD: &str = "download";

/// The command that made a dataset from shards, in its manifest.
pub(crate) const RESHARD: &str = "reshard";

/// Version of the manifest's layout and of the numbering of keys and shards.
pub(crate) const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    input: Value,
    shard_size: u32,
    compressed: bool,
    image: image::Settings,
}

/// A folder of shards that is being written.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Folder of the shards.
    pub folder: Location,
    /// Maximum number of rows per shard.
    pub shard_size: u32,
    /// Whether tars are compressed (`.tar.zst`).
    pub compress: bool,
    /// Which shards this process makes.
    pub part: Part,
    /// Whether the images are downloaded, so that the tables say what requests taught.
    pub requests: bool,
    /// How images are processed.
    pub image: image::Settings,
}

impl Dataset {
    /// Creates the folder and its manifest, or checks that an existing manifest is the same. `made_from` describes the
    /// input.
    ///
    /// # Errors
    /// [`Error::OtherDataset`] if the folder holds shards of another input, other settings or another program.
    pub fn claim(&self, made_from: &Value) -> Result<(), Error> {
        let manifest = serde_json::to_value(self.manifest(made_from))
            .map_err(|error| Error::input(self.folder.join(MANIFEST), error.to_string()))?;
        self.claim_with(&manifest)
    }

    /// The same with this manifest.
    pub(crate) fn claim_with(&self, manifest: &Value) -> Result<(), Error> {
        let folder = &self.folder;
        storage::create_folder(folder)?;
        let path = folder.join(MANIFEST);
        loop {
            if let Some(bytes) = found(&path)? {
                let before: Value = serde_json::from_slice(&bytes)
                    .map_err(|error| Error::input(&path, format!("not a manifest of ingest: {error}")))?;
                return match difference("", &before, manifest) {
                    Some(difference) => Err(Error::OtherDataset { folder: folder.clone(), difference }),
                    None => publish::recover(folder),
                };
            }
            let shard = first_shard(folder)?;
            // Other processes of the same dataset may start at this moment. Then the manifest is theirs.
            if let Some(shard) = shard.filter(|_| !found(&path).is_ok_and(|found| found.is_some())) {
                let difference = format!("it has {shard}, but no {MANIFEST}");
                return Err(Error::OtherDataset { folder: folder.clone(), difference });
            }
            storage::write_new(&path, format!("{manifest:#}\n").into_bytes())?;
        }
    }

    /// Undoes [`Dataset::claim`] if no shard was made.
    pub(crate) fn abandon(&self) {
        let _ = storage::remove(self.folder.join(MANIFEST));
        // Fails if the folder is not empty, which is intended.
        if let Location::Local(folder) = &self.folder {
            let _ = fs::remove_dir(folder);
        }
    }

    /// Removes this part's shards, for example because none of them has an image. The statistics go first, so that no shard
    /// looks complete if this is interrupted.
    pub fn discard(&self) -> Result<(), Error> {
        SetIndex::forget(&self.folder)?;
        for shard in self.finished_shards()?.into_iter().filter(|&shard| self.part.owns(shard)) {
            let tar = self.tar(shard);
            let signals = signals::path(&tar, signals::HASH);
            for path in [self.stats(shard), tar, signals, self.table(shard), self.sums(shard)] {
                storage::remove(&path)?;
            }
        }
        if self.part == Part::ALL {
            self.abandon();
        }
        Ok(())
    }

    fn manifest(&self, made_from: &Value) -> Manifest {
        Manifest {
            version: VERSION,
            input: made_from.clone(),
            shard_size: self.shard_size,
            compressed: self.compress,
            image: self.image.clone(),
        }
    }

    /// Opens the dataset in an existing folder.
    pub fn load(folder: &Location, part: Part) -> Result<Self, Error> {
        let path = folder.join(MANIFEST);
        let bytes = found(&path)?.ok_or_else(|| {
            let problem =
                format!("not a folder that `ingest download` or `ingest shard` made: it has no {MANIFEST}");
            Error::input(folder, problem)
        })?;
        let manifest: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::input(&path, format!("not a manifest of ingest: {error}")))?;
        if manifest["input"]["command"] == RESHARD {
            let problem =
                "made by `ingest reshard`, which takes no failed samples along: there is nothing to retry";
            return Err(Error::input(folder, problem));
        }
        let Manifest { input, shard_size, compressed, image, .. } = serde_json::from_value(manifest)
            .map_err(|error| Error::input(&path, format!("not a manifest of ingest: {error}")))?;
        let folder = folder.to_owned();
        let requests = input.get("command").is_some_and(|command| command == DOWNLOAD);
        let dataset = Self { folder, shard_size, compress: compressed, part, requests, image };
        publish::recover(&dataset.folder)?;
        Ok(dataset)
    }

    /// Name of a shard's files, without extension.
    pub fn name(shard: u32) -> String {
        format!("{shard:05}")
    }

    /// The shard's tar.
    pub fn tar(&self, shard: u32) -> Location {
        let extension = if self.compress { "tar.zst" } else { "tar" };
        self.folder.join(format!("{}.{extension}", Self::name(shard)))
    }

    /// The shard's table.
    pub fn table(&self, shard: u32) -> Location {
        self.folder.join(format!("{}.parquet", Self::name(shard)))
    }

    /// The checksums of the shard's files.
    pub fn sums(&self, shard: u32) -> Location {
        self.folder.join(format!("{}.sha256", Self::name(shard)))
    }

    /// The shard's statistics. The shard is complete if they exist.
    pub fn stats(&self, shard: u32) -> Location {
        self.folder.join(format!("{}_stats.json", Self::name(shard)))
    }

    /// The statistics of a complete shard; None if it is not complete.
    pub fn finished(&self, shard: u32) -> Result<Option<ShardStats>, Error> {
        let path = self.stats(shard);
        let Some(bytes) = found(&path)? else { return Ok(None) };
        let wrong = |error| {
            Error::input(&path, format!("damaged ({error}): delete this file to make the shard again"))
        };
        serde_json::from_slice(&bytes).map(Some).map_err(wrong)
    }

    /// Numbers of the complete shards, in order.
    pub(crate) fn finished_shards(&self) -> Result<Vec<u32>, Error> {
        let mut shards = Vec::new();
        for path in storage::list(&self.folder)? {
            let name = path.file_name();
            shards.extend(name.strip_suffix("_stats.json").and_then(|stem| stem.parse::<u32>().ok()));
        }
        shards.sort_unstable();
        Ok(shards)
    }

    /// Key of a sample, as in img2dataset: the shard number, then the row number with as many digits as a shard needs.
    pub fn key(&self, shard: u32, index: u32) -> String {
        let digits = self.shard_size.saturating_sub(1).checked_ilog10().map_or(0, |log| log + 1);
        let number = u64::from(shard) * 10u64.pow(digits) + u64::from(index);
        format!("{number:0width$}", width = digits as usize + 5)
    }
}

/// The complete shards in `input` (a folder, a file or a brace list) for whose position in the list `owns` is true, and the
/// number of incomplete ones. First completes what killed processes have begun.
pub(crate) fn own_shards(
    input: &Location,
    owns: impl Fn(u32) -> bool,
) -> Result<(Vec<Location>, u64), Error> {
    publish::recover_all(input)?;
    let input = std::slice::from_ref(input);
    let own = (0..).zip(shards::list(input)?).filter(|(position, _)| owns(*position));
    let own = own.map(|(_, shard)| shard).collect();
    Ok((own, shards::incomplete(input)?.len() as u64))
}

/// The contents of a file; None if it does not exist.
fn found(path: &Location) -> Result<Option<Bytes>, Error> {
    match storage::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if storage::is_missing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The first shard file of a folder, if it has any.
fn first_shard(folder: &Location) -> Result<Option<String>, Error> {
    let mut shards = Vec::new();
    for path in storage::list(folder)? {
        let name = path.file_name().into_owned();
        let is_shard = SUFFIXES.iter().any(|end| name.ends_with(end)) || name.ends_with("_stats.json");
        if is_shard && !name.starts_with(TEMPORARY) && !is_apple_double(Path::new(&name)) {
            shards.push(name);
        }
    }
    Ok(shards.into_iter().min())
}

/// The first value that differs, with its path.
fn difference(path: &str, before: &Value, now: &Value) -> Option<String> {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            let mut keys: Vec<&String> = now.keys().collect();
            keys.extend(before.keys().filter(|key| !now.contains_key(*key)));
            keys.into_iter().find_map(|key| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                difference(
                    &path,
                    before.get(key).unwrap_or(&Value::Null),
                    now.get(key).unwrap_or(&Value::Null),
                )
            })
        }
        (Value::Array(before), Value::Array(now)) if before.len() == now.len() => {
            let differ = |(index, (before, now))| difference(&format!("{path}[{index}]"), before, now);
            before.iter().zip(now).enumerate().find_map(differ)
        }
        (before, now) if before == now => None,
        (Value::Array(before), Value::Array(now)) => {
            Some(format!("{path} had {} entries, now {}", before.len(), now.len()))
        }
        (before, now) => Some(format!("{path} was {before}, now {now}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dataset(shard_size: u32) -> Dataset {
        Dataset {
            folder: Location::from("out"),
            shard_size,
            compress: false,
            part: Part::ALL,
            requests: false,
            image: image::Settings::default(),
        }
    }

    #[test]
    fn keys_are_those_of_img2dataset() {
        assert_eq!(dataset(10_000).key(1, 5), "000010005");
        assert_eq!(dataset(1000).key(1, 5), "00001005");
        assert_eq!(dataset(2000).key(3, 1999), "000031999");
        assert_eq!(dataset(1).key(7, 0), "00007");
        assert_eq!(dataset(10).key(7, 9), "000079");
    }

    #[test]
    fn the_difference_between_two_datasets_is_described() {
        let before = json!({"input": {"files": [{"name": "a", "bytes": 1}]}, "image": {"size": 256}});
        let now = json!({"input": {"files": [{"name": "a", "bytes": 2}]}, "image": {"size": 512}});
        assert_eq!(difference("", &before, &before), None);
        assert_eq!(difference("", &before, &now).unwrap(), "input.files[0].bytes was 1, now 2");
    }
}
