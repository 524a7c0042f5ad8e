//! Whether a run can be resumed with some settings.

use std::collections::{BTreeMap, BTreeSet};

use super::read::Checkpoint;
use crate::error::{Error, Result};
use crate::method::objective::Objective;
use crate::settings::Settings;

impl Checkpoint {
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
            // A checkpoint holds what became of them.
            same.text.weights.clone_from(&neutral.text.weights);
            same.text.new_projection = neutral.text.new_projection;
            if same.objective.name == Objective::Clip {
                // Of a frozen tower only; earlier versions always saved a value.
                same.vision.position = neutral.vision.position;
            }
            // The vocabulary is the same without it.
            same.bank.statistics.clone_from(&neutral.bank.statistics);
            same.data.shards.clone_from(&neutral.data.shards);
            same.data.loading.cache.clone_from(&neutral.data.loading.cache);
            // What counts is what it contains (`run_shards`).
            same.data.loading.selection.clone_from(&neutral.data.loading.selection);
            (same.threads, same.micro_batch) = (neutral.threads, neutral.micro_batch);
            (same.log_every, same.tensorboard) = (neutral.log_every, neutral.tensorboard);
            (same.peak_tflops, same.timeout) = (neutral.peak_tflops, neutral.timeout);
            same.objective.shortcut_check = neutral.objective.shortcut_check;
            same.checkpoint.clone_from(&neutral.checkpoint);
            same.evaluation.clone_from(&neutral.evaluation);
            (same.data.loading.threads, same.data.loading.prefetch) =
                (neutral.data.loading.threads, neutral.data.loading.prefetch);
            // What counts is the learning rate, whichever setting it comes from. (A run of an earlier version has `lr` alone.)
            same.optimizer.lr = Some(same.optimizer.max_lr(same.data.loading.batch_size));
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
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::checkpoint::State;

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
