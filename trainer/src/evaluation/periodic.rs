//! Evaluates the checkpoints of a run during training: segmentation of one dataset, as `trainer eval segmentation` without options.

use tch::Device;

use super::datasets::SegmentationDataset;
use super::published_datasets::Background;
use super::segmentation::{DecisionSettings, SegmentationScores, THRESHOLD, evaluate};
use crate::checkpoint::Checkpoint;
use crate::device::Precision;
use crate::error::Result;
use crate::inference::class_vectors::ClassVectors;
use crate::inference::classes::ClassNames;
use crate::inference::model::Model;
use crate::inference::segmenter::{Segmenter, WINDOW_BATCH};
use crate::inference::templates;
use crate::inference::window::{Resize, Window};
use crate::observer::Observer;
use crate::settings::EvaluationSettings;

/// The dataset in the settings; an error if files are missing.
pub fn set(settings: &EvaluationSettings) -> Result<Option<SegmentationDataset>> {
    let Some(data) = &settings.data else { return Ok(None) };
    let mut set = SegmentationDataset::open(&settings.dataset, data, None)?;
    set.check_complete()?;
    if settings.limit > 0 {
        set.pairs.truncate(settings.limit);
    }
    Ok(Some(set))
}

/// Evaluates a checkpoint on a dataset.
pub fn score(
    checkpoint: &Checkpoint,
    set: &SegmentationDataset,
    device: Device,
    observer: &dyn Observer,
) -> Result<SegmentationScores> {
    let model = Model::open(checkpoint, Precision::Auto, device)?;
    let folder = set.published.is_none();
    let short = if folder { model.size } else { Window::PUBLISHED.short };
    let resize = if folder { Resize::Float } else { Window::PUBLISHED.resize };
    let window =
        Window { short, long: Window::PUBLISHED.long, side: short, stride: (short / 2).max(1), resize };
    let vectors = if folder { model.vectors } else { ClassVectors::Caption };
    let decision = DecisionSettings {
        threshold: THRESHOLD,
        scale: model.text.logit_scale().double_value(&[]),
        batch: WINDOW_BATCH,
        readers: std::thread::available_parallelism().map_or(1, usize::from),
        worst: 0,
    };
    let by_threshold = set.background == Some(Background::Threshold);
    let asked: Vec<Vec<String>> = set
        .classes
        .iter()
        .skip(usize::from(by_threshold))
        .map(|class| class.prompts(ClassNames::Plain))
        .collect();
    let segmenter = Segmenter::new(model, &asked, &templates::read("imagenet")?, vectors, window)?;
    Ok(evaluate(set, &segmenter, &decision, observer)?.0)
}
