//! `trainer bench`: time and memory of a training step of each objective, as in the cost table of the paper.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use program::UsageError;
use serde_json::{Value, json};
use trainer::device::Precision;
use trainer::method::objective::Objective;
use trainer::run::{Captions, measure_run, measure_synthetic};
use trainer::settings::Settings;
use trainer::towers::{TextShape, VisionShape};

use super::choices;
use super::console::Console;
use super::options::DeviceArgs;

/// Size of the towers.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Size {
    /// ViT-S/14 with a text tower of width 384.
    S,
    /// ViT-B/14 with a text tower of width 512.
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
    /// Objectives to measure, each in its own process.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "clip,lit,simzss")]
    objectives: Vec<Which>,
    /// Measure a real run: settings file as for `trainer train`, with its shards and towers. Without it, synthetic data and random
    /// weights are used.
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Replace one setting of --config; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    overrides: Vec<String>,
    /// Number of timed steps; the median is printed.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Number of steps before the timed ones.
    #[arg(long, default_value_t = 2)]
    warm_up: usize,
    /// Write a profile of one more step per objective to this folder: OBJECTIVE.json, a Chrome trace.
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    synthetic: SyntheticArgs,
    /// Measures this objective in this process and prints JSON.
    #[arg(long, value_enum, hide = true)]
    only: Option<Which>,
}

/// Options of a measurement without `--config`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Synthetic data and random weights (without --config)")]
struct SyntheticArgs {
    /// Size of the towers. `clip` trains a ViT-S/16 or ViT-B/16 instead of the /14.
    #[arg(long, value_enum, default_value = "b")]
    model: Size,
    /// Samples per step.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Samples that are embedded at a time (as GradCache, see `micro_batch` in docs/settings.md); 0 = the whole batch.
    #[arg(long, default_value_t = 0)]
    micro_batch: usize,
    /// Side of the square images in pixels; must be a multiple of the patch size (14, or 16 for `clip`).
    #[arg(long, default_value_t = 224)]
    size: u32,
    /// Tokens per caption, including the start and end tokens.
    #[arg(long, default_value_t = 13)]
    tokens: usize,
    /// Concept mentions per caption.
    #[arg(long, default_value_t = 3)]
    mentions: usize,
    /// Number of concepts in the vocabulary.
    #[arg(long, default_value_t = 574)]
    concepts: u32,
    /// Number format in which the towers compute.
    #[arg(long, value_parser = choices::precision(), default_value = "auto")]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<Value> {
    if let Some(folder) = &args.trace {
        storage::create_folder(folder)?;
    }
    if let Some(which) = args.only {
        let target = args.trace.as_ref().map(|folder| folder.join(format!("{}.json", name(which))));
        // libtorch writes to a local disk only.
        let is_remote = target.as_deref().is_some_and(|path| storage::Location::from(path).is_remote());
        let local = std::env::temp_dir().join("simzss-trace.json");
        let trace = if is_remote { Some(disk::files::temporary_path(&local)) } else { target.clone() };
        let trace = trace.as_deref();
        let measured = if args.config.is_empty() {
            let synthetic = &args.synthetic;
            let settings = synthetic.settings(which)?;
            measure_synthetic(
                &settings,
                synthetic.shape(),
                synthetic.captions(),
                args.warm_up,
                args.steps,
                trace,
            )?
        } else {
            let objective = format!("objective.name={}", name(which));
            let settings = Settings::read(&args.config, &[&args.overrides[..], &[objective]].concat())?;
            measure_run(&settings, args.warm_up, args.steps, trace, &Console)?
        };
        if let (true, Some(made), Some(target)) = (is_remote, trace, &target) {
            let sent = storage::upload(made, target);
            let _ = std::fs::remove_file(made);
            sent?;
        }
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(serde_json::to_value(measured)?);
    }
    let mut rows = Vec::new();
    println!("objective   batch    ms/step  vision ms   images/s  memory GB   TFLOP/s   MFU %  data wait %");
    for &which in &args.objectives {
        let row = in_own_process(which)?;
        let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        println!(
            "{:<9} {:>7} {:>10.0} {:>10.0} {:>10.1} {:>10.2} {:>9.2} {:>7.1} {:>12.1}",
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

/// Measures one objective in a process of its own, so that the peak memory is that of this objective.
fn in_own_process(which: Which) -> anyhow::Result<Value> {
    let name = name(which);
    let output = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1).filter(|argument| argument != "--json"))
        .args(["--only", &name])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let problem = format!("{name}: {}", stderr.trim().trim_start_matches("error: "));
        // Wrong use is found by the measuring process.
        return Err(if output.status.code() == Some(2) {
            UsageError(problem).into()
        } else {
            anyhow!(problem)
        });
    }
    let line = text.lines().last().context("the measuring process printed nothing")?;
    Ok(serde_json::from_str(line)?)
}

impl SyntheticArgs {
    fn captions(&self) -> Captions {
        Captions { tokens: self.tokens, mentions: self.mentions, concepts: self.concepts }
    }

    fn shape(&self) -> VisionShape {
        let width = match self.model {
            Size::S => 384,
            Size::B => 768,
        };
        VisionShape { width, depth: 12, patch: 14, grid: i64::from(self.size) / 14 }
    }

    fn settings(&self, which: Which) -> anyhow::Result<Settings> {
        let mut settings = Settings { steps: 1000, ..Settings::default() };
        settings.device.clone_from(&self.device.device);
        settings.threads = self.device.threads;
        settings.precision = self.precision;
        settings.micro_batch = self.micro_batch;
        settings.data.loading.batch_size = self.batch.max(1);
        settings.data.loading.size = self.size;
        settings.objective.name = match which {
            Which::Clip => Objective::Clip,
            Which::Lit => Objective::Lit,
            Which::Simzss => Objective::Simzss,
        };
        let shape = match self.model {
            Size::S => TextShape { width: 384, heads: 6, ..TextShape::default() },
            Size::B => TextShape::default(),
        };
        settings.text = shape.into();
        settings.clip.width = self.shape().width;
        settings.clip.output = settings.text.width;
        let patch = settings.clip.patch;
        if which == Which::Clip && (self.size == 0 || i64::from(self.size) % patch != 0) {
            let problem = format!(
                "option --size is {} px; clip needs a multiple of its patch size, {patch} px (or leave clip out of --objectives)",
                self.size
            );
            return Err(UsageError(problem).into());
        }
        Ok(settings)
    }
}
