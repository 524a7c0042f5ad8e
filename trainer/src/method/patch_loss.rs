//! The patch loss: every patch of an image is classified by itself among the concepts of the batch, and each concept that the captions of
//! the image mention is right. No caption says which of them a patch shows, so this learns from partial labels (Cour et al., "Learning from
//! Partial Labels", 2011).
//!
//! In the concept loss a mention pools the patches that are most like it, which are those in the middle of what it names. This loss also
//! trains what is between: a patch at a border must be like one of the two things there, not like a third.

use tch::Tensor;

use super::pieces;
use crate::towers::full_precision;

/// The sum over `images` of the mean over their patches of -log p, where p is the softmax over all concepts, summed over those that are
/// mentioned; a scalar.
///
/// `patches`: of unit length, [B, N, d_v]; `images`: rows of these, `[R]`; `vectors`: the concept vectors, of unit length, [k, d_v];
/// `named`: the concepts that captions of each image mention, at least one, [R, k]; `scale`: alpha, the scale of the logits.
pub fn patch_loss(patches: &Tensor, images: &Tensor, vectors: &Tensor, named: &Tensor, scale: f64) -> Tensor {
    let (count, concepts) = (patches.size()[1], vectors.size()[0]);
    pieces::sum([patches, vectors], 0..images.size()[0], count * concepts, |[patches, vectors], rows| {
        let own = |all: &Tensor| all.narrow(0, rows.start, rows.end - rows.start);
        let of_images = patches.index_select(0, &own(images));
        // Scaling the vectors instead of the logits saves an array of their size.
        let concepts = (vectors * scale).to_kind(patches.kind()).transpose(0, 1);
        let log = full_precision(&of_images.matmul(&concepts)).log_softmax(-1, None);
        let others = own(named).logical_not().unsqueeze(1);
        let right = log.masked_fill(&others, f64::NEG_INFINITY).logsumexp([-1i64].as_slice(), false);
        -right.sum(log.kind()) / count as f64
    })
}
