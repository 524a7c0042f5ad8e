//! Trainings as a user starts them, on generated scenes.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::{program, scene_shards, summary, text};

/// A dataset, a vision tower, and a folder for runs.
#[derive(Debug)]
pub struct Place {
    folder: tempfile::TempDir,
    /// The training shards.
    pub shards: PathBuf,
    /// The weights of the tower.
    pub tower: PathBuf,
}

impl Place {
    /// With 64 generated scenes and a tower with random weights.
    ///
    /// # Panics
    /// If a program fails.
    #[expect(clippy::new_without_default, reason = "it runs programs")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shards = scene_shards(folder.path(), 64);
        let tower = folder.path().join("tower.safetensors");
        summary("trainer", &["pretrain", "--shards", text(&shards), "--out", text(&tower), "--steps", "0"]);
        Self { folder, shards, tower }
    }

    /// A path in the folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command `trainer train` with the run folder `out` and more options, not started.
    pub fn train(&self, out: &str, more: &[&str]) -> Command {
        let preset = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/presets/demo.toml");
        let mut command = Command::new(program("trainer"));
        command.args(["train", "--json", "--config", text(&preset)]);
        for setting in [
            format!("out={}", self.at(out).display()),
            format!("data.shards=['{}']", self.shards.display()),
            format!("vision.weights={}", self.tower.display()),
            "data.batch_size=16".to_owned(),
            "steps=8".to_owned(),
            "log_every=2".to_owned(),
            // One thread, so that sums are always computed in the same order.
            "threads=1".to_owned(),
        ] {
            command.args(["--set", &setting]);
        }
        command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The weights that a run had after 8 steps, as their file.
    ///
    /// # Panics
    /// If there are none.
    pub fn weights(&self, out: &str) -> Vec<u8> {
        fs::read(self.at(out).join("step-00000008/model.safetensors")).unwrap()
    }
}

/// What a program printed on standard error.
pub fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The summary of a program that succeeded.
///
/// # Panics
/// If it failed.
pub fn done(output: &Output) -> Value {
    assert!(output.status.success(), "{}", told(output));
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
}

/// Starts one of several ranks.
///
/// # Panics
/// If it cannot be started.
pub fn start_rank(place: &Place, out: &str, rank: usize, world: usize, port: u16, more: &[&str]) -> Child {
    place
        .train(out, more)
        .envs([("RANK", rank.to_string()), ("WORLD_SIZE", world.to_string())])
        .envs([("MASTER_ADDR", "127.0.0.1".to_owned()), ("MASTER_PORT", port.to_string())])
        .spawn()
        .unwrap()
}

/// A port that no program listens on.
///
/// # Panics
/// If there is none.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The outputs of all ranks of a training.
///
/// # Panics
/// If one cannot be started.
pub fn ranks(place: &Place, out: &str, world: usize, more: &[&str]) -> Vec<Output> {
    let port = free_port();
    let started: Vec<Child> =
        (0..world).map(|rank| start_rank(place, out, rank, world, port, more)).collect();
    started.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

/// The losses in the log of a run.
///
/// # Panics
/// If there is no log.
pub fn losses(run: &Path) -> Vec<f64> {
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64().unwrap()).collect()
}
