//! `trainer embed`: writes image and text embeddings to a file, for example to compare them with another implementation.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::Args;
use loader::images::centre_crop;
use program::UsageError;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use trainer::checkpoint::Checkpoint;
use trainer::data::{frozen_tower, read_image};
use trainer::device;
use trainer::settings::VisionSettings;
use trainer::towers::{
    CaptionTokens, Embedding, FrozenVision, ImageEncoder, PositionResize, RopePeriods, TextTower, VisionHead,
    heads,
};
use trainer::weights::{self, Weights};

use super::choices;
use super::options::{DeviceArgs, PrecisionArgs};

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// Run folder (its newest checkpoint is used), or the folder of one checkpoint.
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    /// Instead of a checkpoint: weights file of a vision tower, PyTorch or safetensors, with the state-dict keys of any family that
    /// `trainer convert` knows.
    #[arg(long, conflicts_with = "checkpoint", value_name = "FILE")]
    vision: Option<PathBuf>,
    // clap does not enforce `requires` if the required option conflicts with one that is given, hence `conflicts_with` too.
    /// With --vision: weights file of a DVT denoiser, which is applied to the patch features.
    #[arg(long, requires = "vision", conflicts_with = "checkpoint", value_name = "FILE")]
    denoiser: Option<PathBuf>,
    /// With --vision: how the position embedding is resized to another image size [default: as in the library whose state-dict keys
    /// the file has].
    #[arg(long, value_parser = choices::position_resize(), requires = "vision", conflicts_with = "checkpoint")]
    position: Option<PositionResize>,
    /// With --vision: periods of rotary positions (DINOv3) [default: file].
    #[arg(long, value_parser = choices::rope_periods(), requires = "vision", conflicts_with = "checkpoint")]
    rope_periods: Option<RopePeriods>,
    /// Instead of a checkpoint: weights file of a text tower, PyTorch or safetensors.
    #[arg(long, conflicts_with = "checkpoint", value_name = "FILE")]
    text_tower: Option<PathBuf>,
    /// With --text-tower: its number of attention heads [default: as in the published CLIPs of its width].
    #[arg(long, requires = "text_tower", conflicts_with = "checkpoint", value_name = "N")]
    heads: Option<i64>,
    /// Images to embed. As in training, their EXIF orientation is not applied.
    #[arg(long, num_args = 1.., value_name = "FILES")]
    image: Vec<PathBuf>,
    /// Resize the short side of the images to this many pixels and crop the centre, as centre crops in training and in evaluation do
    /// [default: use the images as they are; all must have the same size].
    #[arg(long, requires = "image", value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=16_384))]
    size: Option<u32>,
    /// Instead of --image: safetensors file with normalized pixels in `pixels`, float32 [images, 3, height, width].
    #[arg(long, conflicts_with_all = ["image", "size"], value_name = "FILE")]
    pixels: Option<PathBuf>,
    /// Captions to embed.
    #[arg(long, num_args = 1.., value_name = "CAPTIONS")]
    text: Vec<String>,
    /// Text file with one caption per line.
    #[arg(long, conflicts_with = "text", value_name = "FILE")]
    text_file: Option<PathBuf>,
    /// File to write (safetensors): `class` [images, width] and `patches` [images, patches, width]; `ids` (token ids) [captions,
    /// context] and `captions` [captions, width]. The embeddings are not L2-normalized. Those of a checkpoint with a trained head come
    /// from behind it; with `vision.embedding = "class+mean"`, `class` and `captions` are twice as wide as patches.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &EmbedArgs) -> anyhow::Result<Value> {
    device::limit_threads(args.device.threads);
    let device = device::open(&args.device.device)?;
    let captions = captions(args)?;
    let has_images = !args.image.is_empty() || args.pixels.is_some();
    if captions.is_empty() && !has_images {
        let problem = "nothing to embed: add --image, --pixels, --text or --text-file";
        return Err(UsageError(problem.to_owned()).into());
    }
    for (given, option, needed) in [
        (args.vision.is_some() && !has_images, "--vision", "--image or --pixels"),
        (args.text_tower.is_some() && captions.is_empty(), "--text-tower", "--text or --text-file"),
    ] {
        if given {
            let problem = format!(
                "option {option} has an effect only with {needed}; leave it out, or add what it is for"
            );
            return Err(UsageError(problem).into());
        }
    }
    let checkpoint = args.checkpoint.as_deref().map(Checkpoint::open).transpose()?;
    let mut named = Vec::new();
    // The width of the projection of a checkpoint's text tower is that of its vision tower, so the vision tower is opened in any
    // case.
    let kind = args.precision.precision.frozen_kind(device);
    let vision = match (&checkpoint, vision_settings(args)?) {
        (Some(checkpoint), _) => Some(checkpoint.frozen_vision(kind, device)?),
        (None, _) if !has_images => None,
        (None, Some(settings)) => {
            let encoder = frozen_tower::open(&settings, kind, device)?;
            Some(FrozenVision { encoder, head: VisionHead::none(Embedding::Class) })
        }
        (None, None) => {
            let problem = "missing --checkpoint or --vision, the tower for the images";
            return Err(UsageError(problem.to_owned()).into());
        }
    };
    if let Some(vision) = vision.as_ref().filter(|_| has_images) {
        if let Some(size) = args.size {
            vision.encoder.tower.check_size("--size", size.into())?;
        }
        let pixels = pixels(args, &vision.encoder, device)?;
        for &side in &pixels.size()[2..] {
            vision
                .encoder
                .tower
                .check_size(if args.pixels.is_some() { "--pixels" } else { "--image" }, side)?;
        }
        let features = vision.behind(&tch::no_grad(|| vision.encoder.tower.forward(&pixels)));
        named.push(("class".to_owned(), features.class.to_kind(Kind::Float)));
        named.push(("patches".to_owned(), features.patches.to_kind(Kind::Float)));
    }
    if !captions.is_empty() {
        let text = match (&checkpoint, &vision, &args.text_tower) {
            (Some(checkpoint), Some(vision), _) => checkpoint.text(vision.width(), device)?,
            (_, _, Some(path)) => text_tower(path, args.heads, device)?,
            _ => {
                let problem = "missing --checkpoint or --text-tower, the tower for the captions";
                return Err(UsageError(problem.to_owned()).into());
            }
        };
        let context = text.shape.context;
        let tokenizer = concepts::Tokenizer::clip();
        let ids: Vec<i64> = captions
            .iter()
            .flat_map(|caption| tokenizer.encode(&concepts::canonical(caption), context as usize).ids)
            .map(i64::from)
            .collect();
        let tokens = CaptionTokens::new(&ids, context as usize, device);
        let embedded = tch::no_grad(|| {
            text.captions(&text.tokens(&tokens, args.precision.precision.kind(device)), &tokens.end)
        });
        named.push(("ids".to_owned(), Tensor::from_slice(&ids).view([-1, context])));
        named.push(("captions".to_owned(), embedded.to_kind(Kind::Float)));
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
    let text = storage::read_text(path)?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn vision_settings(args: &EmbedArgs) -> anyhow::Result<Option<VisionSettings>> {
    let Some(path) = &args.vision else { return Ok(None) };
    let (weights, denoiser) = (path.clone(), args.denoiser.clone());
    let rope_periods = args.rope_periods.unwrap_or_default();
    let mut settings = VisionSettings {
        weights,
        denoiser,
        position: args.position,
        rope_periods,
        ..VisionSettings::default()
    };
    eprintln!("{}", frozen_tower::settle(&mut settings, "--")?);
    Ok(Some(settings))
}

fn text_tower(path: &Path, heads: Option<i64>, device: Device) -> anyhow::Result<TextTower> {
    let weights = Weights::read(path, device)?.into_open_clip()?;
    let width = weights.size("token_embedding.weight")?.get(1).copied().unwrap_or(0);
    let output = weights.size("text_projection")?.get(1).copied().unwrap_or(0);
    let heads = heads::of_text(width, heads, "--heads", path)?;
    Ok(TextTower::read(path, heads, output, device)?)
}

/// Normalized pixels, [B, 3, H, W].
fn pixels(args: &EmbedArgs, vision: &ImageEncoder, device: Device) -> anyhow::Result<Tensor> {
    if let Some(path) = &args.pixels {
        let mut file = Weights::read(path, device)?;
        let size = file.size("pixels")?;
        let [_, 3, _, _] = size[..] else {
            bail!(
                "{}: tensor pixels has the shape {size:?}; it must have [images, 3, height, width]",
                path.display()
            );
        };
        return Ok(file.take("pixels", &size)?.to_kind(Kind::Float));
    }
    let mut pictures = Vec::new();
    for path in &args.image {
        let mut photo = read_image(path)?;
        if let Some(size) = args.size {
            photo = centre_crop(&photo, size).map_err(|why| anyhow!("{}: {why}", path.display()))?;
        }
        let (width, height) = (i64::from(photo.width()), i64::from(photo.height()));
        pictures.push(Tensor::from_slice(photo.as_raw()).view([height, width, 3]));
    }
    if pictures.windows(2).any(|two| two[0].size() != two[1].size()) {
        return Err(UsageError(
            "the images have different sizes; add --size, or embed them one by one".to_owned(),
        )
        .into());
    }
    Ok(vision.normalise(&Tensor::stack(&pictures, 0)))
}
