//! `trainer`: trains and evaluates models, and segments images with them.

// Without panics; see `loader/src/lines.rs`.
#[macro_use(eprintln, println)]
extern crate loader;

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use commands::DeviceArgs;
use loader::program::{self, Outcome, UsageError};
use trainer::cache::{self, CacheSettings};
use trainer::device::Precision;
use trainer::evaluation::command::Eval;
use trainer::feature_cache;
use trainer::pretrain::{self, PretrainSettings};
use trainer::settings::{Settings, VisionSettings};
use trainer::towers::PositionResize;
use trainer::train;

/// Train a text tower to match a frozen vision tower (SimZSS, LiT), evaluate the model, and segment images with it.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, max_term_width = 110, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print a machine-readable summary as the last line of standard output.
    #[arg(long, global = true)]
    json: bool,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong use (options, settings); 128 + signal: training was stopped by \
                          that signal and saved, add --resume to continue.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model.
    Train(TrainArgs),
    /// Pretrain a small vision tower from images alone, for tests and demos without DINOv2.
    Pretrain(PretrainArgs),
    /// Compute the features of the frozen vision tower for a dataset once, for training without augmentation.
    Cache(CacheArgs),
    /// Measure a training step of each objective: time, memory, images/s, and FLOPs utilization.
    Bench(commands::BenchArgs),
    /// Evaluate a model: segmentation, classification, retrieval.
    #[command(subcommand)]
    Eval(Eval),
    /// Segment images into classes that you name: overlay with legend, mask, scores.
    Segment(commands::SegmentArgs),
    /// Draw heat maps of the similarity between images and phrases.
    Similarity(commands::SimilarityArgs),
    /// Draw the patch features of images as colours (principal component analysis).
    Pca(commands::PcaArgs),
    /// Draw which patches each concept of a training sample attends to.
    Attention(commands::AttentionArgs),
    /// Start a local web page that segments images into classes as you type them.
    Serve(commands::ServeArgs),
    /// List or download published weights.
    Weights(commands::WeightsArgs),
    /// Convert weights to the state-dict keys of DINOv2, timm, Hugging Face, open_clip or SimZSS.
    Convert(commands::ConvertArgs),
    /// Write image and text embeddings to a file, for example to compare them with another implementation.
    Embed(commands::EmbedArgs),
    /// Export both towers as files that timm and open_clip load.
    Export(commands::ExportArgs),
    /// Write class embeddings to a file, to use the model without its text tower.
    Classes(commands::ClassesArgs),
    /// Write a model card for a run.
    Card(commands::CardArgs),
}

