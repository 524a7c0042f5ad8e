//! How fast shards become batches, and what bounds it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use loader::crop::{Part, View, draws};
use loader::index::Index;
use loader::jpeg::{Area, Request};
use loader::order::SampleId;
use loader::pixels::{Painter, decode};
use loader::program::{Outcome, interrupted, print_json};
use loader::scaler::Scaler;
use loader::tar::Archive;
use loader::{Crop, Decoding, ImageSettings, Loader, Position, Settings, jpeg, shard};
use serde_json::json;

/// Measures the loader on shards: random resized crops in exact and in fast mode, reading alone, and the same work as
/// a bare loop over images in memory.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Shards: files, folders, brace lists, patterns, addresses.
    #[arg(required = true)]
    shards: Vec<PathBuf>,
    /// Side of the result, pixels.
    #[arg(long, default_value_t = 224)]
    size: u32,
    /// Samples of a batch.
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Threads that decode.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Smallest part of an image's area that a crop takes; the largest is all of it.
    #[arg(long, default_value_t = 0.08)]
    scale: f32,
    /// Passes over the shards; the fastest counts.
    #[arg(long, default_value_t = 3)]
    passes: u64,
    /// Prints a summary object as the last line.
    #[arg(long)]
    json: bool,
}

/// Most memory that images take for the bare loops.
const IN_MEMORY: u64 = 2 << 30;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let crop = Crop::RandomResized {
        size: arguments.size,
        scale: (arguments.scale, 1.0),
        ratio: (3.0 / 4.0, 4.0 / 3.0),
    };
    let settings = Settings {
        image: ImageSettings { crop, flip: 0.5 },
        threads: arguments.threads,
        ..Settings::new(shard::list(&arguments.shards)?, arguments.batch_size)
    };
    if !jpeg::vectorised() {
        eprintln!("no vector instructions in the jpeg decoder: install nasm and build again");
    }
    let mut rows = Vec::new();
    for (name, decoding) in [("exact", Decoding::Exact), ("fast", Decoding::Fast)] {
        let settings = Settings { decoding, ..settings.clone() };
        rows.push((name, "images/s", batches(&settings, arguments.passes)?));
    }
    let (rate, images) = reading(&settings, arguments.passes)?;
    rows.push(("reading alone, one thread", "GB/s", rate));
    let whole = |painter: &mut Worker, image: &[u8], id: SampleId, row: &mut [u8]| {
        let pixels = decode(image)?;
        let view = View::choose(&settings.image, draws(0, 0, id), pixels.width(), pixels.height());
        painter.scaler.resize(&pixels, view, arguments.size, row)
    };
    rows.push(("bare loop: decode, resize", "images/s", bare(&settings, &images, arguments.passes, whole)?));
    for (name, decoding) in
        [("bare loop: part, exact", Decoding::Exact), ("bare loop: part, fast", Decoding::Fast)]
    {
        let part = |worker: &mut Worker, image: &[u8], id: SampleId, row: &mut [u8]| {
            let choose = |width, height| View::choose(&settings.image, draws(0, 0, id), width, height);
            worker.painter.paint(image, decoding, arguments.size, choose, row)
        };
        rows.push((name, "images/s", bare(&settings, &images, arguments.passes, part)?));
    }
    // What no mode can leave out: the codes of all rows down to the part's last, of which an eighth of the size makes
    // little else.
    let unpack = |worker: &mut Worker, image: &[u8], id: SampleId, _: &mut [u8]| {
        let buffer = std::mem::take(&mut worker.buffer);
        let decoded = worker.decoder.decode(image, buffer, |width, height| {
            let view = View::choose(&settings.image, draws(0, 0, id), width, height);
            Request { eighths: 1, area: Some(eighth(view.part, width, height)), coarse: true }
        })?;
        worker.buffer = decoded.pixels.into_raw();
        Ok(())
    };
    rows.push((
        "bare loop: unpacking alone",
        "images/s",
        bare(&settings, &images, arguments.passes, unpack)?,
    ));
    for (name, unit, value) in &rows {
        println!("{name:<28}{value:>10.2} {unit}");
    }
    println!("{:<28}{:>10.2} dB", "fast beside exact, median", fidelity(&settings, &images)?);
    if arguments.json {
        let measured: serde_json::Map<_, _> = rows
            .iter()
            .map(|(name, unit, value)| ((*name).to_owned(), json!({"value": value, "unit": unit})))
            .collect();
        print_json(&json!({"threads": arguments.threads, "measured": measured}))?;
    }
    Ok(Outcome::Done)
}

/// Images a second of whole passes through the loader, the fastest.
fn batches(settings: &Settings, passes: u64) -> anyhow::Result<f64> {
    let loader = Loader::open(settings.clone())?;
    let mut best = Duration::MAX;
    let images = loader.steps_per_epoch() as usize * loader.rows();
    for epoch in 0..passes {
        let started = Instant::now();
        for batch in loader.batches(Position { epoch, step: 0 }).take(loader.steps_per_epoch() as usize) {
            std::hint::black_box(batch?);
            if interrupted() {
                bail!("stopped");
            }
        }
        best = best.min(started.elapsed());
    }
    Ok(images as f64 / best.as_secs_f64())
}

