//! The training loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loader::program::interrupted;
use loader::{Loader, Position};
use serde::Serialize;
use tch::{Device, Tensor};

use crate::anomaly;
use crate::checkpoint::{self, Checkpoint, State};
use crate::data::{self, Feed, VisionSource};
use crate::device;
use crate::error::{Error, Result};
use crate::evaluation::datasets::SegmentationSet;
use crate::evaluation::periodic;
use crate::group::Group;
use crate::launch::Launch;
use crate::log::Log;
use crate::objective::{self, Objective, StepReport};
use crate::operations;
use crate::optimizer::{Optimizer, learning_rate};
use crate::settings::Settings;
use crate::towers::{ClipVisionTower, TextTower};
use crate::vision_source::FrozenVision;

/// What a run did, for people and for `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// `simzss`, `lit` or `clip`.
    pub objective: String,
    /// Steps taken by the end of the run.
    pub steps: u64,
    /// Whether the run was interrupted before its last step.
    pub interrupted: bool,
    /// Processes that trained together.
    pub ranks: usize,
    /// Over all ranks, since the start of this process.
    pub images_per_second: f64,
    /// Share of the time spent waiting for batches.
    pub data_wait: f64,
    /// Loss of the first step taken.
    pub first_loss: f64,
    /// Mean loss since the last line of the log.
    pub last_loss: f64,
    /// Captions that this rank saw, with repetitions.
    pub captions: u64,
    /// Of these, captions without a mention that takes part.
    pub captions_without_mention: u64,
    /// Mentions that took part.
    pub mentions: u64,
    /// Mentions of bank concepts left out: too many, too long, or cut off with the caption.
    pub mentions_left_out: u64,
    /// Samples that could not be read and were replaced.
    pub replaced: u64,
    /// Concepts in the bank.
    pub bank: usize,
    /// The newest checkpoint.
    pub checkpoint: PathBuf,
}

/// Trains as `settings` say; `resume` goes on from the newest checkpoint in `settings.out`.
pub fn train(settings: &Settings, resume: bool) -> Result<Summary> {
    let launch = Launch::from_environment()?;
    let device = match &launch {
        Some(launch) => device::open_for_rank(&settings.device, launch.local_rank)?,
        None => device::open(&settings.device)?,
    };
    device::limit_threads(settings.threads);
    let group = match &launch {
        Some(launch) => Group::join(launch, device, Duration::from_secs(settings.timeout))?,
        None => Group::alone(),
    };
    let trained = Run::open(settings, &group, device, resume).and_then(|run| run.train(&group));
    if let Err(error) = &trained {
        group.say_why(error);
    }
    trained
}

/// What a step leaves behind.
#[derive(Debug)]
pub struct Taken {
    /// Its number, from 1.
    pub step: u64,
    /// This rank's part of what was measured.
    pub report: StepReport,
    /// The learning rate it took.
    pub lr: f64,
    /// This rank's part of the batch.
    pub batch: loader::Batch,
    /// Floating-point operations of this rank's towers.
    pub operations: f64,
}

/// A run between its steps.
#[derive(Debug)]
pub struct Run<'a> {
    settings: &'a Settings,
    device: Device,
    /// Shards and their order.
    pub loader: Loader,
    bank: usize,
    /// What checkpoints are scored on.
    scored_on: Option<SegmentationSet>,
    source: VisionSource,
    vision_hash: String,
    text: TextTower,
    optimizer: Optimizer,
    step: u64,
    position: Position,
}

impl<'a> Run<'a> {
    /// Opens everything a run needs, new or from its newest checkpoint, and makes the folder of a new one. Whatever can
    /// refuse the run does so before that.
    pub fn open(settings: &'a Settings, group: &Group, device: Device, resume: bool) -> Result<Self> {
        let mut run = Self::prepare(settings, group, device)?;
        let checkpoint = if resume { Checkpoint::latest(&settings.out)? } else { None };
        if let Some(checkpoint) = &checkpoint {
            checkpoint.refuse_unless_same(settings)?;
            if checkpoint.state.vision != run.vision_hash {
                let problem = "is another tower than the run's".to_owned();
                return Err(Error::Weights { path: settings.vision.weights.clone(), problem });
            }
            run.restore(checkpoint)?;
        }
        // Ranks agree that the run can begin before its folder is made, and that it is made before anyone goes on.
        group.gather_numbers(&[])?;
        if !resume && group.is_first() {
            checkpoint::create_run(settings)?;
        }
        let parameters: Vec<Tensor> = run.parameters().into_iter().map(|(_, tensor)| tensor).collect();
        group.broadcast(&parameters)?;
        Ok(run)
    }

