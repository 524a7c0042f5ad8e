//! The rungs of the ladder: every one segments the same windows of the same images, and is scored on the same pixels.

use image::RgbImage;
use serde::Serialize;
use tch::Tensor;

use super::learned::Learned;
use super::neighbours;
use super::patches::{counts, shares};
use crate::error::Result;
use crate::evaluation::SegmentationDataset;
use crate::evaluation::segmentation::{
    DecisionSettings, Sample, SegmentationScores, Tally, decide, in_groups,
};
use crate::inference::fusion::Fusion;
use crate::inference::labels::{self, Rule};
use crate::inference::segmenter::Segmenter;
use crate::observer::Observer;

/// A way to segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// The vectors of the class names: the zero-shot segmentation.
    Text,
    /// The means of the classes' patches, in the place of these vectors.
    Means,
    /// The nearest labelled patches.
    Neighbours,
    /// The linear classifier.
    Linear,
    /// The true labels, as far as patches can hold them.
    Oracle,
}

impl Rung {
    /// All, from the bottom up.
    pub const ALL: [Self; 5] = [Self::Text, Self::Means, Self::Neighbours, Self::Linear, Self::Oracle];

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Text => "class names (zero-shot)",
            Self::Means => "class means",
            Self::Neighbours => "nearest neighbours",
            Self::Linear => "linear classifier (light)",
            Self::Oracle => "true labels of the patches",
        }
    }
}

/// Scores all rungs on a dataset, in the order of [`Rung::ALL`].
pub fn climb(
    set: &SegmentationDataset,
    segmenter: &Segmenter,
    learned: &Learned,
    decision: &DecisionSettings,
    observer: &dyn Observer,
) -> Result<Vec<(Rung, SegmentationScores)>> {
    let mut tallies = Rung::ALL.map(|_| Tally::new(set, 0));
    let mut progress = observer.progress("evaluating", "images", set.pairs.len() as u64);
    let sizes = (decision.batch, decision.readers);
    let message = |tallies: &[Tally<'_>; 5]| format!("zero-shot {}", tallies[0].message());
    in_groups(set, segmenter, sizes, observer, &mut |samples| {
        let images: Vec<&RgbImage> = samples.iter().map(|sample| &sample.image).collect();
        let score = |patches: &Tensor| scores(segmenter, learned, patches);
        let (cuts, grids) = segmenter.windows_scored(&images, decision.batch, &score);
        let mut grids = grids.into_iter();
        for (Sample { at, mask, .. }, cut) in samples.into_iter().zip(&cuts) {
            let own: Vec<Tensor> = grids.by_ref().take(cut.windows.len()).collect();
            let classes = set.classes.len() as i64;
            let names = own[0].size()[0] - 3 * classes;
            let grid = own[0].size()[1];
            for (rung, tally) in Rung::ALL.into_iter().zip(&mut tallies) {
                let part = |first: i64, count: i64| -> Vec<Tensor> {
                    own.iter().map(|window| window.narrow(0, first, count)).collect()
                };
                let highest = |grids: &[Tensor]| {
                    let scores = cut.blend(grids, Fusion::Similarity, None);
                    let decided =
                        labels::decide(&scores, mask.height.into(), mask.width.into(), Rule::HighestScore);
                    labels::bytes(&decided)
                };
                let predicted = match rung {
                    Rung::Text => {
                        let scores = segmenter.blended(cut, &part(0, names));
                        decide(set, segmenter, decision, &mask, &scores)
                    }
                    Rung::Means => highest(&part(names, classes)),
                    Rung::Neighbours => highest(&part(names + classes, classes)),
                    Rung::Linear => highest(&part(names + 2 * classes, classes)),
                    Rung::Oracle => {
                        let truth = counts(cut, &mask, classes, grid).into_iter();
                        let truth = truth.map(|of_window| shares(&of_window).transpose(0, 1));
                        let planes: Vec<Tensor> =
                            truth.map(|plane| plane.reshape([classes, grid, grid])).collect();
                        let device = own[0].device();
                        highest(&planes.iter().map(|plane| plane.to_device(device)).collect::<Vec<_>>())
                    }
                };
                tally.add(at, mask.clone(), predicted);
            }
            progress.advance(1, &|| message(&tallies));
        }
        Ok(())
    })?;
    progress.finish(&message(&tallies));
    Ok(Rung::ALL.into_iter().zip(tallies.map(|tally| tally.finish().0)).collect())
}

/// The scores of patches, [n, P, d], on all rungs that need no labels: [n, W + 3 C, P], with W names and C classes.
fn scores(segmenter: &Segmenter, learned: &Learned, patches: &Tensor) -> Tensor {
    let (count, places, width) = patches.size3().unwrap_or_default();
    let rows = patches.reshape([-1, width]);
    let of_classes = |scores: Tensor| (scores + &learned.seen).view([count, places, -1]).transpose(1, 2);
    let means = of_classes(rows.matmul(&learned.means.transpose(0, 1)));
    let neighbours = of_classes(neighbours::shares(&rows, &learned.memory.0, &learned.memory.1));
    let linear = of_classes(learned.linear.scores(&rows));
    Tensor::cat(&[segmenter.similarities(patches), means, neighbours, linear], 1)
}
