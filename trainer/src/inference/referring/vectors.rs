//! Embeddings of expressions.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::expression::Expression;
use crate::inference::class_vectors::{ClassVectors, ComparedWith, span_vectors};
use crate::towers::{TextTower, unit};

/// The texts that are embedded for some expressions: each of them, followed by the other thing of its relation if it has one.
pub fn queries(expressions: &[Expression]) -> Vec<&Expression> {
    expressions
        .iter()
        .flat_map(|one| std::iter::once(one).chain(one.relation.as_ref().map(|(_, thing)| thing.as_ref())))
        .collect()
}

/// L2-normalized embeddings of [`queries`], [n, d_v], for patches: `weight` times the embedding of the whole text plus the rest times that
/// of its head phrase, both of length 1, without a template.
///
/// Without a `weight`: [`default_weight`]. `by` is how the model embeds classes. The whole text is embedded as a caption. The head phrase is the mean of its tokens in the text
/// for [`ClassVectors::Concept`], which is what the concept loss trains to match patches, and otherwise a caption of its own.
pub fn embed(
    text: &TextTower,
    queries: &[&Expression],
    by: ClassVectors,
    weight: Option<f64>,
    kind: Kind,
) -> Tensor {
    let whole: Vec<(String, Range<u32>)> = queries.iter().map(|one| (one.text.clone(), 0..0)).collect();
    let heads: Vec<(String, Range<u32>)> = queries
        .iter()
        .map(|one| match (&one.subject, by) {
            (Some(span), ClassVectors::Concept) => (one.text.clone(), span.start as u32..span.end as u32),
            (None, ClassVectors::Concept) => (one.text.clone(), 0..one.text.len() as u32),
            _ => (one.head().to_owned(), 0..0),
        })
        .collect();
    let weight = weight.unwrap_or(default_weight(by));
    let of_captions = if by == ClassVectors::Concept { ClassVectors::Caption } else { by };
    let whole = span_vectors(text, &whole, of_captions, ComparedWith::Patches, kind);
    let heads = span_vectors(text, &heads, by, ComparedWith::Patches, kind);
    // A phrase beyond the context of the text tower has no tokens.
    let heads = heads.where_self(&heads.isnan().logical_not(), &whole);
    unit(&(whole * weight + heads * (1.0 - weight)))
}

/// The weight of the whole expression for a model that embeds classes like this: 0 where head phrases are trained to match patches, because
/// whole captions are then trained to match whole images; otherwise 0.5.
pub fn default_weight(by: ClassVectors) -> f64 {
    if by == ClassVectors::Concept { 0.0 } else { 0.5 }
}