    /// Everything a new run needs, with its first weights; writes nothing.
    pub fn prepare(settings: &'a Settings, group: &Group, device: Device) -> Result<Self> {
        let kind = settings.precision.kind(device);
        let shards = loader::shard::list(&settings.data.shards)?;
        let bank = data::bank(settings, &shards)?.map(Arc::new);
        let names = bank.as_ref().map_or(0, |bank| bank.len());
        let scored_on = periodic::set(&settings.evaluation)?;
        let loader = data::loader(settings, shards, bank, group)?;
        tch::manual_seed(settings.seed as i64);
        let (source, width, vision_hash) = if settings.objective.name == Objective::Clip {
            let size = i64::from(settings.data.size);
            let tower = ClipVisionTower::random(settings.clip, size / settings.clip.patch, kind, device);
            let vision = FrozenVision::around(tower.trainable(), &settings.vision, kind, device);
            (VisionSource::Trained(Box::new(vision), size), settings.clip.output, String::new())
        } else {
            let (source, width) = VisionSource::frozen(settings, &loader, device)?;
            (source, width, settings.vision.sha256()?)
        };
        let text = TextTower::random(settings.text, width, device);
        let mut run = Self {
            settings,
            device,
            loader,
            bank: names,
            scored_on,
            source,
            vision_hash,
            text,
            optimizer: Optimizer::new(&settings.optimizer, Vec::new()),
            step: 0,
            position: Position { epoch: 0, step: 0 },
        };
        run.optimizer = Optimizer::new(&settings.optimizer, run.parameters());
        Ok(run)
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let width = self.text.output();
        self.text = checkpoint.text(width, self.device)?;
        if let VisionSource::Trained(_, size) = &self.source {
            let size = *size;
            let kind = self.settings.precision.kind(self.device);
            let tower = checkpoint.trained_vision(kind, self.device)?.trainable();
            let vision = FrozenVision::around(tower, &self.settings.vision, kind, self.device);
            self.source = VisionSource::Trained(Box::new(vision), size);
        }
        self.optimizer = Optimizer::new(&self.settings.optimizer, self.parameters());
        checkpoint.load_optimizer(&mut self.optimizer, self.device)?;
        let (epoch, step) = checkpoint.state.position;
        (self.step, self.position) = (checkpoint.state.step, Position { epoch, step });
        Ok(())
    }

    /// Everything that is trained, under open_clip's names.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        let mut named = self.text.named();
        named.extend(self.source.trained());
        named
    }

    /// Batches from where the run is.
    pub fn feed(&self) -> Result<Feed> {
        Feed::new(&self.loader, self.position, &self.source, self.device)
    }

    /// One optimiser step.
    pub fn step(&mut self, feed: &mut Feed, group: &Group) -> Result<Taken> {
        let settings = self.settings;
        let fed = feed.next_batch()?;
        let input = data::step_input(&fed, &self.source, settings, self.device)?;
        let kind = settings.precision.kind(self.device);
        let report =
            objective::gradients(&self.text, &settings.objective, &input, group, settings.micro_batch, kind)?;
        let lr = learning_rate(&settings.optimizer, self.step, settings.steps);
        self.optimizer.step(lr)?;
        self.text.clamp_logit_scale();
        self.step += 1;
        self.position = fed.batch.position.next(self.loader.steps_per_epoch());
        let shape = self.text.shape;
        let text = operations::transformer(input.captions.ids.size()[1], shape.width, shape.depth);
        let operations = fed.batch.size as f64 * (operations::TRAINING * text + self.source.operations());
        Ok(Taken { step: self.step, report, lr, batch: fed.batch, operations })
    }

    /// exp of the learned scale of the image-caption logits, a scalar on the device.
    pub fn logit_scale(&self) -> Tensor {
        self.text.logit_scale()
    }

    fn train(mut self, group: &Group) -> Result<Summary> {
        let settings = self.settings;
        let mut log = Log::open(settings, self.step, self.device, group)?;
        let mut feed = self.feed()?;
        let mut saved = None;
        let mut saved_at = Instant::now();
        while self.step < settings.steps {
            // All ranks stop at the same step, whichever was told to.
            let stop = group.gather_numbers(&[i64::from(interrupted())])?;
            if stop.iter().flatten().any(|&stop| stop != 0) {
                break;
            }
            let taken = self.step(&mut feed, group)?;
            if let Err(error) = log.record(taken, &self.logit_scale(), group) {
                return Err(self.with_batch_saved(error, group));
            }
            let every = settings.checkpoint.every;
            let minutes = settings.checkpoint.minutes;
            if (every > 0 && self.step.is_multiple_of(every))
                || (minutes > 0.0 && saved_at.elapsed().as_secs_f64() > 60.0 * minutes)
            {
                saved = Some((self.step, self.save(group, &mut log)?));
                saved_at = Instant::now();
            }
        }
        let checkpoint = match saved {
            Some((step, folder)) if step == self.step => folder,
            _ => self.save(group, &mut log)?,
        };
        Ok(log.finish(settings, self.step, self.bank, checkpoint, group))
    }

    /// When a loss was no number, keeps this rank's part of its batch. What else went wrong on the way matters less.
    fn with_batch_saved(&self, error: Error, group: &Group) -> Error {
        if let Error::NotFinite { step, position, .. } = &error {
            let run = if group.world() == 1 {
                self.settings.out.clone()
            } else {
                self.settings.out.join(format!("rank-{}", group.rank()))
            };
            match anomaly::save(&run, *step, *position, &self.loader) {
                Ok(folder) => eprintln!("the batch is in {}", folder.display()),
                Err(error) => eprintln!("the batch could not be saved: {error}"),
            }
        }
        error
    }

    /// Writes a checkpoint, scores it if the run does that, and removes old ones. Rank 0 does so for all.
    fn save(&self, group: &Group, log: &mut Log) -> Result<PathBuf> {
        let settings = self.settings;
        if !group.is_first() {
            return Ok(settings.out.clone());
        }
        let position = (self.position.epoch, self.position.step);
        let state = State::new(settings, self.step, position, &self.vision_hash, self.bank);
        let folder = checkpoint::save(&settings.out, &state, &self.parameters(), &self.optimizer)?;
        if let Some(set) = &self.scored_on {
            let scores = periodic::score(&Checkpoint::open(&folder)?, set, self.device)?;
            checkpoint::record_scores(&folder, &scores, scores.miou)?;
            log.scored(self.step, scores.miou, scores.pixel_accuracy)?;
        }
        checkpoint::remove_old(&settings.out, settings.checkpoint.keep)?;
        Ok(folder)
    }
}
