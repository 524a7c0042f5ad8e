//! The features of the frozen vision tower for a dataset, stored on disk: a folder of four files.
//!
//! A folder knows its source by content. Training compares what the indices of the shards tell (keys, places and, where the
//! tables have them, hashes of the images); [`verify`] compares the bytes of every image and of every row of features.

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use concepts::checksums::{Checksums, sha256};
use loader::identity::image_check;
use loader::index::Index;
use loader::program::{Progress, interrupted};
use loader::tar::Archive;
use loader::{Expected, Identity, Loader};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result, reading, writing};
use crate::settings::VisionSettings;
use crate::towers::{VisionFeatures, VisionTower};

/// What a folder of cached features was made from. Training rejects a folder that was made from other shards, another tower or
/// another crop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheHeader {
    /// Version of this format.
    pub version: u32,
    /// Number of samples; they are in the order of the shards.
    pub samples: i64,
    /// Patches N per image.
    pub patches: i64,
    /// Width d_v.
    pub width: i64,
    /// Side of the centre crop in pixels.
    pub size: u32,
    /// The shards, in order.
    pub shards: Vec<CachedShard>,
    /// SHA-256 of the weights file of the tower.
    pub vision: String,
    /// The other settings of the tower, as text.
    pub normalisation: String,
}

/// A shard of which features are cached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredShard")]
pub struct CachedShard {
    /// File name.
    pub name: String,
    /// Number of samples.
    pub samples: u64,
    /// What its index told; `None` in folders of version 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Identity>,
}

/// Version 1 stored a pair.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredShard {
    Pair(String, u64),
    Known { name: String, samples: u64, content: Option<Identity> },
}

impl From<StoredShard> for CachedShard {
    fn from(stored: StoredShard) -> Self {
        match stored {
            StoredShard::Pair(name, samples) => Self { name, samples, content: None },
            StoredShard::Known { name, samples, content } => Self { name, samples, content },
        }
    }
}

const VERSION: u32 = 2;
/// Read too, with a warning.
const OLDEST_VERSION: u32 = 1;
const HEADER: &str = "features.json";
/// Class token first, then the patches: bfloat16 [samples, 1 + N, d_v].
const TOKENS: &str = "features.bf16";
/// Per sample the check of its image's file and that of its features, as little-endian u64.
const CHECKS: &str = "features.checks";
/// Checksums of the header and the checks, as `sha256sum` writes them.
const CHECKSUMS: &str = "features.sha256";
/// Bytes per sample in [`CHECKS`].
const CHECK_BYTES: u64 = 16;

impl CacheHeader {
    /// The header for features of the loader's shards by this tower.
    pub fn new(settings: &VisionSettings, tower: &VisionTower, size: u32, loader: &Loader) -> Result<Self> {
        let shards: Vec<CachedShard> = loader
            .settings()
            .shards
            .iter()
            .zip(loader.shard_samples())
            .map(|(shard, &samples)| CachedShard {
                name: file_name(shard),
                samples: samples.into(),
                content: None,
            })
            .collect();
        let side = i64::from(size) / tower.patch;
        Ok(Self {
            version: VERSION,
            samples: shards.iter().map(|shard| shard.samples as i64).sum(),
            patches: side * side,
            width: tower.width,
            size,
            shards,
            vision: settings.sha256()?,
            normalisation: format!("{:?} {:?} {:?}", tower.position_resize, settings.mean, settings.std),
        })
    }

    /// Reads the header of a folder.
    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(HEADER);
        let invalid = |problem: String| Error::Invalid { path: path.clone(), problem };
        let text = checked(folder, HEADER)?;
        let found: Self = serde_json::from_slice(&text).map_err(|e| {
            invalid(format!("is not the header of cached features: {e}; run trainer cache again"))
        })?;
        if !(OLDEST_VERSION..=VERSION).contains(&found.version) {
            return Err(invalid(
                "was made with another version of this program; run trainer cache again".to_owned(),
            ));
        }
        let counted = found.shards.iter().try_fold(0_u64, |sum, shard| sum.checked_add(shard.samples));
        if found.bytes().is_none() || counted != u64::try_from(found.samples).ok() {
            return Err(invalid("has impossible sizes; run trainer cache again".to_owned()));
        }
        Ok(found)
    }

    /// Bytes of features per sample, and of all.
    fn bytes(&self) -> Option<(u64, u64)> {
        let [samples, patches, width] =
            [self.samples, self.patches, self.width].map(|size| u64::try_from(size).ok());
        let row = patches?.checked_add(1)?.checked_mul(width?)?.checked_mul(2)?;
        Some((row, row.checked_mul(samples?)?))
    }

    fn row_bytes(&self) -> u64 {
        self.bytes().map_or(0, |(row, _)| row)
    }

    /// What a folder with this header, which training expects, was made with otherwise.
    fn difference(&self, expected: &Self) -> Option<&'static str> {
        let names = |header: &Self| -> Vec<(String, u64)> {
            header.shards.iter().map(|shard| (shard.name.clone(), shard.samples)).collect()
        };
        let sizes = |header: &Self| [header.samples, header.patches, header.width];
        let differences = [
            (self.vision != expected.vision, "another vision tower"),
            (
                self.normalisation != expected.normalisation,
                "other values of vision.position, vision.mean or vision.std",
            ),
            (self.size != expected.size, "another image size"),
            (names(self) != names(expected), "other shards"),
            (sizes(self) != sizes(expected), "features of another size"),
        ];
        differences.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what)
    }
}

