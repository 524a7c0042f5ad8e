//! The settings of a run: TOML files, of which later ones replace values of earlier ones, and `--set section.key=value` on
//! the command line, which replaces any of them.
//!
//! The comments below are also the reference page `docs/settings.md`; after a change, renew it with
//! `UPDATE=1 cargo test -p simzss-trainer settings_page`.

mod data;
mod objective;
#[cfg(test)]
mod page;
mod read;
mod text;

use std::path::PathBuf;
use std::time::Duration;

use loader::CropKind;
use serde::{Deserialize, Serialize};

use crate::device::Precision;
use crate::error::{Error, Result};
use crate::method::groups::LrFactors;
use crate::method::objective::{Objective, ObjectiveSettings};
use crate::method::optimizer::OptimizerSettings;
use crate::method::unmentioned::Siblings;
use crate::towers::{
    ClipShape, Embedding, HeadSettings, MOST_BLOCKS, Normalization, PositionResize, RopePeriods,
};

pub use data::DataSettings;
pub use text::TextSettings;

/// All settings of a training run.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Required. Run folder on a local disk: gets the checkpoints, the log, the settings and a copy of the frozen vision
    /// tower.
    pub out: PathBuf,
    /// Random seed of the initial weights, the order of samples and their crops.
    pub seed: u64,
    /// Number of optimizer steps.
    pub steps: u64,
    /// `auto` (the first GPU if there is one, otherwise the CPU), `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Number format in which the towers compute: `float32`, `bfloat16`, `bfloat16-vision` (bfloat16 for the frozen vision tower, float32
    /// for everything else), `float8-vision` (float8 for the products in the blocks of the frozen vision tower, bfloat16 for its other
    /// parts; everything else in bfloat16 on a GPU, in float32 on a CPU), or `auto`: bfloat16 on a GPU, `bfloat16-vision` on a CPU that has
    /// AVX512-BF16, float32 on another; with `data.features`, as these were computed, unless that is float8, which `auto` never chooses. A
    /// run saves what `auto` has chosen and is resumed with it.
    pub precision: Precision,
    /// CPU threads of libtorch; 0 = one per core, but not more than the CPU limit of a container and, on a CPU, than
    /// other programs leave free.
    pub threads: usize,
    /// Memory saver, as GradCache: each process embeds its part of the batch in pieces of this many samples. The loss still
    /// compares the whole global batch, and the gradients are the same. 0 = all samples at once.
    pub micro_batch: usize,
    /// Steps between two lines of the log.
    pub log_every: u64,
    /// Write TensorBoard event files to `tensorboard/` in the run folder.
    pub tensorboard: bool,
    /// Peak speed of the device in TFLOP/s (10^12 operations per second). With it the log shows the model FLOPs utilization
    /// (MFU). 0 = not shown.
    pub peak_tflops: f64,
    /// Seconds that the processes (ranks) of a run wait for each other before the run fails.
    pub timeout: u64,
    /// When checkpoints are written and which are kept. SIGINT, SIGTERM and SIGUSR1 always write one before the run stops.
    pub checkpoint: CheckpointSettings,
    /// Evaluation of every checkpoint during training: segmentation, as by `trainer eval segmentation` without options.
    pub evaluation: EvaluationSettings,
    /// The training shards, and how batches are made of them.
    pub data: DataSettings,
    /// The concept vocabulary (the paper's concept bank): which concepts take part in the concept loss of `simzss`.
    pub bank: BankSettings,
    /// The frozen vision tower. With `objective.name = "clip"`, which has none, only `mean` and `std` are used.
    pub vision: VisionSettings,
    /// Size of the vision tower that `objective.name = "clip"` trains.
    pub clip: ClipShape,
    /// Size of the text tower, which is trained (frozen with `objective.name = "talk2dino"`), and the weights it starts with.
    pub text: TextSettings,
    /// The losses.
    pub objective: ObjectiveSettings,
    /// AdamW and the learning rate schedule: linear warm-up, then cosine decay to 0.
    pub optimizer: OptimizerSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            out: PathBuf::new(),
            seed: 0,
            steps: 1000,
            device: "auto".to_owned(),
            precision: Precision::Auto,
            threads: 0,
            micro_batch: 0,
            log_every: 10,
            tensorboard: true,
            peak_tflops: 0.0,
            timeout: 1800,
            checkpoint: CheckpointSettings::default(),
            evaluation: EvaluationSettings::default(),
            data: DataSettings::default(),
            bank: BankSettings::default(),
            vision: VisionSettings::default(),
            clip: ClipShape::default(),
            text: TextSettings::default(),
            objective: ObjectiveSettings::default(),
            optimizer: OptimizerSettings::default(),
        }
    }
}

