//! Saves the batch of a step whose loss is NaN or infinite, as it was given to the towers.

use std::fs;
use std::path::{Path, PathBuf};

use loader::{Loader, Position};
use serde_json::json;
use tch::Tensor;

use crate::error::{Error, Result, writing};
use crate::towers::pixels;
use crate::weights;

/// Writes the batch at `position` to `run/anomaly-step-NNNNNNNN/`: `batch.safetensors` (pixels [B, H, W, 3], tokens
/// [B, context]) and `samples.json` (keys, captions, mentions). The batch is loaded again, which gives the same batch: it depends
/// only on its position.
pub(super) fn save(run: &Path, step: u64, position: Position, loader: &Loader) -> Result<PathBuf> {
    let folder = run.join(format!("anomaly-step-{step:08}"));
    fs::create_dir_all(&folder).map_err(writing(&folder))?;
    let Some(batch) = loader.batches(position).next().transpose()? else { return Ok(folder) };
    let tokens = Tensor::from_slice(&batch.tokens).view([batch.size as i64, -1]);
    let mut tensors = vec![("tokens".to_owned(), tokens)];
    if !batch.images.is_empty() {
        let size = i64::from(loader.settings().options.size);
        tensors.push(("pixels".to_owned(), pixels(&batch.images, size)));
    }
    weights::write(&folder.join("batch.safetensors"), &tensors)?;
    let mentions: Vec<_> = batch
        .mentions
        .iter()
        .map(|(row, m)| json!({ "row": row, "label": m.label, "tokens": [m.positions.start, m.positions.end] }))
        .collect();
    let samples = json!({
        "step": step,
        "epoch": position.epoch,
        "epoch_step": position.step,
        "keys": batch.keys,
        "captions": batch.captions,
        "mentions": mentions,
    });
    let path = folder.join("samples.json");
    let text = serde_json::to_vec_pretty(&samples)
        .map_err(|e| Error::Invalid { path: path.clone(), problem: e.to_string() })?;
    disk::files::write_atomic(&path, &text).map_err(writing(&path))?;
    Ok(folder)
}
