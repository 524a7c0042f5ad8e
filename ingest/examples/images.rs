//! The image work of `ingest download` alone, for comparisons (`tools/bench/ingest.py`): decodes the JPEG files of a folder, which are
//! in memory, reduces them to 256 px (`keep_ratio`) and encodes them, on all cores; without requests, hashes and shards.
//!
//! ```text
//! cargo run --release --example images -- FOLDER COPIES
//! ```

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use ingest::image::{Hash, Mode, Settings};
use ingest::rows::Row;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, copies] = &arguments[..] else { anyhow::bail!("usage: images FOLDER COPIES") };
    let files = std::fs::read_dir(Path::new(folder))?
        .map(|file| std::fs::read(file?.path()))
        .collect::<Result<Vec<_>, _>>()?;
    let count = files.len() * copies.parse::<usize>()?;
    let settings =
        Settings { mode: Mode::KeepRatio, hash: Hash::None, perceptual_hash: false, ..Settings::default() };
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let made = settings.process(&files[number % files.len()], &Row::default());
                    failed.fetch_add(usize::from(made.is_err()), Ordering::Relaxed);
                }
            });
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    println!("{:.0} images/s, {} failed", count as f64 / seconds, failed.into_inner());
    Ok(())
}
