//! `trainer train`: trains a model, or estimates what its training would need.

use std::path::{Path, PathBuf};

use clap::Args;
use program::Outcome;
use serde_json::Value;
use trainer::run;
use trainer::settings::Settings;

use super::console::Console;

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// Settings file (TOML). May be repeated: later files replace values of earlier ones. See docs/settings.md and the presets in
    /// trainer/presets.
    #[arg(long, required = true, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Replace one setting, for example `--set optimizer.lr=1e-3`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Resume from the newest checkpoint in the run folder; start from the beginning if there is none.
    #[arg(long)]
    resume: bool,
    /// Take 4 steps, print the time and memory that the run would need, and write an image of the first batch to this file.
    /// Nothing else is written.
    #[arg(long, value_name = "PNG", conflicts_with = "resume")]
    dry_run: Option<PathBuf>,
}

/// The summary, and whether the training was stopped by a signal.
pub(crate) fn run(args: &TrainArgs) -> anyhow::Result<(Value, Outcome)> {
    let settings = Settings::read(&args.config, &args.overrides)?;
    if let Some(image) = &args.dry_run {
        return Ok((dry_run(&settings, image)?, Outcome::Done));
    }
    let summary = run::train(&settings, args.resume, &Console)?;
    let mut outcome = Outcome::Done;
    if summary.interrupted {
        outcome = Outcome::Stopped;
        eprintln!(
            "stopped at step {}; the checkpoint is saved in {}. Add --resume to the same command to continue",
            summary.steps,
            summary.checkpoint.display()
        );
    }
    Ok((serde_json::to_value(summary)?, outcome))
}

fn dry_run(settings: &Settings, image: &Path) -> anyhow::Result<Value> {
    let needs = run::dry_run(settings, image, &Console)?;
    println!(
        "{} steps of {} samples; an epoch is {} samples in {} steps",
        settings.steps, settings.data.loading.batch_size, needs.samples, needs.steps_per_epoch
    );
    println!("maximum learning rate: {}", settings.optimizer.describe_lr(settings.data.loading.batch_size));
    println!(
        "{:.2} s per step, {:.1} h in total; {:.1} GB of memory; {} trained parameters; {} concepts in the vocabulary",
        needs.seconds_per_step,
        needs.hours,
        needs.memory as f64 / 1e9,
        needs.parameters,
        needs.bank
    );
    println!("image of the first batch: {}", image.display());
    Ok(serde_json::to_value(needs)?)
}
