//! `trainer card`: the model card of a run.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use trainer::card::{self, CardSettings};
use trainer::checkpoint::Checkpoint;

#[derive(Debug, Args)]
pub(crate) struct CardArgs {
    /// A run's folder (its newest checkpoint is used) or one checkpoint.
    #[arg(long)]
    checkpoint: PathBuf,
    /// Summaries of `trainer eval --json`, one file each; a file's name stands for a data set it does not name.
    #[arg(long, num_args = 1..)]
    results: Vec<PathBuf>,
    /// Name of the model [default: the run's folder].
    #[arg(long)]
    name: Option<String>,
    /// Licence, by its identifier on Hugging Face's hub.
    #[arg(long)]
    license: Option<String>,
    /// The card; `README.md` in a model's repository.
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn run(args: &CardArgs) -> anyhow::Result<Value> {
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let folder = checkpoint.state.settings.out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let settings = CardSettings {
        name: args.name.clone().unwrap_or(folder),
        license: args.license.clone(),
        results: args.results.clone(),
    };
    let text = card::write(&checkpoint, &settings)?;
    concepts::files::write_atomic(&args.out, text.as_bytes())
        .with_context(|| args.out.display().to_string())?;
    println!("{}", args.out.display());
    Ok(json!({ "out": args.out, "results": args.results.len() }))
}
