//! The training loop.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loader::program::interrupted;
use loader::{Loader, Position};
use serde::Serialize;
use tch::{Device, Tensor};

use crate::bench::{self, Measured};
use crate::checkpoint::{self, Checkpoint, RunLock, State};
use crate::data::{self, Prefetcher, VisionSource};
use crate::error::{Error, Result};
use crate::evaluation::segmentation::SegmentationScores;
use crate::evaluation::{SegmentationDataset, periodic};
use crate::fair_share::FairShare;
use crate::group::Group;
use crate::launch::Launch;
use crate::learner::{Learner, StepOutput};
use crate::log::{Log, memory};
use crate::objective::Objective;
use crate::run_data::{self, RunShard};
use crate::settings::Settings;
use crate::{anomaly, device, first_batch};

/// Summary of a run, as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// `simzss`, `lit` or `clip`.
    pub objective: String,
    /// Steps taken when the run ended.
    pub steps: u64,
    /// Whether the run was stopped before its end: its last step, or the evaluation of its last checkpoint.
    pub interrupted: bool,
    /// Number of processes.
    pub ranks: usize,
    /// Images per second over all ranks, since the start of this process.
    pub images_per_second: f64,
    /// Fraction of the time that was spent waiting for batches.
    pub data_wait: f64,
    /// Loss of the first step of this process.
    pub first_loss: f64,
    /// Mean loss in the last line of the log.
    pub last_loss: f64,
    /// Captions that this rank has processed, with repetitions.
    pub captions: u64,
    /// Of these, captions without a mention of the vocabulary.
    pub captions_without_mention: u64,
    /// Mentions that were used.
    pub mentions: u64,
    /// Mentions of the vocabulary that were not used: too many in a caption, too long, or in the truncated part of the caption.
    pub mentions_left_out: u64,
    /// Samples that could not be read and were replaced by others.
    pub replaced: u64,
    /// Number of concepts in the vocabulary (bank).
    pub bank: usize,
    /// The newest checkpoint.
    pub checkpoint: PathBuf,
}

/// Time and memory that a run would need, measured on its first steps.
#[derive(Debug, Clone, Serialize)]
pub struct Estimate {
    /// Seconds per step, after the first step.
    pub seconds_per_step: f64,
    /// Hours of the whole run.
    pub hours: f64,
    /// Peak memory in bytes: of tensors on a GPU, of the process on a CPU.
    pub memory: u64,
    /// Number of trained parameters.
    pub parameters: usize,
    /// Number of samples in the dataset.
    pub samples: u64,
    /// Steps per epoch.
    pub steps_per_epoch: u64,
    /// Number of concepts in the vocabulary (bank).
    pub bank: usize,
    /// Loss of the first step.
    pub first_loss: f64,
}

/// Steps of a dry run; the first one is a warm-up and is not timed.
const DRY_STEPS: u64 = 4;

/// Takes a few steps of a run and returns what the run would need. Writes nothing except an image of the first batch.
pub fn dry_run(settings: &Settings, picture: &Path) -> Result<Estimate> {
    let device = device::open(&settings.device)?;
    device::limit_threads(settings.threads);
    let group = Group::alone();
    let settings = &with_position(settings, true)?;
    let mut run = Run::prepare(settings, &group, device)?;
    let mut feed = run.feed()?;
    let first = run.step(&mut feed, &group)?;
    first_batch::draw(&first.batch, &run.loader, picture)?;
    let first_loss = first.report.loss.double_value(&[]);
    let started = Instant::now();
    for _ in 1..DRY_STEPS {
        let taken = run.step(&mut feed, &group)?;
        // Waits for the device.
        let _ = taken.report.loss.double_value(&[]);
    }
    let seconds_per_step = started.elapsed().as_secs_f64() / (DRY_STEPS - 1) as f64;
    Ok(Estimate {
        seconds_per_step,
        hours: seconds_per_step * settings.steps as f64 / 3600.0,
        memory: memory(device),
        parameters: run.learner.parameters().iter().map(|(_, tensor)| tensor.numel()).sum(),
        samples: run.loader.samples(),
        steps_per_epoch: run.loader.steps_per_epoch(),
        bank: run.bank,
        first_loss,
    })
}

