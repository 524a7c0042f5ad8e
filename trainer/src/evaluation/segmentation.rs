//! Scores a segmenter on a set: images are read ahead, their windows go through the tower together, labels are counted.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use image::RgbImage;
use loader::program::{Progress, interrupted};
use serde::Serialize;
use tch::{Kind, Tensor};

use super::confusion::{ClassScore, Confusion};
use super::datasets::{Background, SegmentationSet};
use super::labels::{self, Rule};
use super::masks::{self, Mask};
use super::pamr::Pamr;
use crate::error::{Error, Result, at};
use crate::segmenter::Segmenter;

/// How scores become labels, and how fast.
#[derive(Debug, Clone)]
pub struct Deciding {
    /// Least softmax probability of a class that is not background.
    pub threshold: f64,
    /// What similarities are multiplied with before that softmax.
    pub scale: f64,
    /// Refinement of the scores.
    pub pamr: Option<Pamr>,
    /// Windows that go through the tower together, of one image or several.
    pub batch: usize,
    /// Threads that read images.
    pub readers: usize,
    /// Images with the lowest scores to keep.
    pub worst: usize,
}

/// Scores of a set; shares and scores are fractions of 1.
#[derive(Debug, Clone, Serialize)]
pub struct SegmentationScores {
    /// Mean over the classes of intersection over union.
    pub miou: f64,
    /// Share of pixels with the right class.
    pub pixel_accuracy: f64,
    /// Mean over the classes of the share of their pixels that is found.
    pub mean_accuracy: f64,
    /// Mean IoU to expect of uniformly random labels.
    pub chance: f64,
    /// Images scored.
    pub images: usize,
    /// Pixels that counted.
    pub pixels: u64,
    /// Pixels whose label does not count.
    pub ignored: u64,
    /// Images a second, reading them included.
    pub images_per_second: f64,
    /// Class by class.
    pub classes: Vec<ClassScore>,
}

/// An image with a low score.
#[derive(Debug, Clone, Serialize)]
pub struct Low {
    /// The image.
    pub image: PathBuf,
    /// Its mask.
    pub mask: PathBuf,
    /// Mean IoU over the classes that are in the image or were seen in it.
    pub miou: f64,
    /// What was predicted, a label a pixel.
    #[serde(skip)]
    pub predicted: Vec<u8>,
    /// What is true.
    #[serde(skip)]
    pub truth: Vec<u8>,
}

/// An image with its mask, read.
struct Sample {
    at: usize,
    image: RgbImage,
    mask: Mask,
}

/// Segments every image of the set and scores it against its mask; the images with the lowest scores come with it,
/// lowest first.
pub fn evaluate(
    set: &SegmentationSet,
    segmenter: &Segmenter,
    deciding: &Deciding,
) -> Result<(SegmentationScores, Vec<Low>)> {
    let started = Instant::now();
    let mut confusion = Confusion::new(set.classes.len());
    let mut low: Vec<Low> = Vec::new();
    let mut progress = Progress::new("evaluating", "images", set.pairs.len() as u64);
    std::thread::scope(|scope| {
        let (send, read) = sync_channel(2 * deciding.readers.max(1));
        scope.spawn(move || read_all(set, deciding.readers.max(1), &send));
        let mut waiting = VecDeque::new();
        while let Some(samples) = next_group(&read, &mut waiting, segmenter, deciding.batch)? {
            if interrupted() {
                let problem = "interrupted before the set was scored".to_owned();
                return Err(Error::Invalid { path: set.pairs[samples[0].at].0.clone(), problem });
            }
            let images: Vec<&RgbImage> = samples.iter().map(|sample| &sample.image).collect();
            let scores = segmenter.scores_of(&images, deciding.batch);
            for (sample, scores) in samples.into_iter().zip(scores) {
                let predicted = decide(set, segmenter, deciding, &sample, scores);
                let mut own = Confusion::new(set.classes.len());
                own.add(&sample.mask.labels, &predicted);
                confusion.merge(&own);
                if deciding.worst > 0 && own.pixels() > 0 {
                    let (image, mask) = set.pairs[sample.at].clone();
                    low.push(Low { image, mask, miou: own.mean_iou(), predicted, truth: sample.mask.labels });
                    low.sort_by(|a, b| a.miou.total_cmp(&b.miou));
                    low.truncate(deciding.worst);
                }
                progress.advance(1, || format!("mIoU {:.1} %", 100.0 * confusion.mean_iou()));
            }
        }
        Ok(())
    })?;
    let scores = SegmentationScores {
        miou: confusion.mean_iou(),
        pixel_accuracy: confusion.pixel_accuracy(),
        mean_accuracy: confusion.mean_accuracy(),
        chance: confusion.chance(),
        images: set.pairs.len(),
        pixels: confusion.pixels(),
        ignored: confusion.ignored(),
        images_per_second: set.pairs.len() as f64 / started.elapsed().as_secs_f64().max(1e-9),
        classes: confusion.class_scores(set.classes.iter().map(|class| class.name.as_str())),
    };
    progress.finish(&format!("mIoU {:.1} %", 100.0 * scores.miou));
    Ok((scores, low))
}

/// Labels of a picture from the scores of its classes; where there is a background by threshold, `scores` lacks it.
fn decide(
    set: &SegmentationSet,
    segmenter: &Segmenter,
    deciding: &Deciding,
    sample: &Sample,
    scores: Tensor,
) -> Vec<u8> {
    let Deciding { threshold, scale, .. } = *deciding;
    let by_threshold = set.background == Some(Background::Threshold);
    let (scores, rule) = match &deciding.pamr {
        Some(pamr) => {
            let image = segmenter.resized(&sample.image).squeeze_dim(0).permute([2, 0, 1]);
            let refined = pamr.refine(&image, &(scores * scale).softmax(0, Kind::Float));
            (refined, if by_threshold { Rule::Probability { threshold } } else { Rule::Likeliest })
        }
        None => (scores, if by_threshold { Rule::Similarity { threshold, scale } } else { Rule::Likeliest }),
    };
    let (height, width) = (i64::from(sample.mask.height), i64::from(sample.mask.width));
    labels::bytes(&labels::decide(&scores, height, width, rule))
}

/// Images until their windows fill a batch; none at the end of the set.
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
    // The last one may begin the next batch instead of overfilling this one.
    let keep = if windows > batch && waiting.len() > 1 { waiting.pop_back() } else { None };
    let group: Vec<Sample> = waiting.drain(..).collect();
    waiting.extend(keep);
    Ok((!group.is_empty()).then_some(group))
}

/// Reads the set in order, `readers` images at a time, until nobody wants more.
fn read_all(set: &SegmentationSet, readers: usize, send: &SyncSender<Result<Sample>>) {
    let numbers: Vec<usize> = (0..set.pairs.len()).collect();
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

fn read_sample(set: &SegmentationSet, at: usize) -> Result<Sample> {
    let (image_path, mask_path) = &set.pairs[at];
    let image = read_image(image_path)?;
    let mask = masks::read(mask_path, &set.table)?;
    if (mask.width, mask.height) != image.dimensions() {
        let size = (mask.width, mask.height);
        let problem = format!("is {size:?} pixels and its image {:?}", image.dimensions());
        return Err(Error::Invalid { path: mask_path.clone(), problem });
    }
    Ok(Sample { at, image, mask })
}

/// A picture, with the limits that all pictures are read under.
pub fn read_image(path: &Path) -> Result<RgbImage> {
    let bytes = std::fs::read(path).map_err(at(path))?;
    loader::pixels::decode(&bytes).map_err(|why| Error::Invalid { path: path.to_owned(), problem: why })
}
