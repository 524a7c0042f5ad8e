//! `trainer export` and `trainer classes`: what a trained model leaves for other programs.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use trainer::checkpoint::Checkpoint;
use trainer::export;
use trainer::segmenter::ClassVectors;
use trainer::words::WordVectors;

use super::classes as read_classes;
use crate::ModelArgs;

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// A run's folder (its newest checkpoint is used) or one checkpoint.
    #[arg(long)]
    checkpoint: PathBuf,
    /// Folder for vision.safetensors (timm's names), text.safetensors (open_clip's), config.json and load.py.
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn run(args: &ExportArgs) -> anyhow::Result<Value> {
    let files = export::checkpoint(&Checkpoint::open(&args.checkpoint)?, &args.out)?;
    for file in &files {
        println!("{}", file.display());
    }
    Ok(json!({ "files": files }))
}

#[derive(Debug, Args)]
pub(crate) struct ClassesArgs {
    /// Words, separated by commas; `cat|kitten` are two words for one class.
    #[arg(long)]
    classes: Option<String>,
    /// The same, one class a line.
    #[arg(long, conflicts_with = "classes")]
    class_file: Option<PathBuf>,
    /// The file, safetensors: `weight` [words, width] of unit length, `class` [words], names as metadata.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

pub(crate) fn run_classes(args: &ClassesArgs) -> anyhow::Result<Value> {
    let list = read_classes(args.classes.as_deref(), args.class_file.as_deref())?;
    let checkpoint = Checkpoint::open(&args.model.checkpoint)?;
    let settings = args.model.settings();
    let width = trainer::dense::DenseVision::open(&checkpoint, &settings)?.width();
    let mut text = WordVectors::open(&checkpoint, width, &settings)?;
    let vectors = text.of(&list.words)?;
    let about = json!({
        "templates": settings.templates,
        "vectors": match text.by() { ClassVectors::Caption => "caption", ClassVectors::Concept => "concept" },
        "vision_sha256": checkpoint.state.vision,
        "step": checkpoint.state.step,
        "program": checkpoint.state.program,
    });
    export::classes(&list, &vectors, &about, &args.out)?;
    println!("{}", args.out.display());
    Ok(json!({ "out": args.out, "classes": list.names.len(), "words": list.words.len(), "width": width }))
}
