//! Zero-shot classification: images are compared with class embeddings; metrics as in the CLIP benchmark.

use std::time::Instant;

use serde::Serialize;
use tch::Tensor;

use super::image_datasets::{ImageDataset, Label};
use super::ranking::{rank, within};
use crate::device::to_vec;
use crate::error::{Error, Result};
use crate::inference::model::Model;
use crate::observer::Observer;
use crate::towers::unit;

/// Scores on a dataset, as fractions of 1.
#[derive(Debug, Clone, Serialize)]
pub struct ClassificationScores {
    /// Images whose class has the highest score.
    pub top1: f64,
    /// Images whose class is among the five highest scores.
    pub top5: f64,
    /// Mean over the classes of the top-1 accuracy of their images.
    pub mean_per_class: f64,
    /// Number of images.
    pub images: usize,
    /// Number of classes.
    pub classes: usize,
    /// Images per second, including the time to read them.
    pub images_per_second: f64,
}

/// Compares class tokens with `vectors`: unit length, one row per class.
pub fn evaluate(
    set: &ImageDataset,
    model: &Model,
    vectors: &Tensor,
    size: u32,
    batch: usize,
    threads: usize,
    observer: &dyn Observer,
) -> Result<ClassificationScores> {
    model.for_whole_images()?;
    let started = Instant::now();
    let mut ranks = Vec::new();
    let mut by_class = vec![(0u64, 0u64); set.classes.len()];
    let mut progress = observer.progress("classifying", "images", set.known_length());
    for images in set.batches(size, batch, threads) {
        if observer.interrupted() {
            return Err(Error::interrupted(format!("the evaluation on {} is not finished", set.name)));
        }
        let images = images?;
        let scores = unit(&model.vision.features(&images.pixels).class).matmul(&vectors.transpose(0, 1));
        for (scores, label) in rows(&scores).iter().zip(&images.labels) {
            let Label::Class(class) = label else { continue };
            let rank = rank(scores, *class).ok_or_else(|| not_finite(&set.name))?;
            by_class[*class].0 += u64::from(rank == 0);
            by_class[*class].1 += 1;
            ranks.push(rank);
        }
        progress.advance(images.labels.len() as u64, &|| format!("top-1 {:.1} %", 100.0 * within(&ranks, 1)));
    }
    if ranks.is_empty() {
        return Err(Error::Invalid {
            path: set.name.clone().into(),
            problem: "contains no images".to_owned(),
        });
    }
    let seen: Vec<f64> =
        by_class.iter().filter(|(_, all)| *all > 0).map(|(hits, all)| *hits as f64 / *all as f64).collect();
    let scores = ClassificationScores {
        top1: within(&ranks, 1),
        top5: within(&ranks, 5),
        mean_per_class: seen.iter().sum::<f64>() / seen.len() as f64,
        images: ranks.len(),
        classes: set.classes.len(),
        images_per_second: ranks.len() as f64 / started.elapsed().as_secs_f64().max(1e-9),
    };
    progress.finish(&format!("top-1 {:.1} %", 100.0 * scores.top1));
    Ok(scores)
}

/// The rows of a matrix, on the CPU.
pub(super) fn rows(matrix: &Tensor) -> Vec<Vec<f32>> {
    to_vec(matrix).chunks(matrix.size()[1].max(1) as usize).map(<[f32]>::to_vec).collect()
}

pub(super) fn not_finite(set: &str) -> Error {
    let problem = "a similarity is NaN: the weights are damaged, or too large for this precision".to_owned();
    Error::Invalid { path: set.into(), problem }
}
