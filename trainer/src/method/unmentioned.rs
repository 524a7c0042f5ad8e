//! Concepts that an image may show although its caption does not mention them. In the paper they are negatives like those of any other
//! image. Here are what is known of them ([`Beyond`], [`Unmentioned`]), what they become in the concept loss
//! ([`Unmentioned::classes`]), and those that become mentions ([`Unmentioned::added`]).

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::losses::{Classes, Concepts};
use super::next_image::NextImage;
use super::pooling::{Mention, Mentions};
use crate::device::send;
use crate::towers::{TextTower, full_precision, unit};

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

/// Negatives of the concept loss that are dropped because the image seems to show them, or become mentions.
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
    /// Weight of added mentions: a concept of the batch that an image shows by the copy, although none of its captions mentions it, pools
    /// the patches of the image with the vector of the concept as the query, and its loss counts this much of a mention's. The
    /// other concepts that the image shows are no negatives of it. 0 = none, as in the paper.
    #[serde(skip_serializing_if = "is_default")]
    pub added_weight: f64,
    /// As `threshold`, for added mentions.
    #[serde(skip_serializing_if = "is_default_added")]
    pub added_threshold: f64,
    /// Steps before the copy is used: a new tower sees nothing.
    pub start: u64,
}

impl Default for DoubtfulSettings {
    fn default() -> Self {
        Self {
            decay: 0.0,
            threshold: 0.8,
            soft: 0.0,
            added_weight: 0.0,
            added_threshold: ADDED_THRESHOLD,
            start: 0,
        }
    }
}

const ADDED_THRESHOLD: f64 = 0.95;

// Runs of before these settings are resumed as what they were.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_default(weight: &f64) -> bool {
    *weight == 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_default_added(threshold: &f64) -> bool {
    *threshold == ADDED_THRESHOLD
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
    /// For each concept the sum of the embeddings of all ranks' mentions by the averaged copy of the text tower, [k, d_v].
    pub averaged: Option<Tensor>,
    /// The next rank's first image with mentions; if given, the losses on other images are computed.
    pub next: Option<NextImage>,
}

/// How much an averaged copy of the text tower sees of each concept of the batch in each of some images.
#[derive(Debug)]
pub struct Presence {
    /// The concept vectors of the copy, [k, d_v].
    vectors: Tensor,
    /// The highest similarity of a patch of the image with the concept, [images, k].
    highest: Tensor,
}

impl Presence {
    /// Of these rows of `patches`. `vectors`: of the concepts, [k, d_v].
    fn new(patches: &Tensor, images: &[i64], vectors: Tensor) -> Self {
        let highest = tch::no_grad(|| {
            let concepts = vectors.to_kind(patches.kind()).transpose(0, 1);
            let piece = (SIMILARITIES / (patches.size()[1] * vectors.size()[0])).max(1) as usize;
            let highest = |images: &[i64]| {
                let images = send(&Tensor::from_slice(images), patches.device());
                let similarities = patches.index_select(0, &images).matmul(&concepts);
                full_precision(&similarities.amax([1i64].as_slice(), false))
            };
            Tensor::cat(&images.chunks(piece).map(highest).collect::<Vec<_>>(), 0)
        });
        Self { vectors, highest }
    }

    /// The concepts that each image shows, [images, k].
    fn shown(&self, threshold: f64) -> Tensor {
        let [low, high] =
            [self.highest.amin([1i64].as_slice(), true), self.highest.amax([1i64].as_slice(), true)];
        self.highest.ge_tensor(&(&low + (high - &low) * threshold))
    }
}

/// Concepts that images show beyond their captions, as mentions of these images.
#[derive(Debug)]
pub struct Added {
    /// One for each image and concept.
    pub mentions: Mentions,
    /// The row of each one's concept.
    pub rows: Tensor,
    /// The other concepts that the image shows, or that its captions mention, [added, k].
    pub ignored: Tensor,
}

