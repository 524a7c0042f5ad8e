//! Retrieval between images and captions: recall at 1, 5 and 10 in both directions, as in the CLIP papers: a query counts if at least
//! one of its correct answers is among the first k.

use std::time::Instant;

use serde::Serialize;
use tch::Tensor;

use super::classification::{not_finite, rows};
use super::image_datasets::{ImageDataset, Label};
use super::ranking::{rank, within};
use crate::error::{Error, Result};
use crate::inference::class_vectors::caption_vectors;
use crate::inference::model::Model;
use crate::observer::Observer;
use crate::towers::unit;

/// Number of queries that are compared with all answers at a time.
const QUERIES: i64 = 256;

/// Recalls in one direction, as fractions of 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recall {
    /// Recall at 1.
    pub r1: f64,
    /// Recall at 5.
    pub r5: f64,
    /// Recall at 10.
    pub r10: f64,
}

/// Recalls on a dataset.
#[derive(Debug, Clone, Serialize)]
pub struct RetrievalScores {
    /// The query is an image, the answers are captions.
    pub image_to_text: Recall,
    /// The query is a caption, the answers are images.
    pub text_to_image: Recall,
    /// Number of images.
    pub images: usize,
    /// Number of captions.
    pub captions: usize,
    /// Images per second, including the time to read them and to embed their captions.
    pub images_per_second: f64,
}

/// Embeds all images and captions of the dataset and ranks them.
pub fn evaluate(
    set: &ImageDataset,
    model: &Model,
    size: u32,
    batch: usize,
    threads: usize,
    observer: &dyn Observer,
) -> Result<RetrievalScores> {
    model.for_whole_images()?;
    let started = Instant::now();
    let (mut images, mut captions, mut owners) = (Vec::new(), Vec::new(), Vec::new());
    let mut count = 0;
    let mut progress = observer.progress("embedding", "images", set.known_length());
    for some in set.batches(size, batch, threads) {
        if observer.interrupted() {
            return Err(Error::interrupted(format!("the evaluation on {} is not finished", set.name)));
        }
        let some = some?;
        images.push(unit(&model.vision.features(&some.pixels).class));
        let mut texts = Vec::new();
        for label in some.labels {
            if let Label::Captions(its) = label {
                owners.extend(std::iter::repeat_n(count, its.len()));
                texts.extend(its);
            }
            count += 1;
        }
        captions.push(caption_vectors(&model.text, &texts, model.kind));
        progress.advance(some.pixels.size()[0] as u64, &|| format!("{} captions", owners.len()));
    }
    progress.finish(&format!("{} captions", owners.len()));
    if images.is_empty() {
        return Err(Error::Invalid {
            path: set.name.clone().into(),
            problem: "contains no images".to_owned(),
        });
    }
    let (image_to_text, text_to_image) =
        recalls(&Tensor::cat(&images, 0), &Tensor::cat(&captions, 0), &owners)
            .ok_or_else(|| not_finite(&set.name))?;
    Ok(RetrievalScores {
        image_to_text,
        text_to_image,
        images: count,
        captions: owners.len(),
        images_per_second: count as f64 / started.elapsed().as_secs_f64().max(1e-9),
    })
}

/// Recalls from rows of unit length, images [n, d] and captions [m, d]. Caption i belongs to image `owners[i]`; the captions of an
/// image are consecutive. `None` if a similarity is NaN.
pub fn recalls(images: &Tensor, captions: &Tensor, owners: &[usize]) -> Option<(Recall, Recall)> {
    let recall =
        |ranks: &[usize]| Recall { r1: within(ranks, 1), r5: within(ranks, 5), r10: within(ranks, 10) };
    let mut found = Vec::new();
    for (query, scores) in scores(captions, images) {
        found.push(rank(&scores, owners[query])?);
    }
    let mut best = Vec::new();
    for (image, scores) in scores(images, captions) {
        let first = owners.partition_point(|&owner| owner < image);
        let own = owners[first..].iter().take_while(|&&owner| owner == image).count();
        // The best rank among the captions of an image: no other caption of the same image is above it.
        let ranks: Option<Vec<usize>> = (first..first + own).map(|caption| rank(&scores, caption)).collect();
        best.push(ranks?.into_iter().min()?);
    }
    Some((recall(&best), recall(&found)))
}

/// The number of each query, with its scores for all answers.
fn scores<'a>(queries: &'a Tensor, answers: &'a Tensor) -> impl Iterator<Item = (usize, Vec<f32>)> + 'a {
    let count = queries.size()[0];
    (0..count).step_by(QUERIES as usize).flat_map(move |start| {
        let some = queries.narrow(0, start, QUERIES.min(count - start));
        let numbers = start as usize..;
        numbers.zip(rows(&some.matmul(&answers.transpose(0, 1))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recalls_by_hand() {
        let images = Tensor::from_slice(&[1f32, 0.0, 0.0, 1.0]).view([2, 2]);
        // Captions 0 and 1 are of image 0, but 1 is nearer to image 1; caption 2 is of image 1.
        let captions = Tensor::from_slice(&[1f32, 0.0, 0.6, 0.8, 0.8, 0.6]).view([3, 2]);
        let (by_image, by_text) = recalls(&images, &captions, &[0, 0, 1]).unwrap();
        assert_eq!(
            by_image.r1, 0.5,
            "image 0 finds caption 0, image 1 finds caption 1, which is not its own"
        );
        assert_eq!(by_image.r5, 1.0);
        assert!((by_text.r1 - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(by_text.r5, 1.0);
    }
}
