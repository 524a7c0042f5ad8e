//! The trainer's commands that write files, killed or failing at each of their changes of the file system: what the next
//! command makes of what is left.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::inject::{EVENTS, at, copy, without_rights_or_descriptors};
use tests::{program, summary, text};

/// The changes at which an event comes. A kill comes at every one. Starting libtorch takes a third of a second, so the
/// errors, which may come at every write as well, take turns: every second change fails with one of the two. With
/// `KILL_POINTS=all` both come at every change.
fn numbers(event: &str) -> std::iter::StepBy<std::ops::RangeFrom<usize>> {
    let all = std::env::var("KILL_POINTS").is_ok_and(|points| points == "all");
    match event {
        "ENOSPC" if !all => (1..).step_by(4),
        "EIO" if !all => (3..).step_by(4),
        _ => (1..).step_by(1),
    }
}

/// A tiny dataset, vision tower and finished run.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let at = |name: &str| text(&place.at(name)).to_owned();
        summary("tools", &["scenes", "--out", &at("scenes"), "--count", "8", "--size", "32"]);
        let rows: String = (0..8).map(|i| format!("{i:06}.jpg,a ball on the grass and a fish\n")).collect();
        fs::write(at("captions.csv"), format!("file,caption\n{rows}")).unwrap();
        let (table, images, shards) = (at("captions.csv"), at("scenes/images"), at("shards"));
        summary("ingest", &["shard", &table, "--images", &images, "--out", &shards, "--resize-mode", "no"]);
        summary("ingest", &["tag", &shards]);
        let mut arguments =
            vec!["pretrain", "--shards", &shards, "--steps", "0", "--size", "16", "--patch", "8"];
        let tower = at("tower.safetensors");
        arguments.extend(["--width", "64", "--depth", "1", "--out", &tower]);
        summary("trainer", &arguments);
        fs::create_dir(at("empty")).unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A run of so many steps in the folder `run`; its folder has no name that differs from run to run.
    fn train(&self, folder: &Path, steps: u32, more: &[&str]) -> Command {
        let preset = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/presets/demo.toml");
        let mut command = trainer(folder, &["train", "--config", text(&preset)]);
        for setting in [
            "out=run".to_owned(),
            format!("steps={steps}"),
            format!("data.shards=['{}']", self.at("shards").display()),
            format!("vision.weights={}", self.at("tower.safetensors").display()),
        ] {
            command.args(["--set", &setting]);
        }
        for setting in [
            "data.batch_size=4",
            "data.size=16",
            "text.width=8",
            "text.depth=1",
            "text.heads=1",
            "text.context=8",
            "log_every=1",
            "checkpoint.every=1",
            // Sums in the same order every time.
            "threads=1",
        ] {
            command.args(["--set", setting]);
        }
        command.args(more);
        command
    }
}

/// The command `trainer ..`, run in this folder.
fn trainer(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("trainer"));
    command.args(arguments).current_dir(folder);
    command
}

fn complete(mut command: Command, about: &str) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{about}: {}", String::from_utf8_lossy(&output.stderr));
}

/// All files below a folder by relative path. Of a run's log, the steps and losses; of its TensorBoard files, which have
/// times, nothing.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = text(path.strip_prefix(folder).unwrap()).to_owned();
            let bytes = match path.file_name().unwrap().to_str().unwrap() {
                "tensorboard" => continue,
                // The process that has or had it.
                ".lock" => Vec::new(),
                "log.jsonl" => steps(&path),
                _ if path.is_dir() => {
                    folders.push(path);
                    Vec::new()
                }
                _ => fs::read(&path).unwrap(),
            };
            files.insert(name, bytes);
        }
    }
    files
}

fn steps(log: &Path) -> Vec<u8> {
    let text = fs::read_to_string(log).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| format!("{} {}\n", line["step"], line["loss"])).collect::<String>().into_bytes()
}

