//! The training loop: steps, checkpoints and their evaluation, until the last step or a signal.

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::anomaly;
use super::fair_share::FairShare;
use super::log::Log;
use super::setup::{Resumed, Run, settled};
use super::summary::Summary;
use crate::checkpoint::{self, Checkpoint, State};
use crate::data::run_shards;
use crate::device;
use crate::distributed::{FirstRank, Group, Launch};
use crate::error::{Error, Result};
use crate::evaluation::segmentation::SegmentationScores;
use crate::evaluation::{SegmentationDataset, periodic};
use crate::observer::Observer;
use crate::settings::Settings;

/// Trains with `settings`. With `resume` it continues from the newest checkpoint in `settings.out`; if there is none, it starts
/// from the beginning.
pub fn train(settings: &Settings, resume: bool, observer: &dyn Observer) -> Result<Summary> {
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
    let observer = FirstRank::new(observer, &group);
    let trained = || {
        let resumed =
            if resume { Resumed::find(settings, &group, device, &observer)? } else { Resumed::default() };
        let settings = settled(settings, resumed.precision(), device, &group, &observer)?;
        Run::open(&settings, &group, device, resumed, observer)?.train(&group)
    };
    let trained = trained();
    if let Err(error) = &trained {
        group.announce_failure(error);
    }
    trained
}

/// What [`Run::save`] did.
struct Saved {
    step: u64,
    folder: PathBuf,
    /// Whether the checkpoint was to be evaluated, but the run is being stopped.
    not_scored: bool,
}

impl Run<'_> {
    fn train(mut self, group: &Group) -> Result<Summary> {
        let settings = self.learner.settings;
        let mut log = Log::open(settings, self.learner.step, self.learner.device, group, self.observer)?;
        let batch = settings.data.loading.batch_size;
        let lr = settings.optimizer.describe_lr(batch);
        self.observer.message(&format!(
            "training: {} steps of {batch} samples, maximum learning rate {lr}",
            settings.steps
        ));
        let mut prefetcher = self.prefetcher()?;
        let mut saved: Option<Saved> = None;
        let mut saved_at = Instant::now();
        let mut stopped = false;
        // Not where the user has chosen a number of threads.
        let adapts = settings.threads == 0 && env::var_os("OMP_NUM_THREADS").is_none();
        let mut share = if adapts && !self.learner.device.is_cuda() { FairShare::new() } else { None };
        while self.learner.step < settings.steps {
            // All ranks stop at the same step, whichever of them received the signal. Rank 0 saves what any of them has found in
            // the data.
            let mut numbers = vec![i64::from(self.observer.interrupted())];
            numbers.extend(run_shards::encode(&self.loader.opened()));
            let of_ranks = group.gather_numbers(&numbers)?;
            for rank in of_ranks.iter().filter_map(|rank| rank.get(1..)) {
                run_shards::note(&mut self.shards, rank);
            }
            stopped = of_ranks.iter().filter_map(|rank| rank.first()).any(|&stop| stop != 0);
            if stopped {
                break;
            }
            if let Some(share) = &mut share {
                share.adapt();
            }
            let output = self.step(&mut prefetcher, group)?;
            if let Err(error) = log.record(output, &self.learner.logit_scale(), group) {
                return Err(self.with_batch_saved(error, group));
            }
            if settings.checkpoint.is_due(self.learner.step, saved_at.elapsed()) {
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
            self.observer.this_rank.message(&match anomaly::save(&run, *step, *position, &self.loader) {
                Ok(folder) => format!("the batch is saved in {}", folder.display()),
                Err(error) => format!("cannot save the batch: {error}"),
            });
        }
        error
    }

    /// Writes a checkpoint, copies it, evaluates it if the settings say so and it is asked for (`score`), and removes old
    /// ones. Rank 0 does this for all ranks.
    ///
    /// A scheduler that stops a run gives it little time. So the checkpoint is safe, also at the place it is copied to,
    /// before the evaluation starts, and a run that is being stopped is not evaluated.
    fn save(&mut self, group: &Group, log: &mut Log<'_>, score: bool) -> Result<Saved> {
        let settings = self.learner.settings;
        let step = self.learner.step;
        if !group.is_first() {
            return Ok(Saved { step, folder: settings.out.clone(), not_scored: false });
        }
        log.check_losses().map_err(|error| self.with_batch_saved(error, group))?;
        // Also the shards of the last step, which the other ranks have not heard of.
        run_shards::note(&mut self.shards, &run_shards::encode(&self.loader.opened()));
        let position = (self.position.epoch, self.position.step);
        let mut state = State::new(settings, step, position, &self.vision_hash, self.bank);
        state.shards.clone_from(&self.shards);
        state.selection = run_shards::selection(&self.loader);
        let learner = &self.learner;
        let (parameters, averaged) = (learner.parameters(), learner.averaged.as_ref());
        let folder = checkpoint::save(&settings.out, &state, &parameters, &learner.optimizer, averaged)?;
        self.copy(checkpoint::copy, &folder);
        let mut not_scored = false;
        if let Some(set) = self.scored_on.as_ref().filter(|_| !checkpoint::is_scored(&folder)) {
            match self.score(&folder, set, score) {
                Ok(scores) => {
                    log.scored(step, scores.miou, scores.pixel_accuracy)?;
                    self.copy(checkpoint::copy_scores, &folder);
                }
                Err(Error::Interrupted(_)) => {
                    let line = format!("step {step} is not evaluated, because the run is being stopped");
                    self.observer.message(&line);
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
        if !wanted || self.observer.interrupted() {
            return Err(Error::interrupted("the checkpoint is not evaluated"));
        }
        let scores = periodic::score(&Checkpoint::open(folder)?, set, self.learner.device, &self.observer)?;
        checkpoint::record_scores(folder, &scores, scores.miou)?;
        Ok(scores)
    }

    /// Copies a checkpoint, or a part of it, to `checkpoint.copy_to`. A failure costs the copy, not the run.
    fn copy(&self, copy: impl Fn(&Path, &Path, &Path) -> Result<()>, checkpoint: &Path) {
        let settings = self.learner.settings;
        if let Some(target) = &settings.checkpoint.copy_to
            && let Err(error) = copy(&settings.out, checkpoint, target)
        {
            self.observer.message(&format!(
                "cannot copy the checkpoint of step {} to {}: {error}; the run continues",
                self.learner.step,
                target.display()
            ));
        }
    }
}
