//! By which a sidecar knows the captions that it was made from: a check of each sample's captions, 8 bytes, and a hash of all
//! checks in the footer. The checks are stored between the last row group and the footer, where other readers of Parquet do not
//! look, because a column could not have those of samples without a mention.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ops::Range;
use twox_hash::XxHash64;

use crate::tables::TableError;

/// Bytes per check.
const BYTES: usize = 8;

/// The name of the hash in the footer.
const HASH: &str = "xxh64";

/// Where a sidecar has the checks of its captions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captions {
    /// The hash that a check is: `xxh64`.
    pub check: String,
    /// First byte of the checks in the file: 8 bytes for each sample of the shard, little-endian, in tar order.
    pub offset: u64,
    /// SHA-256 of these bytes, hexadecimal.
    pub sha256: String,
}

impl Captions {
    /// The bytes of the checks in a file of `length` bytes.
    pub(super) fn range(&self, samples: u32, length: usize) -> Result<Range<usize>, TableError> {
        if self.check != HASH {
            let problem =
                format!("it has checks of the kind {:?}, but this program knows {HASH}", self.check);
            return Err(TableError::content(problem));
        }
        let start = usize::try_from(self.offset).ok();
        let end = start.and_then(|start| start.checked_add(BYTES * samples as usize));
        match (start, end) {
            (Some(start), Some(end)) if end <= length => Ok(start..end),
            _ => {
                let problem = format!("it claims checks of {samples} captions, which it does not have");
                Err(TableError::too_large(problem))
            }
        }
    }
}

/// A check of the captions of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptionCheck([u8; BYTES]);

impl CaptionCheck {
    /// Of the only caption of a sample: XXH64, with the seed 0, of its bytes as they are stored, before any repair or
    /// normalisation. A sample without a caption counts as one with an empty caption: neither is a training pair.
    pub fn of(raw: &[u8]) -> Self {
        Self(XxHash64::oneshot(0, raw).to_le_bytes())
    }

    /// Of the captions in a field of a sample's JSON: XXH64 of the checks of the single captions, one after another. Without a
    /// caption it is that of an empty one.
    pub fn of_all<T: AsRef<[u8]>>(captions: &[T]) -> Self {
        let checks: Vec<u8> = captions.iter().flat_map(|caption| Self::of(caption.as_ref()).0).collect();
        Self::of(&checks)
    }
}

/// The checks of captions, in tar order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaptionChecks(Vec<u8>);

impl CaptionChecks {
    /// Adds the check of the next sample.
    pub fn push(&mut self, check: CaptionCheck) {
        self.0.extend_from_slice(&check.0);
    }

    /// The check of a sample; `None` if there is no such sample.
    pub(super) fn get(&self, sample: u32) -> Option<CaptionCheck> {
        let start = BYTES * sample as usize;
        self.0.get(start..start + BYTES)?.try_into().ok().map(CaptionCheck)
    }

    /// Number of samples.
    pub fn samples(&self) -> u64 {
        (self.0.len() / BYTES) as u64
    }

    /// SHA-256 of all checks, hexadecimal.
    pub fn sha256(&self) -> String {
        Sha256::digest(&self.0).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes it that of `samples` samples, the new ones without a caption.
    pub(super) fn fill(&mut self, samples: u32) {
        while self.samples() < u64::from(samples) {
            self.push(CaptionCheck::of(b""));
        }
    }

    /// The description of these checks at this place of a file.
    pub(super) fn at(&self, offset: u64) -> Captions {
        Captions { check: HASH.to_owned(), offset, sha256: self.sha256() }
    }

    /// Whether the captions of a sample are those that were checked; `None` if there is no such sample.
    pub(super) fn matches(&self, sample: u32, check: CaptionCheck) -> Option<bool> {
        Some(self.get(sample)? == check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// XXH64 of the specification's own test program (xxhsum) for "", "a" and "abc" with the seed 0.
    #[test]
    fn a_check_is_xxh64() {
        let of = |text: &str| u64::from_le_bytes(CaptionCheck::of(text.as_bytes()).0);
        assert_eq!(of(""), 0xef46_db37_51d8_e999);
        assert_eq!(of("a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(of("abc"), 0x44bc_2cf5_ad77_0999);
    }

    /// The order of several captions counts, and where one ends.
    #[test]
    fn several_captions_have_one_check() {
        let of = |captions: &[&str]| CaptionCheck::of_all(captions);
        let all = [
            of(&[]),
            of(&[""]),
            of(&["", ""]),
            of(&["ab"]),
            of(&["a", "b"]),
            of(&["b", "a"]),
            CaptionCheck::of(b"ab"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(all.iter().filter(|other| *other == one).count(), 1, "number {at}");
        }
    }

    #[test]
    fn samples_without_a_caption_count() {
        let mut checks = CaptionChecks::default();
        checks.push(CaptionCheck::of(b"a dog"));
        checks.fill(3);
        assert_eq!(checks.samples(), 3);
        assert_eq!(checks.matches(0, CaptionCheck::of(b"a dog")), Some(true));
        assert_eq!(checks.matches(0, CaptionCheck::of(b"a cat")), Some(false));
        assert_eq!(checks.matches(2, CaptionCheck::of(b"")), Some(true));
        assert_eq!(checks.matches(3, CaptionCheck::of(b"")), None);
        let captions = checks.at(100);
        assert_eq!(captions.range(3, 124), Ok(100..124));
        assert!(captions.range(3, 123).is_err());
        assert!(captions.range(u32::MAX, 124).is_err());
    }
}
