//! The two losses of the method, on embeddings of unit length, in float32 (or the float64 of the tests).

use std::collections::BTreeMap;

use tch::{Kind, Reduction, Tensor};

use crate::towers::unit;

/// Image-caption contrast L_g: symmetric InfoNCE over the batch.
///
/// `images`, `captions`: [B, d_v] of unit length, row i of one belongs to row i of the other; `scale`: the
/// factor on their similarities, a scalar.
pub fn contrastive(images: &Tensor, captions: &Tensor, scale: &Tensor) -> Tensor {
    let logits = images.matmul(&captions.transpose(0, 1)) * scale;
    let target = Tensor::arange(images.size()[0], (Kind::Int64, images.device()));
    let by_image = cross_entropy(&logits, &target);
    let by_caption = cross_entropy(&logits.transpose(0, 1), &target);
    (by_image + by_caption) / 2.0
}

/// What the concept loss found.
#[derive(Debug)]
pub struct ConceptLoss {
    /// L_l, a scalar; 0 without mentions.
    pub loss: Tensor,
    /// Share of mentions whose pooled patches are nearest to their own concept, a scalar.
    pub accuracy: Tensor,
    /// Distinct concepts k of the batch.
    pub concepts: usize,
}

/// Concept alignment L_l: every mention's pooled patches are to be nearest to its concept among the batch's.
///
/// `pooled`: c_v, [b, d_v]; `texts`: c~_t, [b, d_v], both of unit length; `labels`: the concept of each
/// mention; `scale`: alpha, the fixed factor on the similarities. A concept's vector is the unit-length sum of
/// its mentions' texts.
pub fn concept(pooled: &Tensor, texts: &Tensor, labels: &[u32], scale: f64) -> ConceptLoss {
    let options = (texts.kind(), texts.device());
    if labels.is_empty() {
        // A sum over nothing keeps the graph connected: gradients are zeros, not missing.
        let nothing = pooled.sum(texts.kind()) + texts.sum(texts.kind());
        return ConceptLoss { loss: nothing, accuracy: Tensor::zeros([] as [i64; 0], options), concepts: 0 };
    }
    let (rows, concepts) = distinct(labels);
    let target = Tensor::from_slice(&rows).to_device(texts.device());
    let sums = Tensor::zeros([concepts as i64, texts.size()[1]], options).index_add(0, &target, texts);
    let logits = pooled.matmul(&unit(&sums).transpose(0, 1)) * scale;
    let hits = logits.detach().argmax(-1, false).eq_tensor(&target);
    ConceptLoss {
        loss: cross_entropy(&logits, &target),
        accuracy: hits.to_kind(Kind::Float).mean(Kind::Float),
        concepts,
    }
}

/// Labels as rows 0..k in order of label, so that the result does not depend on the order of mentions.
fn distinct(labels: &[u32]) -> (Vec<i64>, usize) {
    let mut rows: BTreeMap<u32, i64> = labels.iter().map(|&label| (label, 0)).collect();
    for (row, value) in rows.values_mut().enumerate() {
        *value = row as i64;
    }
    (labels.iter().map(|label| rows[label]).collect(), rows.len())
}

fn cross_entropy(logits: &Tensor, target: &Tensor) -> Tensor {
    logits.cross_entropy_loss::<Tensor>(target, None, Reduction::Mean, -100, 0.0)
}
