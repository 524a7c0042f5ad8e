//! `trainer`: trains, evaluates and segments.

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use loader::program::{self, Outcome};
use trainer::cache::{self, CacheSettings};
use trainer::checkpoint::Checkpoint;
use trainer::device::Precision;
use trainer::evaluation::command::Eval;
use trainer::pretrain::{self, PretrainSettings};
use trainer::segmenter::{ClassVectors, SegmentSettings, Segmenter};
use trainer::settings::{Settings, VisionSettings};
use trainer::train;

/// Trains a text tower beside a frozen vision tower (SimZSS, LiT), evaluates it and segments pictures with it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one machine-readable summary as the last line of standard output.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train as a settings file says.
    Train(TrainArgs),
    /// Make a small vision tower of one's own, where no pretrained one is at hand.
    Pretrain(PretrainArgs),
    /// Compute the frozen tower's features of a set once, for runs without augmentation.
    Cache(CacheArgs),
    /// Measure a step of each objective: time, memory, images a second, share of what the device can do.
    Bench(commands::BenchArgs),
    /// Score a model.
    #[command(subcommand)]
    Eval(Eval),
    /// Segment pictures into the classes of a list: overlay with a legend, mask, scores.
    Segment(commands::SegmentArgs),
    /// Show where pictures are like a phrase.
    Similarity(commands::SimilarityArgs),
    /// Show what the frozen tower tells apart, as colours.
    Pca(commands::PcaArgs),
    /// Show what the concepts of training samples are pooled from.
    Attention(commands::AttentionArgs),
    /// Open a page on this machine to try words on pictures.
    Serve(commands::ServeArgs),
    /// Fetch published weights.
    Weights(commands::WeightsArgs),
    /// Write weights in the names of DINOv2, timm, Hugging Face, open_clip or SimZSS.
    Convert(commands::ConvertArgs),
    /// Write what the towers make of pictures and captions, to hold against other implementations.
    Embed(commands::EmbedArgs),
    /// Write both towers as files that timm and open_clip load.
    Export(commands::ExportArgs),
    /// Write the vectors of classes as a file, for use without a text tower.
    Classes(commands::ClassesArgs),
    /// Write the model card of a run.
    Card(commands::CardArgs),
}

#[derive(Debug, Args)]
struct TrainArgs {
    /// Settings of the run, TOML; every value is documented in trainer/src/settings.rs. May be repeated: later files
    /// replace values of earlier ones.
    #[arg(long, required = true)]
    config: Vec<PathBuf>,
    /// Replace a value of the settings, as `optimizer.lr=1e-3`; may be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    overrides: Vec<String>,
    /// Go on from the newest checkpoint of the run's folder, or begin where there is none.
    #[arg(long)]
    resume: bool,
    /// Only take a few steps and say what the run would need; writes nothing but the first batch as this picture (a PNG).
    #[arg(long, value_name = "PNG", conflicts_with = "resume")]
    dry_run: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct PretrainArgs {
    /// Folders of shards, shards or brace lists whose images are used.
    #[arg(long, required = true, num_args = 1..)]
    shards: Vec<PathBuf>,
    /// The tower's safetensors file, in DINOv2's names.
    #[arg(long)]
    out: PathBuf,
    /// Optimiser steps; 0 leaves the weights random.
    #[arg(long, default_value_t = 300)]
    steps: u64,
    /// Side of the images in pixels, a multiple of the patch.
    #[arg(long, default_value_t = 112)]
    size: u32,
    /// Side of a patch in pixels.
    #[arg(long, default_value_t = 8)]
    patch: i64,
    /// Token width, a multiple of 64.
    #[arg(long, default_value_t = 128)]
    width: i64,
    /// Number of blocks.
    #[arg(long, default_value_t = 4)]
    depth: i64,
    /// Seed of weights, order and augmentation.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Args)]
struct CacheArgs {
    /// Folders of shards, shards or brace lists.
    #[arg(long, required = true, num_args = 1..)]
    shards: Vec<PathBuf>,
    /// The frozen tower's safetensors file.
    #[arg(long)]
    vision: PathBuf,
    /// Side of the centre crop in pixels.
    #[arg(long, default_value_t = 224)]
    size: u32,
    /// Folder to write.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Args)]
struct DeviceArgs {
    /// `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    device: String,
    /// CPU threads; 0 for one a core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

#[derive(Debug, Args)]
struct ModelArgs {
    /// A run's folder (its newest checkpoint is used) or one checkpoint.
    #[arg(long)]
    checkpoint: PathBuf,
    /// Short side the images are brought to, and side of the window, in pixels; 0 for the training size.
    #[arg(long, default_value_t = 0)]
    size: u32,
    /// Step of the sliding window in pixels; 0 for half the window.
    #[arg(long, default_value_t = 0)]
    stride: u32,
    /// Sentences for the class names: `imagenet` (CLIP's 80), `simple` ("a photo of a {}.") or a file.
    #[arg(long, default_value = "imagenet")]
    templates: String,
    /// Which embedding of a class name is its vector: the whole caption's (the published protocol) or the name's own
    /// words' [default: concept for simzss, caption for lit: what each aligns with images].
    #[arg(long, value_enum)]
    class_vectors: Option<ClassVectors>,
    #[command(flatten)]
    device: DeviceArgs,
}

impl ModelArgs {
    /// What the library wants to know of it; limits the threads too.
    fn settings(&self) -> SegmentSettings {
        trainer::device::limit_threads(self.device.threads);
        SegmentSettings {
            device: self.device.device.clone(),
            precision: Precision::Auto,
            size: self.size,
            stride: self.stride,
            templates: self.templates.clone(),
            vectors: self.class_vectors,
        }
    }

    fn segmenter(&self, names: &[String]) -> anyhow::Result<Segmenter> {
        Ok(Segmenter::open(&Checkpoint::open(&self.checkpoint)?, names, &self.settings())?)
    }
}

fn main() -> ExitCode {
    if let Some(code) = pages::requested(Cli::command) {
        return code;
    }
    let cli = Cli::parse();
    program::run(|| {
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
    })
}

fn run_train(args: &TrainArgs) -> anyhow::Result<train::Summary> {
    let settings = Settings::read(&args.config, &args.overrides)?;
    let summary = train::train(&settings, args.resume)?;
    if summary.interrupted {
        eprintln!(
            "stopped at step {}, saved in {}; go on with --resume",
            summary.steps,
            summary.checkpoint.display()
        );
    }
    Ok(summary)
}

fn run_dry(args: &TrainArgs) -> anyhow::Result<serde_json::Value> {
    let settings = Settings::read(&args.config, &args.overrides)?;
    let picture = args.dry_run.clone().unwrap_or_default();
    let needs = train::dry_run(&settings, &picture)?;
    println!(
        "{} steps of {} samples ({} an epoch of {}), {:.2} s each: {:.1} h; {:.1} GB; {} trained numbers; {} concepts",
        settings.steps,
        settings.data.batch_size,
        needs.steps_per_epoch,
        needs.samples,
        needs.seconds_per_step,
        needs.hours,
        needs.memory as f64 / 1e9,
        needs.parameters,
        needs.bank
    );
    println!("first batch: {}", picture.display());
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
    let settings = CacheSettings {
        shards: args.shards,
        vision: VisionSettings { weights: args.vision, ..VisionSettings::default() },
        size: args.size,
        device: args.device.device,
        precision: Precision::Auto,
        threads: args.device.threads,
    };
    Ok(serde_json::to_value(cache::write(&settings, &args.out)?)?)
}
