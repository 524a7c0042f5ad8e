//! The options of `trainer eval segmentation` that are parts of a protocol.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use trainer::evaluation::protocol::{Parts, Protocol};
use trainer::inference::class_vectors::ClassVectors;
use trainer::inference::classes::ClassNames;
use trainer::inference::fusion::Fusion;
use trainer::inference::model::{DenseFiles, Model};
use trainer::inference::window::{Resize, Window};
use trainer::towers::Dense;
use trainer::{Error, Result};

use crate::commands::choices;

#[derive(Debug, Args)]
pub(crate) struct PartsArgs {
    /// A published protocol by its name. It fixes all parts below, down to --class-vectors; an option that differs from it is refused, and
    /// so is a dataset that it has no prompts for. `sclip`, `naclip`, `clearclip` and `proxyclip` need the list of names of their authors
    /// for the dataset, as --class-file.
    #[arg(long, value_parser = choices::protocol())]
    pub(super) protocol: Option<&'static Protocol>,
    /// Resize the short side of the images to this many pixels [default: 448; with `--dataset folder` the image size in training].
    #[arg(long)]
    size: Option<u32>,
    /// How the images are resized [default: opencv; with `--dataset folder` float].
    #[arg(long, value_parser = choices::resize())]
    resize: Option<Resize>,
    /// Maximum long side in pixels; longer images get a smaller short side. 0 = no limit [default: 2048].
    #[arg(long)]
    long_side: Option<u32>,
    /// Side of the sliding window in pixels [default: the short side].
    #[arg(long)]
    window: Option<u32>,
    /// Step of the sliding window in pixels [default: half the window].
    #[arg(long)]
    stride: Option<u32>,
    #[command(flatten)]
    dense: DenseArgs,
    /// What is averaged where windows overlap [default: similarity].
    #[arg(long, value_parser = choices::fusion())]
    pub(super) fusion: Option<Fusion>,
    /// Iterations of pixel-adaptive mask refinement (PAMR) of the similarities in each window; the papers that use it have 10.
    /// 0 = no refinement [default: 0].
    #[arg(long)]
    pamr: Option<usize>,
    /// With `--background threshold`: minimum softmax probability of a class, or minimum score with another fusion than `similarity`;
    /// pixels where all classes are below it are background [default: 0.4].
    #[arg(long)]
    pub(super) threshold: Option<f64>,
    /// With `--background threshold`: scale of the similarities before the softmax [default: the logit scale that the
    /// model learned].
    #[arg(long)]
    pub(super) scale: Option<f64>,
    /// Prompt templates for the class names: `imagenet` (the 80 of CLIP), `imagenet7` (seven of these), `tcl9` (the seven and two with
    /// plurals), `maskclip85` (the 80 and five of MaskCLIP), `simple` ("a photo of a {}.") or a file with one template per line [default: imagenet].
    #[arg(long)]
    templates: Option<String>,
    /// Embedding of a class [default: `caption`, as in the published protocol; with `--dataset folder`: `concept` for models
    /// trained with simzss, `caption` for the others].
    #[arg(long, value_parser = choices::class_vectors())]
    class_vectors: Option<ClassVectors>,
    /// Which names of a class are used in the prompts [default: plain; with --classes or --class-file: all that the list has].
    #[arg(long, value_parser = choices::class_names(), alias = "words")]
    class_names: Option<ClassNames>,
}

