//! `trainer embed`: what the towers make of pictures and captions, as a file to hold against other implementations.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use image::imageops::{self, FilterType};
use loader::program::UsageError;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use trainer::checkpoint::Checkpoint;
use trainer::device::{self, Precision};
use trainer::picture;
use trainer::settings::VisionSettings;
use trainer::towers::{CaptionTokens, PositionResize, TextTower};
use trainer::vision_source::FrozenVision;
use trainer::weights::{self, Weights};

use crate::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// A run's folder (its newest checkpoint is used) or one checkpoint.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// A vision tower's file, in any names that `trainer convert` knows.
    #[arg(long, conflicts_with = "checkpoint")]
    vision: Option<PathBuf>,
    /// DVT's denoiser behind it.
    #[arg(long, requires = "vision")]
    denoiser: Option<PathBuf>,
    /// How its position embedding is resized: `dinov2`, `timm` or `huggingface`.
    #[arg(long, default_value = "dinov2", requires = "vision")]
    position: String,
    /// A text tower's file.
    #[arg(long, conflicts_with = "checkpoint")]
    text_tower: Option<PathBuf>,
    /// Its attention heads [default: one for 64 of its width].
    #[arg(long, requires = "text_tower")]
    heads: Option<i64>,
    /// Pictures.
    #[arg(long, num_args = 1..)]
    image: Vec<PathBuf>,
    /// Short side and centre crop of the pictures, pixels; without it they are taken as they are, all of one size.
    #[arg(long)]
    size: Option<u32>,
    /// Pixels that are normalised already: a safetensors file with `pixels`, float32 [images, 3, height, width].
    #[arg(long, conflicts_with_all = ["image", "size"])]
    pixels: Option<PathBuf>,
    /// Captions.
    #[arg(long, num_args = 1..)]
    text: Vec<String>,
    /// Captions, one a line.
    #[arg(long, conflicts_with = "text")]
    text_file: Option<PathBuf>,
    /// The file, safetensors: `class` [images, width] and `patches` [images, patches, width]; `ids` [captions, context]
    /// and `captions` [captions, width], not normalised.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &EmbedArgs) -> anyhow::Result<Value> {
    device::limit_threads(args.device.threads);
    let device = device::open(&args.device.device)?;
    let captions = captions(args)?;
    let has_images = !args.image.is_empty() || args.pixels.is_some();
    if captions.is_empty() && !has_images {
        return Err(UsageError("give --image, --pixels, --text or --text-file".to_owned()).into());
    }
    let checkpoint = args.checkpoint.as_deref().map(Checkpoint::open).transpose()?;
    let mut named = Vec::new();
    // A checkpoint's text tower projects into the space of its vision tower, so that is opened in any case.
    let vision = match (has_images || checkpoint.is_some(), vision_settings(args, checkpoint.as_ref())?) {
        (false, _) => None,
        (true, Some(settings)) => {
            Some(FrozenVision::open(&settings, Precision::Float32.kind(device), device)?)
        }
        (true, None) => return Err(UsageError("pictures need --checkpoint or --vision".to_owned()).into()),
    };
    if let Some(vision) = vision.as_ref().filter(|_| has_images) {
        let pixels = pixels(args, vision, device)?;
        let size = pixels.size();
        vision.tower.check_size("height", size[2])?;
        vision.tower.check_size("width", size[3])?;
        let features = tch::no_grad(|| vision.tower.forward(&pixels));
        named.push(("class".to_owned(), features.class));
        named.push(("patches".to_owned(), features.patches));
    }
    if !captions.is_empty() {
        let text = match (&checkpoint, &vision, &args.text_tower) {
            (Some(checkpoint), Some(vision), _) => checkpoint.text(vision.tower.width, device)?,
            (_, _, Some(path)) => text_tower(path, args.heads, device)?,
            _ => return Err(UsageError("captions need --checkpoint or --text-tower".to_owned()).into()),
        };
        let context = text.shape.context;
        let tokenizer = concepts::bpe::Tokenizer::clip();
        let ids: Vec<i64> = captions
            .iter()
            .flat_map(|caption| tokenizer.encode(&concepts::canonical(caption), context as usize).ids)
            .map(i64::from)
            .collect();
        let tokens = CaptionTokens::new(&ids, context as usize, device);
        let embedded = tch::no_grad(|| text.captions(&text.tokens(&tokens, Kind::Float), &tokens.end));
        named.push(("ids".to_owned(), Tensor::from_slice(&ids).view([-1, context])));
        named.push(("captions".to_owned(), embedded));
    }
    weights::write(&args.out, &named)?;
    let sizes: serde_json::Map<String, Value> =
        named.iter().map(|(name, tensor)| (name.clone(), json!(tensor.size()))).collect();
    for (name, size) in &sizes {
        println!("{name} {size}");
    }
    Ok(json!({ "out": args.out, "tensors": sizes }))
}

