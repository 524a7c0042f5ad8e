//! The run folder: the settings, the frozen vision tower, and checkpoints. A checkpoint appears under its final name only when it
//! is complete.
//!
//! ```text
//! run/settings.toml          all settings of the run
//! run/vision.safetensors     the frozen vision tower, so that the folder contains all that is needed to use the model
//! run/log.jsonl              the training log, one line per `log_every` steps
//! run/tensorboard/           the same for TensorBoard
//! run/vision.sha256          its checksum
//! run/step-00000150/         model.safetensors, optimizer.safetensors, state.json, and checkpoint.sha256 with their checksums;
//!                            evaluation.json if it was evaluated
//! run/latest                 name of the newest checkpoint
//! run/best                   name of the checkpoint with the highest mIoU, if checkpoints are evaluated
//! run/.lock                  locked while a training uses the folder
//! ```

mod checksums;
mod copy;
mod create;
mod fetch;
mod layout;
mod lock;
mod read;
mod same_settings;
mod save;
mod scores;
mod state;

pub use copy::{copy, copy_scores};
pub use create::create_run;
pub use fetch::fetch;
pub use layout::{exists, vision_path};
pub use lock::RunLock;
pub use read::Checkpoint;
pub use save::{remove_old, save};
pub use scores::{is_scored, record_scores};
pub use state::State;
