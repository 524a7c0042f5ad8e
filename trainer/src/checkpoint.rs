//! The folder of a run: its settings, the frozen tower, and checkpoints that appear whole or not at all.
//!
//! ```text
//! run/settings.toml          what the run was told
//! run/vision.safetensors     the frozen tower, so that the folder is all that is needed to use the result
//! run/log.jsonl              one line a logged step
//! run/tensorboard/           the same for TensorBoard
//! run/step-00000150/         model.safetensors, optimizer.safetensors, state.json; evaluation.json where it is scored
//! run/latest                 name of the newest checkpoint
//! run/best                   name of the one with the highest mIoU, where checkpoints are scored
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use loader::source;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result, at};
use crate::objective::Objective;
use crate::optimizer::Optimizer;
use crate::settings::Settings;
use crate::towers::{Activation, ClipVisionTower, Dense, TextTower};
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
/// What names of a trained vision tower begin with, as open_clip's.
const VISUAL: &str = "visual.";

/// What a checkpoint knows beside its tensors. Nothing random is drawn after the first step but by sample
/// number, so there is no generator to save.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Version of this layout.
    pub version: u32,
    /// Version of the program.
    pub program: String,
    /// Optimiser steps taken.
    pub step: u64,
    /// Where the next batch is: epoch and step within it.
    pub position: (u64, u64),
    /// SHA-256 of the frozen tower's file; empty for `clip`, which has none.
    pub vision: String,
    /// Concepts in the bank.
    pub bank: usize,
    /// The run's settings.
    pub settings: Settings,
}

