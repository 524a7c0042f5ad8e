//! Concepts that an image may show although its caption does not mention them. In the paper they are negatives like those of any other
//! image. Here are what is known of them ([`Beyond`], [`Unmentioned`]), what they become in the concept loss
//! ([`Unmentioned::classes`]), and the images on which the concept loss is computed only to be compared ([`pool_next`]).

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::losses::{Classes, Concepts};
use super::pooling::{Mention, Mentions};
use crate::device::send;
use crate::distributed::Group;
use crate::error::Result;
use crate::towers::{TextTower, full_precision};

/// Similarities of patches and concepts that are computed at a time: 64 MB in float32.
const SIMILARITIES: i64 = 1 << 24;

/// What the other captions of an image are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Siblings {
    /// Captions and concepts like those of any other image: as in the paper.
    #[default]
    Negative,
    /// No negatives of each other; their concepts take no part in the softmax.
    Ignore,
    /// As [`Siblings::Ignore`], but their concepts are targets too.
    Positive,
}

/// Negatives of the concept loss that are dropped because the image seems to show them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoubtfulSettings {
    /// An averaged copy of the text tower says which concepts an image shows beyond those of its captions; they are dropped from the
    /// softmax of the concept loss. After each step the copy becomes `decay` x copy + (1 - `decay`) x tower. 0 = no copy, and every
    /// concept of another caption is a negative, as in the paper.
    pub decay: f64,
    /// An image shows a concept if the maximum similarity of its patches with it is at least this far up between the lowest and the
    /// highest such maximum of the batch's concepts: 0 = all concepts, 1 = the highest only.
    pub threshold: f64,
    /// Share of a mention's target that is spread over the concepts of the batch, in proportion to the softmax of their similarity with the
    /// mentioned one in the averaged copy (scaled by `concept_scale`), so that synonyms are no full negatives. 0 = none, as in the paper.
    pub soft: f64,
    /// Steps before the copy is used: a new tower sees nothing.
    pub start: u64,
}

impl Default for DoubtfulSettings {
    fn default() -> Self {
        Self { decay: 0.0, threshold: 0.8, soft: 0.0, start: 0 }
    }
}

/// What is known of the images of a rank's part of a batch beyond the captions of its rows.
#[derive(Debug, Default)]
pub struct Beyond<'a> {
    /// A number for the image of each row: rows with the same number have captions of one image. Needed unless siblings are negatives.
    pub images: Vec<i64>,
    /// For each row, the concepts that other captions of its image mention.
    pub siblings: Vec<Vec<u32>>,
    /// The averaged copy of the text tower.
    pub averaged: Option<&'a TextTower>,
}

/// The numbers of the images of the global batch, `[B]`, from those of the ranks; `None` if all are different.
pub fn numbers(of_ranks: &[Vec<i64>], device: Device) -> Option<Tensor> {
    let all = of_ranks.concat();
    let distinct: BTreeSet<&i64> = all.iter().collect();
    (distinct.len() < all.len()).then(|| send(&Tensor::from_slice(&all), device))
}

/// The pairs of a rank's rows with all rows, [own, B], that are of one image but no pair of an image and its own caption. `numbers`: of
/// the images of the global batch, `[B]`.
pub fn sibling_pairs(numbers: &Tensor, own: &Range<i64>) -> Tensor {
    let rows = Tensor::arange(numbers.size()[0], (Kind::Int64, numbers.device()));
    let own_of = |all: &Tensor| all.narrow(0, own.start, own.end - own.start).unsqueeze(1);
    own_of(numbers).eq_tensor(numbers).logical_and(&own_of(&rows).ne_tensor(&rows))
}

/// What is to be done with what is known.
#[derive(Debug, Clone, Copy)]
pub struct Choices<'a> {
    /// With the concepts of other captions.
    pub siblings: Siblings,
    /// With what the averaged copy of the text tower says.
    pub doubtful: &'a DoubtfulSettings,
    /// Scale of the logits, alpha.
    pub scale: f64,
    /// Whether the concepts of a caption are to be told apart.
    pub separated: bool,
}

/// What is known beyond captions, for a rank's mentions.
#[derive(Debug, Default)]
pub struct Unmentioned<'a> {
    /// For each mention, the concepts that other captions of its image mention. Empty: none is known.
    pub siblings: Vec<&'a [u32]>,
    /// The embeddings of all ranks' mentions by the averaged copy of the text tower, [b, d_v].
    pub averaged: Option<Tensor>,
    /// The next rank's first image with mentions; if given, the losses on other images are computed.
    pub next: Option<NextImage>,
}

