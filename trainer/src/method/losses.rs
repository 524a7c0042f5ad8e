//! The two losses of the method, on embeddings of unit length, in float32 (float64 in the tests).
//!
//! Each takes the rows of the whole global batch and computes the part of the loss that belongs to the rows `own` of this rank.
//! The sum of the parts over all ranks is the loss, and the same holds for the gradients. A single process owns all rows.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor};

use crate::device::send;
use crate::towers::unit;

/// Image-caption contrastive loss L_g: symmetric InfoNCE over the batch.
///
/// `images`, `captions`: [B, d_v] of unit length; row i of one belongs to row i of the other. `scale`: the scale of the
/// logits, a scalar.
pub fn contrastive(images: &Tensor, captions: &Tensor, scale: &Tensor, own: Range<i64>) -> Tensor {
    let (first, count) = (own.start, own.end - own.start);
    let target = Tensor::arange_start(own.start, own.end, (Kind::Int64, images.device()));
    let side = |own: &Tensor, all: &Tensor| {
        let logits = own.narrow(0, first, count).matmul(&all.transpose(0, 1)) * scale;
        cross_entropy(&logits, &target)
    };
    (side(images, captions) + side(captions, images)) / (2 * images.size()[0]) as f64
}

/// The target class of the concept loss for the pooled patches of a mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The concept that is mentioned, q: as in the paper.
    #[default]
    Label,
    /// The concept that is most similar already: as in the authors' code.
    Argmax,
}

/// The distinct concepts of the global batch.
#[derive(Debug)]
pub struct Concepts {
    /// For each mention, the row of its concept.
    rows: Tensor,
    /// Number of distinct concepts k.
    count: i64,
}

impl Concepts {
    /// From the labels of all mentions. Rows are sorted by label, so that they do not depend on the order of mentions.
    pub fn new(labels: &[u32], device: Device) -> Self {
        let mut rows: BTreeMap<u32, i64> = labels.iter().map(|&label| (label, 0)).collect();
        for (row, value) in rows.values_mut().enumerate() {
            *value = row as i64;
        }
        let of_mentions: Vec<i64> = labels.iter().map(|label| rows[label]).collect();
        Self { rows: send(&Tensor::from_slice(&of_mentions), device), count: rows.len() as i64 }
    }

    /// Number of distinct concepts k.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// Number of mentions b.
    pub fn mentions(&self) -> i64 {
        self.rows.size()[0]
    }

    /// h: for each concept the L2-normalized sum of those of its mentions that are in `from`; zeros if there are none. `texts`: the
    /// embeddings of all mentions, [b, d_v]; returns [k, d_v].
    pub fn vectors(&self, texts: &Tensor, from: &Range<i64>) -> Tensor {
        let sums = Tensor::zeros([self.count, texts.size()[1]], (texts.kind(), texts.device()));
        let texts = texts.narrow(0, from.start, from.end - from.start);
        unit(&sums.index_add(0, &self.rows(from), &texts))
    }

    /// For each of the mentions `own`, the row of its concept in [`Concepts::vectors`].
    pub fn rows(&self, own: &Range<i64>) -> Tensor {
        self.rows.narrow(0, own.start, own.end - own.start)
    }
}

/// Sums over mentions.
#[derive(Debug)]
pub struct ConceptSums {
    /// Cross-entropy of the concept loss, a scalar; 0 if there are no mentions.
    pub loss: Tensor,
    /// Number of mentions whose most similar concept is their own: a scalar.
    pub hits: Tensor,
}

/// Concept loss L_l: cross-entropy that makes the pooled patches of a mention most similar to its concept among all concepts of
/// the batch.
///
/// `pooled`: c_v of the mentions, [.., d_v]; `vectors`: h, [k, d_v]; both of unit length. `rows`: the row of each mention's concept in
/// `vectors`. `scale`: alpha, the fixed scale of the logits.
pub fn concept(pooled: &Tensor, vectors: &Tensor, rows: &Tensor, scale: f64, target: Target) -> ConceptSums {
    let logits = pooled.matmul(&vectors.transpose(0, 1)) * scale;
    let nearest = logits.detach().argmax(-1, false);
    let hits = nearest.eq_tensor(rows).to_kind(Kind::Float).sum(Kind::Float);
    let wanted = match target {
        Target::Label => rows,
        Target::Argmax => &nearest,
    };
    ConceptSums { loss: cross_entropy(&logits, wanted), hits }
}

/// Cross-entropy summed over the rows; 0 if there are none.
fn cross_entropy(logits: &Tensor, target: &Tensor) -> Tensor {
    logits.cross_entropy_loss::<Tensor>(target, None, Reduction::Sum, -100, 0.0)
}
