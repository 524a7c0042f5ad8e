//! The speed of a training step: on synthetic data in memory, which is the cost of the towers and the losses without any data
//! loading, or on the data of a run.

use std::path::Path;
use std::time::{Duration, Instant};

use loader::{Batch, BatchMention, Mentions};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tch::{Cuda, Device, Kind, TchError, Tensor};

use super::learner::{Learner, learn, operations_of};
use super::setup::{Run, settled};
use crate::data::{self, DeviceBatch, DeviceImages, VisionSource};
use crate::device;
use crate::distributed::{FirstRank, Group};
use crate::error::Result;
use crate::method::objective::Objective;
use crate::observer::{Observer, Silent};
use crate::settings::Settings;
use crate::torch::Profiler;
use crate::towers::float8::{self, FLOAT8};
use crate::towers::{ImageEncoder, VisionShape, VisionTower};

/// Properties of the synthetic captions.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Captions {
    /// Tokens per caption, including the start and end tokens. The mean of COCO's captions is 13.
    pub tokens: usize,
    /// Mentions per caption, of two tokens each.
    pub mentions: usize,
    /// Number of concepts in the vocabulary.
    pub concepts: u32,
}

/// The measurements of one objective.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// `simzss`, `lit` or `clip`.
    pub objective: String,
    /// Samples per step.
    pub batch: usize,
    /// Median time of a step.
    pub milliseconds: f64,
    /// The part of the frozen tower; 0 for `clip`, whose tower is trained, and for runs with their own data.
    pub vision_milliseconds: f64,
    /// Fraction of the time that was spent waiting for batches; 0 for synthetic data.
    pub data_wait: f64,
    /// Samples per second.
    pub images_per_second: f64,
    /// Peak memory in bytes: of tensors on a GPU, of the process on a CPU.
    pub memory: u64,
    /// Floating-point operations of the towers, 10^12 per second.
    pub tflops: f64,
    /// Speed of the device in a product of two large matrices in the precision of the vision tower, 10^12 operations per second.
    pub device_tflops: f64,
    /// Model FLOPs utilization: `tflops` / `device_tflops`.
    pub utilization: f64,
}

/// Takes `warm_up` and then `steps` timed steps of the objective in `settings` with a random frozen tower of this shape. With
/// `trace`, one more step is profiled and written as a Chrome trace.
pub fn measure_synthetic(
    settings: &Settings,
    vision: VisionShape,
    captions: Captions,
    warm_up: usize,
    steps: usize,
    trace: Option<&Path>,
) -> Result<Measured> {
    let device = device::open(&settings.device)?;
    device::limit_threads(settings.threads);
    tch::manual_seed(settings.seed as i64);
    let size = i64::from(settings.data.loading.size);
    let (source, width) = if settings.objective.name == Objective::Clip {
        (VisionSource::to_train(settings, device), settings.clip.output)
    } else {
        let kind = settings.precision.frozen_kind(device);
        let tower = VisionTower::random(vision, device).computing_in(kind)?;
        tower.check_size("--size", size)?;
        let kind = tower.kind();
        let normalization = settings.vision.normalization(tower.family.normalization);
        let frozen = ImageEncoder::new(tower, normalization, kind, device);
        (VisionSource::Frozen(frozen, size), vision.width)
    };
    let mut learner = Learner::new(settings, source, width, device);
    let group = Group::alone();
    let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
    let rows = settings.data.loading.batch_size;
    let pixels = Tensor::randint(256, [rows as i64, size, size, 3], (Kind::Uint8, device));
    let mut times = Vec::new();
    let mut seen = Vec::new();
    let mut operations = 0.0;
    let mut take = |step: usize| -> Result<(f64, f64)> {
        let batch = synthetic(rows, settings.text.context as usize, captions, &mut random);
        let batch = DeviceBatch { batch, images: DeviceImages::Pixels(pixels.shallow_clone()) };
        wait(device);
        let started = Instant::now();
        let input =
            data::step_input(&batch, &learner.source, &learner.head, learner.kept(&group), settings, device)?;
        wait(device);
        let vision = started.elapsed();
        operations = operations_of(&learner.text, &learner.head, &learner.source, &input);
        learn(settings, &learner.text, &mut learner.optimizer, step as u64, &input, &group)?;
        wait(device);
        Ok((started.elapsed().as_secs_f64() * 1e3, vision.as_secs_f64() * 1e3))
    };
    for step in 0..warm_up + steps {
        let (whole, vision) = take(step)?;
        if step >= warm_up {
            times.push(whole);
            seen.push(vision);
        }
    }
    traced(trace, || take(warm_up + steps))?;
    let vision = if settings.objective.name == Objective::Clip { 0.0 } else { median(seen) };
    Measured::new(settings, device, times, vision, operations, 0.0)
}

