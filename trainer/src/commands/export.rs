//! `trainer export` and `trainer classes`: files for other programs.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use trainer::checkpoint::Checkpoint;
use trainer::export;
use trainer::inference::word_vectors::WordVectors;

use super::options::{ClassListArgs, PromptArgs, RunArgs};

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Run folder (its newest checkpoint is used), or the folder of one checkpoint.
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Folder to write: vision.safetensors (state-dict keys of timm), text.safetensors (of open_clip), config.json, and load.py,
    /// which loads them. With --to open_clip: open_clip_config.json and open_clip_model.safetensors.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Write a folder that another program loads by itself: `open_clip` creates the model from `local-dir:DIR`. Models that it does not
    /// have are refused.
    #[arg(long, value_parser = ["open_clip"], value_name = "PROGRAM")]
    to: Option<String>,
    /// With --to: size of the images in pixels [default: as in training].
    #[arg(long, value_name = "PIXELS", requires = "to")]
    size: Option<i64>,
}

pub(crate) fn run(args: &ExportArgs) -> anyhow::Result<Value> {
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let print = |files: &[PathBuf]| files.iter().for_each(|file| println!("{}", file.display()));
    if args.to.is_none() {
        let files = export::checkpoint(&checkpoint, &args.out)?;
        print(&files);
        return Ok(json!({ "files": files }));
    }
    let made = export::open_clip(&checkpoint, args.size, &args.out)?;
    print(&made.files);
    let forced = made.force_image_size.map_or_else(String::new, |size| format!(", force_image_size={size}"));
    let load = format!("open_clip.create_model_and_transforms('local-dir:{}'{forced})", args.out.display());
    println!("load it in Python with {load}");
    Ok(json!({ "files": made.files, "force_image_size": made.force_image_size, "load": load }))
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
        "vectors": text.by().name(),
        "vision_sha256": checkpoint.state.vision,
        "step": checkpoint.state.step,
        "program": checkpoint.state.program,
    });
    export::classes(&list, &vectors, &about, &args.out)?;
    println!("{}", args.out.display());
    Ok(json!({ "out": args.out, "classes": list.names.len(), "words": list.words.len(), "width": width }))
}
