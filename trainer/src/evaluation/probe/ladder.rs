//! The rungs of the ladder: every one segments the same windows of the same images, and is scored on the same pixels.

use std::time::Instant;

use image::RgbImage;
use serde::Serialize;
use tch::Tensor;

use super::learned::Learned;
use super::neighbours;
use super::parts::Parts;
use super::patches::{counts, shares};
use crate::error::{Error, Result, reading, writing};
use crate::evaluation::SegmentationDataset;
use crate::evaluation::confusion::Confusion;
use crate::evaluation::segmentation::{
    self, DecisionSettings, Sample, SegmentationScores, decide, in_groups,
};
use crate::inference::cut::Cut;
use crate::inference::fusion::Fusion;
use crate::inference::labels::{self, Rule};
use crate::inference::segmenter::Segmenter;
use crate::observer::Observer;
use crate::towers::{full_precision, unit};

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
    /// The linear classifier that is trained as DINOv2's.
    Recipe,
    /// The true labels, as far as patches can hold them.
    Oracle,
}

impl Rung {
    /// All that can be climbed with what was learned, from the bottom up.
    pub fn all(learned: &Learned) -> Vec<Self> {
        let with_recipe = learned.recipe.is_some();
        [Self::Text, Self::Means, Self::Neighbours, Self::Linear, Self::Recipe, Self::Oracle]
            .into_iter()
            .filter(|&rung| rung != Self::Recipe || with_recipe)
            .collect()
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Text => "class names (zero-shot)",
            Self::Means => "class means",
            Self::Neighbours => "nearest neighbours",
            Self::Linear => "linear classifier (light)",
            Self::Recipe => "linear classifier (DINOv2's recipe)",
            Self::Oracle => "true labels of the patches",
        }
    }
}

/// Scores all rungs on a dataset, in the order of [`Rung::all`]; parts that an earlier probe has scored are read.
pub fn climb(
    set: &SegmentationDataset,
    segmenter: &Segmenter,
    learned: &Learned,
    decision: &DecisionSettings,
    parts: &Parts<'_>,
    observer: &dyn Observer,
) -> Result<Vec<(Rung, SegmentationScores)>> {
    let started = Instant::now();
    let count = set.pairs.len();
    let to_do = parts.to_do("scores", "json", count);
    let images: usize = to_do.iter().map(|(images, _)| images.len()).sum();
    let mut progress = observer.progress("evaluating", "images", images as u64);
    let rungs = Rung::all(learned);
    let nothing = || -> Vec<Confusion> { rungs.iter().map(|_| Confusion::new(set.classes.len())).collect() };
    for (images, path) in to_do {
        let mut counted = nothing();
        let sizes = (decision.batch, decision.readers);
        in_groups(set, images, segmenter, sizes, observer, &mut |samples| {
            let images: Vec<&RgbImage> = samples.iter().map(|sample| &sample.image).collect();
            let score = |patches: &Tensor| scores(segmenter, learned, patches);
            let (cuts, grids) = segmenter.windows_of_features(&images, decision.batch, &score);
            let mut grids = grids.into_iter();
            for (sample, cut) in samples.iter().zip(&cuts) {
                let own: Vec<Tensor> = grids.by_ref().take(cut.windows.len()).collect();
                for (&rung, counted) in rungs.iter().zip(&mut counted) {
                    let planes = Planes { cut, windows: &own, learned: rungs.len() as i64 - 2 };
                    let predicted = labels_of(rung, set, segmenter, decision, sample, &planes);
                    counted.add(&sample.mask.labels, &predicted);
                }
                progress.advance(1, &|| format!("zero-shot mIoU {:.1} %", 100.0 * counted[0].mean_iou()));
            }
            Ok(())
        })?;
        let text = serde_json::to_vec(&counted).map_err(|e| writing(&path)(e.into()))?;
        disk::files::write_atomic(&path, &text).map_err(writing(&path))?;
    }
    progress.finish("");
    parts.wait()?;
    let mut sums = nothing();
    for (_, path) in parts.all("scores", "json", count) {
        let text = std::fs::read(&path).map_err(reading(&path))?;
        let counted: Vec<Confusion> = serde_json::from_slice(&text).unwrap_or_default();
        if counted.len() != sums.len() || counted.iter().any(|it| it.classes() != set.classes.len()) {
            let problem = "is damaged; remove it, so that it is made again".to_owned();
            return Err(Error::Invalid { path, problem });
        }
        for (sum, counted) in sums.iter_mut().zip(&counted) {
            sum.merge(counted);
        }
    }
    let scores = sums.iter().map(|sum| segmentation::scores(set, sum, started));
    Ok(rungs.iter().copied().zip(scores).collect())
}

/// The windows of an image, and what [`scores`] has for each.
struct Planes<'a> {
    cut: &'a Cut,
    windows: &'a [Tensor],
    /// Number of rungs that are learned.
    learned: i64,
}

/// The labels of an image on a rung.
fn labels_of(
    rung: Rung,
    set: &SegmentationDataset,
    segmenter: &Segmenter,
    decision: &DecisionSettings,
    sample: &Sample,
    &Planes { cut, windows, learned }: &Planes<'_>,
) -> Vec<u8> {
    let mask = &sample.mask;
    let (classes, grid) = (set.classes.len() as i64, windows[0].size()[1]);
    let names = windows[0].size()[0] - learned * classes;
    let part = |first: i64, count: i64| -> Vec<Tensor> {
        windows.iter().map(|window| window.narrow(0, first, count)).collect()
    };
    let grids = match rung {
        Rung::Text => {
            return decide(set, segmenter, decision, sample, &segmenter.blended(cut, &part(0, names)));
        }
        Rung::Means => part(names, classes),
        Rung::Neighbours => part(names + classes, classes),
        Rung::Linear => part(names + 2 * classes, classes),
        Rung::Recipe => part(names + 3 * classes, classes),
        Rung::Oracle => {
            let truth = counts(cut, mask, classes, grid).into_iter();
            let device = windows[0].device();
            truth
                .map(|counts| {
                    shares(&counts).transpose(0, 1).reshape([classes, grid, grid]).to_device(device)
                })
                .collect()
        }
    };
    let scores = cut.blend(&grids, Fusion::Similarity, None);
    labels::bytes(&labels::decide(&scores, mask.height.into(), mask.width.into(), Rule::HighestScore))
}

/// The scores of patches as the model gives them, [n, P, d], on all rungs that need no labels: [n, W + R C, P], with W names, C classes and
/// R rungs that are learned.
fn scores(segmenter: &Segmenter, learned: &Learned, features: &Tensor) -> Tensor {
    let (count, places, width) = features.size3().unwrap_or_default();
    let patches = &unit(features);
    let rows = patches.reshape([-1, width]);
    let of_classes = |scores: Tensor| (scores + &learned.seen).view([count, places, -1]).transpose(1, 2);
    let means = of_classes(rows.matmul(&learned.means.transpose(0, 1)));
    let neighbours = of_classes(neighbours::shares(&rows, &learned.memory.0, &learned.memory.1));
    let linear = of_classes(learned.linear.scores(&rows));
    let recipe = learned
        .recipe
        .as_ref()
        .map(|recipe| of_classes(recipe.scores(&full_precision(&features.reshape([-1, width])))));
    let all = [segmenter.similarities(patches), means, neighbours, linear].into_iter().chain(recipe);
    Tensor::cat(&all.collect::<Vec<_>>(), 1)
}
