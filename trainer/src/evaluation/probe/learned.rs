//! What a probe learns from the training set, and its files.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::{Device, Tensor};

use super::linear::{Linear, LinearSettings};
use super::parts::Parts;
use super::patches::{Patches, collect};
use super::recipe;
use crate::error::{Error, Result, reading, writing};
use crate::evaluation::SegmentationDataset;
use crate::inference::segmenter::Segmenter;
use crate::observer::Observer;
use crate::towers::unit;
use crate::weights::{self, Weights};

/// File of the tensors in the folder of a probe.
const TENSORS: &str = "learned.safetensors";
/// The linear classifier that is trained as DINOv2's, and what its training continues with.
const RECIPE: &str = "recipe.safetensors";
/// How the light linear classifier was found; written last.
const SEARCH: &str = "learned.json";

/// Similarities of classes that no patch of the training set has: they are never predicted.
const NEVER: f64 = -1e4;

/// What is learned from the patches of the training set.
#[derive(Debug)]
pub struct Learned {
    /// Features of the selected patches, [M, d], and the shares of their classes, [M, C].
    pub memory: (Tensor, Tensor),
    /// Means of the classes' patches, of length 1, [C, d].
    pub means: Tensor,
    /// The linear classifier.
    pub linear: Linear,
    /// The one that is trained as DINOv2's, for features as they are, if it was asked for.
    pub recipe: Option<Linear>,
    /// Added to the scores of a class: 0, or a very low number if no patch of the training set has the class. `[C]`.
    pub seen: Tensor,
}

impl Learned {
    /// Learns from patches, on the device that will use it.
    pub fn new(patches: &Patches, settings: &LinearSettings, device: Device) -> Self {
        let [features, shares, sums] =
            [&patches.features, &patches.shares, &patches.sums].map(|tensor| tensor.to_device(device));
        let of_classes = shares.sum_dim_intlist([0i64].as_slice(), false, tch::Kind::Float);
        Self {
            linear: Linear::fit(&features, &shares, settings),
            recipe: None,
            means: unit(&sums),
            seen: of_classes.eq(0.0).to_kind(tch::Kind::Float) * NEVER,
            memory: (features, shares),
        }
    }

    fn named(&self) -> Vec<(String, Tensor)> {
        let all = [
            ("memory.features", &self.memory.0),
            ("memory.shares", &self.memory.1),
            ("means", &self.means),
            ("linear.weights", &self.linear.weights),
            ("linear.biases", &self.linear.biases),
            ("seen", &self.seen),
        ];
        all.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).into()
    }

    /// Writes it to the folder of a probe.
    fn write(&self, folder: &Path) -> Result<()> {
        weights::write(&folder.join(TENSORS), &self.named())?;
        let path = folder.join(SEARCH);
        let all = json!({ "steps": self.linear.steps, "gradient": self.linear.gradient });
        let text = serde_json::to_vec_pretty(&all).map_err(|e| writing(&path)(e.into()))?;
        disk::files::write_atomic(&path, &text).map_err(writing(&path))
    }

    /// Reads what an earlier probe has written.
    fn read(folder: &Path, device: Device) -> Result<Self> {
        let path = folder.join(SEARCH);
        let text = std::fs::read(&path).map_err(reading(&path))?;
        let found: Value = serde_json::from_slice(&text).map_err(|e| Error::Invalid {
            path: path.clone(),
            problem: format!("is damaged: {e}; remove it, so that it is made again"),
        })?;
        let mut saved = Weights::read(&folder.join(TENSORS), device)?;
        let mut take = |name: &str| {
            let size = saved.size(name)?;
            saved.take(name, &size)
        };
        Ok(Self {
            memory: (take("memory.features")?, take("memory.shares")?),
            means: take("means")?,
            linear: Linear {
                weights: take("linear.weights")?,
                biases: take("linear.biases")?,
                steps: found["steps"].as_u64().unwrap_or(0) as usize,
                gradient: found["gradient"].as_f64().unwrap_or(f64::NAN),
            },
            recipe: None,
            seen: take("seen")?,
        })
    }
}

/// Learns from the training set, or reads what an earlier probe has learned in this folder. About `memory` patches are kept, as many of
/// every image. With steps of DINOv2's recipe, its classifier is trained, too, by the first process.
pub fn learn(
    training: &SegmentationDataset,
    segmenter: &Segmenter,
    (memory, settings): (usize, &LinearSettings),
    sizes: (usize, usize),
    parts: &Parts<'_>,
    recipe_steps: u64,
    observer: &dyn Observer,
) -> Result<Learned> {
    let device = segmenter.model.device();
    let count = training.pairs.len();
    if !parts.folder().join(SEARCH).exists() {
        let most = memory.div_ceil(count.max(1));
        let to_do = parts.to_do("patches", "safetensors", count);
        let images: usize = to_do.iter().map(|(images, _)| images.len()).sum();
        let mut progress = observer.progress("collecting patches", "images", images as u64);
        for (images, path) in to_do {
            let each = &mut || progress.advance(1, &String::new);
            collect(training, images, segmenter, most, sizes, observer, each)?.write(&path)?;
        }
        progress.finish("");
        parts.wait()?;
        if parts.is_first() {
            let paths: Vec<PathBuf> =
                parts.all("patches", "safetensors", count).into_iter().map(|(_, path)| path).collect();
            observer.message("learning from the patches");
            Learned::new(&Patches::read(&paths)?, settings, device).write(parts.folder())?;
            for path in &paths {
                std::fs::remove_file(path).map_err(writing(path))?;
            }
        }
        parts.wait()?;
    }
    let mut learned = Learned::read(parts.folder(), device)?;
    if recipe_steps > 0 {
        let path = parts.folder().join(RECIPE);
        let train = || recipe::train(training, segmenter, recipe_steps, sizes.1, &path, observer);
        let first = parts.is_first().then(train).transpose()?;
        parts.wait()?;
        learned.recipe = Some(first.map_or_else(train, Ok)?);
    }
    Ok(learned)
}
