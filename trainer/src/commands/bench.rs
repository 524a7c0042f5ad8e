//! `trainer bench`: the paper's table of what each objective costs.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use trainer::bench::{Captions, measure};
use trainer::device::Precision;
use trainer::objective::Objective;
use trainer::settings::Settings;
use trainer::towers::{TextShape, VisionShape};
use trainer::train;

/// The towers' size.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Size {
    /// ViT-S/14 beside a text tower of width 384.
    S,
    /// ViT-B/14 beside a text tower of width 512.
    B,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Clip,
    Lit,
    Simzss,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Objectives to measure, each in a process of its own.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "clip,lit,simzss")]
    objectives: Vec<Which>,
    /// Settings of a run, as for `train`: measure on its own shards and towers instead of made-up ones. Of the options below
    /// only --steps and --warm-up then count.
    #[arg(long)]
    config: Vec<PathBuf>,
    /// Replace a value of these settings; may be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE", requires = "config")]
    overrides: Vec<String>,
    /// Size of the towers; `clip` trains a ViT-S/16 or ViT-B/16.
    #[arg(long, value_enum, default_value = "b")]
    model: Size,
    /// Samples a step.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Rows computed at a time; 0 for the whole batch.
    #[arg(long, default_value_t = 0)]
    micro_batch: usize,
    /// Side of the images in pixels, a multiple of the patch (14; 16 for `clip`).
    #[arg(long, default_value_t = 224)]
    size: u32,
    /// Tokens of a caption, start and end included.
    #[arg(long, default_value_t = 13)]
    tokens: usize,
    /// Mentions of a caption.
    #[arg(long, default_value_t = 3)]
    mentions: usize,
    /// Concepts that these are drawn from.
    #[arg(long, default_value_t = 574)]
    concepts: u32,
    /// Steps that are timed; the median counts.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Steps before those.
    #[arg(long, default_value_t = 2)]
    warm_up: usize,
    /// `auto` (bfloat16 on a GPU), `float32` or `bfloat16`.
    #[arg(long, default_value = "auto")]
    precision: String,
    /// Write a profile of one more step of each objective to this folder, as OBJECTIVE.json: a Chrome trace.
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    device: crate::DeviceArgs,
    /// Measures this objective in this process and prints JSON.
    #[arg(long, value_enum, hide = true)]
    only: Option<Which>,
}

pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<Value> {
    if let Some(folder) = &args.trace {
        std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    }
    if let Some(which) = args.only {
        let trace = args.trace.as_ref().map(|folder| folder.join(format!("{}.json", name(which))));
        let trace = trace.as_deref();
        let measured = if args.config.is_empty() {
            measure(&settings(args, which)?, shape(args), captions(args), args.warm_up, args.steps, trace)?
        } else {
            let objective = format!("objective.name={}", name(which));
            let settings = Settings::read(&args.config, &[&args.overrides[..], &[objective]].concat())?;
            train::measure(&settings, args.warm_up, args.steps, trace)?
        };
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(serde_json::to_value(measured)?);
    }
    let mut rows = Vec::new();
    println!("objective   batch    ms/step  vision ms   images/s  memory GB   TFLOP/s   MFU %  waits %");
    for &which in &args.objectives {
        let row = apart(which)?;
        let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        println!(
            "{:<9} {:>7} {:>10.0} {:>10.0} {:>10.1} {:>10.2} {:>9.2} {:>7.1} {:>8.1}",
            row["objective"].as_str().unwrap_or_default(),
            number("batch"),
            number("milliseconds"),
            number("vision_milliseconds"),
            number("images_per_second"),
            number("memory") / 1e9,
            number("tflops"),
            100.0 * number("utilization"),
            100.0 * number("data_wait")
        );
        rows.push(row);
    }
    Ok(json!({ "measured": rows }))
}

fn name(which: Which) -> String {
    which.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}

/// Measures one objective in a process of its own, so that its memory is its own.
fn apart(which: Which) -> anyhow::Result<Value> {
    let name = name(which);
    let output = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1).filter(|argument| argument != "--json"))
        .args(["--only", &name])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let line = text.lines().last().context("the measuring process printed nothing")?;
    Ok(serde_json::from_str(line)?)
}

fn captions(args: &BenchArgs) -> Captions {
    Captions { tokens: args.tokens, mentions: args.mentions, concepts: args.concepts }
}

fn shape(args: &BenchArgs) -> VisionShape {
    let width = match args.model {
        Size::S => 384,
        Size::B => 768,
    };
    VisionShape { width, depth: 12, patch: 14, grid: i64::from(args.size) / 14 }
}

fn settings(args: &BenchArgs, which: Which) -> anyhow::Result<Settings> {
    let mut settings = Settings { steps: 1000, ..Settings::default() };
    settings.device.clone_from(&args.device.device);
    settings.threads = args.device.threads;
    settings.precision = match args.precision.as_str() {
        "auto" => Precision::Auto,
        "float32" => Precision::Float32,
        "bfloat16" => Precision::Bfloat16,
        other => bail!("--precision {other}: must be auto, float32 or bfloat16"),
    };
    settings.micro_batch = args.micro_batch;
    settings.data.batch_size = args.batch.max(1);
    settings.data.size = args.size;
    settings.objective.name = match which {
        Which::Clip => Objective::Clip,
        Which::Lit => Objective::Lit,
        Which::Simzss => Objective::Simzss,
    };
    settings.text = match args.model {
        Size::S => TextShape { width: 384, heads: 6, ..TextShape::default() },
        Size::B => TextShape::default(),
    };
    settings.clip.width = shape(args).width;
    settings.clip.output = settings.text.width;
    if which == Which::Clip && (args.size == 0 || i64::from(args.size) % settings.clip.patch != 0) {
        bail!("--size {}: clip's patches are of 16 px; choose a multiple, or leave clip out", args.size);
    }
    Ok(settings)
}
