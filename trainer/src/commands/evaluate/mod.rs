//! `trainer eval`: evaluates models.

mod classification;
mod names;
mod parts;
mod predictions;
mod probe;
mod referring;
mod segmentation;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tch::Device;

use super::options::PrecisionArgs;
use classification::{ClassificationArgs, RetrievalArgs};
use probe::ProbeArgs;
use referring::ReferringArgs;
use segmentation::SegmentationArgs;
use trainer::checkpoint::Checkpoint;
use trainer::device;
use trainer::evaluation::table;
use trainer::inference::model::{ClipSettings, DenseFiles, Model};
use trainer::towers::{Activation, Dense};
use trainer::{Error, Result};

/// Evaluates a model.
#[derive(Debug, Subcommand)]
pub(crate) enum Eval {
    /// Semantic segmentation: mean IoU and pixel accuracy on images with masks.
    Segmentation(Box<SegmentationArgs>),
    /// How much of what the features of a model allow its zero-shot segmentation reaches: class names, class means, nearest
    /// neighbours, a linear classifier and the true labels of the patches on the same windows.
    Probe(Box<ProbeArgs>),
    /// Referring segmentation: IoU of the masks of expressions such as "the red car on the left".
    Referring(Box<ReferringArgs>),
    /// Zero-shot classification: top-1, top-5 and mean per-class accuracy on one or several datasets.
    Classification(ClassificationArgs),
    /// Image-text retrieval: recall at 1, 5 and 10 in both directions.
    Retrieval(RetrievalArgs),
    /// Print results of earlier evaluations as Markdown tables, together with the published results.
    Table(TableArgs),
}

impl Eval {
    /// Runs the command. Returns the summary for `--json`; with `json` the table for people is not printed.
    pub(crate) fn run(&self, json: bool) -> Result<Value> {
        match self {
            Self::Segmentation(args) => args.run(json),
            Self::Probe(args) => args.run(json),
            Self::Referring(args) => args.run(json),
            Self::Classification(args) => args.run(),
            Self::Retrieval(args) => args.run(),
            Self::Table(args) => args.run(json),
        }
    }
}

/// The model, and where to compute it.
#[derive(Debug, Args)]
struct EvalModelArgs {
    /// Run folder (its newest checkpoint is used), or the folder of one checkpoint.
    #[arg(long, conflicts_with = "clip", value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    /// Instead of a checkpoint: weights file of a CLIP with a ViT, PyTorch (.pt, .bin) or safetensors, with the state-dict keys of
    /// open_clip, OpenAI or Hugging Face; for example open_clip_model.safetensors or ViT-B-16.pt.
    #[arg(long, value_name = "FILE")]
    clip: Option<PathBuf>,
    // clap does not enforce `requires` if the required option conflicts with one that is given, hence `conflicts_with` too.
    /// With --clip: it was trained with OpenAI's approximation of GELU (needed for OpenAI's weights, not for most others).
    #[arg(long, requires = "clip", conflicts_with = "checkpoint")]
    quick_gelu: bool,
    /// With --clip: number of attention heads of its vision tower [default: as in the published CLIPs of its width].
    #[arg(long, value_name = "N", requires = "clip", conflicts_with = "checkpoint")]
    vision_heads: Option<i64>,
    /// With --clip: number of attention heads of its text tower [default: as in the published CLIPs of its width].
    #[arg(long, value_name = "N", requires = "clip", conflicts_with = "checkpoint")]
    text_heads: Option<i64>,
    /// Where to compute: `auto` (the first GPU if there is one, otherwise the CPU), `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    device: String,
    /// CPU threads; 0 = one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[command(flatten)]
    precision: PrecisionArgs,
}

impl EvalModelArgs {
    /// An error if no model is given: wrong use, which is found before any data is read.
    fn check(&self) -> Result<()> {
        match (&self.checkpoint, &self.clip) {
            (None, None) => Err(Error::Usage("missing --checkpoint or --clip".to_owned())),
            _ => Ok(()),
        }
    }

    /// The model, and its description for the results. `dense`: its patch features, and the files that they need.
    fn open(&self, dense: &(Dense, DenseFiles)) -> Result<(Model, Value)> {
        self.open_on(device::open(&self.device)?, dense)
    }

    /// The same on this device.
    fn open_on(&self, device: Device, (dense, files): &(Dense, DenseFiles)) -> Result<(Model, Value)> {
        device::limit_threads(self.threads);
        let precision = self.precision.precision.for_scores(device);
        let activation = if self.quick_gelu { Activation::QuickGelu } else { Activation::Gelu };
        if let Some(path) = &self.clip {
            let (vision_heads, text_heads) = (self.vision_heads, self.text_heads);
            let clip = ClipSettings { activation, vision_heads, text_heads };
            let model = Model::open_clip(path, clip, precision, device)?.with_dense(*dense, files)?;
            let about = json!({ "description": model.description, "path": path, "beside": files.given() });
            return Ok((model, about));
        }
        self.check()?;
        let path = self.checkpoint.clone().unwrap_or_default();
        let checkpoint = Checkpoint::open(&path)?;
        let model = Model::open(&checkpoint, precision, device)?.with_dense(*dense, files)?;
        let bank = &checkpoint.state.settings.bank;
        let bank = json!({ "names": bank.names, "min_mentions": bank.min_mentions, "concepts": checkpoint.state.bank });
        let about =
            json!({ "description": model.description, "path": path, "beside": files.given(), "bank": bank });
        Ok((model, about))
    }

    /// Number of threads that read images.
    fn readers(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

/// Results of earlier evaluations.
#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    /// Files result.json, or folders that contain one, as `trainer eval .. --out` writes them.
    #[arg(required = true, value_name = "RESULTS")]
    results: Vec<PathBuf>,
    /// Also write the tables to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl TableArgs {
    fn run(&self, json: bool) -> Result<Value> {
        let mut results = Vec::new();
        for path in &self.results {
            let path = if storage::is_folder(path)? { path.join(RESULT) } else { path.clone() };
            let bytes = storage::read(&path)?;
            let result: Value = serde_json::from_slice(&bytes).map_err(|e| Error::Invalid {
                path: path.clone(),
                problem: format!("is not a result file: {e}"),
            })?;
            match result {
                Value::Array(several) => results.extend(several),
                one => results.push(one),
            }
        }
        let tables = table::markdown(&results);
        if let Some(out) = &self.out {
            storage::replace(out, tables.clone().into_bytes())?;
        }
        if !json {
            print!("{tables}");
        }
        Ok(json!({ "results": results.len(), "out": self.out }))
    }
}

/// File with the results in the folder `--out`.
const RESULT: &str = "result.json";
const TABLE: &str = "table.md";

/// Writes `result.json` and `table.md` to the folder `out`.
fn write_results(out: &Path, results: &Value, tables: &str) -> Result<()> {
    storage::create_folder(out)?;
    storage::replace(out.join(TABLE), tables.as_bytes().to_vec())?;
    let path = out.join(RESULT);
    let text = serde_json::to_vec_pretty(results)
        .map_err(|e| Error::Invalid { path: path.clone(), problem: e.to_string() })?;
    Ok(storage::replace(&path, text)?)
}
