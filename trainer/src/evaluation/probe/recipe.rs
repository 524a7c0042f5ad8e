//! DINOv2's linear segmentation: batch norm and a linear layer over frozen patches, trained on augmented crops with scores that are
//! up-sampled to pixels. The numbers are those of its configuration for ADE20K (dinov2 at b8931f7, with mmsegmentation 0.27).

use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Reduction, Tensor};

use super::augment::{Crop, crop};
use super::linear::Linear;
use crate::device::to_vec;
use crate::error::{Error, Result};
use crate::evaluation::SegmentationDataset;
use crate::evaluation::confusion::IGNORED;
use crate::evaluation::segmentation::read_sample;
use crate::inference::segmenter::Segmenter;
use crate::inference::window::Window;
use crate::observer::Observer;
use crate::torch::{AdamW, ParameterState, fused_adamw};
use crate::weights::{self, Weights};

/// The number of steps of the published recipe.
pub const STEPS: u64 = 40_000;
/// Crops in a step.
const BATCH: u64 = 16;
/// Learning rate after the warm-up, from which it falls linearly to 0.
const RATE: f64 = 1e-3;
/// Share of the steps in which the rate rises, and where it begins, as a factor.
const WARMUP: f64 = 1500.0 / 40_000.0;
const WARMUP_FROM: f64 = 1e-6;
const WEIGHT_DECAY: f64 = 1e-4;
/// Of the running mean and variance of the batch norm; added to the variance.
const MOMENTUM: f64 = 0.1;
const EPS: f64 = 1e-5;
/// Standard deviation of the first weights.
const FIRST_WEIGHTS: f64 = 0.01;
/// Steps between two copies of what is learned on the disk.
const SAVE_EVERY: u64 = 500;
/// Crops that a reader has ready.
const AHEAD: usize = 4;

/// The learning rate of step `step`, counted from 0, of `steps`.
pub fn rate(step: u64, steps: u64) -> f64 {
    let regular = RATE * (1.0 - step as f64 / steps as f64);
    let warmup = (WARMUP * steps as f64).round();
    if (step as f64) < warmup {
        regular * (1.0 - (1.0 - step as f64 / warmup) * (1.0 - WARMUP_FROM))
    } else {
        regular
    }
}

