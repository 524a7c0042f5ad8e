//! Published protocols of segmentation, by name: each fixes everything that influences a score but the model.

use super::baselines;
use super::protocol_parts::tcl;
pub use super::protocol_parts::{Decision, Parts};
use super::published_datasets::{Background, PUBLISHED};
use crate::inference::class_vectors::ClassVectors;
use crate::inference::classes::ClassNames;
use crate::inference::fusion::Fusion;
use crate::inference::window::{Resize, Window};
use crate::towers::Dense;

/// A published protocol.
#[derive(Debug)]
pub struct Protocol {
    /// Name for `--protocol`.
    pub name: &'static str,
    /// Description.
    pub about: &'static str,
    /// The datasets that it has prompts for.
    pub datasets: &'static [&'static str],
    /// How the class background is predicted where the dataset has one, if not as in TCL's frame.
    pub background: Option<Background>,
    /// What separates the names of a class in its lists, which are its authors' files: `--class-file` reads one. `None` = it has the
    /// names of the datasets.
    pub separator: Option<&'static str>,
    parts: fn(&str) -> Parts,
}

/// The datasets of TCL's frame.
const EIGHT: [&str; 8] =
    ["voc20", "voc21", "context59", "context60", "coco-stuff171", "coco-object81", "cityscapes19", "ade150"];

/// The protocols. Any two differ in several parts, so their scores cannot be compared.
pub static PROTOCOLS: [Protocol; 10] = [
    Protocol {
        name: "tcl",
        about: "TCL's frame with CLIP's 80 prompts and without refinement, as in the SimZSS paper",
        datasets: &EIGHT,
        background: None,
        separator: None,
        parts: tcl,
    },
    Protocol {
        name: "dinotxt",
        about: "dino.txt's: short side 512 px, windows of 384 px, 80 prompts, softmax",
        datasets: &["cityscapes19", "ade150"],
        background: None,
        separator: None,
        parts: |set| Parts {
            window: Window {
                short: 512,
                long: 0,
                side: 384,
                stride: 192,
                resize: Resize::Bicubic,
                ..Window::PUBLISHED
            },
            names: ClassNames::Dataset,
            fusion: Fusion::Softmax,
            ..tcl(set)
        },
    },
    Protocol {
        name: "tips",
        about: "TIPSv2's: windows of 448 px in steps of 336 px, 9 prompts, values of the last block, softmax",
        datasets: &["ade150"],
        background: None,
        separator: None,
        parts: |set| Parts {
            window: Window {
                short: 448,
                long: 0,
                side: 448,
                stride: 336,
                resize: Resize::Bicubic,
                ..Window::PUBLISHED
            },
            templates: "tcl9".to_owned(),
            names: ClassNames::Dataset,
            dense: Dense::Values,
            fusion: Fusion::Softmax,
            ..tcl(set)
        },
    },
    Protocol {
        name: "talk2dino",
        about: "Talk2DINO's for ViT-B: TCL's frame with 7 prompts, sigmoid, PAMR, and background below 0.55",
        datasets: &EIGHT,
        background: None,
        separator: None,
        parts: |set| Parts {
            templates: "imagenet7".to_owned(),
            vectors: ClassVectors::Unscaled,
            names: ClassNames::Dataset,
            fusion: Fusion::Sigmoid,
            pamr: 10,
            threshold: 0.55,
            ..tcl(set)
        },
    },
    Protocol {
        name: "sclip",
        about: "SCLIP's: windows of 224 px, softmax over all names of its lists, small areas left out in voc21",
        datasets: &EIGHT,
        background: Some(Background::Words),
        separator: Some(", "),
        parts: baselines::sclip,
    },
    Protocol {
        name: "naclip",
        about: "NACLIP's: windows of 224 px or the whole image, softmax over all names of its lists, PAMR",
        datasets: &EIGHT,
        background: Some(Background::Words),
        separator: Some(", "),
        parts: baselines::naclip,
    },
    Protocol {
        name: "clearclip",
        about: "ClearCLIP's: windows of 448 px, softmax over all names of its lists",
        datasets: &EIGHT,
        background: Some(Background::Words),
        separator: Some(","),
        parts: baselines::clearclip,
    },
    Protocol {
        name: "proxyclip",
        about: "ProxyCLIP's: windows of 336 px, softmax over all names of its lists",
        datasets: &EIGHT,
        background: Some(Background::Words),
        separator: Some("; "),
        parts: baselines::proxyclip,
    },
    Protocol {
        name: "maskclip",
        about: "MaskCLIP's: whole images, 85 prompts",
        datasets: &["voc20", "context59", "coco-stuff171", "cityscapes19"],
        background: None,
        separator: None,
        parts: baselines::maskclip,
    },
    Protocol {
        name: "clip-dinoiser",
        about: "CLIP-DINOiser's: windows of 448 px, softmax of patches, background by its convolution",
        datasets: &EIGHT,
        background: Some(Background::Words),
        separator: None,
        parts: baselines::clip_dinoiser,
    },
];

impl Protocol {
    /// Its parts for a dataset.
    pub fn parts(&self, dataset: &str) -> Parts {
        (self.parts)(dataset)
    }

    /// How the class background of a dataset is predicted, which is predicted by `usual` in TCL's frame; `None` without such a class.
    pub fn background_of(&self, usual: Option<Background>) -> Option<Background> {
        match usual {
            Some(Background::Threshold | Background::Words) => self.background.or(usual),
            _ => usual,
        }
    }

    /// The protocol that has exactly these parts for a dataset, of which class 0 is predicted by `background`; `None` if none has.
    pub fn of(dataset: &str, background: Option<Background>, parts: &Parts) -> Option<&'static Self> {
        let set = PUBLISHED.iter().find(|set| set.name == dataset)?;
        PROTOCOLS.iter().find(|protocol| {
            let mut own = protocol.parts(dataset);
            if background != Some(Background::Threshold) && own.decision == Decision::Classes {
                // Without effect.
                (own.threshold, own.scale) = (parts.threshold, parts.scale);
            }
            let as_published = protocol.background_of(set.background) == background;
            protocol.datasets.contains(&dataset) && as_published && own == *parts
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::templates;

    #[test]
    fn protocols_are_found_by_their_parts() {
        for protocol in &PROTOCOLS {
            for dataset in protocol.datasets {
                let set = PUBLISHED.iter().find(|set| set.name == *dataset).unwrap();
                let background = protocol.background_of(set.background);
                let found = Protocol::of(dataset, background, &protocol.parts(dataset)).unwrap();
                assert_eq!(found.name, protocol.name);
            }
        }
        for protocol in &PROTOCOLS[..4] {
            let parts = protocol.parts("ade150");
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
        let prompts = |protocol: &Protocol| templates::read(&protocol.parts("").templates).unwrap().len();
        assert_eq!(PROTOCOLS.iter().map(prompts).collect::<Vec<_>>(), [80, 80, 9, 7, 80, 80, 80, 80, 85, 80]);
    }
}
