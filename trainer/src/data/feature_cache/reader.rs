//! Reads features during training.

use std::path::{Path, PathBuf};

use loader::{Expected, Identity, Loader};
use tch::{Device, Kind, Tensor};

use super::header::{CacheHeader, CachedShard, HEADER, OLDEST_VERSION, TOKENS, check_size};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::towers::VisionFeatures;

/// Features on disk, memory-mapped.
#[derive(Debug)]
pub struct FeatureCache {
    folder: PathBuf,
    shards: Vec<CachedShard>,
    tokens: Tensor,
    device: Device,
}

impl FeatureCache {
    /// Opens a folder that [`CacheWriter`](super::CacheWriter) wrote; an error if it was not made from what `expected` describes.
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
    pub fn expect_its_images(&self, loader: &Loader, observer: &dyn Observer) -> Result<()> {
        let shards: Vec<Option<Identity>> = self.shards.iter().map(|shard| shard.content).collect();
        if shards.iter().any(Option::is_none) {
            observer.message(&format!(
                "warning: {} is of version {OLDEST_VERSION}, which cannot tell whether images have changed since; run trainer \
                 cache again to be sure",
                self.folder.display()
            ));
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