fn same(folder: &Path, expected: &BTreeMap<String, Vec<u8>>, about: &str) {
    let found = contents(folder);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{about}");
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{about}: {name} differs");
    }
}

/// Runs `command` where it cannot write; then lets it stop at each of its changes in a copy of `before`, completes it by `next`, and compares the files with those
/// of an undisturbed run.
fn stopped_anywhere(
    name: &str,
    before: &Path,
    whole: &Path,
    command: &dyn Fn(&Path) -> Command,
    next: &dyn Fn(&Path) -> Option<Command>,
) {
    without_rights_or_descriptors(name, Some(before), &[6, 12], command);
    copy(before, whole);
    complete(command(whole), "undisturbed");
    let expected = contents(whole);
    for event in EVENTS {
        let count = at(numbers(event), event, Some(before), command, &|folder, about| {
            let about = format!("{name}, {about}");
            // No command where the files are complete and another run would be refused.
            if let Some(next) = next(folder) {
                complete(next, &about);
            }
            same(folder, &expected, &about);
        });
        println!("{name}, {event}: {count} points");
    }
}

#[test]
fn the_trainers_files_are_the_same_wherever_a_command_stopped() {
    let place = &Place::new();
    let empty = &place.at("empty");
    let tower = &text(&place.at("tower.safetensors")).to_owned();

    // A run that was stopped after its first of two steps.
    let running = place.at("running");
    fs::create_dir(&running).unwrap();
    complete(place.train(&running, 2, &[]), "the whole run");
    let finished = &place.at("finished");
    copy(&running, finished);
    fs::remove_dir_all(running.join("run/step-00000002")).unwrap();
    fs::write(running.join("run/latest"), "step-00000001").unwrap();

    let new = || {
        let command = |folder: &Path| place.train(folder, 1, &[]);
        // Until the run folder is complete, the same command starts again; then it says that --resume is needed.
        stopped_anywhere("train", empty, &place.at("new"), &command, &|folder| {
            let more: &[&str] = if folder.join("run/settings.toml").exists() { &["--resume"] } else { &[] };
            Some(place.train(folder, 1, more))
        });
    };
    let resumed = || {
        let end = |folder: &Path| place.train(folder, 2, &["--resume", "--set", "checkpoint.keep=1"]);
        stopped_anywhere("train --resume", &running, &place.at("resumed"), &end, &|folder| Some(end(folder)));
        // Nothing is left to do but the copy that is asked for now.
        let again = |folder: &Path| place.train(folder, 2, &["--resume", "--set", "checkpoint.copy_to=copy"]);
        let name = "train --resume of a finished run";
        stopped_anywhere(name, finished, &place.at("again"), &again, &|folder| Some(again(folder)));
    };
    let files = || {
        let run = &text(&finished.join("run")).to_owned();
        let export = |folder: &Path| trainer(folder, &["export", "--checkpoint", run, "--out", "export"]);
        let convert = |folder: &Path| {
            trainer(folder, &["convert", tower, "--to", "timm", "--out", "out/timm.safetensors"])
        };
        stopped_anywhere("export", empty, &place.at("exported"), &export, &|folder| Some(export(folder)));
        stopped_anywhere("convert", empty, &place.at("converted"), &convert, &|folder| Some(convert(folder)));
        let shards = &text(&place.at("shards")).to_owned();
        let cache = |folder: &Path| {
            let mut arguments = vec!["cache", "--shards", shards, "--vision", tower, "--size", "16"];
            arguments.extend(["--out", "features", "--threads", "1"]);
            trainer(folder, &arguments)
        };
        stopped_anywhere("cache", empty, &place.at("cached"), &cache, &|folder| {
            (!folder.join("features").exists()).then(|| cache(folder))
        });
    };
    std::thread::scope(|scope| {
        scope.spawn(new);
        scope.spawn(resumed);
        scope.spawn(files);
    });
}
