//! Reads a checkpoint, from a disk or an address.

use std::path::{Path, PathBuf};

use tch::{Device, Kind};

use super::checksums::refuse_damaged;
use super::layout::{AVERAGED, CHECKSUMS, LATEST, MODEL, OPTIMIZER, STATE, VISION_CHECKSUM, vision_path};
use super::state::{OLDEST_VERSION, State, VERSION};
use crate::data::frozen_tower;
use crate::error::{Error, Result};
use crate::method::objective::Objective;
use crate::method::optimizer::Optimizer;
use crate::towers::heads::HEAD_WIDTH;
use crate::towers::{Activation, ClipVisionTower, FrozenVision, HEAD_PREFIX, TextTower, VisionHead};
use crate::weights::Weights;

/// Prefix of the state-dict keys of a trained vision tower, as in open_clip.
const VISUAL: &str = "visual.";

/// A checkpoint on disk.
#[derive(Debug)]
pub struct Checkpoint {
    pub(super) folder: PathBuf,
    /// The content of its `state.json`.
    pub state: State,
}

impl Checkpoint {
    /// Opens the folder of a checkpoint, or the newest checkpoint of a run folder; on disk or at an address. Its other files are
    /// read when they are needed.
    pub fn open(path: &Path) -> Result<Self> {
        let latest = path.join(LATEST);
        let folder = match storage::read_text(&latest) {
            Ok(name) => path.join(name.trim()),
            Err(error) if !storage::is_missing(&error) && !path.is_file() => return Err(error.into()),
            Err(_) if storage::exists(path.join(STATE))? => path.to_owned(),
            Err(_) => {
                let problem = if path.exists() || storage::Location::from(path).is_remote() {
                    "contains no finished checkpoint (neither `latest` nor state.json)"
                } else {
                    "does not exist; give a run folder or one of its checkpoints"
                };
                return Err(Error::Failed(format!("{} {problem}", path.display())));
            }
        };
        let file = folder.join(STATE);
        let text = storage::read(&file)?;
        refuse_damaged(&folder.join(CHECKSUMS), &file)?;
        let invalid = |problem: String| Error::Invalid { path: file.clone(), problem };
        let state: serde_json::Value = serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))?;
        // Checked first: the settings of another version may have other keys.
        let version = &state["version"];
        if !version.as_u64().is_some_and(|it| (OLDEST_VERSION.into()..=VERSION.into()).contains(&it)) {
            return Err(invalid(format!(
                "has version {version} of the checkpoint format, but this program reads versions {OLDEST_VERSION} to {VERSION}"
            )));
        }
        let state: State = serde_json::from_value(state).map_err(|e| invalid(e.to_string()))?;
        Ok(Self { folder, state })
    }

    /// The newest checkpoint of a run; `None` if it was stopped before its first checkpoint.
    pub fn latest(run: &Path) -> Result<Option<Self>> {
        if run.join(LATEST).exists() { Self::open(run).map(Some) } else { Ok(None) }
    }

    /// The file of the frozen vision tower of this run.
    ///
    /// # Errors
    /// For a run of `clip`, which has none.
    pub fn vision_path(&self) -> Result<PathBuf> {
        if self.trains_vision() {
            let problem =
                "is a run of objective clip and has no frozen vision tower, which this command needs"
                    .to_owned();
            return Err(Error::Invalid { path: self.folder.clone(), problem });
        }
        let run = self.folder.parent().unwrap_or(Path::new("."));
        let path = vision_path(run);
        refuse_damaged(&run.join(VISION_CHECKSUM), &path)?;
        Ok(path)
    }

    /// The path of one of its files, whose checksum agrees.
    fn file(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        refuse_damaged(&self.folder.join(CHECKSUMS), &path)?;
        Ok(path)
    }

    /// SHA-256 of the weights that were trained, hexadecimal.
    pub fn model_sha256(&self) -> Result<String> {
        crate::weights::sha256(&self.file(MODEL)?)
    }

    /// Whether the vision tower was trained too and is therefore in the checkpoint.
    pub fn trains_vision(&self) -> bool {
        self.state.settings.objective.name == Objective::Clip
    }

    /// The weights that were trained: of the text tower, of what is behind a frozen vision tower, and of a trained vision tower. All have
    /// the names in the file.
    pub fn trained(&self, device: Device) -> Result<[Weights; 3]> {
        let mut text = Weights::read(&self.file(MODEL)?, device)?;
        let [head, images] = [HEAD_PREFIX, VISUAL].map(|prefix| text.take_below(prefix).under(prefix));
        Ok([text, head, images])
    }

    /// The text tower, for a vision tower whose tokens have this width.
    pub fn text(&self, vision_width: i64, device: Device) -> Result<TextTower> {
        let [weights, ..] = self.trained(device)?;
        let settings = &self.state.settings;
        let output = settings.vision.embedding.width(vision_width);
        let text = TextTower::from_weights(weights, settings.text.heads, output, settings.text.activation())?;
        Ok(text.with_patches(vision_width))
    }

    /// What was trained behind a frozen vision tower whose tokens have this width.
    pub fn head(&self, vision_width: i64, device: Device) -> Result<VisionHead> {
        let settings = &self.state.settings.vision;
        if settings.head.blocks == 0 {
            return Ok(VisionHead::none(settings.embedding));
        }
        let [_, mut weights, _] = self.trained(device)?;
        let head = VisionHead::take(&mut weights, settings.head.blocks, settings.embedding, vision_width)?;
        weights.finish(&[])?;
        Ok(head)
    }

    /// The frozen vision tower, computing in `kind`, with what was trained behind it.
    ///
    /// # Errors
    /// For a run of `clip`, too, which has none.
    pub fn frozen_vision(&self, kind: Kind, device: Device) -> Result<FrozenVision> {
        let mut settings = self.state.settings.vision.clone();
        settings.weights = self.vision_path()?;
        let encoder = frozen_tower::open(&settings, kind, device)?;
        let head = self.head(encoder.tower.width, device)?;
        Ok(FrozenVision { encoder, head })
    }

    /// The vision tower that `clip` trained, which computes in `kind`.
    pub fn trained_vision(&self, kind: Kind, device: Device) -> Result<ClipVisionTower> {
        let [.., mut weights] = self.trained(device)?;
        let mut weights = weights.take_below(VISUAL);
        let heads = self.state.settings.clip.width / HEAD_WIDTH;
        let tower = ClipVisionTower::take(&mut weights, heads, Activation::default(), kind)?;
        weights.finish(&[])?;
        Ok(tower)
    }

    /// Loads the saved moments into `optimizer`. Returns the averaged copy of the text tower, if the run has one.
    pub fn load_optimizer(
        &self,
        optimizer: &mut Optimizer,
        text: &TextTower,
        device: Device,
    ) -> Result<Option<TextTower>> {
        let mut saved = Weights::read(&self.file(OPTIMIZER)?, device)?;
        let averaged = saved.take_below(AVERAGED);
        optimizer.restore(|name, size| saved.take(name, size))?;
        saved.finish(&[])?;
        let has_one = self.state.settings.objective.doubtful.decay > 0.0;
        has_one.then(|| text.averaged_from(averaged)).transpose()
    }
}
