//! The run folder: the settings, the frozen vision tower, and checkpoints. A checkpoint appears under its final name only when it
//! is complete.
//!
//! ```text
//! run/settings.toml          all settings of the run
//! run/vision.safetensors     the frozen vision tower, so that the folder contains all that is needed to use the model
//! run/log.jsonl              the training log, one line per `log_every` steps
//! run/tensorboard/           the same for TensorBoard
//! run/vision.sha256          its checksum
//! run/step-00000150/         model.safetensors, optimizer.safetensors, state.json, and checkpoint.sha256 with their checksums;
//!                            evaluation.json if it was evaluated
//! run/latest                 name of the newest checkpoint
//! run/best                   name of the checkpoint with the highest mIoU, if checkpoints are evaluated
//! run/.lock                  locked while a training uses the folder
//! ```

mod fetch;

pub use fetch::fetch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use concepts::checksums::Checksums;
use loader::source;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result, reading, writing};
use crate::objective::Objective;
use crate::optimizer::Optimizer;
use crate::run_data::RunShard;
use crate::settings::Settings;
use crate::towers::heads::HEAD_WIDTH;
use crate::towers::{Activation, ClipVisionTower, TextTower};
use crate::weights::{self, Weights};

const VERSION: u32 = 3;
/// Read too: it has no checksums, and does not know the data of the run.
const OLDEST_VERSION: u32 = 2;
const VISION: &str = "vision.safetensors";
const SETTINGS: &str = "settings.toml";
const LATEST: &str = "latest";
const BEST: &str = "best";
const EVALUATION: &str = "evaluation.json";
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
/// The checksums of these three, as `sha256sum` writes them.
const CHECKSUMS: &str = "checkpoint.sha256";
/// The checksum of the vision tower.
const VISION_CHECKSUM: &str = "vision.sha256";
const LOCK: &str = ".lock";
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
    /// The shards of the run, in order; empty in checkpoints of version 2.
    #[serde(default)]
    pub shards: Vec<RunShard>,
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
            shards: Vec::new(),
            settings: settings.clone(),
        }
    }
}

/// The file of the frozen vision tower in a run folder.
pub fn vision_path(run: &Path) -> PathBuf {
    run.join(VISION)
}

/// A run folder that no other training can use at the same time. The lock ends with the process, however it ends.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Locks a run folder, and removes the temporary files that killed trainings left in it.
    ///
    /// # Errors
    /// Another training uses the folder.
    pub fn take(run: &Path) -> Result<Self> {
        let path = run.join(LOCK);
        // Not truncated: it may be the file of another training.
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(writing(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                let problem = format!(
                    "is in use by another training ({}); wait until it has ended, or choose another `out`",
                    holder.trim()
                );
                return Err(Error::Invalid { path: run.to_owned(), problem });
            }
            Err(TryLockError::Error(why)) => eprintln!(
                "warning: the file system cannot lock {}: {why}. Make sure that no other training uses this folder",
                path.display()
            ),
        }
        // For the message above; without it, the lock is as good.
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let holder = format!("process {} on {}\n", std::process::id(), host.trim());
        let _ = file.set_len(0).and_then(|()| file.write_all(holder.as_bytes()));
        for entry in fs::read_dir(run).map_err(reading(run))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(concepts::files::TEMPORARY) {
                let path = entry.path();
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(writing(&path))?;
            }
        }
        Ok(Self { _file: file })
    }
}

/// Creates the run folder with the settings and the frozen vision tower, and locks it; an error if it contains anything
/// else already.
pub fn create_run(settings: &Settings) -> Result<RunLock> {
    let run = &settings.out;
    // Files that a killed start left behind are overwritten.
    let left_over = |name: &str| {
        [VISION, VISION_CHECKSUM, LOCK].contains(&name) || name.starts_with(concepts::files::TEMPORARY)
    };
    let check_empty = || -> Result<()> {
        let entries = fs::read_dir(run).map_err(reading(run))?;
        if entries.flatten().all(|entry| left_over(&entry.file_name().to_string_lossy())) {
            return Ok(());
        }
        Err(Error::Invalid {
            path: run.clone(),
            problem: "is not empty: to continue the run in it add --resume, otherwise choose another `out`"
                .to_owned(),
        })
    };
    // Before the lock, so that a folder of something else gets no file.
    if run.exists() {
        check_empty()?;
    }
    let frozen = settings.objective.name != Objective::Clip;
    if frozen {
        let weights = &settings.vision.weights;
        File::open(source::local_copy(weights)?).map_err(reading(weights))?;
    }
    fs::create_dir_all(run).map_err(writing(run))?;
    let lock = RunLock::take(run)?;
    // Another training may have started and ended here since.
    check_empty()?;
    if frozen {
        settings.vision.copy_to(&vision_path(run))?;
        write_checksums(&run.join(VISION_CHECKSUM), run, &[VISION])?;
    }
    // Last, because a folder with settings counts as a complete run folder.
    let text = toml::to_string(settings)
        .map_err(|e| Error::Invalid { path: run.clone(), problem: e.to_string() })?;
    let path = run.join(SETTINGS);
    concepts::files::write_atomic(&path, text.as_bytes()).map_err(writing(&path))?;
    Ok(lock)
}

