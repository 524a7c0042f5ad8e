//! The last blocks of a vision transformer, read in other ways than they were trained in: see [`Dense`](super::dense::Dense).

use tch::{Kind, Tensor};

use super::block::Block;
use super::dense::{Attention, LastBlock};
use super::{full_precision, unit};

/// Standard deviation of NACLIP's Gaussian, in patches.
const NEARBY: f64 = 5.0;
/// ProxyCLIP's: how far above the mean, as a factor of it, a similarity must be, and the factor before the softmax.
const ABOVE_MEAN: f64 = 1.2;
const SHARPNESS: f64 = 3.0;

/// The tokens that a block gives for the tokens `x`, [B, T, d], of which the last are the patches of a `grid`, if it is read in this way.
/// `proxy`: for [`Attention::Proxy`], the patch tokens of another tower and their grid; then only patches are returned, on that grid.
pub(super) fn last_block(
    block: &Block,
    x: &Tensor,
    way: LastBlock,
    grid: [i64; 2],
    proxy: Option<(&Tensor, [i64; 2])>,
) -> Tensor {
    let [queries, keys, values] = block.queries_keys_values(x);
    let attended = match (way.attention, proxy) {
        // `ClipVisionTower::read_as` refuses to leave the other tower out.
        (Attention::Itself, _) | (Attention::Proxy, None) => values,
        (Attention::Queries, _) => attend(&similarity(&queries, &queries), &values),
        (Attention::QueriesAndKeys, _) => {
            attend(&similarity(&queries, &queries), &values) + attend(&similarity(&keys, &keys), &values)
        }
        (Attention::KeysNearby, _) => {
            let extra = x.size()[1] - grid[0] * grid[1];
            attend(&(similarity(&keys, &keys) + nearby(grid, extra).to_device(x.device())), &values)
        }
        (Attention::Proxy, Some((tokens, finer))) => {
            affinity(tokens).unsqueeze(1).to_kind(x.kind()).matmul(&resized(&values, grid, finer))
        }
    };
    let attended = block.joined(&attended);
    let out = if way.residual { x + attended } else { attended };
    if way.mlp { &out + block.mlp(&out) } else { out }
}

/// One step of GEM's second stream: what a block adds to it, from the tokens `x` of the original stream.
pub(super) fn self_self(block: &Block, x: &Tensor) -> Tensor {
    let normed = full_precision(&block.normed(x));
    let [queries, keys, values] = block.queries_keys_values(x);
    let head = *values.size().last().unwrap_or(&1) as f64;
    // Per image, the mean length of its tokens.
    let length = normed.norm_scalaropt_dim(2.0, [-1i64].as_slice(), false).mean_dim(
        [-1i64].as_slice(),
        false,
        Kind::Float,
    );
    let temperature = length.view([-1, 1, 1, 1]) / head.sqrt();
    let weights = |tokens: &Tensor| (tokens.matmul(&tokens.transpose(2, 3)) * &temperature).softmax(-1, None);
    let attended = [&values, &keys, &queries].map(|part| {
        let first = unit(part);
        let second = unit(&weights(&first).matmul(&first));
        weights(&second).to_kind(values.kind()).matmul(&values)
    });
    block.joined(&((&attended[0] + &attended[1] + &attended[2]) / 3.0))
}

/// Scaled products of one kind of vectors with another, float32.
fn similarity(from: &Tensor, to: &Tensor) -> Tensor {
    let head = *from.size().last().unwrap_or(&1) as f64;
    full_precision(from).matmul(&full_precision(to).transpose(2, 3)) / head.sqrt()
}

fn attend(similarity: &Tensor, values: &Tensor) -> Tensor {
    similarity.softmax(-1, None).to_kind(values.kind()).matmul(values)
}

/// exp(-distance² / 2σ²) between any two patches of a grid, [T, T]; 0 for the `extra` tokens before them.
fn nearby([height, width]: [i64; 2], extra: i64) -> Tensor {
    let along = |length: i64| {
        let at = Tensor::arange(length, (Kind::Float, tch::Device::Cpu));
        (at.unsqueeze(0) - at.unsqueeze(1)).square()
    };
    let distance = along(height).view([height, 1, height, 1]) + along(width).view([1, width, 1, width]);
    let window = (distance / (-2.0 * NEARBY * NEARBY)).exp().reshape([height * width, height * width]);
    window.constant_pad_nd([extra, 0, extra, 0])
}

/// ProxyCLIP's attention from the patch tokens of another tower, [B, M, d] -> [B, M, M]: a softmax over those patches whose cosine
/// similarity is above 1.2 times the mean of the image. Where the patches of an image are so alike that not even a patch itself is, none
/// is left out.
fn affinity(tokens: &Tensor) -> Tensor {
    let tokens = unit(tokens);
    let similarity = tokens.matmul(&tokens.transpose(1, 2));
    let mean = similarity.mean_dim([1i64, 2].as_slice(), true, Kind::Float);
    let above = (similarity - mean * ABOVE_MEAN) * SHARPNESS;
    let left_out = above.lt(0.0);
    let all = left_out.all_dim(-1, true);
    above.masked_fill(&left_out.logical_and(&all.logical_not()), f64::NEG_INFINITY).softmax(-1, None)
}

/// Those of the patches of one grid, [B, heads, T, d], resized bilinearly to another grid, [B, heads, M, d].
fn resized(values: &Tensor, [height, width]: [i64; 2], [to_height, to_width]: [i64; 2]) -> Tensor {
    let size = values.size();
    let (batch, heads, head) = (size[0], size[1], size[3]);
    let patches = values.narrow(2, size[2] - height * width, height * width).to_kind(Kind::Float);
    let planes = patches.reshape([batch * heads, height, width, head]).permute([0, 3, 1, 2]);
    let finer = planes.upsample_bilinear2d([to_height, to_width], false, None, None);
    finer.permute([0, 2, 3, 1]).reshape([batch, heads, to_height * to_width, head]).to_kind(values.kind())
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn patches_nearby_are_preferred() {
        let window = nearby([2, 3], 1);
        assert_eq!(window.size(), [7, 7]);
        let at = |i: i64, j: i64| window.double_value(&[i, j]);
        assert_eq!((at(0, 0), at(0, 3), at(3, 0), at(4, 4)), (0.0, 0.0, 0.0, 1.0));
        // Patches (0, 0) and (1, 2): one row and two columns apart.
        assert!((at(1, 6) - (-5.0f64 / 50.0).exp()).abs() < 1e-7);
    }

    #[test]
    fn patches_that_are_all_alike_attend_to_all() {
        let alike = Tensor::ones([1, 4, 8], (Kind::Float, Device::Cpu));
        assert!((affinity(&alike) - 0.25).abs().max().double_value(&[]) < 1e-6);
        // Two and two: cosines 1 and 0, mean 0.5; only the own kind is above 0.6.
        let apart = Tensor::from_slice2(&[[1f32, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]).unsqueeze(0);
        let expected = Tensor::from_slice2(&[
            [0.5f32, 0.5, 0.0, 0.0],
            [0.5, 0.5, 0.0, 0.0],
            [0.0, 0.0, 0.5, 0.5],
            [0.0, 0.0, 0.5, 0.5],
        ]);
        assert!((affinity(&apart) - expected).abs().max().double_value(&[]) < 1e-6);
    }
}
