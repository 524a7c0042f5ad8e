//! Prints the first batches of a dataset: `cargo run -p simzss-loader --example iterate -- 'shards/{00000..00007}.tar'`.

use std::io::Write;

use loader::{Loader, Position, Settings, shards};
use storage::Location;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let inputs: Vec<Location> = std::env::args_os().skip(1).map(Location::from).collect();
    let loader = Loader::open(Settings::new(shards::list(&inputs)?, 64))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} samples, {} batches per epoch", loader.samples(), loader.steps_per_epoch())?;
    for batch in loader.batches(Position::default()).take(20) {
        let batch = batch?;
        let (at, wait, skipped) = (batch.position, batch.counters.waited, batch.counters.skipped.len());
        writeln!(
            out,
            "{}.{}: waited {wait:.1?}, {skipped} skipped, {:?}",
            at.epoch, at.step, batch.captions[0]
        )?;
    }
    Ok(())
}
