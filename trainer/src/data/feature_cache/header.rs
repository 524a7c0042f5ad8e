//! The header of a folder of features: what they were computed from, and the names of the files.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use concepts::checksums::{Checksums, sha256};
use loader::{Identity, Loader};
use serde::{Deserialize, Serialize};
use tch::Kind;

use crate::data::frozen_tower;
use crate::device::Precision;
use crate::error::{Error, Result, reading};
use crate::settings::VisionSettings;
use crate::towers::VisionTower;

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
    /// Attention heads, if the folder holds head means instead of tokens; otherwise 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub heads: i64,
    /// Side of the centre crop in pixels.
    pub size: u32,
    /// The shards, in order.
    pub shards: Vec<CachedShard>,
    /// SHA-256 of the weights file of the tower.
    pub vision: String,
    /// The other settings of the tower, as text.
    pub normalisation: String,
    /// Number format in which the tower computed, `float32`, `bfloat16` or `float8-vision`; `None` in folders that do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(heads: &i64) -> bool {
    *heads == 0
}

/// A shard of which features are cached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredShard")]
pub struct CachedShard {
    /// File name.
    pub name: String,
    /// Number of samples.
    pub samples: u64,
    /// What its index says; `None` in folders of version 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Identity>,
}

/// Version 1 stored a pair.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredShard {
    Pair(String, u64),
    Record { name: String, samples: u64, content: Option<Identity> },
}

impl From<StoredShard> for CachedShard {
    fn from(stored: StoredShard) -> Self {
        match stored {
            StoredShard::Pair(name, samples) => Self { name, samples, content: None },
            StoredShard::Record { name, samples, content } => Self { name, samples, content },
        }
    }
}

/// Of folders with tokens.
const VERSION: u32 = 2;
/// Of folders with head means, which earlier versions of the program cannot read.
const HEAD_MEANS_VERSION: u32 = 3;
/// Read too, with a warning.
pub(super) const OLDEST_VERSION: u32 = 1;
pub(super) const HEADER: &str = "features.json";
/// Class token first, then the patches: bfloat16 [samples, 1 + N, d_v]; or head means, [samples, heads, d_v].
pub(super) const TOKENS: &str = "features.bf16";
/// Per sample the check of its image's file and that of its features, as little-endian u64.
pub(super) const CHECKS: &str = "features.checks";
/// Checksums of the header and the checks, as `sha256sum` writes them.
pub(super) const CHECKSUMS: &str = "features.sha256";
/// Bytes per sample in [`CHECKS`].
pub(super) const CHECK_BYTES: u64 = 16;

impl CacheHeader {
    /// The header for features of the loader's shards by this tower: tokens, or `head_means`.
    pub fn new(
        settings: &VisionSettings,
        tower: &VisionTower,
        size: u32,
        loader: &Loader,
        head_means: bool,
    ) -> Result<Self> {
        let shards: Vec<CachedShard> = loader
            .settings()
            .shards
            .iter()
            .zip(loader.shard_samples())
            .map(|(shard, &samples)| CachedShard {
                name: shard.file_name().into_owned(),
                samples: samples.into(),
                content: None,
            })
            .collect();
        let side = i64::from(size) / tower.patch;
        let positions = match tower.position_resize() {
            Some(resize) => format!("{resize:?}"),
            None => format!("Rotary {:?}", settings.rope_periods),
        };
        let normalization = settings.normalization(tower.family.normalization);
        Ok(Self {
            version: if head_means { HEAD_MEANS_VERSION } else { VERSION },
            samples: shards.iter().map(|shard| shard.samples as i64).sum(),
            patches: side * side,
            width: tower.width,
            heads: if head_means { tower.heads } else { 0 },
            size,
            shards,
            vision: frozen_tower::sha256(settings)?,
            normalisation: format!("{positions} {:?} {:?}", normalization.mean, normalization.std),
            precision: Some(match tower.product_kind() {
                Kind::Float8e4m3fn => Precision::Float8Vision,
                Kind::BFloat16 => Precision::Bfloat16,
                _ => Precision::Float32,
            }),
        })
    }

    /// Reads the header of a folder.
    ///
    /// # Errors
    /// If it is damaged, or of another version of the format.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(HEADER);
        let invalid = |problem: String| Error::Invalid { path: path.clone(), problem };
        let text = checked(folder, HEADER)?;
        let found: Self = serde_json::from_slice(&text).map_err(|e| {
            invalid(format!("is not the header of cached features: {e}; run trainer cache again"))
        })?;
        if !(OLDEST_VERSION..=HEAD_MEANS_VERSION).contains(&found.version) {
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
    pub(super) fn bytes(&self) -> Option<(u64, u64)> {
        let [samples, patches, width, heads] =
            [self.samples, self.patches, self.width, self.heads].map(|size| u64::try_from(size).ok());
        let rows = match heads? {
            0 => patches?.checked_add(1)?,
            heads => heads,
        };
        let row = rows.checked_mul(width?)?.checked_mul(2)?;
        Some((row, row.checked_mul(samples?)?))
    }

    pub(super) fn row_bytes(&self) -> u64 {
        self.bytes().map_or(0, |(row, _)| row)
    }

    /// What a folder with this header, which training expects, was made with otherwise.
    pub(super) fn difference(&self, expected: &Self) -> Option<&'static str> {
        let names = |header: &Self| -> Vec<(String, u64)> {
            header.shards.iter().map(|shard| (shard.name.clone(), shard.samples)).collect()
        };
        let sizes = |header: &Self| [header.samples, header.patches, header.width, header.heads];
        let differences = [
            (
                self.heads == 0 && expected.heads > 0,
                "class and patch tokens, but objective talk2dino needs head means (--head-means)",
            ),
            (
                self.heads > 0 && expected.heads == 0,
                "head means (--head-means), which are for objective talk2dino only, and others need tokens",
            ),
            (self.vision != expected.vision, "another vision tower"),
            (
                self.normalisation != expected.normalisation,
                "other values of vision.position, vision.rope_periods, vision.mean or vision.std",
            ),
            // Features of a more exact tower are good enough.
            (
                [&self.precision, &expected.precision]
                    == [&Some(Precision::Bfloat16), &Some(Precision::Float32)],
                "a tower that computed in bfloat16, but precision is float32",
            ),
            (
                self.precision == Some(Precision::Float8Vision) && self.precision != expected.precision,
                "a tower that computed in float8, but precision is not set to float8-vision",
            ),
            (self.size != expected.size, "another image size"),
            (names(self) != names(expected), "other shards"),
            (sizes(self) != sizes(expected), "features of another size"),
        ];
        differences.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what)
    }
}

/// The bytes of a file, which must have its checksum. Folders of version 1 have no checksums.
pub(super) fn checked(folder: &Path, name: &str) -> Result<Vec<u8>> {
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

/// An error if the file of the features has not the size that the header implies.
pub(super) fn check_size(path: &Path, header: &CacheHeader) -> Result<()> {
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
            ("\"version\": 1", "\"version\": 4"),
            ("\"width\": 8", "\"width\": 8, \"heads\": -1"),
        ] {
            fs::write(folder.path().join(HEADER), text.replace(from, to)).unwrap();
            let error = CacheHeader::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains(HEADER), "{to}: {error}");
        }
    }
}
