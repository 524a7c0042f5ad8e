//! The sigmoid loss of SigLIP (Zhai et al., 2023) for images and captions: each pair of the batch is classified by itself.

use std::ops::Range;

use tch::{Kind, Tensor};

/// Logits that are computed at a time: 64 MB in float32.
const LOGITS: i64 = 1 << 24;

/// The part of the loss that belongs to the images `own`: the sum over them and all captions of -log sigmoid(± (scale · similarity +
/// bias)), divided by the number of images B of the global batch. The sign is + for the caption of an image, - for the others.
///
/// `images`, `captions`: [B, d] of unit length; row i of one belongs to row i of the other. `scale`, `bias`: scalars. `ignored`: pairs that
/// do not count, [own, B].
pub fn sigmoid(
    images: &Tensor,
    captions: &Tensor,
    scale: &Tensor,
    bias: &Tensor,
    own: Range<i64>,
    ignored: Option<&Tensor>,
) -> Tensor {
    let count = own.end - own.start;
    let logits = images.narrow(0, own.start, count).matmul(&captions.transpose(0, 1)) * scale + bias;
    // -log sigmoid(x) = softplus(-x) = softplus(x) - x.
    let positive = logits.diagonal(own.start, 0, 1).sum(logits.kind());
    let all = logits.softplus();
    let counted = ignored.map_or_else(|| all.shallow_clone(), |ignored| all.masked_fill(ignored, 0));
    (counted.sum(logits.kind()) - positive) / images.size()[0] as f64
}

/// Computes the same in pieces, and adds its gradients to those of its inputs, so that only the logits of one piece are in memory.
/// Returns the loss without its graph. `scale` and `bias` are functions, because each piece needs a graph of its own.
pub fn backward(
    images: &Tensor,
    captions: &Tensor,
    scale: impl Fn() -> Tensor,
    bias: &Tensor,
    own: Range<i64>,
    ignored: Option<&Tensor>,
) -> Tensor {
    let rows = (LOGITS / captions.size()[0].max(1)).max(1);
    let mut sum = Tensor::zeros([] as [i64; 0], (Kind::Float, images.device()));
    let mut start = own.start;
    while start < own.end {
        let end = (start + rows).min(own.end);
        let ignored = ignored.map(|all| all.narrow(0, start - own.start, end - start));
        let part = sigmoid(images, captions, &scale(), bias, start..end, ignored.as_ref());
        part.backward();
        sum += part.detach();
        start = end;
    }
    sum
}
