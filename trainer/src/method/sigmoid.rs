//! The sigmoid loss of SigLIP (Zhai et al., 2023) for images and captions: each pair of the batch is classified by itself.

use std::ops::Range;

use tch::Tensor;

use super::pieces;

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
    let (first, batch) = (own.start, images.size()[0]);
    let inputs = [images, captions, scale, bias];
    let sum = pieces::sum(inputs, own, batch, |[images, captions, scale, bias], rows| {
        let count = rows.end - rows.start;
        let logits = images.narrow(0, rows.start, count).matmul(&captions.transpose(0, 1)) * scale + bias;
        // -log sigmoid(x) = softplus(-x) = softplus(x) - x.
        let positive = logits.diagonal(rows.start, 0, 1).sum(logits.kind());
        let all = logits.softplus();
        let ignored = ignored.map(|pairs| pairs.narrow(0, rows.start - first, count));
        let counted = ignored.map_or_else(|| all.shallow_clone(), |pairs| all.masked_fill(&pairs, 0));
        counted.sum(logits.kind()) - positive
    });
    sum / batch as f64
}
