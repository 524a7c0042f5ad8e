//! The concept loss: from the embeddings of mentions and the patches of their images to a rank's part of it.

use tch::{Kind, Tensor};

use super::losses::{self, Classes, Concepts, Target};
use super::next_image::pool_next;
use super::patch_loss::patch_loss;
use super::pooling::Mentions;
use super::settings::{ObjectiveSettings, Query, Scope, Tokens};
use super::unmentioned::{Choices, Unmentioned};
use crate::device::send;
use crate::towers::unit;

/// The embeddings of mentions, [b, d_v], from the tokens of their captions, [B, T, d_t], with the projection g.
///
/// For [`Tokens::Mean`] they have unit length and are c~_t of the paper. For [`Tokens::Unit`] they are sums of tokens of unit length.
/// In both cases a concept's vector is the normalized sum of the embeddings of its mentions.
pub fn embed_mentions(
    how: Tokens,
    mentions: &Mentions,
    tokens: &Tensor,
    project: impl Fn(&Tensor) -> Tensor,
) -> Tensor {
    match how {
        Tokens::Mean => unit(&project(&mentions.mean_tokens(tokens))),
        Tokens::Unit => mentions.sum(&unit(&project(&mentions.tokens(tokens)))),
    }
}

/// A rank's part of the concept loss; the sum over the ranks is the total.
#[derive(Debug)]
pub struct ConceptPart {
    /// L_l, a scalar, with that of added mentions by their weight; 0 without mentions.
    pub loss: Tensor,
    /// Share of the batch's mentions that are this rank's and whose most similar concept is their own: a scalar.
    pub accuracy: Tensor,
    /// The patch loss, if it has a weight: the sum over this rank's images, whose mean over the global batch is the loss.
    pub patch: Option<Tensor>,
    /// The loss that separates the concepts of a caption, if it has a weight.
    pub separation: Option<Tensor>,
    /// The loss whose negatives are images, if it has a weight.
    pub image_negatives: Option<Tensor>,
    /// The concept loss on other images, if they are given; without a graph, with the paper's negatives and targets.
    pub other_image: Option<Tensor>,
    /// Mean number of doubtful negatives per mention of the batch that this rank's mentions drop, if there is an averaged tower.
    pub doubtful: Option<Tensor>,
    /// Number of this rank's added mentions per mention of the batch, if they have a weight.
    pub added: Option<Tensor>,
    /// Number of distinct concepts in the global batch.
    pub concepts: i64,
}

/// A rank's part of the concept loss.
///
/// `patches`: z_v of its images, of unit length, [B, N, d_v]; `mentions`: its mentions; `texts`: their embeddings, as [`embed_mentions`]
/// makes them, [b, d_v]; `sums`: [`Concepts::sum`], summed over the ranks, or, with [`Scope::Rank`], of this one, [k, d_v];
/// `unmentioned`: what is known beyond the captions.
pub fn concept_loss(
    settings: &ObjectiveSettings,
    patches: &Tensor,
    mentions: &Mentions,
    texts: &Tensor,
    concepts: &Concepts,
    sums: &Tensor,
    unmentioned: &Unmentioned<'_>,
) -> ConceptPart {
    let divisor = match settings.concepts {
        Scope::Global => concepts.mentions(),
        Scope::Rank => (mentions.len() as i64).max(1) * concepts.ranks(),
    };
    let vectors = unit(sums);
    let rows = concepts.rows();
    let queries = match settings.query {
        Query::Mention => unit(texts),
        Query::Concept => vectors.index_select(0, rows),
    };
    let temperature = settings.pooling_temperature;
    let pooled = if mentions.is_empty() {
        queries.shallow_clone()
    } else {
        mentions.pool(patches, &queries, temperature)
    };
    let scale = settings.concept_scale;
    let choices = Choices {
        siblings: settings.siblings,
        doubtful: &settings.doubtful,
        scale,
        separated: settings.separation_weight > 0.0,
    };
    let presence = unmentioned.presence(patches, mentions);
    let (classes, dropped) = unmentioned.classes(choices, presence.as_ref(), mentions, concepts);
    let sums = losses::concept(&pooled, &vectors, rows, scale, settings.target, &classes);
    let next = unmentioned.next.as_ref().filter(|_| !mentions.is_empty());
    let next = next.map(|next| (next, pool_next(patches, &next.patches, mentions, &queries, temperature)));
    let other_image = next.as_ref().map(|(_, pooled)| {
        tch::no_grad(|| {
            let paper = Classes::default();
            losses::concept(pooled, &vectors, rows, scale, Target::Label, &paper).loss / divisor as f64
        })
    });
    let image_negatives =
        next.as_ref().filter(|_| settings.image_negatives_weight > 0.0).map(|(next, there)| {
            let threshold = settings.doubtful.threshold;
            let shown = unmentioned.shown_by_next(next, threshold, presence.as_ref(), mentions, concepts);
            let wanted = vectors.index_select(0, rows);
            losses::image_negatives(&pooled, there, &wanted, &shown, scale) / divisor as f64
        });
    let patch = (settings.patch_weight > 0.0 && !mentions.is_empty()).then(|| {
        let images = send(&Tensor::from_slice(&mentions.images()), patches.device());
        let named = unmentioned.named_concepts(mentions, concepts, patches.device());
        patch_loss(patches, &images, &vectors, &named, scale)
    });
    let weight = settings.doubtful.added_weight;
    let added = presence
        .as_ref()
        .filter(|_| weight > 0.0)
        .and_then(|presence| unmentioned.added(&settings.doubtful, presence, mentions, concepts));
    let (mut loss, mut number) = (sums.loss, 0);
    if let Some(added) = added {
        number = added.mentions.len();
        let queries = vectors.index_select(0, &added.rows);
        let pooled = added.mentions.pool(patches, &queries, temperature);
        let classes = Classes { ignored: Some(added.ignored), ..Classes::default() };
        loss += losses::concept(&pooled, &vectors, &added.rows, scale, Target::Label, &classes).loss * weight;
    }
    ConceptPart {
        loss: loss / divisor as f64,
        accuracy: sums.hits / concepts.mentions() as f64,
        patch,
        separation: sums.separation.map(|separation| separation / divisor as f64),
        image_negatives,
        other_image,
        doubtful: dropped.map(|dropped| dropped / concepts.mentions() as f64),
        added: (weight > 0.0).then(|| {
            Tensor::from(number as f64 / concepts.mentions() as f64)
                .to_kind(Kind::Float)
                .to_device(texts.device())
        }),
        concepts: concepts.count(),
    }
}
