//! Zero-shot classification: images against class vectors, as the CLIP benchmark counts it.

use std::time::Instant;

use loader::program::{Progress, interrupted};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::image_sets::{ImageSet, Known};
use super::ranking::{rank, within};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::towers::unit;

/// Scores of a set; fractions of 1.
#[derive(Debug, Clone, Serialize)]
pub struct ClassificationScores {
    /// Images whose class scores highest.
    pub top1: f64,
    /// Images whose class is among the five that score highest.
    pub top5: f64,
    /// Mean over the classes of their images' top-1.
    pub mean_per_class: f64,
    /// Images scored.
    pub images: usize,
    /// Classes to choose from.
    pub classes: usize,
    /// Images a second, reading them included.
    pub images_per_second: f64,
}

/// Scores class tokens against `vectors`, unit length, a row a class.
pub fn evaluate(
    set: &ImageSet,
    model: &Model,
    vectors: &Tensor,
    size: u32,
    batch: usize,
    threads: usize,
) -> Result<ClassificationScores> {
    let started = Instant::now();
    let mut ranks = Vec::new();
    let mut by_class = vec![(0u64, 0u64); set.classes.len()];
    let mut progress = Progress::new("classifying", "images", set.known_length());
    for images in set.batches(size, batch, threads) {
        if interrupted() {
            let problem = "interrupted before the set was scored".to_owned();
            return Err(Error::Invalid { path: set.name.clone().into(), problem });
        }
        let images = images?;
        let scores = unit(&model.vision.features(&images.pixels).class).matmul(&vectors.transpose(0, 1));
        for (scores, known) in rows(&scores).iter().zip(&images.known) {
            let Known::Class(class) = known else { continue };
            let rank = rank(scores, *class).ok_or_else(|| not_a_number(&set.name))?;
            by_class[*class].0 += u64::from(rank == 0);
            by_class[*class].1 += 1;
            ranks.push(rank);
        }
        progress.advance(images.known.len() as u64, || format!("top-1 {:.1} %", 100.0 * within(&ranks, 1)));
    }
    if ranks.is_empty() {
        return Err(Error::Invalid { path: set.name.clone().into(), problem: "holds no image".to_owned() });
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

/// A matrix's rows on the CPU.
pub(super) fn rows(matrix: &Tensor) -> Vec<Vec<f32>> {
    let matrix = matrix.to_kind(Kind::Float).to_device(Device::Cpu).contiguous();
    let mut values = vec![0f32; matrix.numel()];
    matrix.copy_data(&mut values, matrix.numel());
    values.chunks(matrix.size()[1].max(1) as usize).map(<[f32]>::to_vec).collect()
}

pub(super) fn not_a_number(set: &str) -> Error {
    let problem =
        "a similarity is not a number: the weights are broken, or too large for this precision".to_owned();
    Error::Invalid { path: set.into(), problem }
}
