//! The towers of a run, their optimizer, and one training step.

use tch::{Device, Tensor};

use crate::checkpoint::Checkpoint;
use crate::data::{self, DeviceBatch, VisionSource};
use crate::distributed::Group;
use crate::error::{Error, Result};
use crate::method::groups;
use crate::method::objective::{self, Images, Objective, StepInput, StepReport};
use crate::method::optimizer::Optimizer;
use crate::settings::Settings;
use crate::towers::{self, ImageEncoder, Normalization, TextTower, VisionHead, operations};

/// The result of a step.
#[derive(Debug)]
pub(super) struct StepOutput {
    /// Its number, from 1.
    pub(super) step: u64,
    /// This rank's part of the measurements.
    pub(super) report: StepReport,
    /// The learning rate of the step.
    pub(super) lr: f64,
    /// This rank's part of the global batch.
    pub(super) batch: loader::Batch,
    /// Floating-point operations of the towers on this rank.
    pub(super) operations: f64,
}

/// Towers and optimizer of a run.
#[derive(Debug)]
pub(super) struct Learner<'a> {
    /// The settings of the run.
    pub(super) settings: &'a Settings,
    /// The device of its tensors.
    pub(super) device: Device,
    /// The vision side.
    pub(super) source: VisionSource,
    pub(super) text: TextTower,
    /// What is trained behind the frozen tower.
    pub(super) head: VisionHead,
    /// AdamW over all parameters that are not frozen.
    pub(super) optimizer: Optimizer,
    /// The averaged copy of the text tower, if the settings ask for one; from the first step on.
    pub(super) averaged: Option<TextTower>,
    /// Number of steps taken.
    pub(super) step: u64,
}

impl<'a> Learner<'a> {
    /// With a new text tower and head for a vision tower of width d_v = `width`. Uses libtorch's random generator.
    pub(super) fn new(settings: &'a Settings, source: VisionSource, width: i64, device: Device) -> Self {
        let vision = &settings.vision;
        let shape = settings.text.shape();
        let text = if settings.objective.name == Objective::Talk2dino {
            // The weights in the settings take the place of this tower.
            TextTower::random(shape, shape.width, device).with_map(width)
        } else {
            TextTower::random(shape, vision.embedding.width(width), device).with_patches(width)
        };
        let (scale, bias) = settings.objective.initial_logits();
        // The tower has CLIP's scale already, to the last bit.
        let other = bias.is_some() || settings.objective.logit_scale.is_some();
        let text = if other { text.with_logits(scale, bias) } else { text };
        let text = text.with_activation(settings.text.activation());
        let head = VisionHead::random(vision.head.blocks, vision.embedding, width, device);
        let optimizer = Optimizer::new(&settings.optimizer, Vec::new());
        let mut learner = Self { settings, device, source, text, head, optimizer, averaged: None, step: 0 };
        learner.start_optimizer();
        learner
    }

    /// A new optimizer for all parameters that are not frozen; the others need no gradients.
    pub(super) fn start_optimizer(&mut self) {
        let settings = &self.settings.optimizer;
        let stays = |name: &str| {
            groups::is_frozen(&settings.frozen, name) || !self.settings.objective.name.trains(name)
        };
        let (frozen, trained): (Vec<_>, Vec<_>) =
            self.parameters().into_iter().partition(|(name, _)| stays(name));
        for (_, tensor) in frozen {
            let _ = tensor.set_requires_grad(false);
        }
        self.optimizer = Optimizer::new(settings, trained);
    }

    /// An error if a setting of the optimizer is for parameters that this run does not have.
    pub(super) fn check_groups(&self) -> Result<()> {
        let settings = &self.settings.optimizer;
        let names = self.parameters();
        let objective = self.settings.objective.name;
        let names: Vec<&str> =
            names.iter().map(|(name, _)| name.as_str()).filter(|name| objective.trains(name)).collect();
        match groups::problem(&settings.factor, &settings.frozen, &names) {
            None => Ok(()),
            Some((name, problem)) => Err(Error::Setting { name, problem }),
        }
    }

