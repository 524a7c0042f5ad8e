//! Vision features of a batch: from the frozen tower, or from its features stored on disk.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result, reading, writing};
use crate::settings::VisionSettings;
use crate::towers::{VisionFeatures, VisionTower};

/// A vision tower with the normalization of its input images. The tower is a frozen [`VisionTower`] unless `T` says otherwise.
#[derive(Debug)]
pub struct ImageEncoder<T = VisionTower> {
    /// The tower.
    pub tower: T,
    mean: Tensor,
    std: Tensor,
    kind: Kind,
    device: Device,
}

impl ImageEncoder {
    /// Reads the tower in `settings`, which computes in `kind` on `device`.
    pub fn open(settings: &VisionSettings, kind: Kind, device: Device) -> Result<Self> {
        let mut tower = VisionTower::read(&settings.weights, settings.position, kind, device)?;
        // The file in a run folder already contains the denoiser.
        if let Some(path) = settings.denoiser.as_ref().filter(|_| !tower.is_denoised()) {
            tower = tower.with_denoiser(path, device)?;
        }
        Ok(Self::new(tower, settings, kind, device))
    }

    /// With a tower that has been loaded already.
    pub fn new(tower: VisionTower, settings: &VisionSettings, kind: Kind, device: Device) -> Self {
        Self::around(tower, settings, kind, device)
    }

    /// Features of pixels in the form that [`ImageEncoder::normalise`] takes; keeps no activations for a backward pass.
    pub fn features(&self, pixels: &Tensor) -> VisionFeatures {
        tch::no_grad(|| self.tower.forward(&self.normalise(pixels)))
    }
}

impl<T> ImageEncoder<T> {
    /// With a tower of any type.
    pub fn around(tower: T, settings: &VisionSettings, kind: Kind, device: Device) -> Self {
        let channels = |values: [f64; 3]| {
            Tensor::from_slice(&values).to_kind(Kind::Float).to_device(device).view([1, 3, 1, 1])
        };
        Self { tower, mean: channels(settings.mean), std: channels(settings.std), kind, device }
    }

    /// Pixels 0..255, [B, H, W, 3] -> normalized [B, 3, H, W] on the device.
    pub fn normalise(&self, pixels: &Tensor) -> Tensor {
        let pixels = pixels.to_device(self.device).permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
        ((pixels - &self.mean) / &self.std).to_kind(self.kind)
    }

    /// The pixel value, 0..255, that normalization maps to 0, `[3]`.
    pub fn mean_pixel(&self) -> Tensor {
        self.mean.view([3]) * 255.0
    }
}

/// The bytes of B images of `size` x `size` pixels as a tensor [B, size, size, 3].
pub fn pixels(bytes: &[u8], size: i64) -> Tensor {
    let rows = bytes.len() as i64 / (size * size * 3);
    Tensor::from_slice(bytes).view([rows, size, size, 3])
}

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
    /// File name and number of samples of each shard.
    pub shards: Vec<(String, u64)>,
    /// SHA-256 of the weights file of the tower.
    pub vision: String,
    /// The other settings of the tower, as text.
    pub normalisation: String,
}

const VERSION: u32 = 1;
const HEADER: &str = "features.json";
/// Class token first, then the patches: bfloat16 [samples, 1 + N, d_v].
const TOKENS: &str = "features.bf16";

impl CacheHeader {
    /// The header for features of the loader's shards by this tower.
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
            normalisation: format!("{:?} {:?} {:?}", tower.position_resize, settings.mean, settings.std),
        })
    }

    fn row_bytes(&self) -> u64 {
        2 * ((1 + self.patches) * self.width) as u64
    }
}

/// Writes a folder of features; samples may come in any order. The folder appears under its final name when it is complete.
#[derive(Debug)]
pub struct CacheWriter {
    out: PathBuf,
    temporary: PathBuf,
    /// As long as it is open, other processes see that the folder is in use.
    _held: File,
    file: File,
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
        Ok(Self { out: out.to_owned(), temporary, _held: held, file, header, written: 0 })
    }

    /// Writes the features of the samples with these numbers, which count over all shards in order.
    pub fn put(&mut self, samples: &[i64], features: &VisionFeatures) -> Result<()> {
        let tokens = Tensor::cat(&[features.class.unsqueeze(1), features.patches.shallow_clone()], 1)
            .to_kind(Kind::BFloat16)
            .to_device(Device::Cpu)
            .contiguous();
        let mut bytes = vec![0; tokens.numel() * 2];
        tokens.f_copy_data_u8(&mut bytes, tokens.numel())?;
        let row = self.header.row_bytes();
        for (&sample, bytes) in samples.iter().zip(bytes.chunks_exact(row as usize)) {
            self.file.write_all_at(bytes, sample as u64 * row).map_err(writing(&self.temporary))?;
            self.written += 1;
        }
        Ok(())
    }

    /// Renames the folder to its final name.
    pub fn finish(self) -> Result<()> {
        if self.written != self.header.samples {
            let problem = format!("only {} of {} samples were computed", self.written, self.header.samples);
            return Err(Error::Invalid { path: self.out.clone(), problem });
        }
        let header =
            serde_json::to_vec_pretty(&self.header).map_err(|e| writing(&self.temporary)(e.into()))?;
        self.file.sync_all().map_err(writing(&self.temporary))?;
        concepts::files::write_atomic(&self.temporary.join(HEADER), &header)
            .map_err(writing(&self.temporary))?;
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

/// Features on disk, memory-mapped.
#[derive(Debug)]
pub struct FeatureCache {
    tokens: Tensor,
    device: Device,
}

impl FeatureCache {
    /// Opens a folder that [`CacheWriter`] wrote; an error if it was not made from what `expected` describes.
    pub fn open(folder: &Path, expected: &CacheHeader, device: Device) -> Result<Self> {
        let path = folder.join(HEADER);
        let invalid = |problem: String| Error::Invalid { path: path.clone(), problem };
        let text = fs::read(&path).map_err(reading(&path))?;
        let found: CacheHeader = serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))?;
        let differences = [
            (found.version != expected.version, "another version of this program"),
            (found.vision != expected.vision, "another vision tower"),
            (
                found.normalisation != expected.normalisation,
                "other values of vision.position, vision.mean or vision.std",
            ),
            (found.size != expected.size, "another image size"),
            (found.shards != expected.shards, "other shards"),
            (found != *expected, "features of another size"),
        ];
        if let Some((_, what)) = differences.iter().find(|(differs, _)| *differs) {
            return Err(invalid(format!("was made with {what}; run trainer cache again")));
        }
        let path = folder.join(TOKENS);
        let bytes = fs::metadata(&path).map_err(reading(&path))?.len();
        if bytes != found.row_bytes() * found.samples as u64 {
            let problem = format!(
                "has {bytes} bytes, but must have {} per sample; run trainer cache again",
                found.row_bytes()
            );
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

    /// Features of the samples with these numbers, which count over all shards in order.
    pub fn features(&self, samples: &[i64]) -> VisionFeatures {
        let tokens = self.tokens.index_select(0, &Tensor::from_slice(samples)).to_device(self.device);
        let patches = tokens.size()[1] - 1;
        VisionFeatures { class: tokens.select(1, 0), patches: tokens.narrow(1, 1, patches) }
    }
}
