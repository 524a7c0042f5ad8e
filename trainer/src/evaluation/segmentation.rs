//! Evaluates a segmenter on a dataset: images are read ahead, their windows are batched, and labels are counted.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use image::RgbImage;
use serde::Serialize;
use tch::Tensor;

use super::confusion::{ClassScore, Confusion};
use super::datasets::SegmentationDataset;
use super::masks::{self, Mask};
use super::published_datasets::Background;
use crate::data::read_image;
use crate::error::{Error, Result};
use crate::inference::labels::{self, Rule};
use crate::inference::segmenter::Segmenter;
use crate::observer::Observer;

/// TCL's threshold for the datasets with a background class.
pub const THRESHOLD: f64 = 0.4;

/// How scores become labels, and the sizes of batches.
#[derive(Debug, Clone)]
pub struct DecisionSettings {
    /// Minimum softmax probability of a class that is not background, or minimum score for a [`Fusion`](crate::inference::fusion::Fusion)
    /// that is bounded.
    pub threshold: f64,
    /// Scale of the similarities before that softmax.
    pub scale: f64,
    /// Windows per forward pass, from one or several images.
    pub batch: usize,
    /// Number of threads that read images.
    pub readers: usize,
    /// Number of images with the lowest scores to return.
    pub worst: usize,
}

/// Scores on a dataset, as fractions of 1.
#[derive(Debug, Clone, Serialize)]
pub struct SegmentationScores {
    /// Mean intersection over union of the classes.
    pub miou: f64,
    /// Fraction of the pixels with the correct class.
    pub pixel_accuracy: f64,
    /// Mean accuracy of the classes.
    pub mean_accuracy: f64,
    /// Chance level: expected mean IoU of uniformly random labels.
    pub chance: f64,
    /// Number of images.
    pub images: usize,
    /// Number of pixels that count.
    pub pixels: u64,
    /// Number of ignored pixels.
    pub ignored: u64,
    /// Images per second, including the time to read them.
    pub images_per_second: f64,
    /// Scores per class.
    pub classes: Vec<ClassScore>,
}

/// An image with a low score.
#[derive(Debug, Clone, Serialize)]
pub struct WorstImage {
    /// The image.
    pub image: PathBuf,
    /// Its mask.
    pub mask: PathBuf,
    /// Mean IoU over the classes that are in the mask or predicted.
    pub miou: f64,
    /// Predicted labels, one per pixel.
    #[serde(skip)]
    pub predicted: Vec<u8>,
    /// True labels.
    #[serde(skip)]
    pub truth: Vec<u8>,
}

/// An image with its mask.
pub(super) struct Sample {
    /// Number of the image in the dataset.
    pub(super) at: usize,
    pub(super) image: RgbImage,
    pub(super) mask: Mask,
}

/// The scores so far.
pub(super) struct Tally<'a> {
    set: &'a SegmentationDataset,
    /// Number of images with the lowest scores that are kept.
    worst: usize,
    started: Instant,
    confusion: Confusion,
    low: Vec<WorstImage>,
}

impl<'a> Tally<'a> {
    pub(super) fn new(set: &'a SegmentationDataset, worst: usize) -> Self {
        let confusion = Confusion::new(set.classes.len());
        Self { set, worst, started: Instant::now(), confusion, low: Vec::new() }
    }

    /// Adds the image with this number.
    pub(super) fn add(&mut self, at: usize, mask: Mask, predicted: Vec<u8>) {
        let mut own = Confusion::new(self.set.classes.len());
        own.add(&mask.labels, &predicted);
        self.confusion.merge(&own);
        if self.worst > 0 && own.pixels() > 0 {
            let (image, path) = self.set.pairs[at].clone();
            self.low.push(WorstImage {
                image,
                mask: path,
                miou: own.mean_iou(),
                predicted,
                truth: mask.labels,
            });
            self.low.sort_by(|a, b| a.miou.total_cmp(&b.miou));
            self.low.truncate(self.worst);
        }
    }

    /// For the progress line.
    pub(super) fn message(&self) -> String {
        format!("mIoU {:.1} %", 100.0 * self.confusion.mean_iou())
    }

    /// The scores, and the images with the lowest ones, lowest first.
    pub(super) fn finish(self) -> (SegmentationScores, Vec<WorstImage>) {
        let Self { set, started, confusion, low, .. } = self;
        (scores(set, &confusion, started), low)
    }
}

/// The scores of a dataset whose evaluation was `started` then.
pub(super) fn scores(
    set: &SegmentationDataset,
    confusion: &Confusion,
    started: Instant,
) -> SegmentationScores {
    SegmentationScores {
        miou: confusion.mean_iou(),
        pixel_accuracy: confusion.pixel_accuracy(),
        mean_accuracy: confusion.mean_accuracy(),
        chance: confusion.chance(),
        images: set.pairs.len(),
        pixels: confusion.pixels(),
        ignored: confusion.ignored(),
        images_per_second: set.pairs.len() as f64 / started.elapsed().as_secs_f64().max(1e-9),
        classes: confusion.class_scores(set.classes.iter().map(|class| class.name.as_str())),
    }
}

/// What is done with the number of an image, its mask and the predicted labels.
pub type EachImage<'a> = dyn FnMut(usize, &Mask, &[u8]) -> Result<()> + 'a;

