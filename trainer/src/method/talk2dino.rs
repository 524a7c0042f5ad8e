//! What the objective `talk2dino` (Barsellotti et al., 2024) trains, and which part of an image it compares with captions.

use tch::Tensor;

use super::groups;
use crate::towers::MAP_PREFIX;

/// Whether a parameter is trained: the map behind the frozen text tower, and the scale of the logits.
pub fn trains(parameter: &str) -> bool {
    parameter.starts_with(MAP_PREFIX) || groups::group(parameter) == "logits"
}

/// For each image, its head mean that is most similar to its own caption. As in the authors' code, the choice is a hard one, and the
/// image is compared with the captions of others by the same head mean.
///
/// `means`: [B, heads, d], `captions`: [B, d], both of unit length. Returns [B, d], without a gradient.
pub fn most_similar(means: &Tensor, captions: &Tensor) -> Tensor {
    tch::no_grad(|| {
        let heads = means.bmm(&captions.unsqueeze(2)).argmax(1, true);
        means.gather(1, &heads.expand([-1, 1, means.size()[2]], false), false).squeeze_dim(1)
    })
}
