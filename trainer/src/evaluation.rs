//! Segmentation scores from one confusion matrix over the whole set.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use loader::program::{Progress, interrupted};
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::error::{Error, Result, at, image_at};
use crate::segmenter::Segmenter;

/// Mask value of pixels that do not count.
const IGNORED: u8 = 255;

/// A set of images with index masks.
#[derive(Debug)]
pub struct SegmentationSet {
    /// Class names; a mask's value is an index into them.
    pub classes: Vec<String>,
    /// Image and mask files, in order of name.
    pub pairs: Vec<(PathBuf, PathBuf)>,
}

impl SegmentationSet {
    /// Reads the plain layout: `images/NAME.jpg|png|webp`, `masks/NAME.png`, `classes.txt` with a class a line.
    pub fn open_folder(folder: &Path) -> Result<Self> {
        let classes = read_names(&folder.join("classes.txt"))?;
        let (images, masks) = (folder.join("images"), folder.join("masks"));
        let mut pairs = Vec::new();
        for entry in fs::read_dir(&images).map_err(at(&images))? {
            let image = entry.map_err(at(&images))?.path();
            let extension =
                image.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
            if !["jpg", "jpeg", "png", "webp"].contains(&extension.as_str()) {
                continue;
            }
            let mask = masks.join(image.file_stem().unwrap_or_default()).with_extension("png");
            if !mask.exists() {
                let problem = format!("is missing, the mask of {}", image.display());
                return Err(Error::Invalid { path: mask, problem });
            }
            pairs.push((image, mask));
        }
        pairs.sort();
        if pairs.is_empty() {
            return Err(Error::Invalid { path: images, problem: "holds no jpg, png or webp".to_owned() });
        }
        Ok(Self { classes, pairs })
    }
}

/// Names from a file, one a line, empty lines left out.
pub fn read_names(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Error::Invalid { path: path.to_owned(), problem: "names no class".to_owned() });
    }
    Ok(names)
}

/// Pixels by true class (rows) and predicted class (columns).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
}

impl Confusion {
    /// All zero.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Adds the pixels of one image; a true label of 255 does not count, any other is below the class count.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) {
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            if truth != IGNORED {
                self.counts[usize::from(truth) * self.classes + usize::from(predicted)] += 1;
            }
        }
    }

    fn row(&self, class: usize) -> u64 {
        self.counts[class * self.classes..][..self.classes].iter().sum()
    }

    fn column(&self, class: usize) -> u64 {
        self.counts.iter().skip(class).step_by(self.classes).sum()
    }

    fn hits(&self, class: usize) -> u64 {
        self.counts[class * self.classes + class]
    }

    /// Intersection over union of a class; none when it is neither there nor predicted.
    pub fn iou(&self, class: usize) -> Option<f64> {
        let union = self.row(class) + self.column(class) - self.hits(class);
        (union > 0).then(|| self.hits(class) as f64 / union as f64)
    }

    /// Mean of the classes' IoU.
    pub fn mean_iou(&self) -> f64 {
        let ious: Vec<f64> = (0..self.classes).filter_map(|class| self.iou(class)).collect();
        ious.iter().sum::<f64>() / ious.len().max(1) as f64
    }

    /// Share of the pixels with the right class.
    pub fn pixel_accuracy(&self) -> f64 {
        let hits: u64 = (0..self.classes).map(|class| self.hits(class)).sum();
        hits as f64 / self.counts.iter().sum::<u64>().max(1) as f64
    }

    /// Mean IoU to expect of labels drawn uniformly for these true classes: a class of share f meets f / C of
    /// the pixels by chance, of a union of f + 1 / C - f / C.
    pub fn chance(&self) -> f64 {
        let pixels = self.counts.iter().sum::<u64>().max(1) as f64;
        let drawn = 1.0 / self.classes as f64;
        let ious = (0..self.classes).map(|class| {
            let share = self.row(class) as f64 / pixels;
            share * drawn / (share + drawn - share * drawn)
        });
        ious.sum::<f64>() / self.classes as f64
    }
}

/// Score of one class.
#[derive(Debug, Clone, Serialize)]
pub struct ClassScore {
    /// Its name.
    pub class: String,
    /// Intersection over union; none when neither there nor predicted.
    pub iou: Option<f64>,
    /// Its share of the counted pixels.
    pub share: f64,
}