impl Unmentioned<'_> {
    /// What the averaged copy sees in the images of a rank's mentions; `None` without a copy or mentions.
    pub fn presence(&self, patches: &Tensor, mentions: &Mentions) -> Option<Presence> {
        let sums = self.averaged.as_ref().filter(|_| !mentions.is_empty())?;
        Some(Presence::new(patches, &mentions.images(), unit(sums)))
    }

    /// The concepts that captions of each of the rank's images mention.
    fn named(&self, mentions: &Mentions) -> Vec<Vec<u32>> {
        let of_captions = mentions.labels_of_captions();
        let siblings = |mention: usize| self.siblings.get(mention).copied().unwrap_or_default();
        mentions.starts().into_iter().map(|first| [of_captions[first], siblings(first)].concat()).collect()
    }

    /// Which concepts of the batch captions of each of the rank's images mention, [images, k].
    pub fn named_concepts(&self, mentions: &Mentions, concepts: &Concepts, device: Device) -> Tensor {
        mark(&self.named(mentions), concepts, device)
    }

    /// What the concepts of the batch are to each of a rank's mentions. Also returns the number of negatives that are dropped as
    /// doubtful.
    pub fn classes(
        &self,
        Choices { siblings, doubtful: settings, scale, separated }: Choices<'_>,
        presence: Option<&Presence>,
        mentions: &Mentions,
        concepts: &Concepts,
    ) -> (Classes, Option<Tensor>) {
        let has_siblings = siblings != Siblings::Negative && !self.siblings.is_empty();
        if mentions.is_empty() || !(has_siblings || separated || presence.is_some()) {
            return (Classes::default(), None);
        }
        let device = concepts.rows().device();
        let of_caption = mark(&mentions.labels_of_captions(), concepts, device);
        let mut known = of_caption.shallow_clone();
        let (mut ignored, mut targets) = (None, None);
        if has_siblings {
            let others = mark(&self.siblings, concepts, device).logical_and(&of_caption.logical_not());
            known = known.logical_or(&others);
            if siblings == Siblings::Positive {
                let all = others.scatter_value(1, &concepts.rows().unsqueeze(1), 1).to_kind(Kind::Double);
                targets = Some(&all / all.sum_dim_intlist([1i64].as_slice(), true, Kind::Double));
            } else {
                ignored = Some(others);
            }
        }
        let mut dropped = None;
        if let Some(presence) = presence {
            let vectors = &presence.vectors;
            let shown = presence.shown(settings.threshold).index_select(0, &mentions.image_places());
            let doubtful = shown.logical_and(&known.logical_not());
            dropped = Some(doubtful.sum(Kind::Float));
            let left_out =
                ignored.map_or_else(|| doubtful.shallow_clone(), |others| others.logical_or(&doubtful));
            if settings.soft > 0.0 {
                let rows = concepts.rows();
                let similarity = vectors.index_select(0, rows).matmul(&vectors.transpose(0, 1)) * scale;
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

    /// The concepts that the rank's images show, although none of their captions mentions them; `None` if there are none.
    pub fn added(
        &self,
        settings: &DoubtfulSettings,
        presence: &Presence,
        mentions: &Mentions,
        concepts: &Concepts,
    ) -> Option<Added> {
        let named = self.named_concepts(mentions, concepts, presence.highest.device());
        let added = presence.shown(settings.added_threshold).logical_and(&named.logical_not());
        let pairs = added.nonzero();
        if pairs.size()[0] == 0 {
            return None;
        }
        let (places, rows) = (pairs.select(1, 0), pairs.select(1, 1));
        let known = presence.shown(settings.threshold).logical_or(&named).logical_or(&added);
        let images = mentions.images();
        let places_on_host = Vec::<i64>::try_from(&places).unwrap_or_default();
        let mention =
            |&place: &i64| Mention { row: images[place as usize] as u32, label: 0, positions: 0..1 };
        let as_mentions: Vec<Mention> = places_on_host.iter().map(mention).collect();
        Some(Added {
            mentions: Mentions::new(&as_mentions, 1, rows.device()),
            ignored: known.index_select(0, &places).scatter_value(1, &rows.unsqueeze(1), 0),
            rows,
        })
    }

    /// For each of a rank's mentions, whether the image that [`super::next_image::pool_next`] takes for it may show its concept: a
    /// caption of that image mentions it, or the averaged copy of the text tower finds it there. `[b]`.
    pub fn shown_by_next(
        &self,
        next: &NextImage,
        threshold: f64,
        presence: Option<&Presence>,
        mentions: &Mentions,
        concepts: &Concepts,
    ) -> Tensor {
        let places = mentions.image_places();
        let mut images = self.named(mentions);
        images.push(next.labels.clone());
        let named = mark(&images, concepts, places.device());
        let all = match presence {
            None => named,
            Some(presence) => {
                let theirs = Presence::new(&next.patches, &[0], presence.vectors.shallow_clone());
                named.logical_or(&Tensor::cat(&[presence.shown(threshold), theirs.shown(threshold)], 0))
            }
        };
        all.index_select(0, &(places + 1)).gather(1, &concepts.rows().unsqueeze(1), false).squeeze_dim(1)
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
