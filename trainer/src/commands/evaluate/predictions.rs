//! The options of `trainer eval segmentation` for label maps of other programs.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use trainer::Result;
use trainer::evaluation::SegmentationDataset;
use trainer::evaluation::predictions::{Numbering, Predictions, score};
use trainer::evaluation::segmentation::{SegmentationScores, WorstImage};

use crate::commands::choices;
use crate::commands::console::Console;

#[derive(Debug, Args)]
pub(crate) struct PredictionArgs {
    /// Score the label maps in this folder instead of a model: for each image a PNG of class indices (greyscale, or with a palette,
    /// whose colours are ignored) or a NumPy file (scores, float [classes, h, w], or integers), named as the image, as its mask, or by
    /// number.
    #[arg(long, value_name = "DIR", conflicts_with_all = MODEL_OPTIONS)]
    pub(super) predictions: Option<PathBuf>,
    /// What the values in the label maps mean [default: indices].
    #[arg(long, requires = "predictions", value_parser = choices::numbering())]
    numbering: Option<Numbering>,
    /// The classes in the order of the other program's indices, one per line, if it is not that of the dataset; `-` for one that the
    /// dataset does not have.
    #[arg(long, value_name = "FILE", requires = "predictions")]
    prediction_classes: Option<PathBuf>,
    /// Name of the other program in tables [default: that of the folder].
    #[arg(long, value_name = "NAME", requires = "predictions")]
    system: Option<String>,
    /// How the label maps were made, for the notes of tables, such as "short side 336, windows of 224, 80 templates".
    #[arg(long, value_name = "TEXT", requires = "predictions")]
    made_with: Option<String>,
}

/// Options that say how a model predicts.
const MODEL_OPTIONS: [&str; 19] = [
    "checkpoint",
    "clip",
    "protocol",
    "size",
    "resize",
    "long_side",
    "window",
    "stride",
    "dense",
    "fusion",
    "pamr",
    "threshold",
    "scale",
    "templates",
    "class_vectors",
    "class_names",
    "classes",
    "class_file",
    "save_predictions",
];

impl PredictionArgs {
    /// The scores of the label maps, the description of what made them, and their protocol, for the results.
    pub(super) fn score(
        &self,
        set: &SegmentationDataset,
        readers: usize,
        worst: usize,
    ) -> Result<(SegmentationScores, Vec<WorstImage>, Value, Value)> {
        let folder = self.predictions.clone().unwrap_or_default();
        let names = match &self.prediction_classes {
            Some(path) => {
                let text = storage::read_text(path)?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                Some(lines.map(str::to_owned).collect::<Vec<_>>())
            }
            None => None,
        };
        let numbering = self.numbering.unwrap_or_default();
        let predictions = Predictions::open(&folder, set, numbering, names.as_deref())?;
        if predictions.by_number {
            eprintln!("label maps are named by number: taken in the order of the names of the images");
        }
        let (scores, low) = score(set, &predictions, readers, worst, &Console)?;
        if scores.miou < scores.chance {
            eprintln!(
                "note: worse than chance; perhaps the values are numbered otherwise (--numbering), or the classes have another order \
                 (--prediction-classes)"
            );
        }
        let name = || folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        let about = json!({ "description": self.system.clone().unwrap_or_else(name), "path": folder });
        let made_with = self.made_with.clone().unwrap_or_else(|| "settings that were not given".to_owned());
        let protocol = json!({
            "label maps": format!("of another program, made with {made_with}"),
            "numbering": (numbering != Numbering::Indices).then_some(numbering),
            "background": set.background,
        });
        Ok((scores, low, about, protocol))
    }
}
