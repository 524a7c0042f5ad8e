//! Classes of patches by their nearest neighbours among labelled patches, as the dense nearest-neighbour evaluation of Hummingbird
//! (Balazevic et al., 2023).

use tch::{Kind, Tensor};

/// Number of neighbours.
pub const NEIGHBOURS: i64 = 30;
/// Temperature of the softmax over the neighbours' similarities.
pub const TEMPERATURE: f64 = 0.02;

/// Similarities that are computed at a time: 256 MB in float32.
const SIMILARITIES: i64 = 1 << 26;

/// The shares of the classes at each of the patches `queries`, [Q, d]: the mean of the shares of its [`NEIGHBOURS`] nearest patches among
/// `features`, [M, d], weighted by the softmax of their similarities / [`TEMPERATURE`]. `shares`: of these, [M, C]. All features have
/// length 1. Returns [Q, C].
pub fn shares(queries: &Tensor, features: &Tensor, shares: &Tensor) -> Tensor {
    let count = features.size()[0];
    let piece = (SIMILARITIES / count.max(1)).max(1);
    let memory = features.transpose(0, 1);
    let of_some = |queries: &Tensor| {
        let (similarity, nearest) = queries.matmul(&memory).topk(NEIGHBOURS.min(count), 1, true, true);
        let weights = (similarity / TEMPERATURE).softmax(1, Kind::Float).unsqueeze(1);
        let rows =
            shares.index_select(0, &nearest.reshape([-1])).view([nearest.size()[0], -1, shares.size()[1]]);
        weights.to_kind(rows.kind()).bmm(&rows).squeeze_dim(1)
    };
    Tensor::cat(&queries.split(piece, 0).iter().map(of_some).collect::<Vec<_>>(), 0)
}
