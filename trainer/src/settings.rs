//! The settings of a run: one TOML file, each value documented where it is defined, any of them replaced on the
//! command line by `--set section.name=value`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use loader::{Cache, CaptionSource, Decoding};
use serde::{Deserialize, Serialize};

use crate::device::Precision;
use crate::error::{Error, Result, at};
use crate::objective::{Objective, ObjectiveSettings};
use crate::optimizer::OptimizerSettings;
use crate::towers::{ClipShape, PositionResize, TextShape};
use crate::weights::convert::convert;
use crate::weights::{self, Family};

/// Everything a training run depends on.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Folder of the run: its checkpoints, log and a copy of the frozen tower.
    pub out: PathBuf,
    /// Seed of the initial weights, the order of samples and their crops.
    pub seed: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// What the towers compute in: `auto` (bfloat16 on a GPU), `float32` or `bfloat16`.
    pub precision: Precision,
    /// CPU threads of libtorch; 0 for one a core.
    pub threads: usize,
    /// Rows of a process computed at a time, for batches that do not fit; 0 for all of them.
    pub micro_batch: usize,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Write TensorBoard's event files beside the log.
    pub tensorboard: bool,
    /// What the device can do at most, in 10^12 operations a second, to show what share of it is used; 0 to show none.
    pub peak_tflops: f64,
    /// Seconds that ranks wait for each other before they give the run up.
    pub timeout: u64,
    /// When the run's state is saved.
    pub checkpoint: CheckpointSettings,
    /// What every checkpoint is scored on.
    pub evaluation: EvaluationSettings,
    /// Shards and how batches are made of them.
    pub data: DataSettings,
    /// Which concepts take part.
    pub bank: BankSettings,
    /// The frozen tower; of `clip`, which has none, only the normalisation.
    pub vision: VisionSettings,
    /// The vision tower that `clip` trains.
    pub clip: ClipShape,
    /// The trained text tower.
    pub text: TextShape,
    /// The losses.
    pub objective: ObjectiveSettings,
    /// AdamW and the learning rate's course.
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
            text: TextShape::default(),
            objective: ObjectiveSettings::default(),
            optimizer: OptimizerSettings::default(),
        }
    }
}

/// When the run's state is saved, and what is kept of it. A stop by SIGINT, SIGTERM or SIGUSR1 always saves.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Default)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Steps between checkpoints; 0 for none but at the end.
    pub every: u64,
    /// Minutes between checkpoints; 0 for none but at the end.
    pub minutes: f64,
    /// Newest checkpoints that are kept, and the best one by the evaluation; 0 for all.
    pub keep: usize,
    /// A folder, or an address such as `s3://bucket/run`, that gets a copy of every checkpoint and of what else the run needs.
    /// When a copy fails the run goes on, and says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_to: Option<PathBuf>,
}

/// What every checkpoint is scored on; see `trainer eval segmentation`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationSettings {
    /// Folder of the set; without it nothing is scored.
    pub data: Option<PathBuf>,
    /// A published set's name, or `folder`.
    pub dataset: String,
    /// Score only the first images; 0 for all.
    pub limit: usize,
}

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self { data: None, dataset: "folder".to_owned(), limit: 0 }
    }
}

/// Shards and how batches are made of them.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// Folders of shards, shards, or brace lists such as `set/{00000..00295}.tar`.
    pub shards: Vec<PathBuf>,
    /// Weight of each entry of `shards` as a set of its own: its share of every batch. Empty: all are one set.
    pub weights: Vec<f64>,
    /// Where captions come from: `"text"` (the .txt), or `{ json = { key = "captions", choice = "random" } }`.
    pub captions: CaptionSource,
    /// `exact` (Pillow's pixels) or `fast`.
    pub decoding: Decoding,
    /// Where remote shards are kept as they are fetched; without it just the samples are read:
    /// `{ folder = "..", limit = BYTES }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// Features of the frozen tower for these shards, written by `trainer cache`; images are then not read.
    pub features: Option<PathBuf>,
    /// Samples a step, over all ranks.
    pub batch_size: usize,
    /// Side of the training image in pixels.
    pub size: u32,
    /// `centre` (short side to `size`, centre crop) or `random` (random resized crop).
    pub crop: CropKind,
    /// Share of the image's area a random crop covers, least and most.
    pub scale: [f32; 2],
    /// Chance of a mirrored image.
    pub flip: f32,
    /// Streams that batches are drawn from; every rank owns some.
    pub streams: usize,
    /// Samples of a stream shuffled together.
    pub window: usize,
    /// Mentions a caption at most.
    pub max_mentions: usize,
    /// Tokens a mention at most; longer mentions are left out.
    pub max_mention_tokens: usize,
    /// Threads that read and decode; 0 for one a core.
    pub threads: usize,
    /// Batches made ahead.
    pub prefetch: usize,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            shards: Vec::new(),
            weights: Vec::new(),
            captions: CaptionSource::default(),
            decoding: Decoding::default(),
            cache: None,
            features: None,
            batch_size: 512,
            size: 224,
            crop: CropKind::Random,
            scale: [0.9, 1.0],
            flip: 0.0,
            streams: 64,
            window: 4096,
            max_mentions: 32,
            max_mention_tokens: 15,
            threads: 0,
            prefetch: 2,
        }
    }
}

