//! `tools order`: how well the loader shuffles a dataset, for settings of streams and window.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use anyhow::Result;
use clap::ValueHint;
use loader::{Loader, Position, SampleId, Settings};
use program::{Outcome, location};
use serde::Serialize;
use storage::Location;

use crate::input;

/// Number of batches, spread over an epoch, that are looked at.
const BATCHES: u64 = 200;

/// Show how well the loader shuffles: for choosing data.streams and data.window
///
/// Compares batches of the loader's order with batches of a full shuffle, in which every batch is as likely as any other. Prints,
/// for each choice of streams and window, the number of different shards in a batch, the share of the pairs of samples of a
/// batch that come from the same shard, and the share of neighbours in a shard that are in the same batch.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Shards: a folder, file, brace list, pattern or address
    #[arg(value_name = "DIR", value_parser = location(), value_hint = ValueHint::AnyPath)]
    shards: Location,
    /// Samples per batch, over all processes
    #[arg(long, default_value_t = NonZeroUsize::new(512).unwrap_or(NonZeroUsize::MIN))]
    batch_size: NonZeroUsize,
    /// Numbers of streams to compare
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "64")]
    streams: Vec<NonZeroUsize>,
    /// Windows to compare, samples
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "4096")]
    window: Vec<NonZeroUsize>,
    /// Random seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print the figures as one line of JSON
    #[arg(long)]
    json: bool,
}

/// What batches are made of.
#[derive(Debug, Clone, Copy, Serialize)]
struct Figures {
    /// Number of streams in use, and samples in a window; 0 and 0 for a full shuffle.
    streams: u64,
    window: usize,
    /// Mean number of different shards in a batch.
    shards: f64,
    /// Share of the pairs of samples of a batch that come from the same shard.
    same_shard: f64,
    /// Share of the neighbours in a shard that are in the same batch.
    neighbours: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let mut settings = Settings::new(input::shards(&arguments.shards)?, arguments.batch_size.get());
    (settings.images, settings.captions, settings.seed) = (false, false, arguments.seed);
    let mut rows = Vec::new();
    for streams in &arguments.streams {
        for window in &arguments.window {
            (settings.options.streams, settings.options.window) = (streams.get(), window.get());
            let loader = Loader::open(settings.clone())?;
            if rows.is_empty() {
                rows.push(full_shuffle(&loader));
            }
            rows.push(measured(&loader));
        }
    }
    let mut text = format!(
        "{:>8} {:>8} {:>18} {:>24} {:>20}\n",
        "streams", "window", "shards in a batch", "pairs of the same shard", "neighbours together"
    );
    for row in &rows {
        let choice = match row.streams {
            0 => format!("{:>17}", "full shuffle"),
            streams => format!("{streams:>8} {:>8}", row.window),
        };
        let [same, neighbours] = [row.same_shard, row.neighbours].map(|share| 100.0 * share);
        text += &format!("{choice} {:>18.1} {same:>22.3} % {neighbours:>18.3} %\n", row.shards);
    }
    crate::screen(&text)?;
    if arguments.json {
        program::print_json(&serde_json::json!(rows))?;
    }
    Ok(Outcome::Done)
}

/// The expectation for a full shuffle of the samples of an epoch.
fn full_shuffle(loader: &Loader) -> Figures {
    let batch = loader.settings().options.batch_size as f64;
    let all: f64 = loader.shard_samples().iter().map(|&samples| f64::from(samples)).sum();
    let (mut shards, mut same_shard) = (0.0, 0.0);
    for &samples in loader.shard_samples() {
        let samples = f64::from(samples);
        // The chance that none of its samples is drawn: prod (all - samples - i) / (all - i) over the batch.
        let none: f64 =
            (0..batch as u64).map(|i| ((all - samples - i as f64) / (all - i as f64)).max(0.0)).product();
        shards += 1.0 - none;
        same_shard += samples * (samples - 1.0) / (all * (all - 1.0).max(1.0));
    }
    let neighbours = (batch - 1.0) / (loader.samples() as f64 - 1.0).max(1.0);
    Figures { streams: 0, window: 0, shards, same_shard, neighbours }
}

/// The same, measured on batches of the loader's order.
fn measured(loader: &Loader) -> Figures {
    let steps = loader.steps_per_epoch();
    let looked_at = steps.min(BATCHES);
    let (mut shards, mut same, mut pairs, mut neighbours) = (0_usize, 0.0, 0.0, 0_usize);
    for number in 0..looked_at {
        let at = Position { epoch: 0, step: number * steps / looked_at };
        let batch: Vec<SampleId> =
            loader.samples_of(at).into_iter().filter_map(|mut samples| samples.next()).collect();
        let mut of_shard: HashMap<u32, f64> = HashMap::new();
        for id in &batch {
            *of_shard.entry(id.shard).or_default() += 1.0;
        }
        shards += of_shard.len();
        same += of_shard.values().map(|n| n * (n - 1.0) / 2.0).sum::<f64>();
        let rows = batch.len() as f64;
        pairs += rows * (rows - 1.0) / 2.0;
        let batch: HashSet<SampleId> = batch.into_iter().collect();
        let next = |id: &&SampleId| batch.contains(&SampleId { sample: id.sample + 1, ..**id });
        neighbours += batch.iter().filter(next).count();
    }
    let looked_at = looked_at as f64;
    let all = loader.shard_samples().iter().map(|&samples| f64::from(samples) - 1.0).sum::<f64>().max(1.0);
    Figures {
        streams: loader.streams(),
        window: loader.settings().options.window,
        shards: shards as f64 / looked_at,
        same_shard: same / f64::max(pairs, 1.0),
        neighbours: neighbours as f64 / looked_at * steps as f64 / all,
    }
}