/// When checkpoints are written and which are kept.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Default)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Steps between two checkpoints; 0 = only one, at the end.
    pub every: u64,
    /// Minutes between two checkpoints; 0 = only one, at the end.
    pub minutes: f64,
    /// How many checkpoints to keep: the newest, and in addition the best one if checkpoints are evaluated. 0 = all.
    pub keep: usize,
    /// Folder or address, such as `s3://bucket/run`, that gets a copy of every checkpoint and of the other files that are
    /// needed to use it. If a copy fails, a message is printed and the run continues. With `--resume` and no run in `out`,
    /// the newest checkpoint is fetched from there.
    pub copy_to: Option<PathBuf>,
}

impl CheckpointSettings {
    /// Whether a checkpoint is to be written after `step`, when the last one was written `since` ago.
    pub fn is_due(&self, step: u64, since: Duration) -> bool {
        (self.every > 0 && step.is_multiple_of(self.every))
            || (self.minutes > 0.0 && since.as_secs_f64() > 60.0 * self.minutes)
    }
}

/// Evaluation of every checkpoint during training.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationSettings {
    /// Folder or address of the evaluation dataset; if not set, checkpoints are not evaluated.
    pub data: Option<PathBuf>,
    /// Name of a published dataset, such as `voc20`, or `folder`; see `trainer eval segmentation --help`.
    pub dataset: String,
    /// Use only the first N images; 0 = all.
    pub limit: usize,
}

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self { data: None, dataset: "folder".to_owned(), limit: 0 }
    }
}

/// The concept vocabulary (the paper's concept bank).
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct BankSettings {
    /// File or address with one concept per line. If not set, the vocabulary is every concept that the sidecars of the shards mention
    /// at least `min_mentions` times.
    pub names: Option<PathBuf>,
    /// Without `names`: folder or address of the statistics of all the shards, as `tools stats` writes them (`tools merge` for several
    /// folders), from which the vocabulary is read instead of from every sidecar. The vocabulary is the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistics: Option<PathBuf>,
    /// Without `names`: minimum number of mentions of a concept.
    pub min_mentions: u64,
    /// How a mention is matched with the vocabulary: `longest` (the longest run of its words that ends at the head noun and
    /// is in the vocabulary: "leather couch" matches "couch") or `strict` (as the authors' code: the whole concept must be in
    /// the vocabulary: "leather couch" does not match "couch", "two red couches" does).
    pub matching: concepts::Matching,
}

impl Default for BankSettings {
    fn default() -> Self {
        Self { names: None, statistics: None, min_mentions: 1, matching: concepts::Matching::Longest }
    }
}