/// Images of the set as they are stored.
type Images = Vec<(SampleId, Vec<u8>)>;

/// GB a second of reading every image in the order of an epoch, on one thread; and the images.
fn reading(settings: &Settings, passes: u64) -> anyhow::Result<(f64, Images)> {
    let opened: Vec<(Archive, Index)> = settings
        .shards
        .iter()
        .map(|path| {
            let archive = Archive::open(path)?;
            let index = Index::load(&archive)?;
            Ok((archive, index))
        })
        .collect::<Result<_, loader::Error>>()?;
    let loader = Loader::open(settings.clone())?;
    let order = &loader.order().sets()[0];
    let ids: Vec<SampleId> = {
        let epoch = order.epoch(0);
        let rows = (0..order.steps_per_epoch()).flat_map(|step| epoch.rows(step, 0..order.streams()));
        rows.map(|(stream, position)| epoch.sample(stream, position)).collect()
    };
    let place = |id: &SampleId| opened[id.shard as usize].1.image(id.sample);
    let mut best = f64::MAX;
    let mut buffer = Vec::new();
    for _ in 0..=passes {
        let (mut bytes, started) = (0, Instant::now());
        for id in &ids {
            let (offset, length) = place(id).context("a sample without an image")?;
            opened[id.shard as usize].0.read_into(offset, length, &mut buffer)?;
            bytes += length;
        }
        best = best.min(started.elapsed().as_secs_f64() / bytes as f64);
    }
    let (mut images, mut bytes) = (Vec::new(), 0);
    for id in ids {
        let (offset, length) = place(&id).context("a sample without an image")?;
        bytes += length;
        if bytes > IN_MEMORY {
            break;
        }
        images.push((id, opened[id.shard as usize].0.read(offset, length)?));
    }
    Ok((1e-9 / best, images))
}

#[derive(Default)]
struct Worker {
    painter: Painter,
    scaler: Scaler,
    decoder: jpeg::Decoder,
    buffer: Vec<u8>,
}

/// Where a part lies in the image at an eighth of its size.
fn eighth(part: Part, width: u32, height: u32) -> Area {
    let (left, top) = match part {
        Part::Cut { left, top, .. } => (f64::from(left), f64::from(top)),
        Part::Of { left, top, .. } => (left, top),
    };
    let range = |from: f64, extent: f64, side: u32| {
        let first = (from / 8.0) as u32;
        let end = (((from + extent) / 8.0).ceil() as u32).clamp(first + 1, jpeg::scaled(side, 1));
        (first, end - first)
    };
    let ((left, width), (top, height)) =
        (range(left, part.extent().0, width), range(top, part.extent().1, height));
    Area { left, top, width, height }
}

/// Images a second of `work` on images in memory, the fastest of several passes.
fn bare(
    settings: &Settings,
    images: &[(SampleId, Vec<u8>)],
    passes: u64,
    work: impl Fn(&mut Worker, &[u8], SampleId, &mut [u8]) -> Result<(), String> + Sync,
) -> anyhow::Result<f64> {
    let mut best = Duration::MAX;
    for _ in 0..passes {
        let next = AtomicUsize::new(0);
        let started = Instant::now();
        let failures = thread::scope(|scope| {
            let threads: Vec<_> = (0..settings.threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut worker = Worker::default();
                        let mut row = vec![0; (settings.image.size() as usize).pow(2) * 3];
                        let mut failures = 0;
                        while let Some((id, image)) = images.get(next.fetch_add(1, Ordering::Relaxed)) {
                            failures += usize::from(work(&mut worker, image, *id, &mut row).is_err());
                        }
                        failures
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(1)).sum::<usize>()
        });
        if failures > 0 {
            bail!("{failures} images cannot be decoded");
        }
        best = best.min(started.elapsed());
    }
    Ok(images.len() as f64 / best.as_secs_f64())
}

/// Median over the images of the peak signal-to-noise ratio of fast rows beside exact ones, dB.
fn fidelity(settings: &Settings, images: &[(SampleId, Vec<u8>)]) -> anyhow::Result<f64> {
    let mut painter = Painter::default();
    let mut found: Vec<f64> = Vec::new();
    for (id, image) in images.iter().take(500) {
        let mut rows = Vec::new();
        for decoding in [Decoding::Exact, Decoding::Fast] {
            let mut row = vec![0; (settings.image.size() as usize).pow(2) * 3];
            let choose = |width, height| View::choose(&settings.image, draws(0, 0, *id), width, height);
            painter
                .paint(image, decoding, settings.image.size(), choose, &mut row)
                .map_err(anyhow::Error::msg)?;
            rows.push(row);
        }
        let squares: f64 = rows[0].iter().zip(&rows[1]).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
        found.push(10.0 * (255.0_f64.powi(2) * rows[0].len() as f64 / squares.max(1e-9)).log10());
    }
    found.sort_by(f64::total_cmp);
    found.get(found.len() / 2).copied().context("no images")
}