/// Segments all images of the dataset and compares them with their masks. Also returns the images with the lowest scores, lowest
/// first. `each` is called for every image.
pub fn evaluate(
    set: &SegmentationDataset,
    segmenter: &Segmenter,
    decision: &DecisionSettings,
    observer: &dyn Observer,
    each: &mut EachImage<'_>,
) -> Result<(SegmentationScores, Vec<WorstImage>)> {
    let mut tally = Tally::new(set, decision.worst);
    let mut progress = observer.progress("evaluating", "images", set.pairs.len() as u64);
    let sizes = (decision.batch, decision.readers);
    in_groups(set, 0..set.pairs.len(), segmenter, sizes, observer, &mut |samples| {
        let images: Vec<&RgbImage> = samples.iter().map(|sample| &sample.image).collect();
        let scores = segmenter.scores_of(&images, decision.batch);
        for (sample, scores) in samples.into_iter().zip(scores) {
            let predicted = decide(set, segmenter, decision, &sample, &scores);
            each(sample.at, &sample.mask, &predicted)?;
            tally.add(sample.at, sample.mask, predicted);
            progress.advance(1, &|| tally.message());
        }
        Ok(())
    })?;
    progress.finish(&tally.message());
    Ok(tally.finish())
}

/// What is done with some images.
pub(super) type EachGroup<'a> = dyn FnMut(Vec<Sample>) -> Result<()> + 'a;

/// Calls `each` with these images of the dataset in order, as many at a time as have about `batch` windows. `readers` threads read them
/// ahead.
pub(super) fn in_groups(
    set: &SegmentationDataset,
    images: Range<usize>,
    segmenter: &Segmenter,
    (batch, readers): (usize, usize),
    observer: &dyn Observer,
    each: &mut EachGroup<'_>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (send, read) = sync_channel(2 * readers.max(1));
        scope.spawn(move || read_all(set, images, readers.max(1), &send));
        let mut waiting = VecDeque::new();
        while let Some(samples) = next_group(&read, &mut waiting, segmenter, batch)? {
            if observer.interrupted() {
                return Err(Error::interrupted(format!("the evaluation on {} is not finished", set.title)));
            }
            each(samples)?;
        }
        Ok(())
    })
}

/// Labels of an image from its scores. With background by threshold, `scores` has no row for the background.
pub(super) fn decide(
    set: &SegmentationDataset,
    segmenter: &Segmenter,
    decision: &DecisionSettings,
    Sample { image, mask, .. }: &Sample,
    scores: &Tensor,
) -> Vec<u8> {
    let size = [mask.height.into(), mask.width.into()];
    if let Some(labels) = segmenter.labels_by_names(image, scores, size) {
        return labels::bytes(&labels);
    }
    let DecisionSettings { threshold, scale, .. } = *decision;
    let rule = match set.background {
        Some(Background::Threshold) if segmenter.fusion.is_bounded() => Rule::Floor(threshold),
        Some(Background::Threshold) => Rule::Threshold { threshold, scale },
        _ => Rule::HighestScore,
    };
    labels::bytes(&labels::decide(scores, size[0], size[1], rule))
}

/// Images until their windows fill a batch; `None` at the end of the dataset.
fn next_group(
    read: &Receiver<Result<Sample>>,
    waiting: &mut VecDeque<Sample>,
    segmenter: &Segmenter,
    batch: usize,
) -> Result<Option<Vec<Sample>>> {
    let mut windows: usize = waiting.iter().map(|sample| segmenter.windows(&sample.image)).sum();
    while windows < batch {
        let Ok(sample) = read.recv() else { break };
        let sample = sample?;
        windows += segmenter.windows(&sample.image);
        waiting.push_back(sample);
    }
    // If the last image does not fit, it starts the next batch.
    let keep = if windows > batch && waiting.len() > 1 { waiting.pop_back() } else { None };
    let group: Vec<Sample> = waiting.drain(..).collect();
    waiting.extend(keep);
    Ok((!group.is_empty()).then_some(group))
}

/// Reads these images in order, `readers` at a time, until the receiver is dropped.
fn read_all(
    set: &SegmentationDataset,
    images: Range<usize>,
    readers: usize,
    send: &SyncSender<Result<Sample>>,
) {
    let numbers: Vec<usize> = images.collect();
    for some in numbers.chunks(readers) {
        let read: Vec<Result<Sample>> = std::thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|&at| scope.spawn(move || read_sample(set, at))).collect();
            let gone = |at: usize| Error::Invalid {
                path: set.pairs[at].0.clone(),
                problem: "the thread that read it stopped".to_owned(),
            };
            threads
                .into_iter()
                .zip(some)
                .map(|(thread, &at)| thread.join().unwrap_or_else(|_| Err(gone(at))))
                .collect()
        });
        for sample in read {
            let failed = sample.is_err();
            if send.send(sample).is_err() || failed {
                return;
            }
        }
    }
}

/// Reads an image of a dataset and its mask.
pub(super) fn read_sample(set: &SegmentationDataset, at: usize) -> Result<Sample> {
    let (image_path, mask_path) = &set.pairs[at];
    let image = read_image(image_path)?;
    let mask = masks::read(mask_path, &set.table)?;
    if (mask.width, mask.height) != image.dimensions() {
        let size = (mask.width, mask.height);
        let problem = format!("has {size:?} pixels, but its image has {:?}", image.dimensions());
        return Err(Error::Invalid { path: mask_path.clone(), problem });
    }
    Ok(Sample { at, image, mask })
}