    /// Resumes from a checkpoint of the same settings.
    pub(super) fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let width = self.text.patches();
        self.text = checkpoint.text(width, self.device)?;
        self.head = checkpoint.head(width, self.device)?;
        if let VisionSource::Trained(_, size) = &self.source {
            let size = *size;
            let kind = self.settings.precision.kind(self.device);
            let tower = checkpoint.trained_vision(kind, self.device)?.trainable();
            let normalization = self.settings.vision.normalization(Normalization::IMAGENET);
            let vision = ImageEncoder::new(tower, normalization, kind, self.device);
            self.source = VisionSource::Trained(Box::new(vision), size);
        }
        self.start_optimizer();
        self.averaged = checkpoint.load_optimizer(&mut self.optimizer, &self.text, self.device)?;
        self.step = checkpoint.state.step;
        Ok(())
    }

    /// All trained parameters, with their state-dict keys in open_clip; those of the head start with `head.`.
    pub(super) fn parameters(&self) -> Vec<(String, Tensor)> {
        let mut named = self.text.named();
        named.extend(self.head.named());
        named.extend(self.source.trained());
        named
    }

    /// How many numbers are trained.
    pub(super) fn trained_numbers(&self) -> usize {
        self.parameters().iter().filter(|(_, tensor)| tensor.requires_grad()).map(|(_, t)| t.numel()).sum()
    }

    /// The stochastic depth of the next step, for this rank's images.
    pub(super) fn kept(&self, group: &Group) -> Option<Tensor> {
        let batch = self.settings.data.loading.batch_size;
        let rows = batch / group.world();
        let own = group.rank() * rows..(group.rank() + 1) * rows;
        towers::kept(&self.settings.vision.head, batch, own, self.settings.seed, self.step, self.device)
    }

    /// exp of the learned scale of the image-caption logits, a scalar on the device.
    pub(super) fn logit_scale(&self) -> Tensor {
        self.text.logit_scale()
    }

    /// One optimizer step on a batch.
    pub(super) fn step(&mut self, batch: DeviceBatch, group: &Group) -> Result<StepOutput> {
        let kept = self.kept(group);
        let doubtful = &self.settings.objective.doubtful;
        let mut input = data::step_input(&batch, &self.source, &self.head, kept, self.settings, self.device)?;
        input.beyond.averaged = self.averaged.as_ref().filter(|_| self.step >= doubtful.start);
        let operations = operations_of(&self.text, &self.head, &self.source, &input);
        let (report, lr) = learn(self.settings, &self.text, &mut self.optimizer, self.step, &input, group)?;
        match &self.averaged {
            _ if doubtful.decay == 0.0 => {}
            Some(averaged) => averaged.average(&self.text, doubtful.decay),
            None => self.averaged = Some(self.text.averaged()?),
        }
        self.step += 1;
        Ok(StepOutput { step: self.step, report, lr, batch: batch.batch, operations })
    }
}

/// Computes the gradients of a batch and takes an optimizer step. Also returns the learning rate.
pub(super) fn learn(
    settings: &Settings,
    text: &TextTower,
    optimizer: &mut Optimizer,
    step: u64,
    input: &StepInput<'_>,
    group: &Group,
) -> Result<(StepReport, f64)> {
    let kind = settings.precision.kind(text.logit_scale().device());
    let report = objective::gradients(text, &settings.objective, input, group, settings.micro_batch, kind)?;
    let lr = settings.optimizer.lr_at(settings.data.loading.batch_size, step, settings.steps);
    optimizer.step(lr)?;
    text.clamp_logit_scale();
    Ok((report, lr))
}

/// Floating-point operations of a step on a batch.
pub(super) fn operations_of(
    text: &TextTower,
    head: &VisionHead,
    source: &VisionSource,
    input: &StepInput<'_>,
) -> f64 {
    let shape = text.shape;
    let lengths = input.captions.lengths();
    let captions: f64 =
        lengths.iter().map(|&length| operations::transformer(length, shape.width, shape.depth)).sum();
    let headed = match &input.images {
        Images::Headed(_, frozen, _) => {
            let size = frozen.patches.size();
            operations::transformer(1 + size[1], size[2], head.depth())
        }
        _ => 0.0,
    };
    let text_costs = if matches!(input.images, Images::HeadMeans(_)) { 1.0 } else { operations::TRAINING };
    text_costs * captions + lengths.len() as f64 * (source.operations() + operations::TRAINING * headed)
}