/// Whether this folder is a run folder.
pub fn exists(run: &Path) -> bool {
    run.join(SETTINGS).exists()
}

/// The name of a checkpoint in a file such as `latest`; empty if there is none.
fn pointed(run: &Path, pointer: &str) -> String {
    fs::read_to_string(run.join(pointer)).unwrap_or_default().trim().to_owned()
}

/// Writes a checkpoint under a temporary name, renames it, and makes `latest` point to it. If `latest` points to a
/// checkpoint of this step already, nothing is written: the run was resumed from it and has taken no step since.
///
/// # Errors
/// Also if a weight is NaN or infinite: the run could not continue from such a checkpoint, and it would replace a good one.
pub fn save(run: &Path, state: &State, named: &[(String, Tensor)], optimizer: &Optimizer) -> Result<PathBuf> {
    let name = format!("step-{:08}", state.step);
    let target = run.join(&name);
    let latest = pointed(run, LATEST);
    if latest == name {
        return Ok(target);
    }
    if let Some((weight, _)) = named.iter().find(|(_, tensor)| tensor.isfinite().all().int64_value(&[]) == 0)
    {
        let last = if latest.is_empty() { "there is none yet".to_owned() } else { format!("it is {latest}") };
        return Err(Error::Failed(format!(
            "step {}: {weight} has values that are NaN or infinite, so no checkpoint is saved; lower optimizer.lr and resume \
             from the last checkpoint ({last})",
            state.step
        )));
    }
    let temporary = concepts::files::temporary_path(&target);
    let written = write_parts(&temporary, state, named, optimizer).and_then(|()| {
        if target.exists() {
            // A run was killed between the renaming and the update of `latest`.
            remove(&target)?;
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

/// Removes a checkpoint. It first loses its name, so that a part of it is never taken for a checkpoint.
fn remove(checkpoint: &Path) -> Result<()> {
    let aside = concepts::files::temporary_path(&checkpoint.with_extension("old"));
    fs::rename(checkpoint, &aside).map_err(writing(checkpoint))?;
    fs::remove_dir_all(&aside).map_err(writing(&aside))
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
    write_json(&folder.join(STATE), state)?;
    write_checksums(&folder.join(CHECKSUMS), folder, &[MODEL, OPTIMIZER, STATE])
}

/// Writes the checksums of files in a folder.
fn write_checksums(path: &Path, folder: &Path, names: &[&str]) -> Result<()> {
    let mut sums = Checksums::default();
    for name in names {
        sums.set(name, weights::sha256(&folder.join(name))?);
    }
    concepts::files::write_atomic(path, sums.text().as_bytes()).map_err(writing(path))
}

/// An error if a file has another checksum than `path` says. Without checksums (earlier versions) there is nothing to compare.
fn refuse_damaged(path: &Path, file: &Path) -> Result<()> {
    let text = match source::read_text(path) {
        Ok(text) => text,
        Err(error) if source::is_missing(&error) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let invalid = |path: &Path, problem: String| Error::Invalid { path: path.to_owned(), problem };
    let sums = Checksums::parse(&text).map_err(|problem| invalid(path, format!("is damaged: {problem}")))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if sums.get(&name) == Some(weights::sha256(file)?.as_str()) {
        return Ok(());
    }
    let problem = format!(
        "is damaged: its SHA-256 is not the one in {}; use another checkpoint, or a copy of this one",
        path.display()
    );
    Err(invalid(file, problem))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|e| writing(path)(e.into()))?;
    concepts::files::write_atomic(path, &text).map_err(writing(path))
}

/// Whether a checkpoint has been evaluated.
pub fn is_scored(checkpoint: &Path) -> bool {
    checkpoint.join(EVALUATION).exists()
}

/// Writes the scores of a checkpoint to its folder and, if its mIoU is the highest of the run, makes `best` point to it.
pub fn record_scores(checkpoint: &Path, scores: &impl Serialize, miou: f64) -> Result<()> {
    write_json(&checkpoint.join(EVALUATION), scores)?;
    let (Some(run), Some(name)) = (checkpoint.parent(), checkpoint.file_name()) else { return Ok(()) };
    let text = fs::read(run.join(pointed(run, BEST)).join(EVALUATION)).ok();
    let best =
        text.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok()?["miou"].as_f64());
    if best.is_none_or(|best| miou > best) {
        let path = run.join(BEST);
        concepts::files::write_atomic(&path, name.to_string_lossy().as_bytes()).map_err(writing(&path))?;
    }
    Ok(())
}

/// Copies a checkpoint of `run` to `target`, a folder or an address in an object store, after the other files of the run that
/// are not there yet. As on disk, `latest` comes last, so that the copy is a usable run folder at any time.
///
/// Scores are copied with it if there are any; [`copy_scores`] adds them later.
pub fn copy(run: &Path, checkpoint: &Path, target: &Path) -> Result<()> {
    let name = checkpoint.file_name().unwrap_or_default();
    if !source::is_remote(target) {
        let folder = target.join(name);
        fs::create_dir_all(&folder).map_err(writing(&folder))?;
        // What a killed training left here.
        for folder in [target, &folder] {
            concepts::files::clear_leftovers(folder, |_| true).map_err(reading(folder))?;
        }
    }
    for once in [VISION, VISION_CHECKSUM, SETTINGS] {
        let (from, to) = (run.join(once), target.join(once));
        if from.exists() && source::length(&to).is_err() {
            source::upload(&from, &to)?;
        }
    }
    for part in [MODEL, OPTIMIZER, STATE, CHECKSUMS] {
        // Earlier versions wrote no checksums.
        if part != CHECKSUMS || checkpoint.join(part).exists() {
            source::upload(&checkpoint.join(part), &target.join(name).join(part))?;
        }
    }
    copy_scores(run, checkpoint, target)?;
    Ok(source::upload(&run.join(LATEST), &target.join(LATEST))?)
}

/// Adds the scores of a checkpoint, and which one is the best, to a copy of it.
pub fn copy_scores(run: &Path, checkpoint: &Path, target: &Path) -> Result<()> {
    let name = Path::new(checkpoint.file_name().unwrap_or_default());
    for (from, to) in [
        (checkpoint.join(EVALUATION), target.join(name).join(EVALUATION)),
        (run.join(BEST), target.join(BEST)),
    ] {
        if from.exists() {
            source::upload(&from, &to)?;
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
    let named = [BEST, LATEST].map(|pointer| pointed(run, pointer));
    let mut names: Vec<String> = fs::read_dir(run)
        .map_err(reading(run))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.strip_prefix("step-").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())))
        .collect();
    // By number: from step 100,000,000 on, names have more digits.
    names.sort_by_key(|name| (name.len(), name.clone()));
    names.truncate(names.len().saturating_sub(keep));
    for name in names.iter().filter(|name| !named.contains(name)) {
        remove(&run.join(name))?;
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
    /// Opens the folder of a checkpoint, or the newest checkpoint of a run folder; on disk or at an address. Its other files are
    /// read when they are needed.
    pub fn open(path: &Path) -> Result<Self> {
        let latest = path.join(LATEST);
        let folder = match source::read_text(&latest) {
            Ok(name) => path.join(name.trim()),
            Err(error) if !source::is_missing(&error) && !path.is_file() => return Err(error.into()),
            Err(_) if source::exists(&path.join(STATE))? => path.to_owned(),
            Err(_) => {
                let problem = if path.exists() || source::is_remote(path) {
                    "contains no finished checkpoint (neither `latest` nor state.json)"
                } else {
                    "does not exist; give a run folder or one of its checkpoints"
                };
                return Err(Error::Failed(format!("{} {problem}", path.display())));
            }
        };
        let file = folder.join(STATE);
        let text = source::read(&file)?;
        refuse_damaged(&folder.join(CHECKSUMS), &file)?;
        let invalid = |problem: String| Error::Invalid { path: file.clone(), problem };
        let state: serde_json::Value = serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))?;
        // Checked first: the settings of another version may have other keys.
        let version = &state["version"];
        if !version.as_u64().is_some_and(|it| (OLDEST_VERSION.into()..=VERSION.into()).contains(&it)) {
            return Err(invalid(format!(
                "has version {version} of the checkpoint format, but this program reads versions {OLDEST_VERSION} to {VERSION}"
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
        let run = self.folder.parent().unwrap_or(Path::new("."));
        let path = vision_path(run);
        refuse_damaged(&run.join(VISION_CHECKSUM), &path)?;
        Ok(path)
    }

    /// The path of one of its files, whose checksum agrees.
    fn file(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        refuse_damaged(&self.folder.join(CHECKSUMS), &path)?;
        Ok(path)
    }

    /// Whether the vision tower was trained too and is therefore in the checkpoint.
    pub fn trains_vision(&self) -> bool {
        self.state.settings.objective.name == Objective::Clip
    }

    /// The text tower, for a vision tower of this width.
    pub fn text(&self, vision_width: i64, device: Device) -> Result<TextTower> {
        let mut weights = Weights::read(&self.file(MODEL)?, device)?;
        let _ = weights.take_below(VISUAL);
        TextTower::from_weights(weights, self.state.settings.text.heads, vision_width, Activation::default())
    }

    /// The vision tower that `clip` trained, which computes in `kind`.
    pub fn trained_vision(&self, kind: Kind, device: Device) -> Result<ClipVisionTower> {
        let mut weights = Weights::read(&self.file(MODEL)?, device)?.take_below(VISUAL);
        let heads = self.state.settings.clip.width / HEAD_WIDTH;
        let tower = ClipVisionTower::take(&mut weights, heads, Activation::default(), kind)?;
        weights.finish(&[])?;
        Ok(tower)
    }

    /// Loads the saved moments into `optimizer`.
    pub fn load_optimizer(&self, optimizer: &mut Optimizer, device: Device) -> Result<()> {
        optimizer.load(&self.file(OPTIMIZER)?, device)
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

    /// A run folder, and a state, weights and optimizer to save in it.
    fn some_run() -> (tempfile::TempDir, State, Vec<(String, Tensor)>, Optimizer) {
        let state = State::new(&Settings::default(), 3, (0, 3), "", 0);
        let named = vec![("weight".to_owned(), Tensor::from_slice(&[1.0_f32, 2.0]))];
        let optimizer = Optimizer::new(&Settings::default().optimizer, Vec::new());
        (tempfile::tempdir().unwrap(), state, named, optimizer)
    }

    #[test]
    fn a_save_that_changes_nothing_touches_nothing() {
        use std::os::unix::fs::MetadataExt;
        let (run, mut state, named, optimizer) = some_run();
        let first = save(run.path(), &state, &named, &optimizer).unwrap();
        let folder = |path: &Path| fs::metadata(path).unwrap().ino();
        let number = folder(&first);
        assert_eq!(save(run.path(), &state, &named, &optimizer).unwrap(), first);
        assert_eq!(folder(&first), number, "the checkpoint was replaced");
        // One that `latest` does not name was left by a run that was killed, and is replaced.
        fs::write(run.path().join(LATEST), "step-00000002").unwrap();
        fs::write(first.join(MODEL), "half").unwrap();
        save(run.path(), &state, &named, &optimizer).unwrap();
        assert!(fs::metadata(first.join(MODEL)).unwrap().len() > 4);
        state.step = 4;
        assert_ne!(save(run.path(), &state, &named, &optimizer).unwrap(), first);
        assert_eq!(pointed(run.path(), LATEST), "step-00000004");
    }

    #[test]
    fn weights_that_are_not_finite_are_not_saved() {
        let (run, mut state, mut named, optimizer) = some_run();
        save(run.path(), &state, &named, &optimizer).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            named.push(("bad.weight".to_owned(), Tensor::from_slice(&[1.0, bad])));
            state.step += 1;
            let error = save(run.path(), &state, &named, &optimizer).unwrap_err().to_string();
            assert!(error.contains("bad.weight") && error.contains("step-00000003"), "{error}");
            named.pop();
        }
        assert_eq!(pointed(run.path(), LATEST), "step-00000003");
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 2, "the checkpoint and `latest`");
    }

    #[test]
    fn a_folder_is_used_by_one_training_at_a_time() {
        let run = tempfile::tempdir().unwrap();
        let lock = RunLock::take(run.path()).unwrap();
        let refused = RunLock::take(run.path()).unwrap_err().to_string();
        let holder = format!("process {} on ", std::process::id());
        assert!(refused.contains("in use by another training") && refused.contains(&holder), "{refused}");
        drop(lock);
        // What killed trainings left is removed, and nothing else.
        let name = |name: &str| run.path().join(name);
        fs::create_dir(name(".tmp-1-step-00000002")).unwrap();
        fs::write(name(".tmp-1-step-00000002").join(MODEL), "half").unwrap();
        fs::write(name(".tmp-7-latest"), "half").unwrap();
        fs::write(name("notes.txt"), "mine").unwrap();
        let _lock = RunLock::take(run.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(run.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".lock", "notes.txt"]);
    }
}
