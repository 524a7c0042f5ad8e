//! Everything that a run needs, opened: its data, its towers, and its newest checkpoint if it is resumed.

use std::path::Path;
use std::sync::Arc;

use loader::{Loader, Position};
use tch::{Device, Tensor};

use super::learner::{Learner, StepOutput};
use super::start::start;
use crate::checkpoint::{self, Checkpoint, RunLock};
use crate::data::run_shards::{self, RunShard};
use crate::data::{self, Prefetcher, VisionSource, frozen_tower};
use crate::distributed::{FirstRank, Group};
use crate::error::{Error, Result};
use crate::evaluation::{SegmentationDataset, periodic};
use crate::method::objective::Objective;
use crate::observer::Observer;
use crate::settings::Settings;
use crate::towers::Normalization;

/// The settings with what they leave to the vision tower, so that the run folder says how position embeddings are resized and images
/// normalized; a line says so too.
pub(super) fn settled(settings: &Settings, observer: &dyn Observer) -> Result<Settings> {
    let mut settings = settings.clone();
    if settings.objective.name == Objective::Clip {
        let Normalization { mean, std } = settings.vision.normalization(Normalization::IMAGENET);
        (settings.vision.mean, settings.vision.std) = (Some(mean), Some(std));
    } else {
        observer.message(&frozen_tower::settle(&mut settings.vision, "vision.")?);
    }
    Ok(settings)
}

/// Fetches the run from its copy if the run folder has none, for example on a new machine. Rank 0 does this for all ranks, which
/// wait for it.
fn fetch_if_gone(copy: &Path, run: &Path, group: &Group, observer: &dyn Observer) -> Result<()> {
    if group.is_first()
        && !checkpoint::exists(run)
        && let Some(name) = checkpoint::fetch(copy, run, observer)?
    {
        observer.message(&format!(
            "fetched the checkpoint {name} from {} into {}, which has no run",
            copy.display(),
            run.display()
        ));
    }
    group.gather_numbers(&[]).map(drop)
}

/// The state of a run.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) loader: Loader,
    pub(super) bank: usize,
    /// The dataset on which checkpoints are evaluated.
    pub(super) scored_on: Option<SegmentationDataset>,
    pub(super) vision_hash: String,
    /// What is known of the data.
    pub(super) shards: Vec<RunShard>,
    pub(super) position: Position,
    pub(super) learner: Learner<'a>,
    pub(super) observer: FirstRank<'a>,
    /// On rank 0 of a training: no other training uses the run folder.
    lock: Option<RunLock>,
}

impl<'a> Run<'a> {
    /// Opens everything that a run needs, new or from its newest checkpoint. Creates the run folder of a new run, after all checks
    /// that can reject the run.
    pub(super) fn open(
        settings: &'a Settings,
        group: &Group,
        device: Device,
        resume: bool,
        observer: FirstRank<'a>,
    ) -> Result<Self> {
        if resume && let Some(copy) = &settings.checkpoint.copy_to {
            fetch_if_gone(copy, &settings.out, group, &observer)?;
        }
        // Before anything in the folder is read.
        let resumed = resume && group.is_first() && checkpoint::exists(&settings.out);
        let lock = if resumed { Some(RunLock::take(&settings.out, &observer)?) } else { None };
        let checkpoint = if resume { Checkpoint::latest(&settings.out)? } else { None };
        let mut run =
            Self { lock, ..Self::prepare(settings, group, device, observer, checkpoint.is_none())? };
        if let Some(checkpoint) = &checkpoint {
            checkpoint.check_same_settings(settings)?;
            if checkpoint.state.vision != run.vision_hash {
                let problem = "is not the vision tower with which this run was started".to_owned();
                return Err(Error::Weights { path: settings.vision.weights.clone(), problem });
            }
            run_shards::compare_selection(checkpoint.state.selection.as_deref(), &run.loader)?;
            run_shards::compare(&checkpoint.state.shards, &mut run.shards, &run.loader, &observer)?;
            run.learner.restore(checkpoint)?;
            let (epoch, step) = checkpoint.state.position;
            run.position = Position { epoch, step };
        }
        // A barrier: no rank has rejected the run. The broadcast below is another: rank 0 has created the run folder.
        group.gather_numbers(&[])?;
        if group.is_first() && run.lock.is_none() {
            run.lock = Some(checkpoint::create_run(settings, &observer)?);
        }
        let parameters: Vec<Tensor> =
            run.learner.parameters().into_iter().map(|(_, tensor)| tensor).collect();
        group.broadcast(&parameters)?;
        Ok(run)
    }

    /// Everything that a new run needs, with initial weights: those in the settings only if the run is a `new` one, and will not get
    /// those of a checkpoint. Writes nothing.
    pub(super) fn prepare(
        settings: &'a Settings,
        group: &Group,
        device: Device,
        observer: FirstRank<'a>,
        new: bool,
    ) -> Result<Self> {
        let shards = loader::shards::list(&settings.data.shards)?;
        let bank = data::bank(settings, &shards, group, &observer)?.map(Arc::new);
        let names = bank.as_ref().map_or(0, |bank| bank.len());
        let scored_on = periodic::set(&settings.evaluation)?;
        let loader = data::loader(settings, shards, bank, group, &observer)?;
        for warning in data::warnings(&loader) {
            observer.message(&format!("warning: {warning}"));
        }
        tch::manual_seed(settings.seed as i64);
        let (source, width) = VisionSource::open(settings, &loader, device, &observer)?;
        let vision_hash = match settings.objective.name {
            Objective::Clip => String::new(),
            Objective::Simzss | Objective::Lit | Objective::Talk2dino => {
                frozen_tower::sha256(&settings.vision)?
            }
        };
        let mut learner = Learner::new(settings, source, width, device);
        if new {
            start(&mut learner, &vision_hash, &observer)?;
        }
        learner.check_groups()?;
        Ok(Self {
            shards: run_shards::shards(&loader),
            loader,
            bank: names,
            scored_on,
            vision_hash,
            position: Position { epoch: 0, step: 0 },
            learner,
            observer,
            lock: None,
        })
    }

    /// Its batches, from its position on.
    pub(super) fn prefetcher(&self) -> Result<Prefetcher> {
        Prefetcher::new(&self.loader, self.position, &self.learner.source, self.learner.device)
    }

    /// Takes a step on the next batch.
    pub(super) fn step(&mut self, prefetcher: &mut Prefetcher, group: &Group) -> Result<StepOutput> {
        let output = self.learner.step(prefetcher.next_batch()?, group)?;
        self.position = output.batch.position.next(self.loader.steps_per_epoch());
        Ok(output)
    }
}
