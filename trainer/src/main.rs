//! `trainer`: trains, evaluates and segments.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use loader::program::{self, Outcome, UsageError};
use serde_json::json;
use trainer::cache::{self, CacheSettings};
use trainer::checkpoint::Checkpoint;
use trainer::device::Precision;
use trainer::evaluation::{self, command::Eval};
use trainer::pretrain::{self, PretrainSettings};
use trainer::segmenter::{ClassVectors, SegmentSettings, Segmenter};
use trainer::settings::{Settings, VisionSettings};
use trainer::{picture, train};

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
    /// Score a model.
    #[command(subcommand)]
    Eval(Eval),
    /// Segment a picture into the classes of a list, and write it as an overlay with a legend.
    Segment(SegmentArgs),
}

#[derive(Debug, Args)]
struct TrainArgs {
    /// Settings of the run, TOML; every value is documented in trainer/src/settings.rs.
    #[arg(long)]
    config: PathBuf,
    /// Replace a value of the settings, as `optimizer.lr=1e-3`; may be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    overrides: Vec<String>,
    /// Go on from the newest checkpoint of the run's folder.
    #[arg(long)]
    resume: bool,
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
struct SegmentArgs {
    /// The picture: jpg, png or webp.
    image: PathBuf,
    /// Words to look for, separated by commas.
    #[arg(long)]
    classes: String,
    /// The overlay, a PNG.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
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
    fn segmenter(&self, names: &[String]) -> anyhow::Result<Segmenter> {
        trainer::device::limit_threads(self.device.threads);
        let settings = SegmentSettings {
            device: self.device.device.clone(),
            precision: Precision::Auto,
            size: self.size,
            stride: self.stride,
            templates: self.templates.clone(),
            vectors: self.class_vectors,
        };
        Ok(Segmenter::open(&Checkpoint::open(&self.checkpoint)?, names, &settings)?)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    program::run(|| {
        let summary = match cli.command {
            Command::Train(args) => run_train(&args)?,
            Command::Pretrain(args) => run_pretrain(args)?,
            Command::Cache(args) => run_cache(args)?,
            Command::Eval(eval) => eval.run(cli.json)?,
            Command::Segment(args) => run_segment(&args)?,
        };
        if cli.json {
            program::print_json(&summary)?;
        }
        Ok(Outcome::Done)
    })
}

fn run_train(args: &TrainArgs) -> anyhow::Result<serde_json::Value> {
    let settings = Settings::read(&args.config, &args.overrides)?;
    let summary = train::train(&settings, args.resume)?;
    if summary.interrupted {
        anyhow::bail!(
            "stopped at step {}; go on with --resume from {}",
            summary.steps,
            summary.checkpoint.display()
        );
    }
    Ok(serde_json::to_value(summary)?)
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

fn run_segment(args: &SegmentArgs) -> anyhow::Result<serde_json::Value> {
    let names: Vec<String> =
        args.classes.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(UsageError(
            "--classes names nothing; write it as \"cat, sofa, wooden floor\"".to_owned(),
        )
        .into());
    }
    let photo = read_image(&args.image)?;
    let shown = picture::shown(&photo);
    let segmenter = args.model.segmenter(&names)?;
    let labels = segmenter.labels(&photo, i64::from(shown.height()), i64::from(shown.width()));
    let labels = evaluation::bytes(&labels);
    write_png(&picture::overlay(&shown, &labels, &names)?, &args.out)?;
    let shares: serde_json::Map<String, serde_json::Value> = names
        .iter()
        .enumerate()
        .map(|(class, name)| {
            let count = labels.iter().filter(|&&label| usize::from(label) == class).count();
            (name.clone(), json!(count as f64 / labels.len() as f64))
        })
        .collect();
    println!("{}", args.out.display());
    Ok(json!({ "out": args.out, "shares": shares }))
}

fn read_image(path: &Path) -> anyhow::Result<image::RgbImage> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    loader::pixels::decode(&bytes).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))
}

/// Whole or not at all.
fn write_png(page: &image::RgbImage, path: &Path) -> anyhow::Result<()> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    page.write_to(&mut bytes, image::ImageFormat::Png)?;
    concepts::files::write_atomic(path, bytes.get_ref()).with_context(|| path.display().to_string())
}
