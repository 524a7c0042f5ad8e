//! The vision and text towers, and the transformer block that they share.

mod block;
mod captions;
mod clip;
mod denoiser;
pub mod heads;
mod position;
mod text;
mod vision;

pub use block::Activation;
pub use captions::CaptionTokens;
pub use clip::{ClipShape, ClipVisionTower, Dense};
pub(crate) use denoiser::check as check_denoiser;
pub use position::PositionResize;
pub(crate) use text::VOCABULARY;
pub use text::{TextShape, TextTower};
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
