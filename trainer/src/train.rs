//! The training loop.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loader::Position;
use loader::program::{Progress, interrupted};
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::checkpoint::{self, Checkpoint, State};
use crate::data::{self, VisionSource};
use crate::device;
use crate::error::{Error, Result, at};
use crate::objective::{self, StepReport};
use crate::optimizer::{Optimizer, learning_rate};
use crate::settings::Settings;
use crate::towers::TextTower;
use crate::weights;

/// What a run did, for people and for `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// `simzss` or `lit`.
    pub objective: String,
    /// Steps taken by the end of the run.
    pub steps: u64,
    /// Whether the run was interrupted before its last step.
    pub interrupted: bool,
    /// Where the time went.
    pub images_per_second: f64,
    /// Share of the time spent waiting for batches.
    pub data_wait: f64,
    /// Loss of the first step taken.
    pub first_loss: f64,
    /// Mean loss since the last line of the log.
    pub last_loss: f64,
    /// Captions seen, with repetitions.
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

/// One line of `log.jsonl`: means over the steps since the last line.
#[derive(Debug, Serialize)]
struct LogLine {
    step: u64,
    loss: f64,
    contrastive: f64,
    concept: Option<f64>,
    concept_accuracy: Option<f64>,
    logit_scale: f64,
    lr: f64,
    images_per_second: f64,
    data_wait: f64,
}

/// Trains as `settings` say; `resume` goes on from the newest checkpoint in `settings.out`.
pub fn train(settings: &Settings, resume: bool) -> Result<Summary> {
    let device = device::open(&settings.device)?;
    device::limit_threads(settings.threads);
    let kind = settings.precision.kind(device);

    // Everything that can refuse the run does so before its folder is made.
    let shards = loader::shard::list(&settings.data.shards)?;
    let bank = Arc::new(data::bank(settings, &shards)?);
    let loader = data::loader(settings, shards, Arc::clone(&bank))?;
    let (source, vision_width) = VisionSource::open(settings, &loader, device)?;
    let vision_hash = weights::sha256(&settings.vision.weights)?;
    let checkpoint = if resume { Checkpoint::latest(&settings.out)? } else { None };
    if let Some(checkpoint) = &checkpoint {
        checkpoint.refuse_unless_same(settings)?;
        if checkpoint.state.vision != vision_hash {
            let problem = "is another tower than the run's".to_owned();
            return Err(Error::Weights { path: settings.vision.weights.clone(), problem });
        }
    }
    if !resume {
        checkpoint::create_run(settings)?;
    }

    tch::manual_seed(settings.seed as i64);
    let text = match &checkpoint {
        Some(checkpoint) => checkpoint.text(vision_width, device)?,
        None => TextTower::random(settings.text, vision_width, device),
    };
    let mut optimizer = Optimizer::new(&settings.optimizer, text.named());
    let (mut step, mut position) = (0, Position { epoch: 0, step: 0 });
    if let Some(checkpoint) = &checkpoint {
        checkpoint.load_optimizer(&mut optimizer, device)?;
        let (epoch, epoch_step) = checkpoint.state.position;
        (step, position) = (checkpoint.state.step, Position { epoch, step: epoch_step });
    }

    let mut log = Log::open(settings, step)?;
    let mut batches = loader.batches(position);
    let mut last_saved = None;
    while step < settings.steps && !interrupted() {
        let batch = batches.next().ok_or_else(|| Error::Setting {
            name: "data.shards".to_owned(),
            problem: "gave no batch".to_owned(),
        })??;
        let input = data::step_input(&batch, &source, settings.text.context as usize, device);
        let report = objective::gradients(&text, &settings.objective, &input, settings.micro_batch, kind);
        let lr = learning_rate(&settings.optimizer, step, settings.steps);
        optimizer.step(lr)?;
        text.clamp_logit_scale();
        step += 1;
        position = batches.position();
        log.record(step, lr, &batch, report, &text)?;
        if settings.checkpoint_every > 0 && step % settings.checkpoint_every == 0 {
            let state = State::new(settings, step, (position.epoch, position.step), &vision_hash, bank.len());
            last_saved = Some((step, checkpoint::save(&settings.out, &state, &text, &optimizer)?));
        }
    }
    let checkpoint = match last_saved {
        Some((saved, folder)) if saved == step => folder,
        _ => {
            let state = State::new(settings, step, (position.epoch, position.step), &vision_hash, bank.len());
            checkpoint::save(&settings.out, &state, &text, &optimizer)?
        }
    };
    Ok(log.finish(settings, step, bank.len(), checkpoint))
}

/// Counts, sums and writes what the steps report.
struct Log {
    file: fs::File,
    path: PathBuf,
    progress: Progress,
    every: u64,
    steps: u64,
    started: Instant,
    /// Reports since the last line, still on the device.
    pending: Vec<StepReport>,
    pending_since: Instant,
    pending_wait: Duration,
    images: u64,
    pending_images: u64,
    waited: Duration,
    first_loss: Option<f64>,
    last_loss: f64,
    captions_without_mention: u64,
    mentions: u64,
    mentions_left_out: u64,
    replaced: u64,
}