/// Times `steps` steps of a run on its own data after `warm_up` steps. Writes nothing except the profile of one more step, to
/// `trace`.
pub fn measure(settings: &Settings, warm_up: usize, steps: usize, trace: Option<&Path>) -> Result<Measured> {
    let device = device::open(&settings.device)?;
    device::limit_threads(settings.threads);
    let group = Group::alone();
    let settings = &with_position(settings, false)?;
    let mut run = Run::prepare(settings, &group, device)?;
    let mut feed = run.feed()?;
    let (mut times, mut waited, mut operations) = (Vec::new(), Duration::ZERO, 0.0);
    for step in 0..warm_up + steps {
        let started = Instant::now();
        let taken = run.step(&mut feed, &group)?;
        bench::wait(device);
        if step >= warm_up {
            times.push(started.elapsed().as_secs_f64() * 1e3);
            waited += taken.batch.counters.waited;
            operations = taken.operations;
        }
    }
    bench::traced(trace, || {
        run.step(&mut feed, &group)?;
        bench::wait(device);
        Ok(())
    })?;
    let waited = waited.as_secs_f64() * 1e3 / times.iter().sum::<f64>().max(1e-9);
    Ok(Measured::new(settings, device, times, 0.0, operations, waited))
}

/// Trains with `settings`. With `resume` it continues from the newest checkpoint in `settings.out`; if there is none, it starts
/// from the beginning.
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
    let trained = with_position(settings, group.is_first())
        .and_then(|settings| Run::open(&settings, &group, device, resume)?.train(&group));
    if let Err(error) = &trained {
        group.announce_failure(error);
    }
    trained
}

/// The settings with `vision.position` set, so that the run folder says how position embeddings are resized. With `print`, a line
/// says so too.
fn with_position(settings: &Settings, print: bool) -> Result<Settings> {
    let mut settings = settings.clone();
    if settings.objective.name != Objective::Clip {
        let line = settings.vision.settle_position("vision.position")?;
        if print {
            eprintln!("{line}");
        }
    }
    Ok(settings)
}

/// Fetches the run from its copy if the run folder has none, for example on a new machine. Rank 0 does this for all ranks, which
/// wait for it.
fn fetch_if_gone(copy: &Path, run: &Path, group: &Group) -> Result<()> {
    if group.is_first()
        && !checkpoint::exists(run)
        && let Some(name) = checkpoint::fetch(copy, run)?
    {
        eprintln!(
            "fetched the checkpoint {name} from {} into {}, which has no run",
            copy.display(),
            run.display()
        );
    }
    group.gather_numbers(&[]).map(drop)
}

/// The state of a run.
#[derive(Debug)]
struct Run<'a> {
    loader: Loader,
    bank: usize,
    /// The dataset on which checkpoints are evaluated.
    scored_on: Option<SegmentationDataset>,
    vision_hash: String,
    /// What is known of the data.
    shards: Vec<RunShard>,
    position: Position,
    learner: Learner<'a>,
    /// On rank 0 of a training: no other training uses the run folder.
    lock: Option<RunLock>,
}

/// What [`Run::save`] did.
struct Saved {
    step: u64,
    folder: PathBuf,
    /// Whether the checkpoint was to be evaluated, but the run is being stopped.
    not_scored: bool,
}