/// The frozen vision tower.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Default)]
#[serde(default, deny_unknown_fields)]
pub struct VisionSettings {
    /// Required unless `objective.name = "clip"`. Weights file, PyTorch (.pth, .pt, .bin) or safetensors, with the state-dict
    /// keys of DINOv2, DINOv3, timm, Hugging Face or the SimZSS release. Width, depth and patch size follow from the tensors.
    pub weights: PathBuf,
    /// Weights file of a DVT denoiser (from DVT or the SimZSS release), which is applied to the patch features. Leave it out
    /// if the file of `weights` already contains a denoiser.
    pub denoiser: Option<PathBuf>,
    /// How the position embedding is resized to another image size: as in `dinov2`, `timm` or `huggingface`. If not set, as in
    /// the library whose state-dict keys `weights` has: timm's for files of timm and SimZSS, DINOv2's for its own.
    pub position: Option<PositionResize>,
    /// For towers with rotary positions (DINOv3): `file` (the periods in the weights file, which DINOv3 rounds to bfloat16; `exact`
    /// if it holds none, as files of timm and Hugging Face) or `exact` (computed in float32, as timm and Hugging Face do).
    pub rope_periods: RopePeriods,
    /// Mean per channel (red, green, blue; pixel values 0 to 1), subtracted from the image. If not set, the one with which the family
    /// of the tower was trained: ImageNet's [0.485, 0.456, 0.406] for DINOv2, DINOv3 and `clip`, 0 for TIPSv2, 0.5
    /// for SigLIP.
    pub mean: Option<[f64; 3]>,
    /// Standard deviation per channel, by which the image is divided after that. If not set, ImageNet's [0.229, 0.224, 0.225] or, for
    /// TIPSv2, 1, for SigLIP, 0.5.
    pub std: Option<[f64; 3]>,
    /// Embedding of an image: `class` (its class token, as in the paper) or `class+mean` (class token and mean of the patch tokens, as
    /// in dino.txt; text embeddings are then twice as wide as tokens, and their second half is compared with patches).
    pub embedding: Embedding,
    /// The trained blocks behind the frozen vision tower.
    pub head: HeadSettings,
}

impl VisionSettings {
    /// `mean` and `std`, or those of the tower where they are not set.
    pub fn normalization(&self, of_tower: Normalization) -> Normalization {
        Normalization { mean: self.mean.unwrap_or(of_tower.mean), std: self.std.unwrap_or(of_tower.std) }
    }
}

impl Settings {
    /// Settings of which every key is written, also those that are left out where they have their default.
    fn with_every_key() -> serde_json::Value {
        let mut settings = Self::default();
        settings.text.weights = Some(PathBuf::new());
        settings.bank.statistics = Some(PathBuf::new());
        (settings.text.new_projection, settings.text.quick_gelu) = (true, true);
        settings.optimizer.factor =
            LrFactors { text: 0.0, projection: 0.0, head: 0.0, vision: 0.0, logits: 0.0 };
        settings.optimizer.frozen = vec![String::new()];
        let objective = &mut settings.objective;
        (objective.siblings, objective.doubtful.start) = (Siblings::Ignore, 1);
        (objective.doubtful.added_weight, objective.doubtful.added_threshold) = (1.0, 1.0);
        objective.patch_weight = 1.0;
        (objective.separation_weight, objective.shortcut_check) = (1.0, true);
        objective.image_negatives_weight = 1.0;
        objective.gram_weight = 1.0;
        serde_json::to_value(settings).unwrap_or_default()
    }

