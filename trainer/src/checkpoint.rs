//! The run folder: the settings, the frozen vision tower, and checkpoints. A checkpoint appears under its final name only when it
//! is complete.
//!
//! ```text
//! run/settings.toml          all settings of the run
//! run/vision.safetensors     the frozen vision tower, so that the folder contains all that is needed to use the model
//! run/log.jsonl              the training log, one line per `log_every` steps
//! run/tensorboard/           the same for TensorBoard
//! run/step-00000150/         model.safetensors, optimizer.safetensors, state.json; evaluation.json if it was evaluated
//! run/latest                 name of the newest checkpoint
//! run/best                   name of the checkpoint with the highest mIoU, if checkpoints are evaluated
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use loader::source;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result, reading, writing};
use crate::objective::Objective;
use crate::optimizer::Optimizer;
use crate::settings::Settings;
use crate::towers::heads::HEAD_WIDTH;
use crate::towers::{Activation, ClipVisionTower, TextTower};
use crate::weights::{self, Weights};

const VERSION: u32 = 2;
const VISION: &str = "vision.safetensors";
const SETTINGS: &str = "settings.toml";
const LATEST: &str = "latest";
const BEST: &str = "best";
const EVALUATION: &str = "evaluation.json";
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
/// Prefix of the state-dict keys of a trained vision tower, as in open_clip.
const VISUAL: &str = "visual.";

/// The content of `state.json`. There is no state of a random generator: after the initialization, all random numbers follow
/// from the seed and the number of a sample.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Version of this format.
    pub version: u32,
    /// Version of the program.
    pub program: String,
    /// Optimizer steps taken.
    pub step: u64,
    /// Position of the next batch: epoch, and step within the epoch.
    pub position: (u64, u64),
    /// SHA-256 of the weights file of the frozen vision tower; empty for `clip`, which has none.
    pub vision: String,
    /// Number of concepts in the vocabulary (bank).
    pub bank: usize,
    /// The settings of the run.
    pub settings: Settings,
}

impl State {
    /// The state of a run after `step` steps.
    pub fn new(settings: &Settings, step: u64, position: (u64, u64), vision: &str, bank: usize) -> Self {
        Self {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            step,
            position,
            vision: vision.to_owned(),
            bank,
            settings: settings.clone(),
        }
    }
}

/// The file of the frozen vision tower in a run folder.
pub fn vision_path(run: &Path) -> PathBuf {
    run.join(VISION)
}

/// Creates the run folder with the settings and the frozen vision tower; an error if it contains anything else already.
pub fn create_run(settings: &Settings) -> Result<()> {
    let run = &settings.out;
    // Files that a killed start left behind are overwritten.
    let left_over = |name: &str| name == VISION || name.starts_with(concepts::files::TEMPORARY);
    let mut entries = if run.exists() { Some(fs::read_dir(run).map_err(reading(run))?) } else { None };
    if entries.iter_mut().flatten().flatten().any(|entry| !left_over(&entry.file_name().to_string_lossy())) {
        return Err(Error::Invalid {
            path: run.clone(),
            problem: "is not empty: to continue the run in it add --resume, otherwise choose another `out`"
                .to_owned(),
        });
    }
    let frozen = settings.objective.name != Objective::Clip;
    if frozen {
        File::open(&settings.vision.weights).map_err(reading(&settings.vision.weights))?;
    }
    fs::create_dir_all(run).map_err(writing(run))?;
    if frozen {
        settings.vision.copy_to(&vision_path(run))?;
    }
    // Last, because a folder with settings counts as a complete run folder.
    let text = toml::to_string(settings)
        .map_err(|e| Error::Invalid { path: run.clone(), problem: e.to_string() })?;
    let path = run.join(SETTINGS);
    concepts::files::write_atomic(&path, text.as_bytes()).map_err(writing(&path))
}

/// Whether this folder is a run folder.
pub fn exists(run: &Path) -> bool {
    run.join(SETTINGS).exists()
}

/// Writes a checkpoint under a temporary name, renames it, and makes `latest` point to it.
pub fn save(run: &Path, state: &State, named: &[(String, Tensor)], optimizer: &Optimizer) -> Result<PathBuf> {
    let name = format!("step-{:08}", state.step);
    let target = run.join(&name);
    let temporary = concepts::files::temporary_path(&target);
    let written = write_parts(&temporary, state, named, optimizer).and_then(|()| {
        if target.exists() {
            // A run was killed between the renaming and the update of `latest`.
            fs::remove_dir_all(&target).map_err(writing(&target))?;
        }
        fs::rename(&temporary, &target).map_err(writing(&target))?;
        concepts::files::sync_parent(&target).map_err(writing(run))?;
        let latest = run.join(LATEST);
        concepts::files::write_atomic(&latest, name.as_bytes()).map_err(writing(&latest))
    });
    if written.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    written.map(|()| target)
}