fn captions(args: &EmbedArgs) -> anyhow::Result<Vec<String>> {
    let Some(path) = &args.text_file else { return Ok(args.text.clone()) };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn vision_settings(
    args: &EmbedArgs,
    checkpoint: Option<&Checkpoint>,
) -> anyhow::Result<Option<VisionSettings>> {
    if let Some(checkpoint) = checkpoint {
        let trained = checkpoint.state.settings.vision.clone();
        return Ok(Some(VisionSettings { weights: checkpoint.vision_path()?, ..trained }));
    }
    let Some(path) = &args.vision else { return Ok(None) };
    let position: PositionResize = serde_json::from_value(json!(args.position)).map_err(|_| {
        UsageError(format!("--position {:?} is not dinov2, timm or huggingface", args.position))
    })?;
    let (weights, denoiser) = (path.clone(), args.denoiser.clone());
    Ok(Some(VisionSettings { weights, denoiser, position, ..VisionSettings::default() }))
}

fn text_tower(path: &Path, heads: Option<i64>, device: Device) -> anyhow::Result<TextTower> {
    /// CLIP's.
    const HEAD_WIDTH: i64 = 64;
    let weights = Weights::read(path, device)?.into_open_clip()?;
    let width = weights.size("token_embedding.weight")?.get(1).copied().unwrap_or(0);
    let output = weights.size("text_projection")?.get(1).copied().unwrap_or(0);
    let heads = heads.unwrap_or(width / HEAD_WIDTH);
    if heads < 1 || width % heads != 0 {
        return Err(UsageError(format!("--heads {heads} does not divide the width {width}")).into());
    }
    Ok(TextTower::read(path, heads, output, device)?)
}

/// Normalised pixels, [B, 3, H, W].
fn pixels(args: &EmbedArgs, vision: &FrozenVision, device: Device) -> anyhow::Result<Tensor> {
    if let Some(path) = &args.pixels {
        let mut file = Weights::read(path, device)?;
        let size = file.size("pixels")?;
        let [_, 3, _, _] = size[..] else {
            bail!("{}: pixels is {size:?}, not [images, 3, height, width]", path.display());
        };
        return Ok(file.take("pixels", &size)?.to_kind(Kind::Float));
    }
    let mut pictures = Vec::new();
    for path in &args.image {
        let mut photo = picture::read(path)?;
        if let Some(size) = args.size {
            let scale = f64::from(size) / f64::from(photo.width().min(photo.height()));
            let side = |pixels: u32| ((f64::from(pixels) * scale).round() as u32).max(size);
            let fitted =
                imageops::resize(&photo, side(photo.width()), side(photo.height()), FilterType::CatmullRom);
            let (x, y) = ((fitted.width() - size) / 2, (fitted.height() - size) / 2);
            photo = imageops::crop_imm(&fitted, x, y, size, size).to_image();
        }
        let (width, height) = (i64::from(photo.width()), i64::from(photo.height()));
        pictures.push(Tensor::from_slice(photo.as_raw()).view([height, width, 3]));
    }
    if pictures.windows(2).any(|two| two[0].size() != two[1].size()) {
        return Err(UsageError(
            "the pictures differ in size; give --size, or embed them one by one".to_owned(),
        )
        .into());
    }
    Ok(vision.normalise(&Tensor::stack(&pictures, 0)))
}
