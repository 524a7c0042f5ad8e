//! Where a batch's vision features come from: the frozen tower, or its features on disk.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result, at};
use crate::settings::VisionSettings;
use crate::towers::{VisionFeatures, VisionTower};

/// A frozen tower with the normalisation of its images.
#[derive(Debug)]
pub struct FrozenVision<T = VisionTower> {
    /// The tower.
    pub tower: T,
    mean: Tensor,
    std: Tensor,
    kind: Kind,
    device: Device,
}

impl FrozenVision {
    /// Reads the tower of `settings`, to compute in `kind` on `device`.
    pub fn open(settings: &VisionSettings, kind: Kind, device: Device) -> Result<Self> {
        let mut tower = VisionTower::read(&settings.weights, settings.position, kind, device)?;
        // The file that a run keeps of its tower holds the denoiser too.
        if let Some(path) = settings.denoiser.as_ref().filter(|_| !tower.is_denoised()) {
            tower = tower.with_denoiser(path, device)?;
        }
        Ok(Self::new(tower, settings, kind, device))
    }

    /// Around a tower that is already there.
    pub fn new(tower: VisionTower, settings: &VisionSettings, kind: Kind, device: Device) -> Self {
        Self::around(tower, settings, kind, device)
    }

    /// Features of pixels as [`FrozenVision::normalise`] takes them; keeps nothing for a backward pass.
    pub fn features(&self, pixels: &Tensor) -> VisionFeatures {
        tch::no_grad(|| self.tower.forward(&self.normalise(pixels)))
    }
}

impl<T> FrozenVision<T> {
    /// Around any tower.
    pub fn around(tower: T, settings: &VisionSettings, kind: Kind, device: Device) -> Self {
        let channels = |values: [f64; 3]| {
            Tensor::from_slice(&values).to_kind(Kind::Float).to_device(device).view([1, 3, 1, 1])
        };
        Self { tower, mean: channels(settings.mean), std: channels(settings.std), kind, device }
    }

    /// Pixels 0..255, [B, H, W, 3], on the CPU -> normalised [B, 3, H, W] on the device.
    pub fn normalise(&self, pixels: &Tensor) -> Tensor {
        let pixels = pixels.to_device(self.device).permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
        ((pixels - &self.mean) / &self.std).to_kind(self.kind)
    }

    /// The pixel that normalisation turns into 0, of 0..255, [3].
    pub fn mean_pixel(&self) -> Tensor {
        self.mean.view([3]) * 255.0
    }
}

/// Bytes of B images of `size` x `size` pixels as a tensor [B, size, size, 3].
pub fn pixels(bytes: &[u8], size: i64) -> Tensor {
    let rows = bytes.len() as i64 / (size * size * 3);
    Tensor::from_slice(bytes).view([rows, size, size, 3])
}

/// What a folder of cached features was made from: training refuses another set, tower or crop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheHeader {
    /// Version of this layout.
    pub version: u32,
    /// Samples, in the order of the shards.
    pub samples: i64,
    /// Patches N of an image.
    pub patches: i64,
    /// Width d_v.
    pub width: i64,
    /// Side of the centre crop in pixels.
    pub size: u32,
    /// File name and number of samples of each shard.
    pub shards: Vec<(String, u64)>,
    /// SHA-256 of the tower's file.
    pub vision: String,
    /// The rest of the tower's settings, as text.
    pub normalisation: String,
}

const VERSION: u32 = 1;
const HEADER: &str = "features.json";
/// Class token first, then the patches: bfloat16 [samples, 1 + N, d_v].
const TOKENS: &str = "features.bf16";

impl CacheHeader {
    /// What features of the loader's shards by this tower would say of themselves.
    pub fn new(
        settings: &VisionSettings,
        tower: &VisionTower,
        size: u32,
        loader: &loader::Loader,
    ) -> Result<Self> {
        let shards: Vec<(String, u64)> = loader
            .settings()
            .shards
            .iter()
            .zip(loader.shard_samples())
            .map(|(shard, &samples)| {
                (shard.file_name().unwrap_or_default().to_string_lossy().into(), samples.into())
            })
            .collect();
        let side = i64::from(size) / tower.patch;
        Ok(Self {
            version: VERSION,
            samples: shards.iter().map(|(_, samples)| *samples as i64).sum(),
            patches: side * side,
            width: tower.width,
            size,
            shards,
            vision: settings.sha256()?,
            normalisation: format!("{:?} {:?} {:?}", settings.position, settings.mean, settings.std),
        })
    }

    fn row_bytes(&self) -> u64 {
        2 * ((1 + self.patches) * self.width) as u64
    }
}

/// Writes a folder of features, samples in any order; the folder appears when it is whole.
#[derive(Debug)]
pub struct CacheWriter {
    out: PathBuf,
    temporary: PathBuf,
    file: File,
    header: CacheHeader,
    written: i64,
}