fn write_parts(
    folder: &Path,
    state: &State,
    named: &[(String, Tensor)],
    optimizer: &Optimizer,
) -> Result<()> {
    fs::create_dir_all(folder).map_err(writing(folder))?;
    weights::write(&folder.join(MODEL), named)?;
    optimizer.save(&folder.join(OPTIMIZER))?;
    write_json(&folder.join(STATE), state)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|e| writing(path)(e.into()))?;
    concepts::files::write_atomic(path, &text).map_err(writing(path))
}

/// Writes the scores of a checkpoint to its folder and, if its mIoU is the highest of the run, makes `best` point to it.
pub fn record_scores(checkpoint: &Path, scores: &impl Serialize, miou: f64) -> Result<()> {
    write_json(&checkpoint.join(EVALUATION), scores)?;
    let (Some(run), Some(name)) = (checkpoint.parent(), checkpoint.file_name()) else { return Ok(()) };
    let best = fs::read_to_string(run.join(BEST)).ok().and_then(|name| {
        let text = fs::read(run.join(name.trim()).join(EVALUATION)).ok()?;
        serde_json::from_slice::<serde_json::Value>(&text).ok()?["miou"].as_f64()
    });
    if best.is_none_or(|best| miou > best) {
        let path = run.join(BEST);
        concepts::files::write_atomic(&path, name.to_string_lossy().as_bytes()).map_err(writing(&path))?;
    }
    Ok(())
}

/// Copies a checkpoint of `run` to `target`, a folder or an address in an object store, after the other files of the run that
/// are not there yet. As on disk, `latest` comes last, so that the copy is a usable run folder at any time.
pub fn copy(run: &Path, checkpoint: &Path, target: &Path) -> Result<()> {
    let name = checkpoint.file_name().unwrap_or_default();
    if !source::is_remote(target) {
        let folder = target.join(name);
        fs::create_dir_all(&folder).map_err(writing(&folder))?;
    }
    for once in [VISION, SETTINGS] {
        let (from, to) = (run.join(once), target.join(once));
        if from.exists() && source::length(&to).is_err() {
            source::upload(&from, &to)?;
        }
    }
    for part in [MODEL, OPTIMIZER, EVALUATION, STATE] {
        let from = checkpoint.join(part);
        if from.exists() {
            source::upload(&from, &target.join(name).join(part))?;
        }
    }
    for pointer in [BEST, LATEST] {
        let from = run.join(pointer);
        if from.exists() {
            source::upload(&from, &target.join(pointer))?;
        }
    }
    Ok(())
}

/// Removes the checkpoints of a run except the `keep` newest, the best, and the one from which the run would resume; 0 keeps
/// all.
pub fn remove_old(run: &Path, keep: usize) -> Result<()> {
    if keep == 0 {
        return Ok(());
    }
    // The newest by name may be one that a killed run wrote before it updated `latest`.
    let named = [BEST, LATEST].map(|pointer| fs::read_to_string(run.join(pointer)).unwrap_or_default());
    let mut names: Vec<String> = fs::read_dir(run)
        .map_err(reading(run))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.strip_prefix("step-").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())))
        .collect();
    // By number: from step 100,000,000 on, names have more digits.
    names.sort_by_key(|name| (name.len(), name.clone()));
    names.truncate(names.len().saturating_sub(keep));
    for name in names.iter().filter(|name| named.iter().all(|kept| kept.trim() != name.as_str())) {
        let folder = run.join(name);
        fs::remove_dir_all(&folder).map_err(writing(&folder))?;
    }
    Ok(())
}

/// A checkpoint on disk.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    /// The content of its `state.json`.
    pub state: State,
}

