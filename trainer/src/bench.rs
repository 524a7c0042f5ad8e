//! The speed of a step on data made up in memory: what the towers and the losses cost, without any loading. (For a run's own
//! data see [`crate::train::measure`].)

use std::path::Path;
use std::time::Instant;

use loader::{Batch, BatchMention};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tch::{Cuda, Device, Kind, Tensor};

use crate::data::{self, Fed, VisionSource};
use crate::device;
use crate::error::Result;
use crate::group::Group;
use crate::learner::{Learner, learn, operations_of};
use crate::log::memory;
use crate::objective::Objective;
use crate::settings::Settings;
use crate::torch::Profiler;
use crate::towers::{VisionShape, VisionTower};
use crate::vision_source::FrozenVision;

/// What the made-up captions are like.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Captions {
    /// Tokens, start and end included; COCO's captions have 13 in the mean.
    pub tokens: usize,
    /// Mentions, of two tokens each.
    pub mentions: usize,
    /// Concepts that the mentions are drawn from.
    pub concepts: u32,
}

/// What was measured of one objective.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// `simzss`, `lit` or `clip`.
    pub objective: String,
    /// Samples a step.
    pub batch: usize,
    /// The median step.
    pub milliseconds: f64,
    /// Of it, the frozen tower; 0 for `clip`, whose tower is trained, and where it is not measured apart.
    pub vision_milliseconds: f64,
    /// Share of the time spent waiting for batches; 0 for data made up in memory.
    pub data_wait: f64,
    /// Samples a second.
    pub images_per_second: f64,
    /// Bytes in use at their most: of tensors on a GPU, of the process on a CPU.
    pub memory: u64,
    /// Operations of the towers, 10^12 a second.
    pub tflops: f64,
    /// What the device did in a product of two large matrices in the towers' precision, 10^12 operations a second.
    pub device_tflops: f64,
    /// The one over the other: model FLOPs utilization.
    pub utilization: f64,
}

/// Takes `warm_up` and then `steps` steps of the objective in `settings`, whose frozen tower is a random one of this shape;
/// one more for a profile, written to `trace` as a Chrome trace.
pub fn measure(
    settings: &Settings,
    vision: VisionShape,
    captions: Captions,
    warm_up: usize,
    steps: usize,
    trace: Option<&Path>,
) -> Result<Measured> {
    let device = device::open(&settings.device)?;
    device::limit_threads(settings.threads);
    let kind = settings.precision.kind(device);
    tch::manual_seed(settings.seed as i64);
    let size = i64::from(settings.data.size);
    let (source, width) = if settings.objective.name == Objective::Clip {
        (VisionSource::to_train(settings, device), settings.clip.output)
    } else {
        let tower = VisionTower::random(vision, device).computing_in(kind);
        tower.check_size("size", size)?;
        let frozen = FrozenVision::new(tower, &settings.vision, kind, device);
        (VisionSource::Frozen(frozen, size), vision.width)
    };
    let mut learner = Learner::new(settings, source, width, device);
    let group = Group::alone();
    let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
    let rows = settings.data.batch_size;
    let pixels = Tensor::randint(256, [rows as i64, size, size, 3], (Kind::Uint8, device));
    let mut times = Vec::new();
    let mut seen = Vec::new();
    let mut operations = 0.0;
    let mut take = |step: usize| -> Result<(f64, f64)> {
        let batch = made_up(rows, settings.text.context as usize, captions, &mut random);
        let fed = Fed { batch, pixels: Some(pixels.shallow_clone()) };
        wait(device);
        let started = Instant::now();
        let input = data::step_input(&fed, &learner.source, settings, device)?;
        wait(device);
        let vision = started.elapsed();
        operations = operations_of(&learner.text, &learner.source, &input);
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
    Ok(Measured::new(settings, device, times, vision, operations, 0.0))
}

/// One more step under the profiler, if its trace is wanted.
pub(crate) fn traced<T>(trace: Option<&Path>, step: impl FnOnce() -> Result<T>) -> Result<()> {
    let Some(path) = trace else { return Ok(()) };
    let profiler = Profiler::start()?;
    step()?;
    Ok(profiler.stop(path)?)
}

impl Measured {
    /// From the times of steps, in milliseconds, and the operations of one.
    pub(crate) fn new(
        settings: &Settings,
        device: Device,
        times: Vec<f64>,
        vision_milliseconds: f64,
        operations: f64,
        data_wait: f64,
    ) -> Self {
        let milliseconds = median(times);
        let tflops = operations / milliseconds / 1e9;
        let device_tflops = product_rate(settings.precision.kind(device), device);
        let batch = settings.data.batch_size;
        Self {
            objective: settings.objective.name.to_string(),
            batch,
            milliseconds,
            vision_milliseconds,
            data_wait,
            images_per_second: batch as f64 * 1e3 / milliseconds,
            memory: memory(device),
            tflops,
            device_tflops,
            utilization: tflops / device_tflops,
        }
    }
}

/// A batch as the loader gives it, without its images.
fn made_up(rows: usize, context: usize, captions: Captions, random: &mut ChaCha8Rng) -> Batch {
    const START: i64 = 49_406;
    const END: i64 = 49_407;
    let words = captions.tokens.clamp(4, context) - 2;
    let (mut tokens, mut mentions) = (Vec::with_capacity(rows * context), Vec::new());
    for row in 0..rows {
        tokens.push(START);
        tokens.extend((0..words).map(|_| random.random_range(1000..40_000_i64)));
        tokens.push(END);
        tokens.resize((row + 1) * context, 0);
        for _ in 0..captions.mentions {
            let first = random.random_range(1..words as u32);
            let label = random.random_range(0..captions.concepts.max(1));
            mentions.push(BatchMention {
                sample: row as u32,
                label,
                positions: first..first + 2,
                span: 0..0,
            });
        }
    }
    Batch {
        position: loader::Position::default(),
        size: rows,
        images: loader::Images::default(),
        keys: vec![String::new(); rows],
        samples: (0..rows as u64).collect(),
        captions: Vec::new(),
        tokens,
        mentions,
        counters: loader::Counters::default(),
    }
}

pub(crate) fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// 10^12 operations a second in products of two square matrices, the best of several.
fn product_rate(kind: Kind, device: Device) -> f64 {
    let side: i64 = if device.is_cuda() { 8192 } else { 1536 };
    let matrix = || Tensor::randn([side, side], (Kind::Float, device)).to_kind(kind);
    let (a, b) = (matrix(), matrix());
    let best = (0..8)
        .map(|_| {
            wait(device);
            let started = Instant::now();
            let _ = a.matmul(&b);
            wait(device);
            started.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    2.0 * (side as f64).powi(3) / best / 1e12
}
