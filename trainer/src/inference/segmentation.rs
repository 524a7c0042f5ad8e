//! The segmentation of an image: the label of each pixel, and a summary per class.

use serde::Serialize;
use tch::{Kind, Tensor};

use crate::device::to_vec;

/// Label of background pixels, where no class reaches the threshold.
pub const NO_CLASS: u8 = 255;

/// Summary of a class in an image. Similarities are cosines.
#[derive(Debug, Clone, Serialize)]
pub struct ClassSummary {
    /// Its name.
    pub class: String,
    /// Its value in the mask.
    pub index: usize,
    /// Fraction of the pixels that have this class.
    pub share: f64,
    /// Mean similarity over its own pixels; `None` if it has none.
    pub similarity: Option<f64>,
    /// Mean similarity over the whole image.
    pub mean: f64,
    /// Maximum similarity.
    pub highest: f64,
}

/// The most similar class of each pixel.
#[derive(Debug, Clone)]
pub struct Segmentation {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// One class per pixel, row by row; [`NO_CLASS`] for background.
    pub labels: Vec<u8>,
    /// Fraction of the pixels that are background.
    pub background: f64,
    /// The summary per class, in order.
    pub classes: Vec<ClassSummary>,
}

impl Segmentation {
    /// From similarities [C, h, w]: upsamples them bilinearly to `height` x `width` pixels and takes the most similar class of each
    /// pixel if its similarity is at least `threshold`.
    ///
    /// Classes are upsampled one at a time, so that a large image needs memory for a few classes only.
    pub fn new(scores: &Tensor, names: &[String], height: u32, width: u32, threshold: Option<f32>) -> Self {
        let size = [i64::from(height), i64::from(width)];
        let pixels = (height as usize * width as usize).max(1);
        let mut best = vec![threshold.unwrap_or(f32::NEG_INFINITY); pixels];
        let mut labels = vec![NO_CLASS; pixels];
        let mut classes = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let one = scores.get(index as i64).to_kind(Kind::Float).unsqueeze(0).unsqueeze(0);
            let values = to_vec(&one.upsample_bilinear2d(size, false, None, None));
            for ((best, label), &value) in best.iter_mut().zip(&mut labels).zip(&values) {
                // For equal similarities, also at the threshold itself, the first class is taken.
                if value > *best || (*label == NO_CLASS && value == *best) {
                    (*best, *label) = (value, index as u8);
                }
            }
            let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
            classes.push(ClassSummary {
                class: name.clone(),
                index,
                share: 0.0,
                similarity: None,
                mean: sum / pixels as f64,
                highest: values.iter().copied().map(f64::from).fold(f64::NEG_INFINITY, f64::max),
            });
        }
        let mut sums = vec![(0u64, 0.0); names.len()];
        for (&label, &value) in labels.iter().zip(&best) {
            if let Some((count, sum)) = sums.get_mut(usize::from(label)) {
                *count += 1;
                *sum += f64::from(value);
            }
        }
        let covered: u64 = sums.iter().map(|(count, _)| count).sum();
        for (class, (count, sum)) in classes.iter_mut().zip(sums) {
            class.share = count as f64 / pixels as f64;
            class.similarity = (count > 0).then(|| sum / count as f64);
        }
        let background = (pixels as u64 - covered) as f64 / pixels as f64;
        Self { height, width, labels, background, classes }
    }

    /// The labels for an image of another size, by nearest neighbour.
    pub fn labels_at(&self, height: u32, width: u32) -> Vec<u8> {
        let from = |to: u32, of: u32, at: u32| (u64::from(at) * u64::from(of) / u64::from(to)) as usize;
        (0..height)
            .flat_map(|y| {
                let row = from(height, self.height, y) * self.width as usize;
                (0..width).map(move |x| self.labels[row + from(width, self.width, x)])
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_class_above_the_threshold() {
        // Two classes on 1 x 4 pixels.
        let scores = Tensor::from_slice(&[0.1f32, 0.4, 0.6, 0.2, 0.3, 0.1, 0.2, 0.2]).view([2, 1, 4]);
        let names = ["cat".to_owned(), "sofa".to_owned()];
        let all = Segmentation::new(&scores, &names, 1, 4, None);
        assert_eq!(all.labels, [1, 0, 0, 0], "a tie goes to the first class");
        assert_eq!((all.classes[0].share, all.classes[1].share), (0.75, 0.25));
        assert!((all.classes[0].similarity.unwrap() - 0.4).abs() < 1e-6, "(0.4 + 0.6 + 0.2) / 3");
        assert!((all.classes[1].mean - 0.2).abs() < 1e-6 && (all.classes[1].highest - 0.3).abs() < 1e-6);

        let some = Segmentation::new(&scores, &names, 1, 4, Some(0.3));
        assert_eq!((some.labels, some.background), (vec![1, 0, 0, NO_CLASS], 0.25));
        let none = Segmentation::new(&scores, &names, 1, 4, Some(0.9));
        assert_eq!((none.labels, none.classes[0].similarity), (vec![NO_CLASS; 4], None));
        assert_eq!(all.labels_at(2, 2), [1, 0, 1, 0]);
    }

    #[test]
    fn pixels_are_those_of_up_sampling_everything_at_once() {
        tch::manual_seed(0);
        let scores = Tensor::randn([5, 7, 9], (Kind::Float, tch::Device::Cpu));
        let names: Vec<String> = (0..5).map(|i| i.to_string()).collect();
        let ours = Segmentation::new(&scores, &names, 23, 31, None);
        let whole = scores.unsqueeze(0).upsample_bilinear2d([23, 31], false, None, None).argmax(1, false);
        assert_eq!(ours.labels, crate::inference::labels::bytes(&whole));
    }
}