impl Checkpoint {
    /// Opens the folder of a checkpoint, or the newest checkpoint of a run folder.
    pub fn open(path: &Path) -> Result<Self> {
        let folder = match fs::read_to_string(path.join(LATEST)) {
            Ok(name) => path.join(name.trim()),
            Err(_) if path.join(STATE).exists() => path.to_owned(),
            Err(_) => {
                let problem = if path.exists() {
                    "contains no finished checkpoint (neither `latest` nor state.json)"
                } else {
                    "does not exist; give a run folder or one of its checkpoints"
                };
                return Err(Error::Failed(format!("{} {problem}", path.display())));
            }
        };
        let file = folder.join(STATE);
        let text = fs::read(&file).map_err(reading(&file))?;
        let invalid = |problem: String| Error::Invalid { path: file.clone(), problem };
        let state: serde_json::Value = serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))?;
        // Checked first: the settings of another version may have other keys.
        if state["version"] != VERSION {
            return Err(invalid(format!(
                "has version {} of the checkpoint format, but this program reads version {VERSION}",
                state["version"]
            )));
        }
        let state: State = serde_json::from_value(state).map_err(|e| invalid(e.to_string()))?;
        Ok(Self { folder, state })
    }

    /// The newest checkpoint of a run; `None` if it was stopped before its first checkpoint.
    pub fn latest(run: &Path) -> Result<Option<Self>> {
        if run.join(LATEST).exists() { Self::open(run).map(Some) } else { Ok(None) }
    }

    /// The file of the frozen vision tower of this run.
    ///
    /// # Errors
    /// For a run of `clip`, which has none.
    pub fn vision_path(&self) -> Result<PathBuf> {
        if self.trains_vision() {
            let problem =
                "is a run of objective clip and has no frozen vision tower, which this command needs"
                    .to_owned();
            return Err(Error::Invalid { path: self.folder.clone(), problem });
        }
        Ok(vision_path(self.folder.parent().unwrap_or(Path::new("."))))
    }

    /// Whether the vision tower was trained too and is therefore in the checkpoint.
    pub fn trains_vision(&self) -> bool {
        self.state.settings.objective.name == Objective::Clip
    }

    /// The text tower, for a vision tower of this width.
    pub fn text(&self, vision_width: i64, device: Device) -> Result<TextTower> {
        let mut weights = Weights::read(&self.folder.join(MODEL), device)?;
        let _ = weights.take_below(VISUAL);
        TextTower::from_weights(weights, self.state.settings.text.heads, vision_width, Activation::default())
    }

    /// The vision tower that `clip` trained, which computes in `kind`.
    pub fn trained_vision(&self, kind: Kind, device: Device) -> Result<ClipVisionTower> {
        let mut weights = Weights::read(&self.folder.join(MODEL), device)?.take_below(VISUAL);
        let heads = self.state.settings.clip.width / HEAD_WIDTH;
        let tower = ClipVisionTower::take(&mut weights, heads, Activation::default(), kind)?;
        weights.finish(&[])?;
        Ok(tower)
    }

    /// Loads the saved moments into `optimizer`.
    pub fn load_optimizer(&self, optimizer: &mut Optimizer, device: Device) -> Result<()> {
        optimizer.load(&self.folder.join(OPTIMIZER), device)
    }

    /// An error if `settings` differ from those of the run in a value that influences the result.
    pub fn check_same_settings(&self, settings: &Settings) -> Result<()> {
        let table = |settings: &Settings| {
            // These may change between a stop and a resume: paths, speed and logging, but nothing that influences the result.
            let neutral = Settings::default();
            let mut same = settings.clone();
            same.out.clone_from(&neutral.out);
            same.device.clone_from(&neutral.device);
            same.vision.weights.clone_from(&neutral.vision.weights);
            same.vision.denoiser.clone_from(&neutral.vision.denoiser);
            if same.objective.name == Objective::Clip {
                // Of a frozen tower only; earlier versions always saved a value.
                same.vision.position = neutral.vision.position;
            }
            same.data.shards.clone_from(&neutral.data.shards);
            same.data.cache.clone_from(&neutral.data.cache);
            (same.threads, same.micro_batch) = (neutral.threads, neutral.micro_batch);
            (same.log_every, same.tensorboard) = (neutral.log_every, neutral.tensorboard);
            (same.peak_tflops, same.timeout) = (neutral.peak_tflops, neutral.timeout);
            same.checkpoint.clone_from(&neutral.checkpoint);
            same.evaluation.clone_from(&neutral.evaluation);
            (same.data.threads, same.data.prefetch) = (neutral.data.threads, neutral.data.prefetch);
            // What counts is the learning rate, whichever setting it comes from. (A run of an earlier version has `lr` alone.)
            same.optimizer.lr = Some(same.optimizer.max_lr(same.data.batch_size));
            same.optimizer.lr_per_256 = neutral.optimizer.lr_per_256;
            toml::Table::try_from(&same).map(flatten).unwrap_or_default()
        };
        let (ours, theirs) = (table(settings), table(&self.state.settings));
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let mut differing = names.into_iter().filter(|&name| ours.get(name) != theirs.get(name)).peekable();
        let Some(&first) = differing.peek() else { return Ok(()) };
        let changes: Vec<String> = differing
            .map(|name| match theirs.get(name) {
                Some(saved) => format!("with --set '{name}={saved}'"),
                None => format!("without {name}"),
            })
            .collect();
        Err(Error::Setting {
            name: first.clone(),
            problem: format!(
                "is {}, but the run in {} was started {}; to continue that run, resume it {}; otherwise start a new run",
                ours.get(first).map_or("not set".to_owned(), ToString::to_string),
                self.folder.display(),
                theirs.get(first).map_or("without it".to_owned(), |saved| format!("with {saved}")),
                changes.join(", ")
            ),
        })
    }
}

