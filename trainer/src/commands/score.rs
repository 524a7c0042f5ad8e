//! `trainer score`: how well the captions of shards agree with their images, as signals next to the shards.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use trainer::evaluation::agreement::{self, ScoreSettings, Scored};

use super::console::Console;
use super::options::RunArgs;

#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// Shards to score: folders, tar files or brace lists.
    #[arg(required = true, value_name = "SHARDS")]
    shards: Vec<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Score shards again that have the scores of this model.
    #[arg(long)]
    force: bool,
    /// Number of this process, from 0, when several share the shards; with --count.
    #[arg(long, default_value_t = 0, requires = "count", value_name = "N")]
    index: usize,
    /// Number of processes that share the shards.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    count: usize,
}

pub(crate) fn run(args: &ScoreArgs) -> anyhow::Result<Value> {
    if args.index >= args.count {
        let problem = format!(
            "option --index is {}, but of {} processes the last one is {}",
            args.index,
            args.count,
            args.count - 1
        );
        return Err(program::UsageError(problem).into());
    }
    let checkpoint = args.run.open()?;
    let settings = ScoreSettings {
        shards: args.shards.clone(),
        part: (args.index, args.count),
        force: args.force,
        device: args.run.device.device.clone(),
        threads: args.run.device.threads,
    };
    let Scored { shards, samples, without_score, unchanged, sum } =
        agreement::score(&checkpoint, &settings, &Console)?;
    let mean = sum / (samples - without_score).max(1) as f64;
    println!(
        "{shards} shards scored ({unchanged} had the scores of this model): {samples} samples, {without_score} of them without a \
         score, mean similarity {mean:.3}"
    );
    Ok(json!({
        "shards": shards, "unchanged": unchanged, "samples": samples, "without_score": without_score, "mean_similarity": mean,
    }))
}
