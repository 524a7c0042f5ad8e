//! The attention weights of a training sample: the weights with which concept pooling averages its patches for each mention.

use std::path::{Path, PathBuf};

use concepts::sidecar::Sidecar;
use image::RgbImage;
use loader::images;
use loader::shards::{Archive, Index};
use tch::{Device, Kind, Tensor};

use crate::checkpoint::Checkpoint;
use crate::device::{self, Precision};
use crate::error::{Error, Result};
use crate::method::concept_loss::embed_mentions;
use crate::method::objective::Tokens;
use crate::method::pooling::{Mention, Mentions};
use crate::towers::{self, CaptionTokens, FrozenVision, TextTower, unit};

/// A tagged shard, from which single samples are read.
#[derive(Debug)]
pub struct TaggedShard {
    path: PathBuf,
    archive: Archive,
    index: Index,
    sidecar: Sidecar,
}

/// A training sample as it is stored in the shard.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its key.
    pub key: String,
    /// Its normalized caption; of several the first.
    pub caption: String,
    /// Its image.
    pub picture: RgbImage,
    /// Per mention: the concept, and the byte range of its words in the caption.
    pub mentions: Vec<(String, std::ops::Range<u32>)>,
}

impl TaggedShard {
    /// Opens a shard that has a sidecar.
    pub fn open(path: &Path) -> Result<Self> {
        let archive = Archive::open(path)?;
        let sidecar = loader::shards::sidecar::open(path, None)?;
        let index = Index::load_for(&archive, sidecar.metadata.field.as_deref())?;
        sidecar.refuse_unless_for(path, storage::length(path)?, index.len() as u32)?;
        Ok(Self { path: path.to_owned(), archive, index, sidecar })
    }

    /// The sample with this key, or at this position, counted from 0.
    pub fn sample(&self, name: &str) -> Result<Sample> {
        let invalid = |problem: String| Error::Invalid { path: self.path.clone(), problem };
        let count = self.index.len() as u32;
        let number = (0..count)
            .find(|&number| self.index.key(number) == name)
            .or_else(|| name.parse().ok().filter(|&number| number < count))
            .ok_or_else(|| {
                invalid(format!(
                    "has no sample {name:?}; give a key, or a position from 0 to {}",
                    count.saturating_sub(1)
                ))
            })?;
        let key = self.index.key(number).to_owned();
        let field = self.sidecar.metadata.field.as_deref();
        let (check, raw) = self.index.captions_of(&self.archive, number, field, |captions| {
            let first = captions.texts().into_iter().next();
            (captions.check(), first.unwrap_or_default().into_owned())
        })?;
        if self.sidecar.has_captions(number, check) == Some(false) {
            return Err(invalid(format!(
                "the caption of sample {key} is not the one that was tagged; run `ingest tag` again"
            )));
        }
        let (offset, length) =
            self.index.image(number).ok_or_else(|| invalid(format!("sample {key} has no image")))?;
        let picture = images::decode(&self.archive.read(offset, length)?)
            .map_err(|problem| invalid(format!("sample {key}: {problem}")))?;
        let mentions = self
            .sidecar
            .mentions(number)
            .filter(|row| row.caption == 0)
            .map(|row| (row.concept.to_owned(), row.concept_span.clone()))
            .collect();
        Ok(Sample { key, caption: concepts::canonical(&raw), picture, mentions })
    }
}

/// The attention of one mention.
#[derive(Debug)]
pub struct Attention {
    /// The concept.
    pub concept: String,
    /// Weight of each patch, [side, side]; the sum is 1.
    pub weights: Tensor,
}

impl Attention {
    /// Effective number of patches: exp of the entropy of the weights; 1 if one patch has all the weight, N for equal weights.
    pub fn patches(&self) -> f64 {
        let entropy = -(&self.weights * self.weights.clamp_min(1e-30).log()).sum(Kind::Double);
        entropy.double_value(&[]).exp()
    }
}

/// Both towers, as they are used in training.
#[derive(Debug)]
pub struct Pooling {
    vision: FrozenVision,
    text: TextTower,
    kind: Kind,
    device: Device,
    size: u32,
    temperature: f64,
    tokens: Tokens,
}

impl Pooling {
    /// Opens the towers of a checkpoint.
    pub fn open(checkpoint: &Checkpoint, device: &str) -> Result<Self> {
        let device = device::open(device)?;
        let kind = Precision::Auto.kind(device);
        let settings = &checkpoint.state.settings;
        let vision = checkpoint.frozen_vision(kind, device)?;
        let text = checkpoint.text(vision.width(), device)?;
        let (temperature, tokens) = (settings.objective.pooling_temperature, settings.objective.tokens);
        Ok(Self { vision, text, kind, device, size: settings.data.loading.size, temperature, tokens })
    }

    /// The centre crop of the sample, and the attention of each mention: softmax over the patches of (similarity to the mean token of
    /// the mention / temperature of the run). Mentions in the truncated part of a caption are left out.
    pub fn attention(&self, sample: &Sample) -> Result<(RgbImage, Vec<Attention>)> {
        let crop = images::centre_crop(&sample.picture, self.size)
            .map_err(|error| Error::Failed(error.to_string()))?;
        let tokenizer = concepts::Tokenizer::clip();
        let context = self.text.shape.context as usize;
        let tokens = tokenizer.encode(&sample.caption, context);
        let (names, mentions): (Vec<&String>, Vec<Mention>) = sample
            .mentions
            .iter()
            .map(|(concept, span)| (concept, Mention { row: 0, label: 0, positions: tokens.positions(span) }))
            .filter(|(_, mention)| !mention.positions.is_empty())
            .unzip();
        if mentions.is_empty() {
            return Ok((crop, Vec::new()));
        }
        tch::no_grad(|| {
            let ids: Vec<i64> = tokens.ids.iter().map(|&id| i64::from(id)).collect();
            let captions = CaptionTokens::new(&ids, context, self.device);
            let embedded = self.text.tokens(&captions, self.kind);
            let mentions = Mentions::new(&mentions, embedded.size()[1], self.device);
            let project = |rows: &Tensor| self.text.project_to_patches(rows);
            let queries = unit(&embed_mentions(self.tokens, &mentions, &embedded, project));
            let size = i64::from(self.size);
            let pixels = towers::pixels(crop.as_raw(), size);
            let patches = unit(&self.vision.features(&pixels).patches).get(0);
            let weights = (queries.matmul(&patches.transpose(0, 1)) / self.temperature)
                .softmax(-1, Kind::Float)
                .to_device(Device::Cpu);
            let side = size / self.vision.patch();
            let of = |(i, name): (usize, &String)| Attention {
                concept: name.clone(),
                weights: weights.get(i as i64).view([side, side]),
            };
            Ok((crop, names.into_iter().enumerate().map(of).collect()))
        })
    }
}