/// How the training image is cut out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum CropKind {
    /// Short side to the image size, centre crop.
    Centre,
    /// Random resized crop.
    #[default]
    Random,
}

/// Which concepts take part.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct BankSettings {
    /// File with one concept a line; without it, every concept of the sidecars mentioned often enough.
    pub names: Option<PathBuf>,
    /// Without names: mentions a concept needs to take part.
    pub min_mentions: u64,
    /// `longest` (longest run of words that ends at the head) or `strict` (the released code's rule).
    pub matching: concepts::Matching,
}

impl Default for BankSettings {
    fn default() -> Self {
        Self { names: None, min_mentions: 1, matching: concepts::Matching::Longest }
    }
}

/// The frozen tower.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct VisionSettings {
    /// safetensors or PyTorch file in DINOv2's, timm's, Hugging Face's or SimZSS's names; its size follows from its
    /// tensors.
    pub weights: PathBuf,
    /// DVT's denoiser behind it: a file of DVT or SimZSS. A tower whose own file holds one keeps that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denoiser: Option<PathBuf>,
    /// How the position embedding is fitted to the image size: `dinov2`, `timm` or `huggingface`.
    pub position: PositionResize,
    /// Mean of the three channels that is taken off, of values 0..1. The default is ImageNet's, as DINOv2.
    pub mean: [f64; 3],
    /// What the channels are divided by after that.
    pub std: [f64; 3],
}

impl Default for VisionSettings {
    fn default() -> Self {
        Self {
            weights: PathBuf::new(),
            denoiser: None,
            position: PositionResize::default(),
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }
}

impl VisionSettings {
    /// What tells this tower from another: SHA-256 of its file, of its denoiser's too where that is another file.
    pub fn sha256(&self) -> Result<String> {
        let tower = weights::sha256(&self.weights)?;
        match &self.denoiser {
            None => Ok(tower),
            Some(path) => Ok(format!("{tower}+{}", weights::sha256(path)?)),
        }
    }

    /// Writes the tower, and its denoiser with it, as the one file that a run keeps; whole or not at all.
    pub fn copy_to(&self, target: &Path) -> Result<()> {
        if let Some(denoiser) = &self.denoiser {
            let parts = [self.weights.clone(), denoiser.clone()];
            return convert(&parts, Family::Dinov2, target).map(drop);
        }
        let temporary = concepts::files::temporary_path(target);
        fs::copy(&self.weights, &temporary).map_err(at(&self.weights))?;
        File::open(&temporary).and_then(|file| file.sync_all()).map_err(at(&temporary))?;
        fs::rename(&temporary, target).map_err(at(target))
    }
}

impl Settings {
    /// Reads settings files, of which later ones replace values of earlier ones, and applies `overrides` of the form
    /// `section.name=value`.
    pub fn read(paths: &[PathBuf], overrides: &[String]) -> Result<Self> {
        let mut table = toml::Table::new();
        for path in paths {
            let text = fs::read_to_string(path).map_err(at(path))?;
            let invalid = |problem: String| Error::Invalid { path: path.clone(), problem };
            let one: toml::Table = text.parse().map_err(|e| invalid(one_line(&e)))?;
            // Each by itself first, so that a wrong name is told with its file.
            one.clone().try_into::<Self>().map_err(|e| invalid(one_line(&e)))?;
            merge(&mut table, one);
        }
        for change in overrides {
            set(&mut table, change)?;
        }
        let settings: Self = table
            .try_into()
            .map_err(|e| Error::Setting { name: overrides.join(" "), problem: one_line(&e) })?;
        settings.check()?;
        Ok(settings)
    }

