//! The networks. The frozen vision tower (`vision`, with DVT's `denoiser`), CLIP's vision tower (`clip`) and the text tower
//! (`text`, whose captions are in `captions`; behind it there may be a `text_map`) share one transformer block (`block`; its `layers`, their products in `float8`, and state-dict keys,
//! `block_keys`). What DINOv2, TIPSv2 and DINOv3 differ in is in `family`; patches get their positions by `position` (learned) or
//! `rotary`, `dense` says which features of them are used (`reading` computes those that the last block was not trained to give, beside it
//! may be a `proxy` or a `dinoiser`), and `pooling` embeds images for towers without a class token. [`ImageEncoder`] is a vision tower together with the normalization
//! of its images, [`FrozenVision`] that together with the blocks that are trained behind it (`head`); [`convert`] rewrites the
//! weights of towers for other libraries, and [`operations`] counts what they cost.

mod block;
mod block_keys;
mod captions;
mod clip;
pub mod convert;
mod denoiser;
mod dense;
mod dinoiser;
mod family;
pub(crate) mod float8;
mod frozen_vision;
mod head;
pub mod heads;
mod image_encoder;
mod layers;
mod normalization;
pub mod operations;
mod pooling;
mod position;
mod proxy;
mod reading;
mod rotary;
mod text;
mod text_map;
mod vision;

pub use block::Activation;
pub use captions::CaptionTokens;
pub use clip::{Beside, ClipShape, ClipVisionTower};
pub use dense::Dense;
pub use dinoiser::Dinoiser;
pub use family::TowerFamily;
pub use frozen_vision::FrozenVision;
pub(crate) use head::PREFIX as HEAD_PREFIX;
pub use head::{Embedding, HeadSettings, MOST_BLOCKS, VisionHead, kept};
pub use image_encoder::{ImageEncoder, pixels};
pub use normalization::Normalization;
pub use position::PositionResize;
pub use proxy::Proxy;
pub use rotary::RopePeriods;
pub(crate) use rotary::{PERIODS as ROPE_PERIODS, exact_periods};
pub(crate) use text::VOCABULARY;
pub use text::{TextShape, TextTower};
pub(crate) use text_map::PREFIX as MAP_PREFIX;
pub use vision::{VisionFeatures, VisionShape, VisionTower};

use tch::{Kind, Tensor};

/// Converts to float32, or keeps float64: losses, softmaxes and norms are computed in these.
pub(crate) fn full_precision(x: &Tensor) -> Tensor {
    if x.kind() == Kind::Double { x.shallow_clone() } else { x.to_kind(Kind::Float) }
}

/// L2-normalizes along the last dimension, in float32 (PyTorch's `normalize`, eps 1e-12).
pub fn unit(x: &Tensor) -> Tensor {
    let x = full_precision(x);
    let norm = x.norm_scalaropt_dim(2.0, [-1i64].as_slice(), true).clamp_min(1e-12);
    x / norm
}
