//! `trainer pretrain`: a small vision tower, trained from images alone.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use trainer::pretrain::{self, PretrainSettings};

use super::console::Console;
use super::options::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct PretrainArgs {
    /// Shards whose images are used: folders, tar files or brace lists. Captions are not read.
    #[arg(long, required = true, num_args = 1.., value_name = "SHARDS")]
    shards: Vec<PathBuf>,
    /// Weights file to write: safetensors with DINOv2's state-dict keys.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Number of optimizer steps; 0 = keep the random initial weights.
    #[arg(long, default_value_t = 300)]
    steps: u64,
    /// Side of the square images in pixels; must be a multiple of the patch size.
    #[arg(long, default_value_t = 112)]
    size: u32,
    /// Side of a patch in pixels.
    #[arg(long, default_value_t = 8)]
    patch: i64,
    /// Embedding width of a token; must be a multiple of 64.
    #[arg(long, default_value_t = 128)]
    width: i64,
    /// Number of transformer blocks.
    #[arg(long, default_value_t = 4)]
    depth: i64,
    /// Random seed of weights, order of images and augmentation.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: PretrainArgs) -> anyhow::Result<Value> {
    let settings = PretrainSettings {
        shards: args.shards,
        steps: args.steps,
        size: args.size,
        patch: args.patch,
        width: args.width,
        depth: args.depth,
        seed: args.seed,
        device: args.device.device,
        threads: args.device.threads,
    };
    Ok(serde_json::to_value(pretrain::pretrain(&settings, &args.out, &Console)?)?)
}