impl State {
    /// After `step` steps of a run.
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

/// The frozen tower's file inside a run.
pub fn vision_path(run: &Path) -> PathBuf {
    run.join(VISION)
}

/// Makes the run's folder, with its settings and the frozen tower; refuses one that holds anything else.
pub fn create_run(settings: &Settings) -> Result<()> {
    let run = &settings.out;
    // What a start that was killed leaves is written again.
    let left_over = |name: &str| name == VISION || name.starts_with(concepts::files::TEMPORARY);
    let mut entries = if run.exists() { Some(fs::read_dir(run).map_err(at(run))?) } else { None };
    if entries.iter_mut().flatten().flatten().any(|entry| !left_over(&entry.file_name().to_string_lossy())) {
        return Err(Error::Invalid {
            path: run.clone(),
            problem: "holds a run or something else already; go on with --resume or choose another out"
                .to_owned(),
        });
    }
    let frozen = settings.objective.name != Objective::Clip;
    if frozen {
        File::open(&settings.vision.weights).map_err(at(&settings.vision.weights))?;
    }
    fs::create_dir_all(run).map_err(at(run))?;
    if frozen {
        settings.vision.copy_to(&vision_path(run))?;
    }
    // Last: a folder with settings is a run, whole.
    let text = toml::to_string(settings)
        .map_err(|e| Error::Invalid { path: run.clone(), problem: e.to_string() })?;
    let path = run.join(SETTINGS);
    concepts::files::write_atomic(&path, text.as_bytes()).map_err(at(&path))
}

/// Whether a run was begun in this folder.
pub fn exists(run: &Path) -> bool {
    run.join(SETTINGS).exists()
}

/// Writes a checkpoint aside, renames it into the run and points `latest` at it.
pub fn save(run: &Path, state: &State, named: &[(String, Tensor)], optimizer: &Optimizer) -> Result<PathBuf> {
    let name = format!("step-{:08}", state.step);
    let target = run.join(&name);
    let temporary = concepts::files::temporary_path(&target);
    let written = write_parts(&temporary, state, named, optimizer).and_then(|()| {
        if target.exists() {
            // Left by a run that was killed before it pointed `latest` here.
            fs::remove_dir_all(&target).map_err(at(&target))?;
        }
        fs::rename(&temporary, &target).map_err(at(&target))?;
        concepts::files::sync_parent(&target).map_err(at(run))?;
        let latest = run.join(LATEST);
        concepts::files::write_atomic(&latest, name.as_bytes()).map_err(at(&latest))
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
    fs::create_dir_all(folder).map_err(at(folder))?;
    weights::write(&folder.join(MODEL), named)?;
    optimizer.save(&folder.join(OPTIMIZER))?;
    write_json(&folder.join(STATE), state)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::Io { path: path.to_owned(), source: e.into() })?;
    concepts::files::write_atomic(path, &text).map_err(at(path))
}

/// Writes a checkpoint's scores beside it and, when its mIoU is the highest of the run, points `best` at it.
pub fn record_scores(checkpoint: &Path, scores: &impl Serialize, miou: f64) -> Result<()> {
    write_json(&checkpoint.join(EVALUATION), scores)?;
    let (Some(run), Some(name)) = (checkpoint.parent(), checkpoint.file_name()) else { return Ok(()) };
    let best = fs::read_to_string(run.join(BEST)).ok().and_then(|name| {
        let text = fs::read(run.join(name.trim()).join(EVALUATION)).ok()?;
        serde_json::from_slice::<serde_json::Value>(&text).ok()?["miou"].as_f64()
    });
    if best.is_none_or(|best| miou > best) {
        let path = run.join(BEST);
        concepts::files::write_atomic(&path, name.to_string_lossy().as_bytes()).map_err(at(&path))?;
    }
    Ok(())
}

/// Copies a checkpoint of `run` to `target`, a folder or an address in an object store, and before it whatever of the run is
/// not there yet. As on disk, `latest` comes last: the copy is a run at any moment.
pub fn copy(run: &Path, checkpoint: &Path, target: &Path) -> Result<()> {
    let name = checkpoint.file_name().unwrap_or_default();
    if !source::is_remote(target) {
        let folder = target.join(name);
        fs::create_dir_all(&folder).map_err(at(&folder))?;
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

/// Removes all checkpoints of a run but the `keep` newest, the best and the one to go on from; 0 keeps all.
pub fn remove_old(run: &Path, keep: usize) -> Result<()> {
    if keep == 0 {
        return Ok(());
    }
    // The newest by name may be one that a killed run left before it pointed `latest` there.
    let named = [BEST, LATEST].map(|pointer| fs::read_to_string(run.join(pointer)).unwrap_or_default());
    let mut names: Vec<String> = fs::read_dir(run)
        .map_err(at(run))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.strip_prefix("step-").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())))
        .collect();
    // By number: beyond 99,999,999 steps names have more digits.
    names.sort_by_key(|name| (name.len(), name.clone()));
    names.truncate(names.len().saturating_sub(keep));
    for name in names.iter().filter(|name| named.iter().all(|kept| kept.trim() != name.as_str())) {
        let folder = run.join(name);
        fs::remove_dir_all(&folder).map_err(at(&folder))?;
    }
    Ok(())
}

/// A checkpoint on disk.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    /// What it knows beside its tensors.
    pub state: State,
}

