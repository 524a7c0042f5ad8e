//! `trainer export` and `trainer classes`: files for other programs.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use trainer::checkpoint::Checkpoint;
use trainer::export;
use trainer::inference::class_vectors::ClassVectors;
use trainer::inference::word_vectors::WordVectors;

use super::options::{ClassListArgs, PromptArgs, RunArgs};

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Run folder (its newest checkpoint is used), or the folder of one checkpoint.
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Folder to write: vision.safetensors (state-dict keys of timm), text.safetensors (of open_clip), config.json, and load.py,
    /// which loads them.
    #[arg(long, value_name = "DIR")]
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
    #[command(flatten)]
    list: ClassListArgs,
    /// File to write (safetensors): `weight` [names, width], embeddings of unit length; `class` [names], the index of the class
    /// of each; class names as metadata.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    prompts: PromptArgs,
}

pub(crate) fn run_classes(args: &ClassesArgs) -> anyhow::Result<Value> {
    let list = args.list.read()?;
    let checkpoint = args.run.open()?;
    let settings = args.run.settings(None, Some(&args.prompts));
    let width = trainer::inference::dense::DenseVision::open(&checkpoint, &settings)?.width();
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
