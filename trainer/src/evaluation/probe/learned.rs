//! What a probe learns from the training set, and its file, from which an interrupted probe continues.

use std::path::Path;

use serde_json::{Value, json};
use tch::{Device, Tensor};

use super::linear::{Linear, LinearSettings};
use super::patches::Patches;
use crate::error::{Error, Result, reading, writing};
use crate::towers::unit;
use crate::weights::{self, Weights};

/// File of the tensors in the folder of a probe.
const TENSORS: &str = "learned.safetensors";
/// What they were made from.
const SOURCE: &str = "learned.json";

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

    /// Writes it to the folder of a probe. `source`: what it was made from.
    pub fn write(&self, folder: &Path, source: &Value) -> Result<()> {
        weights::write(&folder.join(TENSORS), &self.named())?;
        let path = folder.join(SOURCE);
        let all = json!({ "source": source, "steps": self.linear.steps, "gradient": self.linear.gradient });
        let text = serde_json::to_vec_pretty(&all).map_err(|e| writing(&path)(e.into()))?;
        disk::files::write_atomic(&path, &text).map_err(writing(&path))
    }

    /// Reads what an earlier probe has written; `None` if there is nothing.
    ///
    /// # Errors
    /// It was made from something else, or it is damaged.
    pub fn read(folder: &Path, source: &Value, device: Device) -> Result<Option<Self>> {
        let path = folder.join(SOURCE);
        if !path.exists() {
            return Ok(None);
        }
        let invalid = |problem: String| Error::Invalid { path: path.clone(), problem };
        let text = std::fs::read(&path).map_err(reading(&path))?;
        let found: Value = serde_json::from_slice(&text).map_err(|e| invalid(format!("is damaged: {e}")))?;
        let keys = source.as_object().into_iter().flat_map(|source| source.keys());
        if let Some(key) = keys.into_iter().find(|&key| found["source"][key] != source[key]) {
            return Err(invalid(format!(
                "was made with the {key} {}, but now it is {}; choose another --out, or remove the folder",
                found["source"][key], source[key]
            )));
        }
        let mut saved = Weights::read(&folder.join(TENSORS), device)?;
        let mut take = |name: &str| {
            let size = saved.size(name)?;
            saved.take(name, &size)
        };
        Ok(Some(Self {
            memory: (take("memory.features")?, take("memory.shares")?),
            means: take("means")?,
            linear: Linear {
                weights: take("linear.weights")?,
                biases: take("linear.biases")?,
                steps: found["steps"].as_u64().unwrap_or(0) as usize,
                gradient: found["gradient"].as_f64().unwrap_or(f64::NAN),
            },
            seen: take("seen")?,
        }))
    }
}