/// Scores of a set; shares and scores are fractions of 1.
#[derive(Debug, Clone, Serialize)]
pub struct SegmentationScores {
    /// Mean over the classes of intersection over union.
    pub miou: f64,
    /// Share of pixels with the right class.
    pub pixel_accuracy: f64,
    /// Mean IoU to expect of uniformly random labels.
    pub chance: f64,
    /// Images scored.
    pub images: usize,
    /// Images a second, reading them included.
    pub images_per_second: f64,
    /// Class by class.
    pub classes: Vec<ClassScore>,
}

/// Segments every image of the set and scores it against its mask.
pub fn evaluate(set: &SegmentationSet, segmenter: &Segmenter) -> Result<SegmentationScores> {
    let started = Instant::now();
    let mut confusion = Confusion::new(set.classes.len());
    let mut progress = Progress::new("evaluating", "images", set.pairs.len() as u64);
    for (image_path, mask_path) in &set.pairs {
        if interrupted() {
            let problem = "interrupted before the set was scored".to_owned();
            return Err(Error::Invalid { path: image_path.clone(), problem });
        }
        let image = image::open(image_path).map_err(image_at(image_path))?.into_rgb8();
        let mask = read_mask(mask_path, set.classes.len())?;
        if mask.dimensions() != image.dimensions() {
            let problem = format!("is {:?} pixels and its image {:?}", mask.dimensions(), image.dimensions());
            return Err(Error::Invalid { path: mask_path.clone(), problem });
        }
        let labels = segmenter.labels(&image, i64::from(image.height()), i64::from(image.width()));
        confusion.add(mask.as_raw(), &bytes(&labels));
        progress.advance(1, || format!("mIoU {:.1} %", 100.0 * confusion.mean_iou()));
    }
    let scores = SegmentationScores {
        miou: confusion.mean_iou(),
        pixel_accuracy: confusion.pixel_accuracy(),
        chance: confusion.chance(),
        images: set.pairs.len(),
        images_per_second: set.pairs.len() as f64 / started.elapsed().as_secs_f64().max(1e-9),
        classes: class_scores(&confusion, &set.classes),
    };
    progress.finish(&format!("mIoU {:.1} %", 100.0 * scores.miou));
    Ok(scores)
}

fn class_scores(confusion: &Confusion, names: &[String]) -> Vec<ClassScore> {
    let pixels = confusion.counts.iter().sum::<u64>().max(1) as f64;
    let score = |(class, name): (usize, &String)| ClassScore {
        class: name.clone(),
        iou: confusion.iou(class),
        share: confusion.row(class) as f64 / pixels,
    };
    names.iter().enumerate().map(score).collect()
}

/// A mask of class indices; refuses values that name no class.
fn read_mask(path: &Path, classes: usize) -> Result<image::GrayImage> {
    let mask = match image::open(path).map_err(image_at(path))? {
        image::DynamicImage::ImageLuma8(mask) => mask,
        other => {
            let problem = format!("is {:?}; a mask has one 8-bit channel of class indices", other.color());
            return Err(Error::Invalid { path: path.to_owned(), problem });
        }
    };
    match mask.as_raw().iter().find(|&&value| value != IGNORED && usize::from(value) >= classes) {
        None => Ok(mask),
        Some(value) => {
            let problem = format!("has a pixel of class {value}, and classes.txt names {classes}");
            Err(Error::Invalid { path: path.to_owned(), problem })
        }
    }
}

/// The labels of [`Segmenter::labels`] as bytes, row by row.
pub fn bytes(labels: &Tensor) -> Vec<u8> {
    let labels = labels.to_kind(Kind::Uint8).contiguous();
    let mut out = vec![0; labels.numel()];
    labels.copy_data_u8(&mut out, labels.numel());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_by_hand() {
        let mut confusion = Confusion::new(3);
        //                truth           predicted
        confusion.add(&[0, 0, 0, 1, 1, 255], &[0, 0, 1, 1, 0, 2]);
        assert_eq!(confusion.iou(0), Some(2.0 / 4.0));
        assert_eq!(confusion.iou(1), Some(1.0 / 3.0));
        assert_eq!(confusion.iou(2), None, "neither there nor predicted: the ignored pixel does not count");
        assert!((confusion.mean_iou() - f64::midpoint(0.5, 1.0 / 3.0)).abs() < 1e-12);
        assert!((confusion.pixel_accuracy() - 3.0 / 5.0).abs() < 1e-12);
        // Shares 3/5, 2/5, 0 and labels drawn with 1/3: (1/5) / (3/5 + 1/3 - 1/5) = 3/11, (2/15) / (3/5) = 2/9, 0.
        assert!((confusion.chance() - (3.0 / 11.0 + 2.0 / 9.0) / 3.0).abs() < 1e-12);
    }
}
