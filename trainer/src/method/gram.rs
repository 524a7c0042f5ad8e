//! The Gram loss of dino.txt: a head behind the frozen vision tower should keep how similar the patches of an image are to each other.

use tch::{Kind, Tensor};

use crate::towers::unit;

/// The sum over images of the mean squared difference between two matrices: the cosine similarities of all pairs of patches behind the
/// head, and those of the same patches before it. The loss is this sum over the global batch, divided by its number of images.
///
/// `headed`, `frozen`: [B, N, d]; only `headed` gets a gradient. An image needs no other, so that any pieces of a batch may be added.
pub fn gram(headed: &Tensor, frozen: &Tensor) -> Tensor {
    let similarities = |patches: &Tensor| {
        let patches = unit(patches);
        patches.bmm(&patches.transpose(1, 2))
    };
    let apart = similarities(headed) - similarities(&frozen.detach());
    let kind: Kind = apart.kind();
    apart.square().mean_dim([1i64, 2].as_slice(), false, kind).sum(kind)
}