/// The bytes of a file, which must have its checksum. Folders of version 1 have no checksums.
fn checked(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let (path, sums_path) = (folder.join(name), folder.join(CHECKSUMS));
    let bytes = fs::read(&path).map_err(reading(&path))?;
    let text = match fs::read_to_string(&sums_path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(bytes),
        Err(error) => return Err(reading(&sums_path)(error)),
    };
    let sum = Checksums::parse(&text).ok().and_then(|sums| sums.get(name).map(str::to_owned));
    if sum == Some(sha256(&bytes)) {
        return Ok(bytes);
    }
    let problem = format!("is damaged: its SHA-256 is not the one in {CHECKSUMS}; run trainer cache again");
    Err(Error::Invalid { path, problem })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Writes a folder of features; samples may come in any order. The folder appears under its final name when it is complete.
#[derive(Debug)]
pub struct CacheWriter {
    out: PathBuf,
    temporary: PathBuf,
    /// As long as it is open, other processes see that the folder is in use.
    _held: File,
    file: File,
    checks: Vec<u8>,
    header: CacheHeader,
    written: i64,
}

impl CacheWriter {
    /// Starts in a temporary folder next to `out`, which must not exist.
    pub fn create(out: &Path, header: CacheHeader) -> Result<Self> {
        if out.exists() {
            let problem = "exists already; remove it or choose another --out".to_owned();
            return Err(Error::Invalid { path: out.to_owned(), problem });
        }
        concepts::files::clear_leftovers_of(out);
        let (temporary, held) = concepts::files::temporary_folder(out).map_err(writing(out))?;
        let path = temporary.join(TOKENS);
        let file = File::create(&path).map_err(writing(&path))?;
        let checks = vec![0; (CHECK_BYTES * header.samples as u64) as usize];
        Ok(Self { out: out.to_owned(), temporary, _held: held, file, checks, header, written: 0 })
    }

    /// Writes the features of the samples with these numbers, which count over all shards in order, and with these checks of
    /// their images.
    pub fn put(&mut self, samples: &[i64], images: &[u64], features: &VisionFeatures) -> Result<()> {
        let tokens = Tensor::cat(&[features.class.unsqueeze(1), features.patches.shallow_clone()], 1)
            .to_kind(Kind::BFloat16)
            .to_device(Device::Cpu)
            .contiguous();
        let mut bytes = vec![0; tokens.numel() * 2];
        tokens.f_copy_data_u8(&mut bytes, tokens.numel())?;
        let row = self.header.row_bytes();
        for ((&sample, &image), bytes) in samples.iter().zip(images).zip(bytes.chunks_exact(row as usize)) {
            self.file.write_all_at(bytes, sample as u64 * row).map_err(writing(&self.temporary))?;
            let at = (CHECK_BYTES * sample as u64) as usize;
            self.checks[at..at + 8].copy_from_slice(&image.to_le_bytes());
            self.checks[at + 8..at + 16].copy_from_slice(&image_check(bytes).to_le_bytes());
            self.written += 1;
        }
        Ok(())
    }

    /// Renames the folder to its final name. `opened` says what the indices of the shards told.
    pub fn finish(mut self, opened: &[(u32, Identity)]) -> Result<()> {
        if self.written != self.header.samples {
            let problem = format!("only {} of {} samples were computed", self.written, self.header.samples);
            return Err(Error::Invalid { path: self.out.clone(), problem });
        }
        for &(shard, content) in opened {
            if let Some(shard) = self.header.shards.get_mut(shard as usize) {
                shard.content = Some(content);
            }
        }
        let header =
            serde_json::to_vec_pretty(&self.header).map_err(|e| writing(&self.temporary)(e.into()))?;
        let mut sums = Checksums::default();
        sums.set(CHECKS, sha256(&self.checks));
        sums.set(HEADER, sha256(&header));
        let sums = sums.text().into_bytes();
        self.file.sync_all().map_err(writing(&self.temporary))?;
        for (name, bytes) in [(CHECKS, &self.checks), (CHECKSUMS, &sums), (HEADER, &header)] {
            concepts::files::write_atomic(&self.temporary.join(name), bytes)
                .map_err(writing(&self.temporary))?;
        }
        fs::rename(&self.temporary, &self.out).map_err(writing(&self.out))?;
        concepts::files::sync_parent(&self.out).map_err(writing(&self.out))
    }
}

impl Drop for CacheWriter {
    fn drop(&mut self) {
        // After `finish` it is gone already.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

/// The files of the images of a loader's shards. One shard is open at a time: the loader gives the samples of a shard one after
/// another.
#[derive(Debug)]
pub struct ImageFiles<'a> {
    loader: &'a Loader,
    /// Number of each shard's first sample.
    starts: Vec<u64>,
    open: Option<(usize, Archive, Index)>,
}

impl<'a> ImageFiles<'a> {
    /// Opens nothing yet.
    pub fn new(loader: &'a Loader) -> Self {
        let starts = loader.shard_samples().iter().scan(0, |next, &samples| {
            let start = *next;
            *next += u64::from(samples);
            Some(start)
        });
        Self { loader, starts: starts.collect(), open: None }
    }

    /// The check of the image of a sample, whose number counts over all shards in order.
    pub fn check(&mut self, number: u64) -> Result<u64> {
        let shard = self.starts.partition_point(|&start| start <= number).saturating_sub(1);
        let path = &self.loader.settings().shards[shard];
        let (archive, index) = match self.open.take() {
            Some((open, archive, index)) if open == shard => (archive, index),
            _ => {
                let archive = Archive::open(path)?;
                let index = Index::load(&archive)?;
                (archive, index)
            }
        };
        let check = check_of(&archive, &index, (number - self.starts[shard]) as u32)?;
        self.open = Some((shard, archive, index));
        Ok(check)
    }
}

/// The check of the image of a sample.
fn check_of(archive: &Archive, index: &Index, sample: u32) -> Result<u64> {
    let Some((offset, length)) = index.image(sample) else {
        let problem = format!("sample {} has no image", index.key(sample));
        return Err(Error::Invalid { path: archive.path().to_owned(), problem });
    };
    Ok(image_check(&archive.read(offset, length)?))
}

/// Features on disk, memory-mapped.
#[derive(Debug)]
pub struct FeatureCache {
    folder: PathBuf,
    shards: Vec<CachedShard>,
    tokens: Tensor,
    device: Device,
}

impl FeatureCache {
    /// Opens a folder that [`CacheWriter`] wrote; an error if it was not made from what `expected` describes.
    pub fn open(folder: &Path, expected: &CacheHeader, device: Device) -> Result<Self> {
        let found = CacheHeader::read(folder)?;
        if let Some(what) = found.difference(expected) {
            let problem = format!("was made with {what}; run trainer cache again");
            return Err(Error::Invalid { path: folder.join(HEADER), problem });
        }
        let path = folder.join(TOKENS);
        check_size(&path, &found)?;
        let name = path.to_str().ok_or_else(|| Error::Invalid {
            path: path.clone(),
            problem: "the path is not UTF-8".to_owned(),
        })?;
        let numbers = found.samples * (1 + found.patches) * found.width;
        let tokens = Tensor::f_from_file(name, false, numbers, (Kind::BFloat16, Device::Cpu))?;
        let tokens = tokens.view([found.samples, 1 + found.patches, found.width]);
        Ok(Self { folder: folder.to_owned(), shards: found.shards, tokens, device })
    }

    /// Makes the loader reject shards with other images than those that the features are of.
    pub fn expect_its_images(&self, loader: &Loader) -> Result<()> {
        let shards: Vec<Option<Identity>> = self.shards.iter().map(|shard| shard.content).collect();
        if shards.iter().any(Option::is_none) && loader.settings().rank == 0 {
            eprintln!(
                "warning: {} is of version {OLDEST_VERSION}, which cannot tell whether images have changed since; run trainer \
                 cache again to be sure",
                self.folder.display()
            );
        }
        let since =
            format!("the features in {} were computed; run trainer cache again", self.folder.display());
        Ok(loader.expect(Expected { shards, captions: false, since })?)
    }

    /// Features of the samples with these numbers, which count over all shards in order.
    pub fn features(&self, samples: &[i64]) -> VisionFeatures {
        let tokens = self.tokens.index_select(0, &Tensor::from_slice(samples)).to_device(self.device);
        let patches = tokens.size()[1] - 1;
        VisionFeatures { class: tokens.select(1, 0), patches: tokens.narrow(1, 1, patches) }
    }
}

fn check_size(path: &Path, header: &CacheHeader) -> Result<()> {
    let bytes = fs::metadata(path).map_err(reading(path))?.len();
    if header.bytes().is_some_and(|(_, all)| all == bytes) {
        return Ok(());
    }
    let problem = format!(
        "has {bytes} bytes, but must have {} per sample; run trainer cache again",
        header.row_bytes()
    );
    Err(Error::Invalid { path: path.to_owned(), problem })
}

/// What [`verify`] compared.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// Number of samples.
    pub samples: i64,
    /// Number of shards.
    pub shards: usize,
}

/// Compares every row of features in a folder with its check, and every image of the shards with that from which they were
/// computed. Computes no features.
///
/// # Errors
/// Something differs, or the folder is of version 1, which has no checks.
pub fn verify(folder: &Path, shards: &[PathBuf]) -> Result<Verified> {
    let header = CacheHeader::read(folder)?;
    let invalid = |path: &Path, problem: String| Error::Invalid { path: path.to_owned(), problem };
    if header.version == OLDEST_VERSION {
        let problem = format!("is of version {OLDEST_VERSION}, which has no checks; run trainer cache again");
        return Err(invalid(&folder.join(HEADER), problem));
    }
    let checks = checked(folder, CHECKS)?;
    if checks.len() as u64 != CHECK_BYTES * header.samples as u64 {
        let problem =
            "does not have the number of samples of the features; run trainer cache again".to_owned();
        return Err(invalid(&folder.join(CHECKS), problem));
    }
    let mut checks =
        checks.chunks_exact(8).map(|check| u64::from_le_bytes(check.try_into().unwrap_or_default()));
    let path = folder.join(TOKENS);
    check_size(&path, &header)?;
    let named: Vec<String> = shards.iter().map(|shard| file_name(shard)).collect();
    if named != header.shards.iter().map(|shard| shard.name.clone()).collect::<Vec<_>>() {
        let problem = "was made with other shards; give the same in the same order".to_owned();
        return Err(invalid(&folder.join(HEADER), problem));
    }
    let mut features = BufReader::with_capacity(1 << 20, File::open(&path).map_err(reading(&path))?);
    let mut row = vec![0; header.row_bytes() as usize];
    let mut progress = Progress::new("verifying features", "images", header.samples as u64);
    for (shard, cached) in shards.iter().zip(&header.shards) {
        let archive = Archive::open(shard)?;
        let index = Index::load(&archive)?;
        if index.len() as u64 != cached.samples {
            let problem = format!(
                "has {} samples, but had {} when the features were computed",
                index.len(),
                cached.samples
            );
            return Err(invalid(shard, problem));
        }
        if let Some(what) = cached.content.and_then(|content| content.difference(&index.identity(), false)) {
            let problem = format!("has {what} than when the features were computed; run trainer cache again");
            return Err(invalid(shard, problem));
        }
        for sample in 0..index.len() as u32 {
            let (Some(image), Some(expected)) = (checks.next(), checks.next()) else { break };
            let key = index.key(sample);
            if check_of(&archive, &index, sample)? != image {
                let problem = format!(
                    "the image of sample {key} has changed since the features were computed; run trainer cache again"
                );
                return Err(invalid(shard, problem));
            }
            features.read_exact(&mut row).map_err(reading(&path))?;
            if image_check(&row) != expected {
                let problem = format!(
                    "the features of sample {key} of {} are damaged; run trainer cache again",
                    shard.display()
                );
                return Err(invalid(&path, problem));
            }
            progress.advance(1, String::new);
        }
        if interrupted() {
            return Err(Error::Interrupted("not all features were compared".to_owned()));
        }
    }
    progress.finish(&folder.display().to_string());
    Ok(Verified { samples: header.samples, shards: shards.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 1 of the program wrote it (docs/file-formats.md of that version).
    #[test]
    fn headers_of_version_1_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"version": 1, "samples": 3, "patches": 4, "width": 8, "size": 16,
            "shards": [["00000.tar", 2], ["00001.tar", 1]], "vision": "00", "normalisation": "x"}"#;
        fs::write(folder.path().join(HEADER), text).unwrap();
        let header = CacheHeader::read(folder.path()).unwrap();
        let shard = |name: &str, samples| CachedShard { name: name.to_owned(), samples, content: None };
        assert_eq!(header.shards, [shard("00000.tar", 2), shard("00001.tar", 1)]);
        assert_eq!(header.row_bytes(), 2 * 5 * 8);
        for (from, to) in [
            ("\"samples\": 3", "\"samples\": 4"),
            ("\"samples\": 3", "\"samples\": -3"),
            ("\"width\": 8", "\"width\": 4611686018427387904"),
            ("\"version\": 1", "\"version\": 3"),
        ] {
            fs::write(folder.path().join(HEADER), text.replace(from, to)).unwrap();
            let error = CacheHeader::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains(HEADER), "{to}: {error}");
        }
    }
}
