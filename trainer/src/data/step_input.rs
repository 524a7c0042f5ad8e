//! From a batch on the device to the input of a training step: embeddings of its images, tokens of its captions, mentions.

use tch::{Device, Kind, Tensor};

use super::feature_cache::{PatchesOf, rows_with_mentions};
use super::prefetcher::{DeviceBatch, DeviceImages, no_batch};
use super::vision_source::VisionSource;
use crate::error::Result;
use crate::method::objective::{Images, Objective, StepInput};
use crate::method::pooling::Mention;
use crate::method::unmentioned::Beyond;
use crate::settings::Settings;
use crate::towers::{CaptionTokens, VisionFeatures, VisionHead, unit};

/// Images per forward pass of the frozen tower if `micro_batch` is not set: enough to fill a GPU. It keeps no activations for
/// a backward pass, so splitting the batch costs nothing.
const SEEN_AT_ONCE: i64 = 1024;

/// The input of a step from a batch; the frozen tower processes the images in pieces. `kept`: the stochastic depth of the head.
pub fn step_input<'a>(
    device_batch: &DeviceBatch,
    source: &'a VisionSource,
    head: &'a VisionHead,
    kept: Option<Tensor>,
    settings: &Settings,
    device: Device,
) -> Result<StepInput<'a>> {
    let kind = settings.precision.kind(device);
    let with_patches = settings.objective.name == Objective::Simzss;
    let batch = &device_batch.batch;
    let images = match (source, &device_batch.images) {
        (VisionSource::Trained(vision, _), DeviceImages::Pixels(pixels)) => {
            Images::ToTrain(&vision.tower, vision.normalise(pixels))
        }
        (VisionSource::Frozen(vision, _), DeviceImages::Pixels(pixels))
            if settings.objective.name == Objective::Talk2dino =>
        {
            let pieces: Vec<Tensor> =
                pieces_of(pixels, settings).map(|some| vision.head_means(&some)).collect();
            Images::HeadMeans(unit(&Tensor::cat(&pieces, 0)))
        }
        (VisionSource::Cache { .. }, DeviceImages::HeadMeans(means)) => Images::HeadMeans(unit(means)),
        (VisionSource::Frozen(vision, _), DeviceImages::Pixels(pixels)) => {
            let pieces: Vec<VisionFeatures> = pieces_of(pixels, settings)
                .map(|some| vision.features(&some))
                .map(|features| {
                    if head.is_trained() {
                        features.to_kind(kind)
                    } else {
                        seen(&head.features(&features), with_patches, kind)
                    }
                })
                .collect();
            let all = join(&pieces);
            if head.is_trained() { Images::Headed(head, all, kept) } else { Images::Seen(all) }
        }
        (VisionSource::Cache { .. }, DeviceImages::Features(features)) if head.is_trained() => {
            Images::Headed(head, features.to_kind(kind), kept)
        }
        (VisionSource::Cache { patches: PatchesOf::All, .. }, DeviceImages::Features(features)) => {
            Images::Seen(seen(&head.features(features), with_patches, kind))
        }
        (VisionSource::Cache { .. }, DeviceImages::Features(features)) => {
            Images::SeenInPart(seen(features, with_patches, kind), rows_with_mentions(batch))
        }
        _ => return Err(no_batch()),
    };
    let mentions = batch
        .mentions
        .iter()
        .map(|(row, m)| Mention { row: row as u32, label: m.label, positions: m.positions })
        .collect();
    let captions = CaptionTokens::new(&batch.tokens, settings.text.context as usize, device);
    // The number of a sample is that of its image.
    let numbers = batch.samples.iter().map(|&sample| sample as i64).collect();
    let beyond = Beyond { images: numbers, siblings: batch.siblings.clone(), averaged: None };
    Ok(StepInput { images, captions, mentions, beyond })
}

/// The images of a batch in pieces for the frozen tower.
fn pieces_of(pixels: &Tensor, settings: &Settings) -> impl Iterator<Item = Tensor> {
    let rows = pixels.size()[0];
    let piece = if settings.micro_batch == 0 { SEEN_AT_ONCE } else { settings.micro_batch as i64 };
    (0..rows).step_by(piece as usize).map(move |start| pixels.narrow(0, start, piece.min(rows - start)))
}

/// L2-normalized features; patches in the precision of what is trained.
pub fn seen(features: &VisionFeatures, with_patches: bool, kind: Kind) -> VisionFeatures {
    tch::no_grad(|| VisionFeatures {
        class: unit(&features.class),
        patches: if with_patches { unit(&features.patches).to_kind(kind) } else { Tensor::new() },
    })
}

fn join(pieces: &[VisionFeatures]) -> VisionFeatures {
    if let [one] = pieces {
        return VisionFeatures { class: one.class.shallow_clone(), patches: one.patches.shallow_clone() };
    }
    let cat = |part: &dyn Fn(&VisionFeatures) -> &Tensor| {
        let parts: Vec<&Tensor> = pieces.iter().map(part).filter(|t| t.defined()).collect();
        if parts.is_empty() { Tensor::new() } else { Tensor::cat(&parts, 0) }
    };
    VisionFeatures { class: cat(&|f| &f.class), patches: cat(&|f| &f.patches) }
}
