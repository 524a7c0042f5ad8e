//! Tests of the library and of the program `trainer`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod baselines;
mod cached;
mod command_line;
mod dense;
mod dinov3;
mod download;
mod eval_command;
mod eval_images;
mod evaluation;
mod export;
mod gram;
mod heads;
mod lit;
mod losses;
mod predictions;
mod probe;
mod protocols;
mod referring;
mod siglip;
mod starts;
mod step;
mod talk2dino;
mod towers;
mod training;
mod unmentioned;
mod vision_head;
mod wave;
mod weights;

use std::sync::{Mutex, MutexGuard, PoisonError};

use trainer::settings::Settings;

/// The settings of a run with these changes, as `--set` gives them.
fn settings_of(changes: &[&str]) -> trainer::Result<Settings> {
    let base = ["out=run", "data.shards=['shards']", "vision.weights=tower.safetensors"];
    let all: Vec<String> = base.iter().chain(changes).map(|&change| change.to_owned()).collect();
    Settings::read(&[], &all)
}

/// Checks that changes are refused as wrong use, with these words.
fn refused(changes: &[&str], words: &str) {
    let error = settings_of(changes).unwrap_err();
    assert!(error.is_wrong_use() && error.to_string().contains(words), "{error}");
}

/// Held while a test seeds libtorch's random generator and draws from it: the process has one generator.
fn random(seed: i64) -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let turn = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    turn
}
