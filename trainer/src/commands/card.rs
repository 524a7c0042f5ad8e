//! `trainer card`: writes the model card of a run.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use trainer::checkpoint::Checkpoint;
use trainer::export::card::{self, CardSettings};

#[derive(Debug, Args)]
pub(crate) struct CardArgs {
    /// Run folder (its newest checkpoint is used), or the folder of one checkpoint.
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Evaluation results for the card: files with the output of `trainer eval .. --json`. If a summary does not name its
    /// dataset, the file name is used.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    results: Vec<PathBuf>,
    /// Name of the model [default: name of the run folder].
    #[arg(long)]
    name: Option<String>,
    /// Licence of the model: its identifier on the Hugging Face Hub, such as `mit`.
    #[arg(long)]
    license: Option<String>,
    /// File to write; `README.md` in a model repository on the Hugging Face Hub.
    #[arg(long, value_name = "FILE")]
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
    storage::replace(&args.out, text.into_bytes())?;
    println!("{}", args.out.display());
    Ok(json!({ "out": args.out, "results": args.results.len() }))
}
