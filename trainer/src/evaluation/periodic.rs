//! Evaluates the checkpoints of a run during training: segmentation of one dataset, as `trainer eval segmentation` without options.

use tch::Device;

use super::datasets::SegmentationDataset;
use super::protocol::Parts;
use super::segmentation::{DecisionSettings, SegmentationScores, evaluate};
use crate::checkpoint::Checkpoint;
use crate::device::Precision;
use crate::error::Result;
use crate::inference::model::Model;
use crate::inference::segmenter::WINDOW_BATCH;
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
    let model = Model::open(checkpoint, Precision::Auto.for_scores(device), device)?;
    let parts = Parts::usual(set.published.is_none(), &model);
    let decision = DecisionSettings {
        threshold: parts.threshold,
        scale: model.text.logit_scale().double_value(&[]),
        batch: WINDOW_BATCH,
        readers: std::thread::available_parallelism().map_or(1, usize::from),
        worst: 0,
    };
    let segmenter = parts.segmenter(model, set)?;
    Ok(evaluate(set, &segmenter, &decision, observer, &mut |_, _, _| Ok(()))?.0)
}
