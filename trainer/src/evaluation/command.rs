//! What `trainer eval` offers.

mod classification;
mod segmentation;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

pub use classification::{ClassificationArgs, RetrievalArgs};
pub use segmentation::SegmentationArgs;
pub(super) use segmentation::THRESHOLD;

use super::table;
use crate::checkpoint::Checkpoint;
use crate::class_vectors::ClassVectors;
use crate::device::{self, Precision};
use crate::error::{Error, Result, at};
use crate::model::Model;
use crate::towers::{Activation, Dense};

/// Scores a model.
#[derive(Debug, Subcommand)]
pub enum Eval {
    /// Mean IoU and pixel accuracy over images with masks.
    Segmentation(Box<SegmentationArgs>),
    /// Zero-shot classification: top-1, top-5, mean per class, over one set or several.
    Classification(ClassificationArgs),
    /// Recall at 1, 5 and 10 between images and captions, both ways.
    Retrieval(RetrievalArgs),
    /// Results of earlier runs as tables in Markdown, beside the paper's rows.
    Table(TableArgs),
}

impl Eval {
    /// Runs it; returns what `--json` prints, and leaves the tables of the other form out if that is asked for.
    pub fn run(&self, json: bool) -> Result<Value> {
        match self {
            Self::Segmentation(args) => args.run(json),
            Self::Classification(args) => args.run(),
            Self::Retrieval(args) => args.run(),
            Self::Table(args) => args.run(json),
        }
    }
}

/// The model, and where it is computed.
#[derive(Debug, Args)]
pub struct EvalModelArgs {
    /// A run's folder (its newest checkpoint is used) or one checkpoint.
    #[arg(long, conflicts_with = "clip")]
    checkpoint: Option<PathBuf>,
    /// Instead of a checkpoint: a ViT CLIP of open_clip, its `open_clip_model.safetensors`.
    #[arg(long)]
    clip: Option<PathBuf>,
    /// How a CLIP's patches are read: `tokens` of the last block, or its `values`, MaskCLIP's way.
    #[arg(long, value_enum, default_value = "tokens", requires = "clip")]
    dense: Dense,
    /// The CLIP was trained with OpenAI's approximation of GELU (their own weights are, most others are not).
    #[arg(long, requires = "clip")]
    quick_gelu: bool,
    /// Sentences for the class names: `imagenet` (CLIP's 80), `simple` ("a photo of a {}.") or a file
    /// [default: those that come with the set, else imagenet].
    #[arg(long)]
    templates: Option<String>,
    /// Which embedding of a class name is its vector [default: caption, the published protocol; for folders what
    /// the training aligned with images: concept for simzss].
    #[arg(long, value_enum)]
    class_vectors: Option<ClassVectors>,
    /// `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    device: String,
    /// CPU threads; 0 for one a core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

impl EvalModelArgs {
    /// The model, and what results say of it.
    fn open(&self) -> Result<(Model, Value)> {
        device::limit_threads(self.threads);
        let device = device::open(&self.device)?;
        let activation = if self.quick_gelu { Activation::QuickGelu } else { Activation::Gelu };
        match (&self.checkpoint, &self.clip) {
            (_, Some(path)) => {
                let model = Model::open_clip(path, self.dense, activation, Precision::Auto, device)?;
                let about = json!({ "description": model.description, "path": path });
                Ok((model, about))
            }
            (Some(path), None) => {
                let checkpoint = Checkpoint::open(path)?;
                let model = Model::open(&checkpoint, Precision::Auto, device)?;
                let bank = &checkpoint.state.settings.bank;
                let bank = json!({ "names": bank.names, "min_mentions": bank.min_mentions, "concepts": checkpoint.state.bank });
                let about = json!({ "description": model.description, "path": path, "bank": bank });
                Ok((model, about))
            }
            (None, None) => Err(Error::Setting {
                name: "checkpoint".to_owned(),
                problem: "names no model; give --checkpoint or --clip".to_owned(),
            }),
        }
    }

    /// Threads for reading images.
    fn readers(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

/// Earlier results.
#[derive(Debug, Args)]
pub struct TableArgs {
    /// `result.json` files, or folders that hold one, as `eval --out` writes them.
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// Write the tables to this file too.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl TableArgs {
    fn run(&self, json: bool) -> Result<Value> {
        let mut results = Vec::new();
        for path in &self.results {
            let path = if path.is_dir() { path.join(RESULT) } else { path.clone() };
            let bytes = std::fs::read(&path).map_err(at(&path))?;
            let result: Value = serde_json::from_slice(&bytes)
                .map_err(|e| Error::Invalid { path: path.clone(), problem: format!("no result: {e}") })?;
            match result {
                Value::Array(several) => results.extend(several),
                one => results.push(one),
            }
        }
        let tables = table::markdown(&results);
        if let Some(out) = &self.out {
            concepts::files::write_atomic(out, tables.as_bytes()).map_err(at(out))?;
        }
        if !json {
            print!("{tables}");
        }
        Ok(json!({ "results": results.len(), "out": self.out }))
    }
}

/// File of a result below `--out`.
const RESULT: &str = "result.json";
const TABLE: &str = "table.md";

/// Writes `result.json` and `table.md` below `out`.
fn write_results(out: &Path, results: &Value, tables: &str) -> Result<()> {
    std::fs::create_dir_all(out).map_err(at(out))?;
    let path = out.join(RESULT);
    let text = serde_json::to_vec_pretty(results)
        .map_err(|e| Error::Invalid { path: path.clone(), problem: e.to_string() })?;
    concepts::files::write_atomic(&path, &text).map_err(at(&path))?;
    let path = out.join(TABLE);
    concepts::files::write_atomic(&path, tables.as_bytes()).map_err(at(&path))
}
