//! Segmentation metrics from a confusion matrix of integers, accumulated over a whole dataset.

use serde::{Deserialize, Serialize};

/// True label of pixels that do not count, and predicted label of pixels without a class.
pub const IGNORED: u8 = 255;

/// Pixels by true class (rows) and predicted class (columns).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
    /// Pixels of each true class for which no class was predicted.
    unlabelled: Vec<u64>,
    ignored: u64,
}

impl Confusion {
    /// All zero.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes], unlabelled: vec![0; classes], ignored: 0 }
    }

    /// Adds the pixels of an image. Pixels with the true label [`IGNORED`] do not count, those with this predicted label are wrong; other
    /// labels must be below the number of classes.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) {
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            if truth == IGNORED {
                self.ignored += 1;
            } else if predicted == IGNORED {
                self.unlabelled[usize::from(truth)] += 1;
            } else {
                self.counts[usize::from(truth) * self.classes + usize::from(predicted)] += 1;
            }
        }
    }

    /// Adds the counts of another matrix with the same classes: the sum over parts of a dataset is exactly the whole.
    pub fn merge(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
        for (sum, count) in self.unlabelled.iter_mut().zip(&other.unlabelled) {
            *sum += count;
        }
        self.ignored += other.ignored;
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The counts, row by row.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Number of ignored pixels.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Number of pixels that count.
    pub fn pixels(&self) -> u64 {
        self.counts.iter().chain(&self.unlabelled).sum()
    }

    /// Number of pixels whose true class is this one.
    pub fn row(&self, class: usize) -> u64 {
        self.counts[class * self.classes..][..self.classes].iter().sum::<u64>() + self.unlabelled[class]
    }

    fn column(&self, class: usize) -> u64 {
        self.counts.iter().skip(class).step_by(self.classes).sum()
    }

    fn hits(&self, class: usize) -> u64 {
        self.counts[class * self.classes + class]
    }

    /// Intersection over union of a class; `None` if it is neither in the masks nor predicted.
    pub fn iou(&self, class: usize) -> Option<f64> {
        let union = self.row(class) + self.column(class) - self.hits(class);
        (union > 0).then(|| self.hits(class) as f64 / union as f64)
    }

    /// Mean IoU over the classes, without those that are neither in the masks nor predicted.
    pub fn mean_iou(&self) -> f64 {
        mean((0..self.classes).filter_map(|class| self.iou(class)))
    }

    /// Mean accuracy over the classes that are in the masks.
    pub fn mean_accuracy(&self) -> f64 {
        let there = (0..self.classes).filter(|&class| self.row(class) > 0);
        mean(there.map(|class| self.hits(class) as f64 / self.row(class) as f64))
    }

    /// Fraction of the pixels with the correct class.
    pub fn pixel_accuracy(&self) -> f64 {
        let hits: u64 = (0..self.classes).map(|class| self.hits(class)).sum();
        hits as f64 / self.pixels().max(1) as f64
    }

    /// Expected mean IoU of uniformly random labels: for a class with the fraction f of the pixels, the intersection is f / C and
    /// the union f + 1 / C - f / C.
    pub fn chance(&self) -> f64 {
        let pixels = self.pixels().max(1) as f64;
        let drawn = 1.0 / self.classes as f64;
        let ious = (0..self.classes).map(|class| {
            let share = self.row(class) as f64 / pixels;
            share * drawn / (share + drawn - share * drawn)
        });
        ious.sum::<f64>() / self.classes as f64
    }

    /// The scores of all classes with their names.
    pub fn class_scores<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<ClassScore> {
        let pixels = self.pixels().max(1) as f64;
        let score = |(class, name): (usize, &str)| ClassScore {
            class: name.to_owned(),
            iou: self.iou(class),
            share: self.row(class) as f64 / pixels,
        };
        names.enumerate().map(score).collect()
    }
}

/// Score of one class.
#[derive(Debug, Clone, Serialize)]
pub struct ClassScore {
    /// Its name.
    pub class: String,
    /// Intersection over union, 0 to 1; `None` if the class is neither in the masks nor predicted.
    pub iou: Option<f64>,
    /// Fraction of the counted pixels that have this true class.
    pub share: f64,
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_without_a_class_are_wrong() {
        let mut confusion = Confusion::new(2);
        confusion.add(&[0, 0, 1, IGNORED], &[0, IGNORED, 1, 0]);
        assert_eq!((confusion.pixels(), confusion.ignored()), (3, 1));
        assert_eq!((confusion.iou(0), confusion.iou(1)), (Some(0.5), Some(1.0)));
        assert!((confusion.pixel_accuracy() - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn scores_by_hand() {
        let mut confusion = Confusion::new(3);
        //                truth           predicted
        confusion.add(&[0, 0, 0, 1, 1, 255], &[0, 0, 1, 1, 0, 2]);
        assert_eq!(confusion.iou(0), Some(2.0 / 4.0));
        assert_eq!(confusion.iou(1), Some(1.0 / 3.0));
        assert_eq!(
            confusion.iou(2),
            None,
            "neither in the mask nor predicted: the ignored pixel does not count"
        );
        assert!((confusion.mean_iou() - f64::midpoint(0.5, 1.0 / 3.0)).abs() < 1e-12);
        assert!((confusion.pixel_accuracy() - 3.0 / 5.0).abs() < 1e-12);
        assert!((confusion.mean_accuracy() - f64::midpoint(2.0 / 3.0, 0.5)).abs() < 1e-12);
        assert_eq!((confusion.pixels(), confusion.ignored()), (5, 1));
        // Fractions 3/5, 2/5, 0; random labels with 1/3 each: (1/5) / (3/5 + 1/3 - 1/5) = 3/11, (2/15) / (3/5) = 2/9, 0.
        assert!((confusion.chance() - (3.0 / 11.0 + 2.0 / 9.0) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let (truth, predicted) = ([0, 1, 1, 255, 0, 1], [1, 1, 0, 0, 0, 1]);
        let mut whole = Confusion::new(2);
        whole.add(&truth, &predicted);
        let (mut first, mut second) = (Confusion::new(2), Confusion::new(2));
        first.add(&truth[..2], &predicted[..2]);
        second.add(&truth[2..], &predicted[2..]);
        first.merge(&second);
        assert_eq!(first, whole);
    }
}
