//! Time until a rank of a training has its first batch, and peak memory. `tools/bench/start.py` runs it on a set in a slow store.
//!
//! ```text
//! cargo run --release --example start -- CONFIG [SETTING=VALUE]..
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use loader::Position;
use trainer::distributed::Group;
use trainer::settings::Settings;
use trainer::{Silent, data};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let config = PathBuf::from(arguments.next().ok_or("usage: start CONFIG [SETTING=VALUE]..")?);
    let settings = Settings::read(&[config], &arguments.collect::<Vec<_>>())?;
    let group = Group::alone();
    let started = Instant::now();
    let seconds = || started.elapsed().as_secs_f64();
    let shards = loader::shards::list(&settings.data.shards)?;
    let (count, listed) = (shards.len(), seconds());
    let bank = data::bank(&settings, &shards, &group, &Silent)?.map(Arc::new);
    let (concepts, made) = (bank.as_ref().map_or(0, |bank| bank.len()), seconds());
    let loader = data::loader(&settings, shards, bank, &group, &Silent)?;
    let opened = seconds();
    let batch = loader.batches(Position::default()).next().ok_or("no batch")??;
    println!(
        "{}",
        serde_json::json!({
            "shards": count, "concepts": concepts, "samples": loader.samples(), "first keys": batch.keys[..2],
            "listed": listed, "vocabulary": made, "opened": opened, "first batch": seconds(),
            "MB": trainer::device::peak_memory(tch::Device::Cpu) / 1_000_000,
        })
    );
    Ok(())
}
