//! `trainer`: trains and evaluates models, and segments images with them.

// Without panics; see `tools/program/src/lines.rs`.
#[macro_use(eprintln, print, println)]
extern crate program;

mod commands;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use program::{Outcome, UsageError};

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

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong use (options, settings); 128 + signal: stopped by that \
                          signal; a training is saved, add --resume to continue.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model.
    Train(commands::TrainArgs),
    /// Pretrain a small vision tower from images alone, for tests and demos without DINOv2.
    Pretrain(commands::PretrainArgs),
    /// Compute the features of the frozen vision tower for a dataset once, for training without augmentation.
    Cache(commands::CacheArgs),
    /// Measure a training step of each objective: time, memory, images/s, and FLOPs utilization.
    Bench(commands::BenchArgs),
    /// Evaluate a model: segmentation, classification, retrieval.
    #[command(subcommand)]
    Eval(commands::Eval),
    /// Measure how well the captions of shards agree with their images, for selecting samples.
    Score(commands::ScoreArgs),
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

fn main() -> ExitCode {
    trainer::torch::reuse_memory();
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
        Command::Train(args) => {
            let (summary, ended) = commands::train(&args)?;
            outcome = ended;
            summary
        }
        Command::Pretrain(args) => commands::pretrain(args)?,
        Command::Cache(args) => commands::cache(args)?,
        Command::Bench(args) => commands::bench(&args)?,
        Command::Eval(eval) => eval.run(cli.json)?,
        Command::Score(args) => commands::score(&args)?,
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
