//! A folder of shards and what made it: `ingest.json` beside the shards, so that a folder never mixes two sets and a
//! rerun knows that it continues the same one.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use concepts::files::TEMPORARY;
use loader::source;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::image;
use crate::metrics;
use crate::part::Part;
use crate::rows;
use crate::stats::ShardStats;
use crate::watch::{Network, Watch};

/// The file that says what made a folder of shards.
pub const MANIFEST: &str = "ingest.json";

/// Version of the manifest's layout and of how keys and shards are counted.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    input: Value,
    shard_size: u32,
    compressed: bool,
    image: image::Settings,
}

/// A folder of shards in the making.
#[derive(Debug, Clone)]
pub struct Set {
    /// Where the shards are.
    pub folder: PathBuf,
    /// Rows a shard.
    pub shard_size: u32,
    /// Whether tars are compressed (`.tar.zst`).
    pub compress: bool,
    /// Which shards this process makes.
    pub part: Part,
    /// What happens to pictures.
    pub image: image::Settings,
    /// Threads that decode and encode.
    pub threads: usize,
    /// Where Prometheus finds the figures of a run.
    pub metrics: Option<SocketAddr>,
}

impl Set {
    /// Creates the folder, or finds it holding the same set; `made_from` describes the input.
    ///
    /// # Errors
    /// [`Error::AnotherSet`] when the folder holds shards of other inputs, settings or programs.
    pub fn claim(&self, made_from: &Value) -> Result<(), Error> {
        let folder = &self.folder;
        if !source::is_remote(folder) {
            fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
        }
        let path = folder.join(MANIFEST);
        let manifest = serde_json::to_value(self.manifest(made_from))
            .map_err(|error| Error::input(&path, error.to_string()))?;
        match source::read(&path) {
            Ok(bytes) => {
                let before: Value = serde_json::from_slice(&bytes)
                    .map_err(|error| Error::input(&path, format!("not what ingest wrote: {error}")))?;
                match difference("", &before, &manifest) {
                    Some(difference) => Err(Error::AnotherSet { folder: folder.clone(), difference }),
                    None => self.clear_leftovers(),
                }
            }
            Err(error) if is_missing(&error) => {
                if let Some(shard) = first_shard(folder)? {
                    let difference = format!("{shard} is there, but no {MANIFEST}");
                    return Err(Error::AnotherSet { folder: folder.clone(), difference });
                }
                let text = format!("{manifest:#}\n");
                source::write(&path, text.into_bytes())?;
                self.clear_leftovers()
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes back [`Set::claim`] where nothing was made.
    pub(crate) fn abandon(&self) {
        let _ = source::remove(&self.folder.join(MANIFEST));
        // Only when it is empty.
        let _ = fs::remove_dir(&self.folder);
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

    /// The set that a folder holds, to work on it again.
    pub fn load(
        folder: &Path,
        part: Part,
        threads: usize,
        metrics: Option<SocketAddr>,
    ) -> Result<Self, Error> {
        let path = folder.join(MANIFEST);
        let bytes = match source::read(&path) {
            Err(error) if is_missing(&error) => {
                let problem = format!("no set that ingest made: it has no {MANIFEST}");
                return Err(Error::input(folder, problem));
            }
            bytes => bytes?,
        };
        let Manifest { shard_size, compressed, image, .. } = serde_json::from_slice(&bytes)
            .map_err(|error| Error::input(&path, format!("not what ingest wrote: {error}")))?;
        let folder = folder.to_owned();
        let set = Self { folder, shard_size, compress: compressed, part, image, threads, metrics };
        set.clear_leftovers()?;
        Ok(set)
    }

    /// The figures of a run, served to Prometheus where that is wanted.
    pub(crate) fn watch(&self, network: Arc<Network>) -> Result<Arc<Watch>, Error> {
        let watch = Watch::new(network);
        if let Some(address) = self.metrics {
            let address = metrics::serve(address, Arc::clone(&watch))?;
            eprintln!("metrics at http://{address}/metrics");
        }
        Ok(watch)
    }

    /// Name of a shard's files without extension.
    pub fn name(shard: u32) -> String {
        format!("{shard:05}")
    }

    /// The shard's tar.
    pub fn tar(&self, shard: u32) -> PathBuf {
        let extension = if self.compress { "tar.zst" } else { "tar" };
        self.folder.join(format!("{}.{extension}", Self::name(shard)))
    }

    /// The shard's table.
    pub fn table(&self, shard: u32) -> PathBuf {
        self.folder.join(format!("{}.parquet", Self::name(shard)))
    }

    /// The shard's statistics, whose presence means that the shard is complete.
    pub fn stats(&self, shard: u32) -> PathBuf {
        self.folder.join(format!("{}_stats.json", Self::name(shard)))
    }

    /// Statistics of a shard that is complete.
    pub fn finished(&self, shard: u32) -> Result<Option<ShardStats>, Error> {
        let path = self.stats(shard);
        match source::read(&path) {
            Ok(bytes) => {
                let wrong = |error| {
                    Error::input(&path, format!("damaged ({error}): delete it to make the shard again"))
                };
                serde_json::from_slice(&bytes).map(Some).map_err(wrong)
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Numbers of the shards that are complete, in order.
    pub(crate) fn finished_shards(&self) -> Result<Vec<u32>, Error> {
        let mut shards = Vec::new();
        for path in source::list(&self.folder)? {
            let name = path.file_name().unwrap_or_default();
            shards.extend(
                name.to_string_lossy().strip_suffix("_stats.json").and_then(|stem| stem.parse::<u32>().ok()),
            );
        }
        shards.sort_unstable();
        Ok(shards)
    }

    /// Key of a sample, as img2dataset counts: shard number, then as many digits as rows in a shard need.
    pub fn key(&self, shard: u32, index: u32) -> String {
        let digits = self.shard_size.saturating_sub(1).checked_ilog10().map_or(0, |log| log + 1);
        let number = u64::from(shard) * 10u64.pow(digits) + u64::from(index);
        format!("{number:0width$}", width = digits as usize + 5)
    }

    /// Removes what killed processes left of this part's shards, and of the manifest that all parts write. (What they
    /// left of others' may be in use.)
    fn clear_leftovers(&self) -> Result<(), Error> {
        if source::is_remote(&self.folder) {
            return Ok(());
        }
        for path in source::list(&self.folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // `.tmp-PROCESS-NAME`
            let Some((_, name)) = name.strip_prefix(TEMPORARY).and_then(|rest| rest.split_once('-')) else {
                continue;
            };
            let digits = name.bytes().take_while(u8::is_ascii_digit).count();
            let ours = match name[..digits].parse() {
                Ok(shard) => self.part.owns(shard),
                Err(_) => name == MANIFEST && (self.part == Part::ALL || is_old(&path)),
            };
            if ours {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }
}

/// Describes an input file well enough to know it again: name, size, hash of both ends. (The whole of it may be
/// terabytes, and its path may differ from machine to machine.)
pub fn describe(path: &Path) -> Result<Value, Error> {
    const END: u64 = 64 << 10;
    let (ends, bytes) = rows::ends(path, END)?;
    let hash = image::hexadecimal(&Sha256::digest(&ends)[..8]);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(json!({ "name": name, "bytes": bytes, "hash_of_ends": hash }))
}

/// Whether whoever wrote a small file cannot be at it any more: an hour is far more than a write takes, or than clocks of
/// machines that share a folder differ.
fn is_old(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|about| about.modified());
    written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > Duration::from_hours(1)))
}

/// Whether a file is not there, rather than out of reach.
pub(crate) fn is_missing(error: &loader::Error) -> bool {
    matches!(error, loader::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// First shard file of a folder, if it holds any.
fn first_shard(folder: &Path) -> Result<Option<String>, Error> {
    let mut shards = Vec::new();
    for path in source::list(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_shard = [".tar", ".tar.zst", "_stats.json"].iter().any(|end| name.ends_with(end));
        if is_shard && !name.starts_with(TEMPORARY) {
            shards.push(name);
        }
    }
    Ok(shards.into_iter().min())
}

/// The first value that differs, by its path.
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
            Some(format!("{path}: it was made from {}, now {}", before.len(), now.len()))
        }
        (before, now) => Some(format!("{path} was {before}, now {now}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(shard_size: u32) -> Set {
        Set {
            folder: PathBuf::from("out"),
            shard_size,
            compress: false,
            part: Part::ALL,
            image: image::Settings::default(),
            threads: 1,
            metrics: None,
        }
    }

    #[test]
    fn keys_are_those_of_img2dataset() {
        assert_eq!(set(10_000).key(1, 5), "000010005");
        assert_eq!(set(1000).key(1, 5), "00001005");
        assert_eq!(set(2000).key(3, 1999), "000031999");
        assert_eq!(set(1).key(7, 0), "00007");
        assert_eq!(set(10).key(7, 9), "000079");
    }

    #[test]
    fn a_part_clears_its_own_leftovers_and_manifests_that_nobody_writes_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::new(Some(0), Some(2)).unwrap();
        let set = Set { folder: folder.path().to_owned(), part, ..set(10) };
        let leave = |name: &str| {
            let path = folder.path().join(format!("{TEMPORARY}{name}"));
            fs::write(&path, "half").unwrap();
            path
        };
        let (own, other) = (leave("17-00002.tar"), leave("17-00001.tar"));
        let (fresh, old) = (leave("18-ingest.json"), leave("19-ingest.json"));
        let long_ago = std::time::SystemTime::now() - Duration::from_hours(2);
        fs::File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
        set.clear_leftovers().unwrap();
        assert_eq!([own, other, fresh, old].map(|path| path.exists()), [false, true, true, false]);
    }

    #[test]
    fn the_difference_of_two_sets_is_named() {
        let before = json!({"input": {"files": [{"name": "a", "bytes": 1}]}, "image": {"size": 256}});
        let now = json!({"input": {"files": [{"name": "a", "bytes": 2}]}, "image": {"size": 512}});
        assert_eq!(difference("", &before, &before), None);
        assert_eq!(difference("", &before, &now).unwrap(), "input.files[0].bytes was 1, now 2");
    }
}
