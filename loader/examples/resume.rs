//! Measures the time to resume in the middle of a large dataset: `cargo run --release -p simzss-loader --example resume`.
//!
//! The dataset has 400 million samples in 40,000 shards. All shards are hard links to one file, so they take the space
//! of one. A resumed run usually finds the shards' indices in the cache, because it has been there before; without a
//! cache, the shards that the streams are in are scanned again. The last lines are of selections of 40 million and of all samples.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use loader::shards::selection::{self, Metadata, ShardOfSelection};
use loader::{Cache, CropKind, Loader, Position, Settings, shards};

const SHARDS: usize = 40_000;
const SAMPLES: usize = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    write_shards(folder.path())?;

    let cache = Cache { folder: folder.path().join("cache"), limit: 1 << 30 };
    let (tenth, all) = (folder.path().join("tenth.parquet"), folder.path().join("all.parquet"));
    for (file, every) in [(&tenth, 10), (&all, 1)] {
        let started = Instant::now();
        write_selection(file, every)?;
        let (bytes, seconds) = (fs::metadata(file)?.len(), started.elapsed());
        println!("a selection of every sample in {every}: {bytes} bytes, written in {seconds:.2?}");
    }
    for (what, cache, selection) in [
        ("without a cache", None, None),
        ("filling the cache", Some(&cache), None),
        ("with the cache filled", Some(&cache), None),
        ("a tenth of the samples, selected", Some(&cache), Some(&tenth)),
        ("all samples, selected", Some(&cache), Some(&all)),
    ] {
        let started = Instant::now();
        let mut settings = Settings::new(shards::list(&[folder.path().to_owned()])?, 1024);
        (settings.options.size, settings.options.crop) = (8, CropKind::Centre);
        settings.options.cache = cache.cloned();
        settings.options.selection = selection.map(Into::into);
        let loader = Loader::open(settings)?;
        let opened = started.elapsed();
        let position = Position { epoch: 0, step: 10_000_000 / 1024 };
        let batch = loader.batches(position).next().ok_or("no batch")??;
        let first = started.elapsed();
        println!(
            "{what}: {} samples in {SHARDS} shards, resumed at sample {}: opened after {opened:.2?}, first batch of {} after {first:.2?}",
            loader.samples(),
            position.step * 1024,
            batch.size
        );
        let status = fs::read_to_string("/proc/self/status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown");
        println!("peak memory so far: {}", peak.trim());
    }
    Ok(())
}

/// Every sample whose position is divisible by `every`.
fn write_selection(file: &Path, every: usize) -> Result<(), loader::Error> {
    let shards = (0..SHARDS).map(|shard| ShardOfSelection {
        shard: format!("{shard:05}.tar"),
        samples: SAMPLES as u32,
        content: None,
    });
    let metadata = Metadata::new(shards.collect(), Vec::new());
    let samples = |shard| (0..SAMPLES as u32).step_by(every).map(move |sample| (shard, sample, 1.0));
    selection::write(&file.into(), &metadata, (0..SHARDS as u32).flat_map(samples))
}

fn write_shards(folder: &Path) -> std::io::Result<()> {
    let pixels = image::RgbImage::from_pixel(8, 8, image::Rgb([200, 100, 50]));
    let jpeg = loader::jpeg::encode(pixels.as_raw(), 8, 8, 75).map_err(std::io::Error::other)?;
    let first = folder.join("00000.tar");
    let mut tar = tar::Builder::new(File::create(&first)?);
    let mut add = |name: String, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, data)
    };
    for sample in 0..SAMPLES {
        add(format!("{sample:09}.jpg"), &jpeg)?;
        add(format!("{sample:09}.txt"), format!("a photo of number {sample}").as_bytes())?;
    }
    tar.finish()?;
    let stats = first.with_file_name("00000_stats.json");
    fs::write(&stats, format!("{{\"count\": {SAMPLES}, \"successes\": {SAMPLES}}}"))?;
    for shard in 1..SHARDS {
        let path = folder.join(format!("{shard:05}.tar"));
        fs::hard_link(&first, &path)?;
        fs::hard_link(&stats, folder.join(format!("{shard:05}_stats.json")))?;
    }
    Ok(())
}