/// An image that is not the rank's own.
#[derive(Debug)]
pub struct NextImage {
    /// Its patches, of unit length, [1, N, d_v].
    pub patches: Tensor,
    /// The concepts that its captions mention, as far as they are known.
    pub labels: Vec<u32>,
}

impl Unmentioned<'_> {
    /// What the concepts of the batch are to each of a rank's mentions. Also returns the number of negatives that are dropped as
    /// doubtful. `own`: the rank's mentions among all.
    pub fn classes(
        &self,
        Choices { siblings, doubtful: settings, scale, separated }: Choices<'_>,
        patches: &Tensor,
        mentions: &Mentions,
        concepts: &Concepts,
        own: &Range<i64>,
    ) -> (Classes, Option<Tensor>) {
        let has_siblings = siblings != Siblings::Negative && !self.siblings.is_empty();
        if mentions.is_empty() || !(has_siblings || separated || self.averaged.is_some()) {
            return (Classes::default(), None);
        }
        let device = patches.device();
        let of_caption = mark(&mentions.labels_of_captions(), concepts, device);
        let mut known = of_caption.shallow_clone();
        let (mut ignored, mut targets) = (None, None);
        if has_siblings {
            let others = mark(&self.siblings, concepts, device).logical_and(&of_caption.logical_not());
            known = known.logical_or(&others);
            if siblings == Siblings::Positive {
                let all = others.scatter_value(1, &concepts.rows(own).unsqueeze(1), 1).to_kind(Kind::Double);
                targets = Some(&all / all.sum_dim_intlist([1i64].as_slice(), true, Kind::Double));
            } else {
                ignored = Some(others);
            }
        }
        let mut dropped = None;
        if let Some(texts) = &self.averaged {
            let vectors = concepts.vectors(texts, &(0..concepts.mentions()));
            let shown = shown(patches, &mentions.images(), &vectors, settings.threshold);
            let shown = shown.index_select(0, &mentions.image_places());
            let doubtful = shown.logical_and(&known.logical_not());
            dropped = Some(doubtful.sum(Kind::Float));
            let left_out =
                ignored.map_or_else(|| doubtful.shallow_clone(), |others| others.logical_or(&doubtful));
            if settings.soft > 0.0 {
                let rows = concepts.rows(own);
                let similarity = vectors.index_select(0, &rows).matmul(&vectors.transpose(0, 1)) * scale;
                let spread = similarity.masked_fill(&left_out, f64::NEG_INFINITY).softmax(-1, None);
                let sharp = targets.take().unwrap_or_else(|| {
                    left_out.zeros_like().scatter_value(1, &rows.unsqueeze(1), 1).to_kind(Kind::Double)
                });
                targets = Some(sharp * (1.0 - settings.soft) + spread * settings.soft);
            }
            ignored = Some(left_out);
        }
        (Classes { ignored, targets, of_caption: separated.then_some(of_caption) }, dropped)
    }

    /// For each of a rank's mentions, whether the image that [`pool_next`] takes for it may show its concept: a caption of that image
    /// mentions it, or the averaged copy of the text tower finds it there. `[b]`.
    pub fn shown_by_next(
        &self,
        next: &NextImage,
        threshold: f64,
        patches: &Tensor,
        mentions: &Mentions,
        concepts: &Concepts,
        own: &Range<i64>,
    ) -> Tensor {
        let places = mentions.image_places();
        let of_captions = mentions.labels_of_captions();
        let siblings = |mention: usize| self.siblings.get(mention).copied().unwrap_or_default();
        let mut images: Vec<Vec<u32>> = mentions
            .starts()
            .into_iter()
            .map(|first| [of_captions[first], siblings(first)].concat())
            .collect();
        images.push(next.labels.clone());
        let named = mark(&images, concepts, patches.device());
        let all = match &self.averaged {
            None => named,
            Some(texts) => {
                let vectors = concepts.vectors(texts, &(0..concepts.mentions()));
                let ours = shown(patches, &mentions.images(), &vectors, threshold);
                let theirs = shown(&next.patches, &[0], &vectors, threshold);
                named.logical_or(&Tensor::cat(&[ours, theirs], 0))
            }
        };
        all.index_select(0, &(places + 1)).gather(1, &concepts.rows(own).unsqueeze(1), false).squeeze_dim(1)
    }
}

