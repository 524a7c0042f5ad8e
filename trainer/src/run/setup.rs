//! Everything that a run needs, opened: its data, its towers, and its newest checkpoint if it is resumed.

use std::path::Path;
use std::sync::Arc;

use loader::{Loader, Position};
use tch::{Device, Tensor};

use super::learner::{Learner, StepOutput};
use super::start::start;
use crate::checkpoint::{self, Checkpoint, RunLock};
use crate::data::feature_cache::CacheHeader;
use crate::data::run_shards::{self, RunShard};
use crate::data::{self, Prefetcher, VisionSource, frozen_tower};
use crate::device::{self, Precision};
use crate::distributed::{FirstRank, Group};
use crate::error::{Error, Result};
use crate::evaluation::{SegmentationDataset, periodic};
use crate::method::objective::Objective;
use crate::observer::Observer;
use crate::settings::Settings;
use crate::towers::Normalization;

/// The settings with what they leave to the machine and to the vision tower, so that the run folder says in which precision the run
/// computes, how position embeddings are resized and images normalized; lines say so too. `began`: the precision of the run that is
/// resumed.
pub(super) fn settled(
    settings: &Settings,
    began: Option<Precision>,
    device: Device,
    group: &Group,
    observer: &dyn Observer,
) -> Result<Settings> {
    let mut settings = settings.clone();
    let (precision, reason) = precision(&settings, began, device, device::multiplies_bfloat16(), group)?;
    settings.precision = precision;
    observer.message(&format!("precision: {}{reason}", precision.describe().unwrap_or_default()));
    if settings.objective.name == Objective::Clip {
        let Normalization { mean, std } = settings.vision.normalization(Normalization::IMAGENET);
        (settings.vision.mean, settings.vision.std) = (Some(mean), Some(std));
    } else {
        observer.message(&frozen_tower::settle(&mut settings.vision, "vision.")?);
    }
    Ok(settings)
}

/// The precision of a run, which is the same on all ranks, and the reason if it is not that the settings name it. `multiplies`:
/// whether this processor multiplies matrices in bfloat16.
fn precision(
    settings: &Settings,
    began: Option<Precision>,
    device: Device,
    multiplies: bool,
    group: &Group,
) -> Result<(Precision, &'static str)> {
    let auto = settings.precision;
    if auto != Precision::Auto {
        return Ok((auto, ""));
    }
    if let Some(began) = began {
        return Ok((began, " (as the run began)"));
    }
    let (vision, reason) = match &settings.data.features {
        _ if settings.objective.name == Objective::Clip => (false, ""),
        Some(folder) => {
            let of_features = CacheHeader::read(folder)?.precision;
            (of_features == Some(Precision::Bfloat16), " (as data.features were computed)")
        }
        None => (multiplies, " (the processor has AVX512-BF16; precision = float32 computes as on others)"),
    };
    let of_ranks = group.gather_numbers(&[i64::from(vision)])?;
    let chosen = auto.chosen(device, of_ranks.iter().flatten().all(|&vision| vision != 0));
    Ok((chosen, if chosen == Precision::Bfloat16Vision { reason } else { "" }))
}

/// What a run continues from.
#[derive(Debug, Default)]
pub(super) struct Resumed {
    /// On rank 0, if there is a run: taken before anything in its folder is read.
    lock: Option<RunLock>,
    /// Its newest checkpoint; `None` for a run that starts.
    checkpoint: Option<Checkpoint>,
}

impl Resumed {
    /// The run in the folder of the settings; if there is none, it is fetched from its copy.
    pub(super) fn find(
        settings: &Settings,
        group: &Group,
        device: Device,
        observer: &FirstRank<'_>,
    ) -> Result<Self> {
        if let Some(copy) = &settings.checkpoint.copy_to {
            fetch_if_gone(copy, &settings.out, group, observer)?;
        }
        let exists = group.is_first() && checkpoint::exists(&settings.out);
        let lock = if exists { Some(RunLock::take(&settings.out, observer)?) } else { None };
        let mut checkpoint = Checkpoint::latest(&settings.out)?;
        if let Some(checkpoint) = &mut checkpoint {
            // Runs of versions before `bfloat16-vision` have saved `auto`, which then never stood for it.
            let precision = &mut checkpoint.state.settings.precision;
            *precision = precision.for_scores(device);
        }
        Ok(Self { lock, checkpoint })
    }

    /// The precision of the run.
    pub(super) fn precision(&self) -> Option<Precision> {
        Some(self.checkpoint.as_ref()?.state.settings.precision)
    }
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
        resumed: Resumed,
        observer: FirstRank<'a>,
    ) -> Result<Self> {
        let Resumed { lock, checkpoint } = resumed;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::State;
    use crate::method::optimizer::Optimizer;
    use crate::observer::Silent;

    #[test]
    fn auto_follows_the_processor_the_run_and_the_features() {
        let group = Group::alone();
        let chosen = |settings: &Settings, began, multiplies| {
            precision(settings, began, Device::Cpu, multiplies, &group).unwrap().0
        };
        let mut settings = Settings::default();
        assert_eq!(chosen(&settings, None, true), Precision::Bfloat16Vision);
        assert_eq!(chosen(&settings, None, false), Precision::Float32);
        // A run goes on as it began, whatever this processor can do.
        for began in
            [Precision::Float32, Precision::Bfloat16Vision, Precision::Bfloat16, Precision::Float8Vision]
        {
            for multiplies in [true, false] {
                assert_eq!(chosen(&settings, Some(began), multiplies), began);
            }
        }
        // Features are as they were computed; folders of earlier versions do not say how.
        let folder = tempfile::tempdir().unwrap();
        settings.data.features = Some(folder.path().to_owned());
        for (says, expected) in [
            (", \"precision\": \"bfloat16\"", Precision::Bfloat16Vision),
            (", \"precision\": \"float32\"", Precision::Float32),
            // Refused then, because nobody has asked for them.
            (", \"precision\": \"float8-vision\"", Precision::Float32),
            ("", Precision::Float32),
        ] {
            let header = format!(
                r#"{{"version": 2, "samples": 0, "patches": 4, "width": 8, "size": 16, "shards": [], "vision": "00",
                "normalisation": "x"{says}}}"#
            );
            std::fs::write(folder.path().join("features.json"), header).unwrap();
            assert_eq!(chosen(&settings, None, true), expected, "{says}");
            assert_eq!(chosen(&settings, None, false), expected, "{says}");
        }
        settings.precision = Precision::Bfloat16;
        assert_eq!(chosen(&settings, Some(Precision::Float32), false), Precision::Bfloat16, "what is given");
        let mut clip = Settings::default();
        clip.objective.name = Objective::Clip;
        assert_eq!(chosen(&clip, None, true), Precision::Float32, "nothing is frozen");
    }

    /// Before there was `bfloat16-vision`, runs saved `auto`, which on a CPU was float32.
    #[test]
    fn a_run_of_an_earlier_version_goes_on_in_float32() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { out: folder.path().to_owned(), ..Settings::default() };
        let state = State::new(&settings, 3, (0, 3), "", 0);
        let named = [("weight".to_owned(), Tensor::from_slice(&[1.0_f32]))];
        let optimizer = Optimizer::new(&settings.optimizer, Vec::new());
        checkpoint::save(folder.path(), &state, &named, &optimizer, None).unwrap();
        let group = Group::alone();
        let observer = FirstRank::new(&Silent, &group);
        let resumed = Resumed::find(&settings, &group, Device::Cpu, &observer).unwrap();
        assert_eq!(resumed.precision(), Some(Precision::Float32));
    }
}