impl Checkpoint {
    /// Opens a checkpoint's folder, or the newest one of a run's.
    pub fn open(path: &Path) -> Result<Self> {
        let folder = match fs::read_to_string(path.join(LATEST)) {
            Ok(name) => path.join(name.trim()),
            Err(_) if path.join(STATE).exists() => path.to_owned(),
            Err(_) => {
                let problem = if path.exists() {
                    "holds no finished checkpoint (no `latest`, no state.json)"
                } else {
                    "does not exist; it must be a run's folder or one of its checkpoints"
                };
                return Err(Error::Invalid { path: path.to_owned(), problem: problem.to_owned() });
            }
        };
        let file = folder.join(STATE);
        let text = fs::read(&file).map_err(at(&file))?;
        let invalid = |problem: String| Error::Invalid { path: file.clone(), problem };
        let state: serde_json::Value = serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))?;
        // First: settings of another version may not even have the same names.
        if state["version"] != VERSION {
            return Err(invalid(format!(
                "is of version {}, and this program reads {VERSION}",
                state["version"]
            )));
        }
        let state: State = serde_json::from_value(state).map_err(|e| invalid(e.to_string()))?;
        Ok(Self { folder, state })
    }

    /// The newest checkpoint of a run, or none when it was stopped before its first.
    pub fn latest(run: &Path) -> Result<Option<Self>> {
        if run.join(LATEST).exists() { Self::open(run).map(Some) } else { Ok(None) }
    }

    /// The frozen tower's file beside this checkpoint.
    ///
    /// # Errors
    /// A run of `clip`, which has none.
    pub fn vision_path(&self) -> Result<PathBuf> {
        if self.trains_vision() {
            let problem = "is a run of clip, which has no frozen vision tower; this needs one".to_owned();
            return Err(Error::Invalid { path: self.folder.clone(), problem });
        }
        Ok(vision_path(self.folder.parent().unwrap_or(Path::new("."))))
    }

    /// Whether the vision tower was trained too, and is thus part of the checkpoint.
    pub fn trains_vision(&self) -> bool {
        self.state.settings.objective.name == Objective::Clip
    }

    /// The trained text tower, for a vision tower of this width.
    pub fn text(&self, vision_width: i64, device: Device) -> Result<TextTower> {
        let mut weights = Weights::read(&self.folder.join(MODEL), device)?;
        let _ = weights.take_below(VISUAL);
        TextTower::from_weights(weights, self.state.settings.text.heads, vision_width, Activation::default())
    }

    /// The vision tower that `clip` trained, to compute in `kind`.
    pub fn trained_vision(&self, kind: Kind, device: Device) -> Result<ClipVisionTower> {
        let mut weights = Weights::read(&self.folder.join(MODEL), device)?.take_below(VISUAL);
        let tower = ClipVisionTower::take(&mut weights, Dense::Tokens, Activation::default(), kind)?;
        weights.finish(&[])?;
        Ok(tower)
    }

    /// Puts the saved moments into `optimizer`.
    pub fn load_optimizer(&self, optimizer: &mut Optimizer, device: Device) -> Result<()> {
        optimizer.load(&self.folder.join(OPTIMIZER), device)
    }

    /// Refuses to go on with settings that would make another run of it.
    pub fn refuse_unless_same(&self, settings: &Settings) -> Result<()> {
        let table = |settings: &Settings| {
            // What may change between a stop and a resume: where and how often, never what is computed.
            let neutral = Settings::default();
            let mut same = settings.clone();
            same.out.clone_from(&neutral.out);
            same.device.clone_from(&neutral.device);
            same.vision.weights.clone_from(&neutral.vision.weights);
            same.vision.denoiser.clone_from(&neutral.vision.denoiser);
            same.data.shards.clone_from(&neutral.data.shards);
            same.data.cache.clone_from(&neutral.data.cache);
            (same.threads, same.micro_batch) = (neutral.threads, neutral.micro_batch);
            (same.log_every, same.tensorboard) = (neutral.log_every, neutral.tensorboard);
            (same.peak_tflops, same.timeout) = (neutral.peak_tflops, neutral.timeout);
            same.checkpoint.clone_from(&neutral.checkpoint);
            same.evaluation.clone_from(&neutral.evaluation);
            (same.data.threads, same.data.prefetch) = (neutral.data.threads, neutral.data.prefetch);
            toml::Table::try_from(&same).map(flatten).unwrap_or_default()
        };
        let (ours, theirs) = (table(settings), table(&self.state.settings));
        for (name, value) in &ours {
            let saved = theirs.get(name);
            if saved != Some(value) {
                let saved = saved.map_or("unset".to_owned(), ToString::to_string);
                return Err(Error::Setting {
                    name: name.clone(),
                    problem: format!("is {value}, but the run in {} has {saved}", self.folder.display()),
                });
            }
        }
        Ok(())
    }
}

fn flatten(table: toml::Table) -> std::collections::BTreeMap<String, toml::Value> {
    let mut flat = std::collections::BTreeMap::new();
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
}
