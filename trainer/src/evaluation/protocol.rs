//! Published protocols of segmentation, by name: each fixes everything that influences a score but the model.

use serde_json::{Value, json};

use super::datasets::SegmentationDataset;
use super::published_datasets::{Background, PUBLISHED};
use super::segmentation::THRESHOLD;
use crate::error::Result;
use crate::inference::class_vectors::ClassVectors;
use crate::inference::classes::ClassNames;
use crate::inference::fusion::Fusion;
use crate::inference::model::Model;
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
}

/// A published protocol.
#[derive(Debug)]
pub struct Protocol {
    /// Name for `--protocol`.
    pub name: &'static str,
    /// Description.
    pub about: &'static str,
    /// The datasets that it has prompts for.
    pub datasets: &'static [&'static str],
    parts: fn() -> Parts,
}

/// The datasets of TCL's frame.
const EIGHT: [&str; 8] =
    ["voc20", "voc21", "context59", "context60", "coco-stuff171", "coco-object81", "cityscapes19", "ade150"];

fn tcl() -> Parts {
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
    }
}

/// The protocols. Any two differ in several parts, so their scores cannot be compared.
pub static PROTOCOLS: [Protocol; 4] = [
    Protocol {
        name: "tcl",
        about: "TCL's frame with CLIP's 80 prompts and without refinement, as in the SimZSS paper",
        datasets: &EIGHT,
        parts: tcl,
    },
    Protocol {
        name: "dinotxt",
        about: "dino.txt's: short side 512 px, windows of 384 px, 80 prompts, softmax",
        datasets: &["cityscapes19", "ade150"],
        parts: || Parts {
            window: Window { short: 512, long: 0, side: 384, stride: 192, resize: Resize::Bicubic },
            names: ClassNames::Dataset,
            fusion: Fusion::Softmax,
            ..tcl()
        },
    },
    Protocol {
        name: "tips",
        about: "TIPSv2's: windows of 448 px in steps of 336 px, 9 prompts, values of the last block, softmax",
        datasets: &["ade150"],
        parts: || Parts {
            window: Window { short: 448, long: 0, side: 448, stride: 336, resize: Resize::Bicubic },
            templates: "tcl9".to_owned(),
            names: ClassNames::Dataset,
            dense: Dense::Values,
            fusion: Fusion::Softmax,
            ..tcl()
        },
    },
    Protocol {
        name: "talk2dino",
        about: "Talk2DINO's for ViT-B: TCL's frame with 7 prompts, sigmoid, PAMR, and background below 0.55",
        datasets: &EIGHT,
        parts: || Parts {
            templates: "imagenet7".to_owned(),
            vectors: ClassVectors::Unscaled,
            names: ClassNames::Dataset,
            fusion: Fusion::Sigmoid,
            pamr: 10,
            threshold: 0.55,
            ..tcl()
        },
    },
];

impl Protocol {
    /// Its parts.
    pub fn parts(&self) -> Parts {
        (self.parts)()
    }

    /// The protocol that has exactly these parts for a dataset, of which class 0 is predicted by `background`; `None` if none has.
    pub fn of(dataset: &str, background: Option<Background>, parts: &Parts) -> Option<&'static Self> {
        let set = PUBLISHED.iter().find(|set| set.name == dataset)?;
        if set.background != background {
            return None;
        }
        PROTOCOLS.iter().find(|protocol| {
            let mut own = protocol.parts();
            if background != Some(Background::Threshold) {
                // Without effect.
                (own.threshold, own.scale) = (parts.threshold, parts.scale);
            }
            protocol.datasets.contains(&dataset) && own == *parts
        })
    }
}

impl Parts {
    /// Those of an evaluation without options: `tcl`'s for a published dataset; for a folder of the user (`folder`) the size of the
    /// training images, and the class vectors that suit the model.
    pub fn usual(folder: bool, model: &Model) -> Self {
        if !folder {
            return tcl();
        }
        let window = Window {
            short: model.size,
            side: model.size,
            stride: (model.size / 2).max(1),
            resize: Resize::Float,
            ..Window::PUBLISHED
        };
        Self { window, vectors: model.vectors, ..tcl() }
    }

    /// A model that segments the images of a dataset in this way. Its patch features are those that the model is opened with.
    pub fn segmenter(&self, model: Model, set: &SegmentationDataset) -> Result<Segmenter> {
        let by_threshold = set.background == Some(Background::Threshold);
        let classes = set.classes.iter().skip(usize::from(by_threshold));
        let words: Vec<Vec<String>> = classes.map(|class| class.prompts(self.names)).collect();
        let prompts = templates::read(&self.templates)?;
        let mut segmenter = Segmenter::new(model, &words, &prompts, self.vectors, self.window)?;
        segmenter.fusion = self.fusion;
        segmenter.pamr =
            (self.pamr > 0).then(|| Pamr { iterations: self.pamr, dilations: Pamr::DILATIONS.to_vec() });
        Ok(segmenter)
    }

    /// The values of the options that give the parts, as JSON.
    pub fn options(&self) -> [(&'static str, Value); 13] {
        let Window { short, long, side, stride, resize } = self.window;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_found_by_their_parts() {
        for protocol in &PROTOCOLS {
            let parts = protocol.parts();
            for dataset in protocol.datasets {
                let set = PUBLISHED.iter().find(|set| set.name == *dataset).unwrap();
                let found = Protocol::of(dataset, set.background, &parts).unwrap();
                assert_eq!(found.name, protocol.name);
            }
            for changed in [
                Parts { pamr: parts.pamr + 1, ..parts.clone() },
                Parts { window: Window { stride: 100, ..parts.window }, ..parts.clone() },
                Parts { templates: "simple".to_owned(), ..parts.clone() },
            ] {
                assert!(Protocol::of("ade150", None, &changed).is_none(), "{changed:?}");
            }
            // A threshold counts only where it decides.
            let other = Parts { threshold: 0.7, ..parts.clone() };
            assert_eq!(Protocol::of("ade150", None, &other).map(|found| found.name), Some(protocol.name));
            assert!(Protocol::of("voc21", Some(Background::Threshold), &other).is_none());
            assert!(Protocol::of("camvid11", None, &parts).is_none());
            assert!(Protocol::of("voc21", Some(Background::Words), &parts).is_none());
        }
    }

    #[test]
    fn the_numbers_of_prompts_are_the_published_ones() {
        let prompts = |protocol: &Protocol| templates::read(&protocol.parts().templates).unwrap().len();
        assert_eq!(PROTOCOLS.iter().map(prompts).collect::<Vec<_>>(), [80, 80, 9, 7]);
    }
}