/// Which concepts of the batch are among each of some lists of labels: [lists, k].
fn mark<L: AsRef<[u32]>>(labels: &[L], concepts: &Concepts, device: Device) -> Tensor {
    let (count, width) = (labels.len() as i64, concepts.count());
    let at: Vec<i64> = (0..)
        .zip(labels)
        .flat_map(|(mention, labels)| {
            let rows = labels.as_ref().iter().filter_map(|&label| concepts.row(label));
            rows.map(move |row| mention * width + row)
        })
        .collect();
    let marks = Tensor::zeros([count * width], (Kind::Bool, device));
    marks.index_fill(0, &send(&Tensor::from_slice(&at), device), 1).view([count, width])
}

/// Which concepts each of some images shows by the maximum similarity of its patches: [images, k]. `vectors`: of the concepts, [k, d_v].
fn shown(patches: &Tensor, images: &[i64], vectors: &Tensor, threshold: f64) -> Tensor {
    tch::no_grad(|| {
        let concepts = vectors.to_kind(patches.kind()).transpose(0, 1);
        let piece = (SIMILARITIES / (patches.size()[1] * vectors.size()[0])).max(1) as usize;
        let highest = |images: &[i64]| {
            let images = send(&Tensor::from_slice(images), patches.device());
            full_precision(&patches.index_select(0, &images).matmul(&concepts).amax([1i64].as_slice(), false))
        };
        let highest = Tensor::cat(&images.chunks(piece).map(highest).collect::<Vec<_>>(), 0);
        let (low, high) = (highest.amin([1i64].as_slice(), true), highest.amax([1i64].as_slice(), true));
        highest.ge_tensor(&(&low + (high - &low) * threshold))
    })
}

/// The first image with mentions of the next rank that has one, for [`pool_next`]. `siblings`: of each mention, as in
/// [`Unmentioned::siblings`]; `labels`: of all ranks' mentions, of which there is at least one.
pub fn next_image(
    patches: &Tensor,
    mentions: &[Mention],
    siblings: &[&[u32]],
    labels: &[Vec<i64>],
    group: &Group,
) -> Result<NextImage> {
    let patches = patches.detach();
    let first = match mentions.first() {
        Some(mention) => patches.narrow(0, i64::from(mention.row), 1),
        None => Tensor::zeros([1, patches.size()[1], patches.size()[2]], (patches.kind(), patches.device())),
    };
    let all = group.gather(&full_precision(&first))?;
    let (ranks, own) = (labels.len(), group.rank());
    let next = (1..=ranks).map(|by| (own + by) % ranks).find(|&rank| !labels[rank].is_empty()).unwrap_or(own);
    let of_first = mentions.chunk_by(|a, b| a.row == b.row).next().unwrap_or_default();
    let known = of_first
        .iter()
        .map(|mention| mention.label)
        .chain(siblings.first().copied().unwrap_or_default().iter().copied());
    let mut known = group.gather_numbers(&known.map(i64::from).collect::<Vec<_>>())?;
    Ok(NextImage {
        patches: all.narrow(0, next as i64, 1).to_kind(patches.kind()),
        labels: known.swap_remove(next).into_iter().map(|label| label as u32).collect(),
    })
}

/// As [`Mentions::pool`], but each mention pools the patches of the next image with mentions, those of a rank's last image the patches
/// `next`, [1, N, d_v]. No gradient reaches them: on other ranks, none could.
pub fn pool_next(
    patches: &Tensor,
    next: &Tensor,
    mentions: &Mentions,
    queries: &Tensor,
    temperature: f64,
) -> Tensor {
    let (images, patches) = (mentions.images(), &patches.detach());
    let places = mentions.rows().map(|row| images.partition_point(|&image| image < row));
    let mention = |row: i64| Mention { row: row as u32, label: 0, positions: 0..1 };
    let (mut moved, mut last) = (Vec::new(), Vec::new());
    for place in places {
        match images.get(place + 1) {
            Some(&image) => moved.push(mention(image)),
            None => last.push(mention(0)),
        }
    }
    let pooled = [(moved, 0, patches), (last, 1, next)].map(|(mentions, part, patches)| {
        let count = mentions.len() as i64;
        let queries = if part == 0 {
            queries.narrow(0, 0, count)
        } else {
            queries.narrow(0, queries.size()[0] - count, count)
        };
        if mentions.is_empty() {
            return queries;
        }
        Mentions::new(&mentions, 1, patches.device()).pool(patches, &queries, temperature)
    });
    Tensor::cat(&pooled, 0)
}