impl<'a> Run<'a> {
    /// Opens everything that a run needs, new or from its newest checkpoint. Creates the run folder of a new run, after all checks
    /// that can reject the run.
    fn open(settings: &'a Settings, group: &Group, device: Device, resume: bool) -> Result<Self> {
        if resume && let Some(copy) = &settings.checkpoint.copy_to {
            fetch_if_gone(copy, &settings.out, group)?;
        }
        // Before anything in the folder is read.
        let resumed = resume && group.is_first() && checkpoint::exists(&settings.out);
        let lock = if resumed { Some(RunLock::take(&settings.out)?) } else { None };
        let mut run = Self { lock, ..Self::prepare(settings, group, device)? };
        let checkpoint = if resume { Checkpoint::latest(&settings.out)? } else { None };
        if let Some(checkpoint) = &checkpoint {
            checkpoint.check_same_settings(settings)?;
            if checkpoint.state.vision != run.vision_hash {
                let problem = "is not the vision tower with which this run was started".to_owned();
                return Err(Error::Weights { path: settings.vision.weights.clone(), problem });
            }
            run_data::compare(&checkpoint.state.shards, &mut run.shards, &run.loader)?;
            run.learner.restore(checkpoint)?;
            let (epoch, step) = checkpoint.state.position;
            run.position = Position { epoch, step };
        }
        // A barrier: no rank has rejected the run. The broadcast below is another: rank 0 has created the run folder.
        group.gather_numbers(&[])?;
        if group.is_first() && run.lock.is_none() {
            run.lock = Some(checkpoint::create_run(settings)?);
        }
        let parameters: Vec<Tensor> =
            run.learner.parameters().into_iter().map(|(_, tensor)| tensor).collect();
        group.broadcast(&parameters)?;
        Ok(run)
    }

    /// Everything that a new run needs, with initial weights. Writes nothing.
    fn prepare(settings: &'a Settings, group: &Group, device: Device) -> Result<Self> {
        let shards = loader::shard::list(&settings.data.shards)?;
        let bank = data::bank(settings, &shards)?.map(Arc::new);
        let names = bank.as_ref().map_or(0, |bank| bank.len());
        let scored_on = periodic::set(&settings.evaluation)?;
        let loader = data::loader(settings, shards, bank, group)?;
        tch::manual_seed(settings.seed as i64);
        let (source, width) = VisionSource::open(settings, &loader, device)?;
        let vision_hash = match settings.objective.name {
            Objective::Clip => String::new(),
            Objective::Simzss | Objective::Lit => settings.vision.sha256()?,
        };
        let learner = Learner::new(settings, source, width, device);
        Ok(Self {
            shards: run_data::shards(&loader),
            loader,
            bank: names,
            scored_on,
            vision_hash,
            position: Position { epoch: 0, step: 0 },
            learner,
            lock: None,
        })
    }

    fn feed(&self) -> Result<Prefetcher> {
        Prefetcher::new(&self.loader, self.position, &self.learner.source, self.learner.device)
    }

    fn step(&mut self, feed: &mut Prefetcher, group: &Group) -> Result<StepOutput> {
        let taken = self.learner.step(feed.next_batch()?, group)?;
        self.position = taken.batch.position.next(self.loader.steps_per_epoch());
        Ok(taken)
    }

    fn train(mut self, group: &Group) -> Result<Summary> {
        let settings = self.learner.settings;
        let mut log = Log::open(settings, self.learner.step, self.learner.device, group)?;
        if group.is_first() {
            let (batch, lr) =
                (settings.data.batch_size, settings.optimizer.describe_lr(settings.data.batch_size));
            eprintln!("training: {} steps of {batch} samples, maximum learning rate {lr}", settings.steps);
        }
        let mut feed = self.feed()?;
        let mut saved: Option<Saved> = None;
        let mut saved_at = Instant::now();
        let mut stopped = false;
        // Not where the user has chosen a number of threads.
        let adapts = settings.threads == 0 && env::var_os("OMP_NUM_THREADS").is_none();
        let mut share = if adapts && !self.learner.device.is_cuda() { FairShare::new() } else { None };
        while self.learner.step < settings.steps {
            // All ranks stop at the same step, whichever of them received the signal. Rank 0 saves what any of them has found in
            // the data.
            let mut told = vec![i64::from(interrupted())];
            told.extend(run_data::encode(&self.loader.opened()));
            let told = group.gather_numbers(&told)?;
            for rank in told.iter().filter_map(|rank| rank.get(1..)) {
                run_data::note(&mut self.shards, rank);
            }
            stopped = told.iter().filter_map(|rank| rank.first()).any(|&stop| stop != 0);
            if stopped {
                break;
            }
            if let Some(share) = &mut share {
                share.adapt();
            }
            let taken = self.step(&mut feed, group)?;
            if let Err(error) = log.record(taken, &self.learner.logit_scale(), group) {
                return Err(self.with_batch_saved(error, group));
            }
            let every = settings.checkpoint.every;
            let minutes = settings.checkpoint.minutes;
            if (every > 0 && self.learner.step.is_multiple_of(every))
                || (minutes > 0.0 && saved_at.elapsed().as_secs_f64() > 60.0 * minutes)
            {
                saved = Some(self.save(group, &mut log, true)?);
                saved_at = Instant::now();
            }
        }
        let last = match saved {
            Some(saved) if saved.step == self.learner.step => saved,
            _ => self.save(group, &mut log, !stopped)?,
        };
        // Also where only the evaluation of the last checkpoint is missing: resumed, the run does it.
        let interrupted = self.learner.step < settings.steps || last.not_scored;
        Ok(log.finish(settings, self.learner.step, interrupted, self.bank, last.folder, group))
    }