impl Log {
    fn open(settings: &Settings, step: u64) -> Result<Self> {
        let path = settings.out.join("log.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))?;
        let mut progress = Progress::new("training", "steps", settings.steps);
        progress.advance(step, String::new);
        let now = Instant::now();
        Ok(Self {
            file,
            path,
            progress,
            every: settings.log_every,
            steps: settings.steps,
            started: now,
            pending: Vec::new(),
            pending_since: now,
            pending_wait: Duration::ZERO,
            images: 0,
            pending_images: 0,
            waited: Duration::ZERO,
            first_loss: None,
            last_loss: f64::NAN,
            captions_without_mention: 0,
            mentions: 0,
            mentions_left_out: 0,
            replaced: 0,
        })
    }

    fn record(
        &mut self,
        step: u64,
        lr: f64,
        batch: &loader::Batch,
        report: StepReport,
        text: &TextTower,
    ) -> Result<()> {
        let mut mentioned: Vec<u32> = batch.mentions.iter().map(|m| m.sample).collect();
        mentioned.dedup();
        self.captions_without_mention += (batch.size - mentioned.len()) as u64;
        self.mentions += batch.mentions.len() as u64;
        self.mentions_left_out += u64::from(batch.counters.mentions_left_out);
        for broken in &batch.counters.skipped {
            self.replaced += 1;
            eprintln!("replaced {} of {}: {}", broken.key, broken.shard.display(), broken.cause);
        }
        self.images += batch.size as u64;
        self.pending_images += batch.size as u64;
        self.waited += batch.counters.waited;
        self.pending_wait += batch.counters.waited;
        if self.first_loss.is_none() {
            self.first_loss = Some(report.loss.double_value(&[]));
        }
        self.pending.push(report);
        let line = if step.is_multiple_of(self.every) || step == self.steps {
            Some(self.line(step, lr, batch, text)?)
        } else {
            None
        };
        let loss = self.last_loss;
        self.progress.advance(1, || match line {
            Some(line) => {
                let concept = line.concept.map_or(String::new(), |loss| {
                    format!(" (concept {loss:.3}, accuracy {:.2})", line.concept_accuracy.unwrap_or(0.0))
                });
                format!(
                    "loss {:.3}{concept}, {:.0} img/s, waits {:.0} %",
                    line.loss,
                    line.images_per_second,
                    100.0 * line.data_wait
                )
            }
            None => format!("loss {loss:.3}"),
        });
        Ok(())
    }

    /// Means since the last line: the only place where the host waits for the device.
    fn line(&mut self, step: u64, lr: f64, batch: &loader::Batch, text: &TextTower) -> Result<LogLine> {
        let mean = |part: &dyn Fn(&StepReport) -> Option<Tensor>| {
            let values: Vec<Tensor> =
                self.pending.iter().filter_map(part).map(|t| t.to_kind(Kind::Float)).collect();
            (!values.is_empty()).then(|| Tensor::stack(&values, 0).mean(Kind::Double).double_value(&[]))
        };
        let loss = mean(&|r| Some(r.loss.shallow_clone())).unwrap_or(f64::NAN);
        let elapsed = self.pending_since.elapsed().as_secs_f64().max(1e-9);
        let line = LogLine {
            step,
            loss,
            contrastive: mean(&|r| Some(r.contrastive.shallow_clone())).unwrap_or(f64::NAN),
            concept: mean(&|r| r.concept.as_ref().map(Tensor::shallow_clone)),
            concept_accuracy: mean(&|r| r.concept_accuracy.as_ref().map(Tensor::shallow_clone)),
            logit_scale: text.logit_scale().double_value(&[]),
            lr,
            images_per_second: self.pending_images as f64 / elapsed,
            data_wait: self.pending_wait.as_secs_f64() / elapsed,
        };
        if !loss.is_finite() {
            let samples = batch.keys.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::NotFinite { step, loss, samples });
        }
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(at(&self.path))?;
        self.last_loss = loss;
        self.pending.clear();
        self.pending_since = Instant::now();
        self.pending_wait = Duration::ZERO;
        self.pending_images = 0;
        Ok(line)
    }

    fn finish(self, settings: &Settings, step: u64, bank: usize, checkpoint: PathBuf) -> Summary {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        self.progress.finish(&format!("loss {:.3}, {}", self.last_loss, checkpoint.display()));
        Summary {
            objective: settings.objective.name.to_string(),
            steps: step,
            interrupted: step < settings.steps,
            images_per_second: self.images as f64 / seconds,
            data_wait: self.waited.as_secs_f64() / seconds,
            first_loss: self.first_loss.unwrap_or(f64::NAN),
            last_loss: self.last_loss,
            captions: self.images,
            captions_without_mention: self.captions_without_mention,
            mentions: self.mentions,
            mentions_left_out: self.mentions_left_out,
            replaced: self.replaced,
            bank,
            checkpoint,
        }
    }
}