    /// Rejects values that no run could use, before anything is read or written.
    fn check(&self) -> Result<()> {
        let refuse = |name: &str, problem: &str| {
            Err(Error::Setting { name: name.to_owned(), problem: problem.to_owned() })
        };
        let data = &self.data;
        if self.out.as_os_str().is_empty() {
            return refuse("out", "(run folder) is missing; add --set out=DIR");
        }
        if storage::Location::from(&self.out).is_remote() {
            return refuse(
                "out",
                "(run folder) must be a folder on a local disk, where checkpoints are renamed and the folder is locked; to keep \
                 a copy of the run in a store, add --set checkpoint.copy_to=ADDRESS",
            );
        }
        if self.checkpoint.copy_to.as_ref().is_some_and(|target| target.starts_with("hf:")) {
            return refuse("checkpoint.copy_to", "cannot be written: hf:// can be read only");
        }
        for (name, path) in [
            ("data.features", data.features.as_deref()),
            ("data.cache.folder", data.loading.cache.as_ref().map(|cache| cache.folder.as_path())),
        ] {
            if path.is_some_and(|path| storage::Location::from(path).is_remote()) {
                return refuse(
                    name,
                    "must be a folder on a local disk, because its files are read again and again",
                );
            }
        }
        if self.bank.names.is_some() && self.bank.statistics.is_some() {
            return refuse("bank.statistics", "has an effect only without bank.names; leave one of them out");
        }
        if data.shards.is_empty() {
            return refuse("data.shards", "(training shards) is missing; add --set data.shards=\"['DIR']\"");
        }
        let clip = self.objective.name == Objective::Clip;
        if clip && data.features.is_some() {
            return refuse(
                "data.features",
                "holds features of a frozen vision tower, but objective clip trains its vision tower; remove one of both",
            );
        }
        if clip && (self.clip.width < 64 || self.clip.width % 64 != 0) {
            return refuse("clip.width", "must be a multiple of 64");
        }
        if clip && (self.clip.patch < 1 || i64::from(data.loading.size) % self.clip.patch != 0) {
            return refuse("clip.patch", "must divide data.size");
        }
        if !(0..=MOST_BLOCKS).contains(&self.vision.head.blocks) {
            return refuse("vision.head.blocks", &format!("must be 0 to {MOST_BLOCKS}"));
        }
        if !(0.0..1.0).contains(&self.vision.head.drop_path) {
            return refuse("vision.head.drop_path", "must be at least 0 and less than 1");
        }
        if clip && (self.vision.head.blocks > 0 || self.vision.embedding != Embedding::Class) {
            let name = if self.vision.head.blocks > 0 { "vision.head.blocks" } else { "vision.embedding" };
            return refuse(
                name,
                "is for a frozen vision tower, but objective clip trains its own; leave it out",
            );
        }
        if self.objective.logit_scale.is_some_and(|scale| !(1.0..=100.0).contains(&scale)) {
            return refuse("objective.logit_scale", "must be 1 to 100");
        }
        if let Some((name, problem)) = self.problem_of_objective() {
            return refuse(name, &problem);
        }
        if !clip && self.vision.weights.as_os_str().is_empty() {
            return refuse(
                "vision.weights",
                "(weights of the frozen vision tower) is missing; add --set vision.weights=FILE (.pth, .pt, .bin or \
                 .safetensors)",
            );
        }
        if !data.weights.is_empty() && data.weights.len() != data.shards.len() {
            return refuse("data.weights", "must have one weight per entry of data.shards");
        }
        for (name, value) in [("steps", self.steps), ("log_every", self.log_every)] {
            if value == 0 {
                return refuse(name, "must be at least 1");
            }
        }
        if self.text.heads < 1 || self.text.width % self.text.heads != 0 {
            return refuse("text.heads", "must divide text.width");
        }
        if self.text.weights.is_none() && self.text.new_projection {
            return refuse("text.new_projection", "has an effect only with text.weights; leave it out");
        }
        if let Some((name, problem)) = data.loading.problem() {
            return refuse(&format!("data.{name}"), problem);
        }
        if data.features.is_some() && (data.loading.crop == CropKind::Random || data.loading.flip > 0.0) {
            return refuse(
                "data.features",
                "holds features of centre crops; add --set data.crop=centre --set data.flip=0",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_due_after_steps_or_minutes() {
        let settings = |every, minutes| CheckpointSettings { every, minutes, ..Default::default() };
        let due = |of: &CheckpointSettings, step, seconds| of.is_due(step, Duration::from_secs(seconds));
        assert!(!due(&settings(0, 0.0), 100, 1_000_000), "only at the end");
        let both = settings(10, 1.5);
        assert!(due(&both, 20, 0) && due(&both, 21, 91));
        assert!(!due(&both, 21, 90));
    }
}
