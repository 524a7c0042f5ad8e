//! `trainer cache`: computes the features of the frozen vision tower for a dataset once, or compares them.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use trainer::data::feature_cache::{self, CacheSettings};
use trainer::settings::VisionSettings;
use trainer::towers::{PositionResize, RopePeriods};

use super::choices;
use super::console::Console;
use super::options::{DeviceArgs, PrecisionArgs};

#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    /// Shards of the dataset: folders, tar files or brace lists.
    #[arg(long, required = true, num_args = 1.., value_name = "SHARDS")]
    shards: Vec<PathBuf>,
    /// Weights file of the frozen vision tower, PyTorch (.pth, .pt, .bin) or safetensors.
    #[arg(long, value_name = "FILE", required_unless_present = "verify")]
    vision: Option<PathBuf>,
    /// Compute nothing, but compare the features in --out, and every image of the shards, with the checks that were stored with
    /// the features.
    #[arg(long)]
    verify: bool,
    /// How its position embedding is resized to another image size, the same as `vision.position` in training [default: as in the
    /// library whose state-dict keys the file has].
    #[arg(long, value_parser = choices::position_resize())]
    position: Option<PositionResize>,
    /// Periods of rotary positions (DINOv3), the same as `vision.rope_periods` in training [default: file].
    #[arg(long, value_parser = choices::rope_periods())]
    rope_periods: Option<RopePeriods>,
    /// Write the head means that objective talk2dino is trained on, instead of class and patch tokens: for each attention head of the
    /// last block the mean of the patches, weighted by the attention of the class token. A fraction of the size.
    #[arg(long, conflicts_with = "verify")]
    head_means: bool,
    /// Side of the centre crop in pixels, the same as `data.size` in training.
    #[arg(long, default_value_t = 224)]
    size: u32,
    /// Folder to write, or to compare; `data.features` of the training.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: CacheArgs) -> anyhow::Result<Value> {
    if args.verify {
        let shards = loader::shards::list(&args.shards)?;
        return Ok(serde_json::to_value(feature_cache::verify(&args.out, &shards, &Console)?)?);
    }
    let settings = CacheSettings {
        shards: args.shards,
        vision: VisionSettings {
            weights: args.vision.unwrap_or_default(),
            position: args.position,
            rope_periods: args.rope_periods.unwrap_or_default(),
            ..VisionSettings::default()
        },
        head_means: args.head_means,
        size: args.size,
        device: args.device.device,
        precision: args.precision.precision,
        threads: args.device.threads,
    };
    Ok(serde_json::to_value(feature_cache::compute(&settings, &args.out, &Console)?)?)
}