fn flatten(table: toml::Table) -> BTreeMap<String, toml::Value> {
    let mut flat = BTreeMap::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(inner) => {
                flat.extend(
                    flatten(inner).into_iter().map(|(rest, value)| (format!("{name}.{rest}"), value)),
                );
            }
            value => {
                flat.insert(name, value);
            }
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pointed_at_is_never_removed() {
        let run = tempfile::tempdir().unwrap();
        for step in [2, 4, 6, 8, 10] {
            fs::create_dir(run.path().join(format!("step-{step:08}"))).unwrap();
        }
        fs::write(run.path().join(BEST), "step-00000004").unwrap();
        // 10 was left by a run that was killed.
        fs::write(run.path().join(LATEST), "step-00000008").unwrap();
        remove_old(run.path(), 1).unwrap();
        let left = [2, 4, 6, 8, 10].map(|step| run.path().join(format!("step-{step:08}")).exists());
        assert_eq!(left, [false, true, false, true, true]);
    }

    /// A run of the preset `released` before it had settings for tokens, ranks and the rounding of the warm-up: those were as in the
    /// paper, and its crops were larger.
    #[test]
    fn a_run_of_the_old_released_preset_continues_by_name_only() {
        let preset = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("presets/{name}.toml"));
        let read = |changes: &[&str]| {
            let base = ["out=run", "data.shards=['shards']", "vision.weights=tower.safetensors"];
            let all: Vec<String> = base.iter().chain(changes).map(|&change| change.to_owned()).collect();
            Settings::read(&[preset("coco"), preset("vit-b"), preset("released")], &all).unwrap()
        };
        let mut state =
            serde_json::to_value(State::new(&read(&["data.scale=[0.25, 1.0]"]), 4, (0, 4), "", 9)).unwrap();
        for (section, names) in
            [("objective", ["tokens", "concepts"].as_slice()), ("optimizer", &["warmup_rounding"])]
        {
            let section = state["settings"][section].as_object_mut().unwrap();
            for &name in names {
                assert!(section.remove(name).is_some(), "{name}");
            }
        }
        let state: State = serde_json::from_value(state).unwrap();
        let old = Checkpoint { folder: PathBuf::from("run/step-00000004"), state };

        let error = old.check_same_settings(&read(&[])).unwrap_err().to_string();
        let by_name = [
            "data.scale=[0.25, 1.0]",
            "objective.concepts=\"global\"",
            "objective.tokens=\"mean\"",
            "optimizer.warmup_rounding=\"nearest\"",
        ];
        for change in by_name {
            assert!(error.contains(&format!("--set '{change}'")), "{error}");
        }
        old.check_same_settings(&read(&by_name)).unwrap();
        let error = old.check_same_settings(&read(&by_name[1..])).unwrap_err().to_string();
        assert!(error.contains("`data.scale` is [0.") && !error.contains("objective"), "{error}");
    }

    /// A value that only the saved settings have counts too.
    #[test]
    fn a_setting_that_is_left_out_on_resume_is_a_difference() {
        let with = Settings {
            data: crate::settings::DataSettings { features: Some("f".into()), ..Default::default() },
            ..Default::default()
        };
        let without = Settings::default();
        for (saved, now, message) in [
            (&with, &without, "is not set, but"),
            (
                &without,
                &with,
                "was started without it; to continue that run, resume it without data.features",
            ),
        ] {
            let state = State::new(saved, 1, (0, 1), "", 0);
            let error = Checkpoint { folder: PathBuf::from("run"), state }
                .check_same_settings(now)
                .unwrap_err()
                .to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