impl CacheWriter {
    /// Starts beside `out`, which must not exist.
    pub fn create(out: &Path, header: CacheHeader) -> Result<Self> {
        if out.exists() {
            let problem = "exists already; remove it or name another folder".to_owned();
            return Err(Error::Invalid { path: out.to_owned(), problem });
        }
        let temporary = concepts::files::temporary_path(out);
        fs::create_dir_all(&temporary).map_err(at(&temporary))?;
        let path = temporary.join(TOKENS);
        let file = File::create(&path).map_err(at(&path))?;
        Ok(Self { out: out.to_owned(), temporary, file, header, written: 0 })
    }

    /// Writes the features of the samples with these numbers, counted over the shards in order.
    pub fn put(&mut self, samples: &[i64], features: &VisionFeatures) -> Result<()> {
        let tokens = Tensor::cat(&[features.class.unsqueeze(1), features.patches.shallow_clone()], 1)
            .to_kind(Kind::BFloat16)
            .to_device(Device::Cpu)
            .contiguous();
        let mut bytes = vec![0; tokens.numel() * 2];
        tokens.f_copy_data_u8(&mut bytes, tokens.numel())?;
        let row = self.header.row_bytes();
        for (&sample, bytes) in samples.iter().zip(bytes.chunks_exact(row as usize)) {
            self.file.write_all_at(bytes, sample as u64 * row).map_err(at(&self.temporary))?;
            self.written += 1;
        }
        Ok(())
    }

    /// Makes the folder appear.
    pub fn finish(self) -> Result<()> {
        if self.written != self.header.samples {
            let problem = format!("has {} of {} samples", self.written, self.header.samples);
            return Err(Error::Invalid { path: self.out.clone(), problem });
        }
        let header = serde_json::to_vec_pretty(&self.header)
            .map_err(|e| Error::Io { path: self.temporary.clone(), source: e.into() })?;
        self.file.sync_all().map_err(at(&self.temporary))?;
        concepts::files::write_atomic(&self.temporary.join(HEADER), &header).map_err(at(&self.temporary))?;
        fs::rename(&self.temporary, &self.out).map_err(at(&self.out))?;
        concepts::files::sync_parent(&self.out).map_err(at(&self.out))
    }
}

impl Drop for CacheWriter {
    fn drop(&mut self) {
        // Gone already when finished.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

/// Features on disk, mapped into memory.
#[derive(Debug)]
pub struct FeatureCache {
    tokens: Tensor,
    device: Device,
}

impl FeatureCache {
    /// Opens a folder that [`CacheWriter`] wrote, if it was made from what `expected` says.
    pub fn open(folder: &Path, expected: &CacheHeader, device: Device) -> Result<Self> {
        let path = folder.join(HEADER);
        let invalid = |problem: String| Error::Invalid { path: path.clone(), problem };
        let text = fs::read(&path).map_err(at(&path))?;
        let found: CacheHeader = serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))?;
        let differences = [
            (found.version != expected.version, "another version of the layout"),
            (found.vision != expected.vision, "another vision tower"),
            (found.normalisation != expected.normalisation, "another position or mean/std setting"),
            (found.size != expected.size, "another image size"),
            (found.shards != expected.shards, "other shards"),
            (found != *expected, "another size of features"),
        ];
        if let Some((_, what)) = differences.iter().find(|(differs, _)| *differs) {
            return Err(invalid(format!("was made from {what}; run trainer cache again")));
        }
        let path = folder.join(TOKENS);
        let bytes = fs::metadata(&path).map_err(at(&path))?.len();
        if bytes != found.row_bytes() * found.samples as u64 {
            let problem =
                format!("has {bytes} bytes, not {} per sample; run trainer cache again", found.row_bytes());
            return Err(Error::Invalid { path, problem });
        }
        let name = path.to_str().ok_or_else(|| Error::Invalid {
            path: path.clone(),
            problem: "the path is not UTF-8".to_owned(),
        })?;
        let numbers = found.samples * (1 + found.patches) * found.width;
        let tokens = Tensor::f_from_file(name, false, numbers, (Kind::BFloat16, Device::Cpu))?;
        Ok(Self { tokens: tokens.view([found.samples, 1 + found.patches, found.width]), device })
    }

    /// Features of the samples with these numbers, counted over the shards in order.
    pub fn features(&self, samples: &[i64]) -> VisionFeatures {
        let tokens = self.tokens.index_select(0, &Tensor::from_slice(samples)).to_device(self.device);
        let patches = tokens.size()[1] - 1;
        VisionFeatures { class: tokens.select(1, 0), patches: tokens.narrow(1, 1, patches) }
    }
}