/// What is trained.
#[derive(Debug)]
pub struct Head {
    /// Scale and shift of the batch norm, `[d]`; weights, [C, d], and biases, `[C]`, of the linear layer, with their moments.
    trained: [(&'static str, ParameterState); 4],
    /// Running mean and variance of the features, `[d]`.
    mean: Tensor,
    variance: Tensor,
}

impl Head {
    /// With these first weights of the linear layer, [C, d].
    pub fn new(weights: &Tensor) -> Self {
        let (classes, width) = weights.size2().unwrap_or_default();
        let options = (Kind::Float, weights.device());
        let state = |parameter: Tensor| ParameterState {
            first_moment: parameter.zeros_like(),
            second_moment: parameter.zeros_like(),
            step: Tensor::zeros([] as [i64; 0], options),
            parameter: parameter.set_requires_grad(true),
        };
        Self {
            trained: [
                ("scale", state(Tensor::ones([width], options))),
                ("shift", state(Tensor::zeros([width], options))),
                ("weights", state(weights.copy())),
                ("biases", state(Tensor::zeros([classes], options))),
            ],
            mean: Tensor::zeros([width], options),
            variance: Tensor::ones([width], options),
        }
    }

    fn parameter(&self, at: usize) -> &Tensor {
        &self.trained[at].1.parameter
    }

    /// One step on the patches of crops, [n, P, d], and the labels of their pixels, [n, side, side], int64. Returns the loss: the mean over
    /// all pixels, also those that do not count, whose loss is 0.
    pub fn step(&mut self, patches: &Tensor, labels: &Tensor, rate: f64) -> Result<f64> {
        let (count, places, width) = patches.size3().unwrap_or_default();
        let (grid, side) = ((places as f64).sqrt().round() as i64, labels.size()[1]);
        let rows = patches.detach().reshape([-1, width]);
        let normal = rows.batch_norm(
            Some(self.parameter(0)),
            Some(self.parameter(1)),
            Some(&self.mean),
            Some(&self.variance),
            true,
            MOMENTUM,
            EPS,
            false,
        );
        let scores = normal.matmul(&self.parameter(2).transpose(0, 1)) + self.parameter(3);
        let scores = scores.view([count, grid, grid, -1]).permute([0, 3, 1, 2]);
        let scores = scores.upsample_bilinear2d([side, side], false, None, None);
        let ignored = i64::from(IGNORED);
        let loss = scores.cross_entropy_loss::<Tensor>(labels, None, Reduction::Sum, ignored, 0.0);
        let loss = loss / labels.numel() as f64;
        loss.backward();
        let settings = AdamW { lr: rate, betas: (0.9, 0.999), weight_decay: WEIGHT_DECAY, eps: 1e-8 };
        let states: Vec<&ParameterState> = self.trained.iter().map(|(_, state)| state).collect();
        fused_adamw(&states, &settings)?;
        for (_, state) in &mut self.trained {
            state.parameter.zero_grad();
        }
        Ok(loss.double_value(&[]))
    }

    /// Batch norm and linear layer as one, for features as they are. `steps`: how many were taken.
    pub fn linear(&self, steps: u64) -> Linear {
        tch::no_grad(|| {
            let scale = self.parameter(0) / (&self.variance + EPS).sqrt();
            let weights = self.parameter(2) * &scale;
            let shift = self.parameter(1) - &self.mean * &scale;
            let biases = self.parameter(3) + self.parameter(2).matmul(&shift);
            Linear { weights, biases, steps: steps as usize, gradient: f64::NAN }
        })
    }

    fn named(&self) -> Vec<(String, Tensor)> {
        let of_parameter = |(name, state): &(&str, ParameterState)| {
            let parts = [
                ("", &state.parameter),
                (".exp_avg", &state.first_moment),
                (".exp_avg_sq", &state.second_moment),
                (".step", &state.step),
            ];
            parts.map(|(part, tensor)| (format!("{name}{part}"), tensor.detach()))
        };
        let running = [("mean", &self.mean), ("variance", &self.variance)];
        let running = running.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
        self.trained.iter().flat_map(of_parameter).chain(running).collect()
    }

    /// What [`Head::write`] wrote, and how many steps were taken.
    fn read(path: &Path, device: Device) -> Result<(Self, u64)> {
        let mut saved = Weights::read(path, device)?;
        let mut head = Self::new(&Tensor::zeros(saved.size("weights")?, (Kind::Float, device)));
        let mut take = |name: &str| {
            let size = saved.size(name)?;
            saved.take(name, &size)
        };
        for (name, state) in &mut head.trained {
            state.parameter = take(name)?.set_requires_grad(true);
            state.first_moment = take(&format!("{name}.exp_avg"))?;
            state.second_moment = take(&format!("{name}.exp_avg_sq"))?;
            state.step = take(&format!("{name}.step"))?;
        }
        (head.mean, head.variance) = (take("mean")?, take("variance")?);
        let steps = head.trained[0].1.step.double_value(&[]) as u64;
        Ok((head, steps))
    }

    fn write(&self, path: &Path) -> Result<()> {
        weights::write(path, &self.named())
    }
}

/// Trains for so many steps, or goes on with what is in the file.
pub fn train(
    set: &SegmentationDataset,
    segmenter: &Segmenter,
    steps: u64,
    readers: usize,
    path: &Path,
    observer: &dyn Observer,
) -> Result<Linear> {
    let device = segmenter.model.device();
    let (mut head, first) = if path.exists() {
        Head::read(path, device)?
    } else {
        tch::manual_seed(0);
        let size = [set.classes.len() as i64, segmenter.class_vectors().size()[1]];
        let weights = Tensor::randn(size, (Kind::Float, Device::Cpu)) * FIRST_WEIGHTS;
        (Head::new(&weights.to_device(device)), 0)
    };
    let window = segmenter.window;
    let side = window.side;
    let filling = to_vec(&segmenter.model.vision.mean_pixel());
    let filling = [filling[0], filling[1], filling[2]];
    let mut progress = observer.progress("training the linear classifier", "steps", steps - first.min(steps));
    std::thread::scope(|scope| {
        let readers = readers.max(1) as u64;
        let sources: Vec<Receiver<Result<Crop>>> = (0..readers)
            .map(|reader| {
                let (send, receive) = sync_channel(AHEAD);
                scope.spawn(move || {
                    // The crops of the first steps were used before an interruption.
                    let numbers = (first * BATCH..steps * BATCH).filter(|number| number % readers == reader);
                    for number in numbers {
                        let made = numbered(set, &window, number, filling);
                        let failed = made.is_err();
                        if send.send(made).is_err() || failed {
                            return;
                        }
                    }
                });
                receive
            })
            .collect();
        for step in first..steps {
            if observer.interrupted() {
                head.write(path)?;
                let left = format!(
                    "{step} of {steps} steps of the linear classifier are done; the same command continues"
                );
                return Err(Error::interrupted(left));
            }
            let (mut pixels, mut labels) = (Vec::new(), Vec::new());
            for number in step * BATCH..(step + 1) * BATCH {
                let received = sources[(number % readers) as usize].recv();
                let crop = received.map_err(|_| stopped(set, number))??;
                pixels.push(Tensor::from_slice(&crop.pixels).view([1, side, side, 3]));
                labels.push(Tensor::from_slice(&crop.labels).view([1, side, side]));
            }
            let pixels = Tensor::cat(&pixels, 0).to_device(device);
            let labels = Tensor::cat(&labels, 0).to_device(device).to_kind(Kind::Int64);
            let loss = head.step(&segmenter.patches(&pixels), &labels, rate(step, steps))?;
            progress.advance(1, &|| format!("loss {loss:.3}"));
            if (step + 1) % SAVE_EVERY == 0 {
                head.write(path)?;
            }
        }
        progress.finish("");
        if first < steps {
            head.write(path)?;
        }
        Ok(head.linear(steps))
    })
}

/// Crop number `number` of the training: the images are in another random order in each epoch.
fn numbered(set: &SegmentationDataset, window: &Window, number: u64, filling: [f32; 3]) -> Result<Crop> {
    let sample = read_sample(set, image_of(number, set.pairs.len()))?;
    let mut random = ChaCha8Rng::seed_from_u64(0);
    random.set_stream(number);
    Ok(crop(&sample.image, &sample.mask, window, filling, &mut random))
}

fn image_of(number: u64, images: usize) -> usize {
    let (epoch, place) = (number / images as u64, (number % images as u64) as usize);
    let mut order: Vec<usize> = (0..images).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(epoch));
    order[place]
}

fn stopped(set: &SegmentationDataset, number: u64) -> Error {
    let path = set.pairs[image_of(number, set.pairs.len())].0.clone();
    Error::Invalid { path, problem: "the thread that read it stopped".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls_as_published() {
        let at = |step| rate(step, STEPS);
        assert!((at(0) - 1e-9).abs() < 1e-12);
        // Half-way through the warm-up, of the rate that has fallen by 750 of 40,000 steps.
        assert!((at(750) - 1e-3 * (1.0 - 750.0 / 40_000.0) * (1.0 - 0.5 * (1.0 - 1e-6))).abs() < 1e-12);
        assert!((at(1500) - 1e-3 * (1.0 - 1500.0 / 40_000.0)).abs() < 1e-12);
        assert!((at(20_000) - 5e-4).abs() < 1e-12);
        assert!((at(39_999) - 2.5e-8).abs() < 1e-12);
    }

    /// Also its moments and the running statistics of the batch norm.
    #[test]
    fn a_head_goes_on_from_its_file() {
        let numbers = |count: i64, phase: f64, size: &[i64]| {
            (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 1.7 + phase).sin().view(size)
        };
        let labels = Tensor::arange(2 * 6 * 6, (Kind::Int64, Device::Cpu)).remainder(3).view([2, 6, 6]);
        let patches = |step: i64| numbers(2 * 4 * 5, step as f64, &[2, 4, 5]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head.safetensors");
        let [mut whole, mut parts] = [(); 2].map(|()| Head::new(&numbers(15, 0.5, &[3, 5])));
        for step in 0..4 {
            whole.step(&patches(step), &labels, 0.01).unwrap();
            parts.step(&patches(step), &labels, 0.01).unwrap();
            parts.write(&path).unwrap();
            let (read, steps) = Head::read(&path, Device::Cpu).unwrap();
            assert_eq!(steps as i64, step + 1);
            parts = read;
        }
        for ((name, whole), (_, parts)) in whole.named().iter().zip(parts.named()) {
            assert!(whole.equal(&parts), "{name}");
        }
    }

    #[test]
    fn every_image_comes_once_in_an_epoch() {
        let epoch =
            |first: u64| -> Vec<usize> { (first..first + 20).map(|number| image_of(number, 20)).collect() };
        let (one, two) = (epoch(0), epoch(20));
        for order in [&one, &two] {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        }
        assert_ne!(one, two);
    }
}