#[derive(Debug, Args)]
struct TrainArgs {
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

#[derive(Debug, Args)]
struct PretrainArgs {
    /// Shards whose images are used: folders, tar files or brace lists. Captions are not read.
    #[arg(long, required = true, num_args = 1.., value_name = "SHARDS")]
    shards: Vec<PathBuf>,
    /// Weights file to write: safetensors with DINOv2's state-dict keys.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Number of optimizer steps; 0 = keep the random initial weights.
    #[arg(long, default_value_t = 300)]
    steps: u64,
    /// Side of the square images in pixels; must be a multiple of the patch size.
    #[arg(long, default_value_t = 112)]
    size: u32,
    /// Side of a patch in pixels.
    #[arg(long, default_value_t = 8)]
    patch: i64,
    /// Embedding width of a token; must be a multiple of 64.
    #[arg(long, default_value_t = 128)]
    width: i64,
    /// Number of transformer blocks.
    #[arg(long, default_value_t = 4)]
    depth: i64,
    /// Random seed of weights, order of images and augmentation.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Args)]
struct CacheArgs {
    /// Shards of the dataset: folders, tar files or brace lists.
    #[arg(long, required = true, num_args = 1.., value_name = "SHARDS")]
    shards: Vec<PathBuf>,
    /// Weights file of the frozen vision tower, PyTorch (.pth, .pt, .bin) or safetensors.
    #[arg(long, value_name = "FILE", required_unless_present = "verify")]
    vision: Option<PathBuf>,
    /// Compute nothing, but compare the features in --out, and every image of the shards, with the checks that were stored with
    /// the features.
    #[arg(long)]
    verify: bool,
    /// How its position embedding is resized to another image size, the same as `vision.position` in training [default: as in the
    /// library whose state-dict keys the file has].
    #[arg(long, value_enum)]
    position: Option<PositionResize>,
    /// Side of the centre crop in pixels, the same as `data.size` in training.
    #[arg(long, default_value_t = 224)]
    size: u32,
    /// Folder to write, or to compare; `data.features` of the training.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

fn main() -> ExitCode {
    if let Some(code) = pages::requested(Cli::command) {
        return code;
    }
    let cli = Cli::parse();
    program::run(|| run(cli).map_err(wrong_use))
}

/// Marks errors about options and settings as wrong use, for exit code 2.
fn wrong_use(error: anyhow::Error) -> anyhow::Error {
    let wrong_use = error.downcast_ref::<trainer::Error>().is_some_and(trainer::Error::is_wrong_use);
    if wrong_use { UsageError::from_error(error).into() } else { error }
}

fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::Done;
    let summary = match cli.command {
        Command::Train(args) if args.dry_run.is_some() => run_dry(&args)?,
        Command::Train(args) => {
            let summary = run_train(&args)?;
            if summary.interrupted {
                outcome = Outcome::Stopped;
            }
            serde_json::to_value(summary)?
        }
        Command::Pretrain(args) => run_pretrain(args)?,
        Command::Cache(args) => run_cache(args)?,
        Command::Bench(args) => commands::bench(&args)?,
        Command::Eval(eval) => eval.run(cli.json)?,
        Command::Segment(args) => commands::segment(&args)?,
        Command::Similarity(args) => commands::similarity(&args)?,
        Command::Pca(args) => commands::pca(&args)?,
        Command::Attention(args) => commands::attention(&args)?,
        Command::Serve(args) => commands::serve(args)?,
        Command::Weights(args) => commands::weights(&args)?,
        Command::Convert(args) => commands::run_convert(&args)?,
        Command::Embed(args) => commands::embed(&args)?,
        Command::Export(args) => commands::export(&args)?,
        Command::Classes(args) => commands::run_classes(&args)?,
        Command::Card(args) => commands::card(&args)?,
    };
    if cli.json {
        program::print_json(&summary)?;
    }
    Ok(outcome)
}

fn run_train(args: &TrainArgs) -> anyhow::Result<train::Summary> {
    let settings = Settings::read(&args.config, &args.overrides)?;
    let summary = train::train(&settings, args.resume)?;
    if summary.interrupted {
        eprintln!(
            "stopped at step {}; the checkpoint is saved in {}. Add --resume to the same command to continue",
            summary.steps,
            summary.checkpoint.display()
        );
    }
    Ok(summary)
}

fn run_dry(args: &TrainArgs) -> anyhow::Result<serde_json::Value> {
    let settings = Settings::read(&args.config, &args.overrides)?;
    let image = args.dry_run.clone().unwrap_or_default();
    let needs = train::dry_run(&settings, &image)?;
    println!(
        "{} steps of {} samples; an epoch is {} samples in {} steps",
        settings.steps, settings.data.batch_size, needs.samples, needs.steps_per_epoch
    );
    println!("maximum learning rate: {}", settings.optimizer.describe_lr(settings.data.batch_size));
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

fn run_pretrain(args: PretrainArgs) -> anyhow::Result<serde_json::Value> {
    let settings = PretrainSettings {
        shards: args.shards,
        steps: args.steps,
        size: args.size,
        patch: args.patch,
        width: args.width,
        depth: args.depth,
        seed: args.seed,
        device: args.device.device,
        threads: args.device.threads,
    };
    Ok(serde_json::to_value(pretrain::pretrain(&settings, &args.out)?)?)
}

fn run_cache(args: CacheArgs) -> anyhow::Result<serde_json::Value> {
    if args.verify {
        let shards = loader::shard::list(&args.shards)?;
        return Ok(serde_json::to_value(feature_cache::verify(&args.out, &shards)?)?);
    }
    let settings = CacheSettings {
        shards: args.shards,
        vision: VisionSettings {
            weights: args.vision.unwrap_or_default(),
            position: args.position,
            ..VisionSettings::default()
        },
        size: args.size,
        device: args.device.device,
        precision: Precision::Auto,
        threads: args.device.threads,
    };
    Ok(serde_json::to_value(cache::write(&settings, &args.out)?)?)
}