/// Times `steps` steps of a run on its own data after `warm_up` steps. Writes nothing except the profile of one more step, to
/// `trace`.
pub fn measure_run(
    settings: &Settings,
    warm_up: usize,
    steps: usize,
    trace: Option<&Path>,
    observer: &dyn Observer,
) -> Result<Measured> {
    let device = device::open(&settings.device)?;
    device::limit_threads(settings.threads);
    let group = Group::alone();
    let settings = &settled(settings, None, device, &group, &Silent)?;
    let mut run = Run::prepare(settings, &group, device, FirstRank::new(observer, &group), true)?;
    let mut prefetcher = run.prefetcher()?;
    let (mut times, mut waited, mut operations) = (Vec::new(), Duration::ZERO, 0.0);
    for step in 0..warm_up + steps {
        let started = Instant::now();
        let output = run.step(&mut prefetcher, &group)?;
        wait(device);
        if step >= warm_up {
            times.push(started.elapsed().as_secs_f64() * 1e3);
            waited += output.batch.counters.waited;
            operations = output.operations;
        }
    }
    traced(trace, || {
        run.step(&mut prefetcher, &group)?;
        wait(device);
        Ok(())
    })?;
    let waited = waited.as_secs_f64() * 1e3 / times.iter().sum::<f64>().max(1e-9);
    Measured::new(settings, device, times, 0.0, operations, waited)
}

/// Takes one more step under the profiler if `trace` is given.
fn traced<T>(trace: Option<&Path>, step: impl FnOnce() -> Result<T>) -> Result<()> {
    let Some(path) = trace else { return Ok(()) };
    let profiler = Profiler::start()?;
    step()?;
    Ok(profiler.stop(path)?)
}

impl Measured {
    /// From the times of steps in milliseconds and the operations of one step.
    fn new(
        settings: &Settings,
        device: Device,
        times: Vec<f64>,
        vision_milliseconds: f64,
        operations: f64,
        data_wait: f64,
    ) -> Result<Self> {
        let milliseconds = median(times);
        let tflops = operations / milliseconds / 1e9;
        // The vision tower has most of the operations.
        let kind = match settings.objective.name {
            Objective::Clip => settings.precision.kind(device),
            _ => settings.precision.frozen_kind(device),
        };
        let device_tflops = product_rate(kind, device)?;
        let batch = settings.data.loading.batch_size;
        Ok(Self {
            objective: settings.objective.name.to_string(),
            batch,
            milliseconds,
            vision_milliseconds,
            data_wait,
            images_per_second: batch as f64 * 1e3 / milliseconds,
            memory: device::peak_memory(device),
            tflops,
            device_tflops,
            utilization: tflops / device_tflops,
        })
    }
}

/// A batch as from the loader, without images.
fn synthetic(rows: usize, context: usize, captions: Captions, random: &mut ChaCha8Rng) -> Batch {
    const START: i64 = 49_406;
    const END: i64 = 49_407;
    let words = captions.tokens.clamp(4, context) - 2;
    let (mut tokens, mut mentions) = (Vec::with_capacity(rows * context), Mentions::default());
    for row in 0..rows {
        tokens.push(START);
        tokens.extend((0..words).map(|_| random.random_range(1000..40_000_i64)));
        tokens.push(END);
        tokens.resize((row + 1) * context, 0);
        mentions.push_row((0..captions.mentions).map(|_| {
            let first = random.random_range(1..words as u32);
            let label = random.random_range(0..captions.concepts.max(1));
            BatchMention { label, positions: first..first + 2, span: 0..0 }
        }));
    }
    let mut batch = Batch::default();
    batch.size = rows;
    batch.keys = vec![String::new(); rows];
    batch.samples = (0..rows as u64).collect();
    batch.tokens = tokens;
    batch.mentions = mentions;
    batch
}

fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Speed of products of two square matrices, 10^12 operations per second: the best of several.
fn product_rate(kind: Kind, device: Device) -> Result<f64> {
    let side: i64 = if device.is_cuda() { 8192 } else { 1536 };
    let matrix = || Tensor::randn([side, side], (Kind::Float, device));
    let multiply: Box<dyn Fn() -> std::result::Result<Tensor, TchError>> = if kind == FLOAT8 {
        let ((a, a_scale), (b, b_scale)) = (float8::quantize(&matrix())?, float8::quantize(&matrix())?);
        Box::new(move || float8::product([&a, &a_scale], [&b, &b_scale], None))
    } else {
        let (a, b) = (matrix().to_kind(kind), matrix().to_kind(kind));
        Box::new(move || a.f_matmul(&b))
    };
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        wait(device);
        let started = Instant::now();
        let _ = multiply()?;
        wait(device);
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(2.0 * (side as f64).powi(3) / best / 1e12)
}
