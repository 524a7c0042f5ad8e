//! The parts of a protocol of segmentation, and what they make of a model.

use serde_json::{Value, json};

use super::datasets::SegmentationDataset;
use super::published_datasets::Background;
use super::segmentation::THRESHOLD;
use crate::error::Result;
use crate::inference::class_vectors::ClassVectors;
use crate::inference::classes::ClassNames;
use crate::inference::fusion::Fusion;
use crate::inference::model::Model;
use crate::inference::names::NameRule;
use crate::inference::pamr::Pamr;
use crate::inference::segmenter::Segmenter;
use crate::inference::templates;
use crate::inference::window::{Resize, Window};
use crate::towers::Dense;

/// All parts of a protocol of segmentation.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// How images are cut.
    pub window: Window,
    /// Prompt templates, by name or file.
    pub templates: String,
    /// Which embedding of the prompts represents a class.
    pub vectors: ClassVectors,
    /// Which names of a class are in the prompts.
    pub names: ClassNames,
    /// Which patch features are used.
    pub dense: Dense,
    /// What is averaged where windows overlap.
    pub fusion: Fusion,
    /// Iterations of PAMR; 0 = none.
    pub pamr: usize,
    /// With a background by threshold: minimum probability, or score, of a class.
    pub threshold: f64,
    /// Scale of the similarities before the softmax that this threshold is for; `None` = the logit scale that the model learned.
    pub scale: Option<f64>,
    /// Whether and how labels are decided by all names instead of by classes.
    pub decision: Decision,
    /// Where no class has as high a score as this, a patch that is not foreground is background, with features that say what is
    /// foreground.
    pub sure: Option<f64>,
}

/// What labels are decided by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision {
    /// The scores of classes.
    Classes,
    /// A softmax over all names, of which the best of each class counts. `threshold` and `scale` are for it, and PAMR refines the
    /// similarities at the size of the image.
    Names {
        /// Of the pixels that are not background, the share that a class must exceed.
        least_area: Option<f64>,
    },
}

/// TCL's frame, as the SimZSS paper uses it.
pub(super) fn tcl(_: &str) -> Parts {
    Parts {
        window: Window::PUBLISHED,
        templates: "imagenet".to_owned(),
        vectors: ClassVectors::Caption,
        names: ClassNames::Plain,
        dense: Dense::Tokens,
        fusion: Fusion::Similarity,
        pamr: 0,
        threshold: THRESHOLD,
        scale: None,
        decision: Decision::Classes,
        sure: None,
    }
}

impl Parts {
    /// Those of an evaluation without options: `tcl`'s for a published dataset; for a folder of the user (`folder`) the size of the
    /// training images, and the class vectors that suit the model.
    pub fn usual(folder: bool, model: &Model) -> Self {
        if !folder {
            return tcl("");
        }
        let window = Window {
            short: model.size,
            side: model.size,
            stride: (model.size / 2).max(1),
            resize: Resize::Float,
            ..Window::PUBLISHED
        };
        Self { window, vectors: model.vectors, ..tcl("") }
    }

    /// A model that segments the images of a dataset in this way. Its patch features are those that the model is opened with.
    pub fn segmenter(&self, model: Model, set: &SegmentationDataset) -> Result<Segmenter> {
        let by_threshold = set.background == Some(Background::Threshold);
        let classes = set.classes.iter().skip(usize::from(by_threshold));
        let words: Vec<Vec<String>> = classes.map(|class| class.prompts(self.names)).collect();
        let prompts = templates::read(&self.templates)?;
        let mut segmenter = Segmenter::new(model, &words, &prompts, self.vectors, self.window)?;
        segmenter.fusion = self.fusion;
        segmenter.sure = self.sure;
        let pamr = |dilations: &[i64]| {
            (self.pamr > 0).then(|| Pamr { iterations: self.pamr, dilations: dilations.to_vec() })
        };
        match self.decision {
            Decision::Classes => segmenter.pamr = pamr(&Pamr::DILATIONS),
            Decision::Names { least_area } => {
                segmenter.names = Some(NameRule {
                    scale: self.scale.unwrap_or_else(|| segmenter.model.text.logit_scale().double_value(&[])),
                    threshold: self.threshold,
                    least_area,
                    pamr: pamr(&Pamr::NACLIPS_DILATIONS),
                });
            }
        }
        Ok(segmenter)
    }

    /// The values of the options that give the parts, as JSON.
    pub fn options(&self) -> [(&'static str, Value); 13] {
        let Window { short, long, side, stride, resize, .. } = self.window;
        [
            ("--size", json!(short)),
            ("--long-side", json!(long)),
            ("--window", json!(side)),
            ("--stride", json!(stride)),
            ("--resize", json!(resize)),
            ("--templates", json!(self.templates)),
            ("--class-vectors", json!(self.vectors)),
            ("--class-names", json!(self.names)),
            ("--dense", json!(self.dense)),
            ("--fusion", json!(self.fusion)),
            ("--pamr", json!(self.pamr)),
            ("--threshold", json!(self.threshold)),
            ("--scale", json!(self.scale)),
        ]
    }
}