    /// If the loss was not finite, saves this rank's part of the batch. If that fails too, the first error is still the one that is
    /// returned.
    fn with_batch_saved(&self, error: Error, group: &Group) -> Error {
        if let Error::NotFinite { step, position, .. } = &error {
            let run = if group.world() == 1 {
                self.learner.settings.out.clone()
            } else {
                self.learner.settings.out.join(format!("rank-{}", group.rank()))
            };
            match anomaly::save(&run, *step, *position, &self.loader) {
                Ok(folder) => eprintln!("the batch is saved in {}", folder.display()),
                Err(error) => eprintln!("cannot save the batch: {error}"),
            }
        }
        error
    }

    /// Writes a checkpoint, copies it, evaluates it if the settings say so and it is asked for (`score`), and removes old
    /// ones. Rank 0 does this for all ranks.
    ///
    /// A scheduler that stops a run gives it little time. So the checkpoint is safe, also at the place it is copied to,
    /// before the evaluation starts, and a run that is being stopped is not evaluated.
    fn save(&self, group: &Group, log: &mut Log, score: bool) -> Result<Saved> {
        let settings = self.learner.settings;
        let step = self.learner.step;
        if !group.is_first() {
            return Ok(Saved { step, folder: settings.out.clone(), not_scored: false });
        }
        log.check_losses().map_err(|error| self.with_batch_saved(error, group))?;
        let position = (self.position.epoch, self.position.step);
        let mut state = State::new(settings, step, position, &self.vision_hash, self.bank);
        state.shards.clone_from(&self.shards);
        let folder =
            checkpoint::save(&settings.out, &state, &self.learner.parameters(), &self.learner.optimizer)?;
        self.copy(checkpoint::copy, &folder);
        let mut not_scored = false;
        if let Some(set) = self.scored_on.as_ref().filter(|_| !checkpoint::is_scored(&folder)) {
            match self.score(&folder, set, score) {
                Ok(scores) => {
                    log.scored(step, scores.miou, scores.pixel_accuracy)?;
                    self.copy(checkpoint::copy_scores, &folder);
                }
                Err(Error::Interrupted(_)) => {
                    eprintln!("step {step} is not evaluated, because the run is being stopped");
                    not_scored = true;
                }
                Err(error) => return Err(error),
            }
        }
        checkpoint::remove_old(&settings.out, settings.checkpoint.keep)?;
        Ok(Saved { step, folder, not_scored })
    }

    /// Evaluates a checkpoint and records its scores, unless the run is being stopped.
    fn score(&self, folder: &Path, set: &SegmentationDataset, wanted: bool) -> Result<SegmentationScores> {
        if !wanted || interrupted() {
            return Err(Error::Interrupted("the checkpoint is not evaluated".to_owned()));
        }
        let scores = periodic::score(&Checkpoint::open(folder)?, set, self.learner.device)?;
        checkpoint::record_scores(folder, &scores, scores.miou)?;
        Ok(scores)
    }

    /// Copies a checkpoint, or a part of it, to `checkpoint.copy_to`. A failure costs the copy, not the run.
    fn copy(&self, copy: impl Fn(&Path, &Path, &Path) -> Result<()>, checkpoint: &Path) {
        let settings = self.learner.settings;
        if let Some(target) = &settings.checkpoint.copy_to
            && let Err(error) = copy(&settings.out, checkpoint, target)
        {
            eprintln!(
                "cannot copy the checkpoint of step {} to {}: {error}; the run continues",
                self.learner.step,
                target.display()
            );
        }
    }
}
