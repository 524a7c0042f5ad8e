//! The two losses of the method, on embeddings of unit length, in float32 (float64 in the tests).
//!
//! Each takes the rows of the whole global batch and computes the part of the loss that belongs to the rows `own` of this rank.
//! The sum of the parts over all ranks is the loss, and the same holds for the gradients. A single process owns all rows.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor};

use super::pieces;
use crate::device::send;

/// Image-caption contrastive loss L_g: symmetric InfoNCE over the batch.
///
/// `images`, `captions`: [B, d_v] of unit length; row i of one belongs to row i of the other. `scale`: the scale of the
/// logits, a scalar. `ignored`: pairs that are no negatives, [own, B], in both directions.
pub fn contrastive(
    images: &Tensor,
    captions: &Tensor,
    scale: &Tensor,
    own: Range<i64>,
    ignored: Option<&Tensor>,
) -> Tensor {
    let (first, batch) = (own.start, images.size()[0]);
    let sum = pieces::sum([images, captions, scale], own, batch, |[images, captions, scale], rows| {
        let count = rows.end - rows.start;
        let ignored = ignored.map(|pairs| pairs.narrow(0, rows.start - first, count));
        let target = Tensor::arange_start(rows.start, rows.end, (Kind::Int64, images.device()));
        let side = |own: &Tensor, all: &Tensor| {
            // Scaling the rows instead of the logits keeps one array of their size less for the gradient.
            let logits = (own.narrow(0, rows.start, count) * scale).matmul(&all.transpose(0, 1));
            cross_entropy(&without(&logits, ignored.as_ref()), &target)
        };
        side(images, captions) + side(captions, images)
    });
    sum / (2 * batch) as f64
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

/// The distinct concepts of the global batch, and which of them a rank's mentions have.
#[derive(Debug)]
pub struct Concepts {
    /// For each of the rank's mentions, the row of its concept.
    rows: Tensor,
    /// The row of each label.
    of_labels: BTreeMap<u32, i64>,
    /// Number of mentions of all ranks.
    mentions: i64,
    /// Number of ranks.
    ranks: i64,
}

impl Concepts {
    /// From the labels of all mentions, one list per rank. Rows are sorted by label, so that they do not depend on the order of mentions.
    pub fn new(labels: &[Vec<i64>], rank: usize, device: Device) -> Self {
        let all = labels.iter().flatten();
        let mut rows: BTreeMap<u32, i64> = all.map(|&label| (label as u32, 0)).collect();
        for (row, value) in rows.values_mut().enumerate() {
            *value = row as i64;
        }
        let of_mentions: Vec<i64> = labels[rank].iter().map(|&label| rows[&(label as u32)]).collect();
        Self {
            rows: send(&Tensor::from_slice(&of_mentions), device),
            of_labels: rows,
            mentions: labels.iter().map(|labels| labels.len() as i64).sum(),
            ranks: labels.len() as i64,
        }
    }

    /// Number of distinct concepts k.
    pub fn count(&self) -> i64 {
        self.of_labels.len() as i64
    }

    /// The row of a concept; `None` if no mention of the batch has it.
    pub fn row(&self, label: u32) -> Option<i64> {
        self.of_labels.get(&label).copied()
    }

    /// For each of the rank's mentions, the row of its concept, `[b]`.
    pub fn rows(&self) -> &Tensor {
        &self.rows
    }

    /// Number of mentions of all ranks.
    pub fn mentions(&self) -> i64 {
        self.mentions
    }

    /// Number of ranks.
    pub fn ranks(&self) -> i64 {
        self.ranks
    }

    /// For each concept the sum of the embeddings of the rank's mentions: [b, d_v] -> [k, d_v]. Of unit length, the sum over the ranks is
    /// h, the vector of the concept.
    pub fn sum(&self, texts: &Tensor) -> Tensor {
        let sums = Tensor::zeros([self.count(), texts.size()[1]], (texts.kind(), texts.device()));
        sums.index_add(0, &self.rows, texts)
    }
}

/// What the concepts of the batch are to each mention of a rank where they are not the paper's: its own the target, all others negatives.
#[derive(Debug, Default)]
pub struct Classes {
    /// Those that take no part in the softmax, [b, k].
    pub ignored: Option<Tensor>,
    /// The weights of several targets, which sum to 1, [b, k], in float64.
    pub targets: Option<Tensor>,
    /// The concepts of the mention's own caption, [b, k]: if given, they are told apart.
    pub of_caption: Option<Tensor>,
}

/// Sums over mentions.
#[derive(Debug)]
pub struct ConceptSums {
    /// Cross-entropy of the concept loss, a scalar; 0 if there are no mentions.
    pub loss: Tensor,
    /// Cross-entropy among the concepts of the mention's own caption, if they are told apart.
    pub separation: Option<Tensor>,
    /// Number of mentions whose most similar concept is their own: a scalar.
    pub hits: Tensor,
}

/// Concept loss L_l: cross-entropy that makes the pooled patches of a mention most similar to its concept among all concepts of
/// the batch.
///
/// `pooled`: c_v of the mentions, [.., d_v]; `vectors`: h, [k, d_v]; both of unit length. `rows`: the row of each mention's concept in
/// `vectors`. `scale`: alpha, the fixed scale of the logits. Several targets of a mention take the place of `target`.
pub fn concept(
    pooled: &Tensor,
    vectors: &Tensor,
    rows: &Tensor,
    scale: f64,
    target: Target,
    classes: &Classes,
) -> ConceptSums {
    let all = pooled.matmul(&vectors.transpose(0, 1)) * scale;
    let nearest = all.detach().argmax(-1, false);
    let hits = nearest.eq_tensor(rows).to_kind(Kind::Float).sum(Kind::Float);
    let logits = without(&all, classes.ignored.as_ref());
    let loss = match (&classes.targets, target) {
        (Some(weights), _) => {
            let log = logits.log_softmax(-1, None);
            // What is ignored has no weight, but an infinite logarithm.
            let log = classes
                .ignored
                .as_ref()
                .map_or_else(|| log.shallow_clone(), |ignored| log.masked_fill(ignored, 0));
            -(log * weights.to_kind(all.kind())).sum(all.kind())
        }
        (None, Target::Label) => cross_entropy(&logits, rows),
        (None, Target::Argmax) if classes.ignored.is_none() => cross_entropy(&logits, &nearest),
        (None, Target::Argmax) => cross_entropy(&logits, &logits.detach().argmax(-1, false)),
    };
    let separation =
        classes.of_caption.as_ref().map(|own| cross_entropy(&without(&all, Some(&own.logical_not())), rows));
    ConceptSums { loss, separation, hits }
}

/// The loss whose negatives are images: for each mention, -log sigmoid of how much the similarity of its concept with what it pools from
/// its own image is above that with what it pools from another one. Summed over the mentions.
///
/// `pooled`, `other`: from both images, [b, d_v]; `wanted`: the mentions' concepts, [b, d_v]; all of unit length. `shown`: the mentions
/// whose concept the other image may show; they do not count. `scale`: alpha.
pub fn image_negatives(
    pooled: &Tensor,
    other: &Tensor,
    wanted: &Tensor,
    shown: &Tensor,
    scale: f64,
) -> Tensor {
    let similarity = |pooled: &Tensor| (pooled * wanted).sum_dim_intlist([-1i64].as_slice(), false, None);
    let losses = ((similarity(other) - similarity(pooled)) * scale).softplus();
    losses.masked_fill(shown, 0).sum(None)
}

/// Logits without those of some classes.
fn without(logits: &Tensor, classes: Option<&Tensor>) -> Tensor {
    classes.map_or_else(|| logits.shallow_clone(), |classes| logits.masked_fill(classes, f64::NEG_INFINITY))
}

/// Cross-entropy summed over the rows; 0 if there are none.
fn cross_entropy(logits: &Tensor, target: &Tensor) -> Tensor {
    logits.cross_entropy_loss::<Tensor>(target, None, Reduction::Sum, -100, 0.0)
}