    /// Refuses values that no run could use, before anything is read or written.
    fn check(&self) -> Result<()> {
        let refuse = |name: &str, problem: &str| {
            Err(Error::Setting { name: name.to_owned(), problem: problem.to_owned() })
        };
        if self.out.as_os_str().is_empty() {
            return refuse("out", "is empty; it names the folder of the run");
        }
        if self.data.shards.is_empty() {
            return refuse("data.shards", "is empty; it names the shards, as [\"folder\"]");
        }
        let clip = self.objective.name == Objective::Clip;
        if clip && self.data.features.is_some() {
            return refuse("data.features", "holds features of a frozen tower, and clip trains its own");
        }
        if clip
            && (self.clip.patch < 1
                || self.clip.width % 64 != 0
                || i64::from(self.data.size) % self.clip.patch != 0)
        {
            return refuse(
                "clip",
                "needs a width that is a multiple of 64 and a patch that divides data.size",
            );
        }
        if !clip && self.vision.weights.as_os_str().is_empty() {
            return refuse("vision.weights", "is empty; it names the frozen tower's safetensors file");
        }
        if !self.data.weights.is_empty() && self.data.weights.len() != self.data.shards.len() {
            return refuse("data.weights", "must have one weight for each entry of data.shards");
        }
        if self.steps == 0 || self.data.batch_size == 0 || self.log_every == 0 {
            return refuse("steps, data.batch_size, log_every", "must be at least 1");
        }
        if self.text.heads < 1 || self.text.width % self.text.heads != 0 {
            return refuse("text.heads", "must divide text.width");
        }
        if !(self.data.scale[0] > 0.0
            && self.data.scale[0] <= self.data.scale[1]
            && self.data.scale[1] <= 1.0)
        {
            return refuse("data.scale", "must be two shares of the area, 0 < least <= most <= 1");
        }
        if self.data.features.is_some() && (self.data.crop == CropKind::Random || self.data.flip > 0.0) {
            return refuse(
                "data.features",
                "holds features of centre crops: set data.crop=\"centre\" and data.flip=0",
            );
        }
        Ok(())
    }
}

fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Replaces values by those of `other`, section by section.
fn merge(table: &mut toml::Table, other: toml::Table) {
    for (name, value) in other {
        match (table.get_mut(&name), value) {
            (Some(toml::Value::Table(mine)), toml::Value::Table(theirs)) => merge(mine, theirs),
            (_, value) => drop(table.insert(name, value)),
        }
    }
}

/// Puts `a.b=value` into the table; the value is TOML, or a string when it is none.
fn set(table: &mut toml::Table, change: &str) -> Result<()> {
    let problem = |problem: &str| Error::Setting { name: change.to_owned(), problem: problem.to_owned() };
    let (name, value) = change.split_once('=').ok_or_else(|| problem("is not of the form name=value"))?;
    let value = format!("value = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut path: Vec<&str> = name.split('.').collect();
    let last = path.pop().ok_or_else(|| problem("has no name"))?;
    let mut section = table;
    for part in path {
        let entry = section.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        section =
            entry.as_table_mut().ok_or_else(|| problem("names a value inside a value that is no section"))?;
    }
    section.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, overrides: &[&str]) -> Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        fs::write(&path, text).unwrap();
        Settings::read(&[path], &overrides.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    const BASE: &str = "out = 'run'\ndata.shards = ['shards']\nvision.weights = 'tower.safetensors'\n";

    #[test]
    fn values_are_replaced_by_name() {
        let changed = read(
            BASE,
            &["text.width=64", "objective.name=lit", "optimizer.lr=1e-3", "data.scale=[0.25, 1.0]"],
        )
        .unwrap();
        assert_eq!(changed.text.width, 64);
        assert_eq!(changed.objective.name, Objective::Lit);
        assert_eq!(changed.optimizer.lr, 1e-3);
        assert_eq!(changed.data.scale, [0.25, 1.0]);
        assert_eq!(changed.data.window, DataSettings::default().window, "the rest keeps its default");
    }

    /// Every ready-made file, and the combinations that its comments name.
    #[test]
    fn presets_can_be_laid_over_each_other() {
        let preset = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("presets/{name}.toml"));
        let more =
            ["out=run", "data.shards=['shards']", "vision.weights=tower.safetensors"].map(str::to_owned);
        for method in ["paper", "released", "lit", "clip"] {
            for size in ["vit-s", "vit-b"] {
                for set in ["coco", "laion"] {
                    let settings =
                        Settings::read(&[preset(set), preset(size), preset(method)], &more).unwrap();
                    assert_eq!(settings.text.width, if size == "vit-s" { 384 } else { 512 });
                    assert_eq!(settings.clip.output, settings.text.width, "{method}");
                    assert_eq!(settings.optimizer.beta2, 0.98);
                }
            }
        }
        let released = Settings::read(&[preset("coco"), preset("released")], &more).unwrap();
        assert_eq!(released.objective.target, crate::losses::Target::Argmax);
        assert_eq!(released.bank.matching, concepts::Matching::Strict);
        assert_eq!(released.data.scale, [0.25, 1.0]);
        // 10 epochs of 400,000 samples.
        assert_eq!(released.steps, 10 * 400_000 / released.data.batch_size as u64);
    }

    #[test]
    fn wrong_settings_are_named() {
        for (changes, named) in [
            (vec!["text.widht=64"], "widht"),
            (vec!["objective.name=clap"], "clap"),
            (vec!["text.heads=7"], "text.heads"),
            (vec!["seed"], "name=value"),
            (vec!["data.scale=[0.0, 1.0]"], "data.scale"),
            (vec!["out.deep=1"], "no section"),
        ] {
            let message = read(BASE, &changes).unwrap_err().to_string();
            assert!(message.contains(named) && !message.contains('\n'), "{changes:?}: {message}");
        }
    }
}
