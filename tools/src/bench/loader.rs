//! `tools bench loader`: how fast the loader turns shards into batches, and what limits its speed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueHint;
use loader::images::{CropRegion, JPEG_LIMITS, Preprocessor, Scaler, View, decode};
use loader::jpeg::{Area, Request};
use loader::shards::{Archive, Index};
use loader::{DecodeError, Decoding, Loader, Position, SampleId, Settings, jpeg, shards};
use program::{Interrupted, Outcome, UsageError, interrupted, location, print_json};
use serde_json::json;
use storage::Location;

use crate::input;

/// Measure the loader's speed on shards
///
/// Every figure is of the fastest of --passes passes. "exact" and "fast" are the whole loader with random resized
/// crops, in its two decoding modes. "read" reads the images from the shards on one thread. The "loop" figures process
/// images that are already in memory, without the loader: decode whole images; decode them and resize; decode only the
/// crop, in either mode; decode only the JPEG's Huffman codes, if all images are JPEGs.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Shards: files, folders, brace lists, patterns or URLs
    #[arg(required = true, value_parser = location(), value_hint = ValueHint::AnyPath)]
    shards: Vec<Location>,
    /// Width and height of the crops after resizing, pixels
    #[arg(long, default_value_t = 224, value_parser = clap::value_parser!(u32).range(1..=8192))]
    size: u32,
    /// Samples per batch
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Number of decoding threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Minimum area of a crop, as a fraction of the image; the maximum is 1
    #[arg(long, default_value_t = 0.08)]
    scale: f32,
    /// Passes over the shards; the fastest one counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    passes: u64,
    /// Also print the figures as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Maximum memory for the images of the loops, bytes.
const MAX_MEMORY: u64 = 2 << 30;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    if !(arguments.scale > 0.0 && arguments.scale <= 1.0) {
        return Err(UsageError(format!("--scale {} is not above 0 and at most 1", arguments.scale)).into());
    }
    if arguments.batch_size == 0 || arguments.threads == 0 {
        return Err(UsageError("--batch-size and --threads must be at least 1".to_owned()).into());
    }
    for input in &arguments.shards {
        input::shards(input)?;
    }
    // Together, so that a shard given twice is noticed.
    let shards = shards::list(&arguments.shards)?;
    let mut settings = Settings::new(shards, arguments.batch_size);
    let options = &mut settings.options;
    (options.size, options.scale, options.flip) = (arguments.size, [arguments.scale, 1.0], 0.5);
    options.threads = arguments.threads;
    let crop = options.image();
    if !jpeg::vectorised() {
        eprintln!(
            "note: the JPEG decoder was built without vector instructions; install nasm and build again"
        );
    }
    let mut rows = Vec::new();
    for (name, decoding) in [("exact", Decoding::Exact), ("fast", Decoding::Fast)] {
        let mut settings = settings.clone();
        settings.options.decoding = decoding;
        rows.push((name, "images/s", batches(&settings, arguments.passes)?));
    }
    let (rate, images) = reading(&settings, arguments.passes)?;
    rows.push(("read, one thread", "GB/s", rate));
    let bare = |worker: &mut Worker, image: &[u8], _: SampleId, _: &mut [u8]| {
        if image.starts_with(&jpeg::START) {
            let buffer = std::mem::take(&mut worker.buffer);
            worker.buffer = worker.decoder.decode(image, buffer, |_, _| Request::WHOLE)?.pixels;
        } else {
            std::hint::black_box(decode(image)?);
        }
        Ok(())
    };
    rows.push(("loop: decode", "images/s", in_loop(&settings, &images, arguments.passes, bare)?));
    let whole = |worker: &mut Worker, image: &[u8], id: SampleId, row: &mut [u8]| {
        let pixels = decode(image)?;
        let view = View::choose(&crop, (0, 0, id), pixels.width(), pixels.height());
        worker.scaler.resize(&pixels, view, arguments.size, row)
    };
    rows.push(("loop: decode, resize", "images/s", in_loop(&settings, &images, arguments.passes, whole)?));
    for (name, decoding) in [("loop: crop, exact", Decoding::Exact), ("loop: crop, fast", Decoding::Fast)] {
        let part = |worker: &mut Worker, image: &[u8], id: SampleId, row: &mut [u8]| {
            let choose = |width, height| View::choose(&crop, (0, 0, id), width, height);
            worker.preprocessor.preprocess(image, decoding, arguments.size, choose, row)
        };
        rows.push((name, "images/s", in_loop(&settings, &images, arguments.passes, part)?));
    }
    // No mode can skip the Huffman codes of the rows down to the last row of the crop. Decoding at an eighth of the
    // size does little besides.
    let unpack = |worker: &mut Worker, image: &[u8], id: SampleId, _: &mut [u8]| {
        let buffer = std::mem::take(&mut worker.buffer);
        let request = |width, height| {
            let view = View::choose(&crop, (0, 0, id), width, height);
            Request { eighths: 1, area: Some(eighth(view.region, width, height)), coarse: true }
        };
        worker.buffer = worker.decoder.decode(image, buffer, request)?.pixels;
        Ok(())
    };
    if images.iter().all(|(_, image)| image.starts_with(&jpeg::START)) {
        rows.push((
            "loop: Huffman codes only",
            "images/s",
            in_loop(&settings, &images, arguments.passes, unpack)?,
        ));
    }
    for (name, unit, value) in &rows {
        println!("{name:<28}{value:>10.2} {unit}");
    }
    println!("{:<28}{:>10.2} dB", "fast against exact, PSNR", psnr(&settings, &images)?);
    if arguments.json {
        let measured: serde_json::Map<_, _> = rows
            .iter()
            .map(|(name, unit, value)| ((*name).to_owned(), json!({"value": value, "unit": unit})))
            .collect();
        print_json(&json!({"threads": arguments.threads, "measured": measured}))?;
    }
    Ok(Outcome::Done)
}