impl PartsArgs {
    /// The protocol for a dataset: the one that is named, or that the options describe. `own_names`: the class names are those of the
    /// user.
    pub(super) fn parts(&self, model: &Model, dataset: &str, own_names: bool) -> Parts {
        if let Some(protocol) = self.protocol {
            return protocol.parts(dataset);
        }
        // 0 also stands for the default.
        let own = |value: Option<u32>, default: i64| match value {
            None | Some(0) => default,
            Some(value) => i64::from(value),
        };
        let usual = Parts::usual(dataset == "folder", model);
        let short = own(self.size, usual.window.short);
        let side = own(self.window, short);
        Parts {
            window: Window {
                short,
                long: self.long_side.map_or(usual.window.long, i64::from),
                side,
                stride: own(self.stride, (side / 2).max(1)),
                resize: self.resize.unwrap_or(usual.window.resize),
                edges: usual.window.edges,
            },
            templates: self.templates.clone().unwrap_or(usual.templates),
            vectors: self.class_vectors.unwrap_or(usual.vectors),
            names: self.class_names.unwrap_or(if own_names { ClassNames::Synonyms } else { usual.names }),
            dense: self.dense.dense.unwrap_or(usual.dense),
            fusion: self.fusion.unwrap_or(usual.fusion),
            pamr: self.pamr.unwrap_or(usual.pamr),
            threshold: self.threshold.unwrap_or(usual.threshold),
            scale: self.scale,
            decision: usual.decision,
            sure: usual.sure,
        }
    }

    /// The patch features, and the files that they need.
    pub(super) fn dense(&self) -> (Dense, DenseFiles) {
        let (dense, files) = self.dense.dense();
        (self.protocol.map_or(dense, |protocol| protocol.parts("").dense), files)
    }

    /// An error if a protocol is given that has no prompts for the dataset, or whose parts other options change.
    pub(super) fn check(&self, dataset: &str) -> Result<()> {
        let (dense, files) = self.dense();
        files.check(dense)?;
        let Some(protocol) = self.protocol else { return Ok(()) };
        let name = protocol.name;
        if !protocol.datasets.contains(&dataset) {
            let problem = format!(
                "is {name}, which has prompts for {} only, not for {}; to evaluate in a similar way, leave it out and give its parts as \
                 options",
                protocol.datasets.join(", "),
                dataset
            );
            return Err(Error::Setting { name: "--protocol".to_owned(), problem });
        }
        let given = [
            json!(self.size),
            json!(self.long_side),
            json!(self.window),
            json!(self.stride),
            json!(self.resize),
            json!(self.templates),
            json!(self.class_vectors),
            json!(self.class_names),
            json!(self.dense.dense),
            json!(self.fusion),
            json!(self.pamr),
            json!(self.threshold),
            json!(self.scale),
        ];
        let fixed = protocol.parts(dataset).options();
        let differs =
            fixed.iter().zip(&given).find(|((_, fixed), given)| !given.is_null() && fixed != *given);
        let problem = |fixed: &Value, given: &Value| {
            let fixed = if fixed.is_null() { "what the model learned".to_owned() } else { fixed.to_string() };
            format!("is {given}, but --protocol {name} fixes it to {fixed}; leave out one of both")
                .replace('"', "")
        };
        if let Some(((option, fixed), given)) = differs {
            return Err(Error::Setting { name: (*option).to_owned(), problem: problem(fixed, given) });
        }
        Ok(())
    }
}

/// Which patch features are used, and the files that some of them need.
#[derive(Debug, Clone, Args)]
pub(crate) struct DenseArgs {
    /// Which patch features are used [default: tokens].
    #[arg(long, value_parser = choices::dense())]
    dense: Option<Dense>,
    /// With `--dense proxyclip`: weights of the vision tower whose patches say which belong together, PyTorch or safetensors, with the
    /// state-dict keys of any family that `trainer convert` knows; the authors use DINO v1's ViT-B/8.
    #[arg(long, value_name = "FILE")]
    proxy_weights: Option<PathBuf>,
    /// With `--dense clip-dinoiser`: the authors' checkpoint with its two convolutions.
    #[arg(long, value_name = "FILE")]
    dinoiser_weights: Option<PathBuf>,
}

impl DenseArgs {
    /// The patch features, and the files that they need.
    pub(super) fn dense(&self) -> (Dense, DenseFiles) {
        let files = DenseFiles { proxy: self.proxy_weights.clone(), dinoiser: self.dinoiser_weights.clone() };
        (self.dense.unwrap_or_default(), files)
    }
}