/// Images per second of the fastest of several passes through the loader.
fn batches(settings: &Settings, passes: u64) -> anyhow::Result<f64> {
    let loader = Loader::open(settings.clone())?;
    let mut best = Duration::MAX;
    let images = loader.steps_per_epoch() as usize * loader.rows();
    for epoch in 0..passes {
        let started = Instant::now();
        for batch in loader.batches(Position { epoch, step: 0 }).take(loader.steps_per_epoch() as usize) {
            std::hint::black_box(batch?);
            if interrupted() {
                bail!(Interrupted::new("the measurement is not finished"));
            }
        }
        best = best.min(started.elapsed());
    }
    Ok(images as f64 / best.as_secs_f64())
}

/// The stored bytes of images.
type Images = Vec<(SampleId, Vec<u8>)>;

/// GB per second of reading every image in the order of an epoch, on one thread; and the images.
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
    let steps = (0..loader.steps_per_epoch()).map(|step| Position { epoch: 0, step });
    let ids: Vec<SampleId> =
        steps.flat_map(|at| loader.samples_of(at)).filter_map(|mut of_row| of_row.next()).collect();
    let place = |id: &SampleId| opened[id.shard as usize].1.image(id.sample);
    let mut best = f64::MAX;
    let mut buffer = Vec::new();
    for _ in 0..=passes {
        let (mut bytes, started) = (0, Instant::now());
        for id in &ids {
            let (offset, length) = place(id).context("a sample has no image")?;
            opened[id.shard as usize].0.read_into(offset, length, &mut buffer)?;
            bytes += length;
        }
        best = best.min(started.elapsed().as_secs_f64() / bytes as f64);
    }
    let (mut images, mut bytes) = (Vec::new(), 0);
    for id in ids {
        let (offset, length) = place(&id).context("a sample has no image")?;
        bytes += length;
        if bytes > MAX_MEMORY {
            break;
        }
        images.push((id, opened[id.shard as usize].0.read(offset, length)?));
    }
    Ok((1e-9 / best, images))
}

struct Worker {
    preprocessor: Preprocessor,
    scaler: Scaler,
    decoder: jpeg::Decoder,
    buffer: Vec<u8>,
}

impl Worker {
    fn new() -> Self {
        Self {
            preprocessor: Preprocessor::default(),
            scaler: Scaler::default(),
            decoder: jpeg::Decoder::new(JPEG_LIMITS),
            buffer: Vec::new(),
        }
    }
}

/// The area of a crop in the image at an eighth of its size.
fn eighth(region: CropRegion, width: u32, height: u32) -> Area {
    let (left, top) = match region {
        CropRegion::CropThenResize { left, top, .. } => (f64::from(left), f64::from(top)),
        CropRegion::ResizeThenCrop { left, top, .. } => (left, top),
    };
    let range = |from: f64, extent: f64, side: u32| {
        let first = (from / 8.0) as u32;
        let end = (((from + extent) / 8.0).ceil() as u32).clamp(first + 1, jpeg::scaled(side, 1));
        (first, end - first)
    };
    let ((left, width), (top, height)) =
        (range(left, region.extent().0, width), range(top, region.extent().1, height));
    Area { left, top, width, height }
}

/// Images per second of `work` on images in memory, of the fastest of several passes.
fn in_loop(
    settings: &Settings,
    images: &[(SampleId, Vec<u8>)],
    passes: u64,
    work: impl Fn(&mut Worker, &[u8], SampleId, &mut [u8]) -> Result<(), DecodeError> + Sync,
) -> anyhow::Result<f64> {
    let mut best = Duration::MAX;
    for _ in 0..passes {
        let next = AtomicUsize::new(0);
        let started = Instant::now();
        let failures = thread::scope(|scope| {
            let threads: Vec<_> = (0..settings.options.threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut worker = Worker::new();
                        let mut row = vec![0; (settings.options.size as usize).pow(2) * 3];
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
            bail!(
                "cannot decode {failures} of {} images; `ingest verify` names damaged shards",
                images.len()
            );
        }
        best = best.min(started.elapsed());
    }
    Ok(images.len() as f64 / best.as_secs_f64())
}

/// Peak signal-to-noise ratio of images in fast decoding against exact decoding, dB: the median over the images.
fn psnr(settings: &Settings, images: &[(SampleId, Vec<u8>)]) -> anyhow::Result<f64> {
    let crop = settings.options.image();
    let mut preprocessor = Preprocessor::default();
    let mut found: Vec<f64> = Vec::new();
    for (id, image) in images.iter().take(500) {
        let mut rows = Vec::new();
        for decoding in [Decoding::Exact, Decoding::Fast] {
            let mut row = vec![0; (crop.size() as usize).pow(2) * 3];
            let choose = |width, height| View::choose(&crop, (0, 0, *id), width, height);
            preprocessor.preprocess(image, decoding, crop.size(), choose, &mut row)?;
            rows.push(row);
        }
        let squares: f64 = rows[0].iter().zip(&rows[1]).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
        found.push(10.0 * (255.0_f64.powi(2) * rows[0].len() as f64 / squares.max(1e-9)).log10());
    }
    found.sort_by(f64::total_cmp);
    found.get(found.len() / 2).copied().context("the shards have no images")
}
