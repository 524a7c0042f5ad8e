//! The forward and backward pass of one step: embed the batch, compute the losses on the embeddings of all ranks, propagate the
//! gradients back through the towers.

use std::borrow::Cow;

use tch::{Kind, Tensor};

use super::concept_loss::{ConceptPart, concept_loss, embed_mentions};
use super::gram::gram;
use super::losses::{self, Concepts};
use super::next_image::next_image;
use super::pooling::{Mention, Mentions};
use super::sigmoid;
use super::talk2dino;
use super::unmentioned::{self, Beyond, Siblings, Unmentioned};
use crate::device::send;
use crate::distributed::Group;
use crate::error::Result;
use crate::towers::{CaptionTokens, ClipVisionTower, TextTower, VisionFeatures, VisionHead, unit};

pub use super::settings::{CaptionLoss, Objective, ObjectiveSettings, Query, Scope, Tokens};

/// The images of a batch.
#[derive(Debug)]
pub enum Images<'a> {
    /// Features of a frozen tower: class tokens and patches of unit length. `lit` needs no patches.
    Seen(VisionFeatures),
    /// The same, but only the images of these rows of the batch, in ascending order, have patches. Those with mentions need them.
    SeenInPart(VisionFeatures, Vec<u32>),
    /// Tokens of a frozen tower, class and patches of all images, and the head that is trained on them; with stochastic depth, what
    /// [`crate::towers::kept`] gives for the images.
    Headed(&'a VisionHead, VisionFeatures, Option<Tensor>),
    /// Head means of a frozen tower, of unit length, [B, heads, d_v], for `talk2dino`.
    HeadMeans(Tensor),
    /// Normalised pixels, [B, 3, H, W], and the tower that is trained on them.
    ToTrain(&'a ClipVisionTower, Tensor),
}

/// One rank's part of a batch, on the device.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// The images.
    pub images: Images<'a>,
    /// Captions; row i belongs to image i.
    pub captions: CaptionTokens,
    /// Concept mentions, sorted by row.
    pub mentions: Vec<Mention>,
    /// What is known of the images beyond these captions.
    pub beyond: Beyond<'a>,
}

/// The measurements of a step: this rank's part; the sum over the ranks is the total. They are scalars on the device, so
/// that the host waits only for the ones that are shown.
#[derive(Debug)]
pub struct StepReport {
    /// The minimized loss L.
    pub loss: Tensor,
    /// The contrastive loss L_g.
    pub contrastive: Tensor,
    /// The concept loss L_l; `None` for objectives without it.
    pub concept: Option<Tensor>,
    /// Fraction of the mentions whose most similar concept is their own; `None` without the concept loss.
    pub concept_accuracy: Option<Tensor>,
    /// The loss that separates the concepts of a caption; `None` without it.
    pub separation: Option<Tensor>,
    /// The patch loss; `None` without it.
    pub patch: Option<Tensor>,
    /// The loss whose negatives are images; `None` without it.
    pub image_negatives: Option<Tensor>,
    /// The concept loss on other images; `None` if it is not asked for.
    pub other_image: Option<Tensor>,
    /// Mean number of negatives per mention that were dropped as doubtful; `None` if none is ever.
    pub doubtful: Option<Tensor>,
    /// Number of added mentions per mention; `None` if there never are any.
    pub added: Option<Tensor>,
    /// The Gram loss; `None` without it.
    pub gram: Option<Tensor>,
    /// Number of distinct concepts in the global batch.
    pub concepts: i64,
}

/// The result of phase 1 for (a part of) a batch: captions and images of unit length.
struct Embeddings {
    /// [B, d].
    captions: Tensor,
    /// [B, d]; needs a gradient only if the vision tower or its head is trained.
    images: Tensor,
    /// Of the mentions, [b, d_v], as [`embed_mentions`] returns them; `None` without the concept loss.
    concepts: Option<Tensor>,
    /// The patches of the images with mentions behind a head, of unit length, [R, N, d_v]; `None` without a head or the concept loss.
    patches: Option<Tensor>,
    /// The sum of the images' Gram losses, a scalar; `None` without that loss.
    gram: Option<Tensor>,
}

/// Gradients of the losses with respect to a rank's own embeddings.
struct Gradients {
    captions: Tensor,
    images: Option<Tensor>,
    concepts: Option<Tensor>,
    patches: Option<Tensor>,
}

/// Computes the losses of one global batch. Their gradients, the same on every rank, are then in the parameters of the towers.
///
/// Phase 1 embeds this rank's captions. Phase 2 gathers the embeddings of all ranks as detached leaf tensors, computes this rank's
/// rows of the losses, and returns to each rank the gradients of its own embeddings. Phase 3 propagates these back through phase 1.
/// With `micro_batch` > 0 (as GradCache), phase 1 keeps no activations, and phase 3 repeats it in micro-batches of that many rows:
/// the gradients are the same, but only the activations of one micro-batch are in memory.
pub fn gradients(
    text: &TextTower,
    settings: &ObjectiveSettings,
    input: &StepInput<'_>,
    group: &Group,
    micro_batch: usize,
    kind: Kind,
) -> Result<StepReport> {
    let batch = input.captions.end.size()[0];
    let piece = if micro_batch == 0 { batch } else { (micro_batch as i64).min(batch) };
    let starts: Vec<i64> = (0..batch).step_by(piece as usize).collect();
    let embed = |start: i64| embed(text, settings, input, start, piece.min(batch - start), kind);

    // Phase 1. A single micro-batch keeps its graph; several are embedded again in phase 3.
    let mut whole = None;
    let own = if starts.len() == 1 {
        let embeddings = whole.insert(embed(0));
        join(std::slice::from_ref(embeddings))
    } else {
        join(&tch::no_grad(|| starts.iter().map(|&start| embed(start)).collect::<Vec<_>>()))
    };

    // Phase 2.
    let averaged = averaged_mentions(settings, input, &starts, piece, kind);
    let (report, gradients) = losses(text, settings, input, &own, averaged.as_ref(), group)?;

    // Phase 3: d loss / d weights = sum over rows of (d loss / d row) · (d row / d weights).
    let (mut mention_start, mut patch_start) = (0, 0);
    for &start in &starts {
        let part = whole.take().unwrap_or_else(|| embed(start));
        let [mentions, with_patches] =
            [&part.concepts, &part.patches].map(|rows| rows.as_ref().map_or(0, |rows| rows.size()[0]));
        let surrogate = |made: &Tensor, gradient: &Tensor, first: i64| {
            (made * gradient.narrow(0, first, made.size()[0])).sum(Kind::Float)
        };
        let mut sum = surrogate(&part.captions, &gradients.captions, start);
        if let Some(gradient) = &gradients.images {
            sum += surrogate(&part.images, gradient, start);
        }
        if let (Some(made), Some(gradient)) = (&part.concepts, &gradients.concepts) {
            sum += surrogate(made, gradient, mention_start);
        }
        if let (Some(made), Some(gradient)) = (&part.patches, &gradients.patches) {
            sum += surrogate(made, gradient, patch_start);
        }
        if let Some(made) = &part.gram {
            sum += made * (settings.gram_weight / (batch * group.world() as i64) as f64);
        }
        // Not if all parameters that it depends on are frozen.
        if sum.requires_grad() {
            sum.backward();
        }
        mention_start += mentions;
        patch_start += with_patches;
    }

    let mut parameters = text.named();
    match &input.images {
        Images::ToTrain(tower, _) => parameters.extend(tower.named()),
        Images::Headed(head, ..) => parameters.extend(head.named()),
        Images::Seen(_) | Images::SeenInPart(..) | Images::HeadMeans(_) => {}
    }
    let of_weights: Vec<Tensor> = parameters.iter().map(|(_, p)| p.grad()).filter(Tensor::defined).collect();
    group.sum(&of_weights)?;
    Ok(report)
}

/// Phase 1 for the rows `start .. start + count`.
fn embed(
    text: &TextTower,
    settings: &ObjectiveSettings,
    input: &StepInput<'_>,
    start: i64,
    count: i64,
    kind: Kind,
) -> Embeddings {
    let captions = input.captions.narrow(start, count);
    let tokens = text.tokens(&captions, kind);
    let embedded = unit(&text.captions(&tokens, &captions.end));
    let mentions = rows(&input.mentions, start, count);
    let concepts = (settings.name == Objective::Simzss)
        .then(|| mentions_of_tokens(text, settings.tokens, &mentions, &tokens));
    let (mut patches, mut of_gram) = (None, None);
    let images = match &input.images {
        Images::Seen(seen) | Images::SeenInPart(seen, _) => seen.class.narrow(0, start, count),
        Images::HeadMeans(means) => talk2dino::most_similar(&means.narrow(0, start, count), &embedded),
        Images::ToTrain(tower, pixels) => unit(&tower.class(&pixels.narrow(0, start, count))),
        Images::Headed(head, frozen, kept) => {
            let some = VisionFeatures {
                class: frozen.class.narrow(0, start, count),
                patches: frozen.patches.narrow(0, start, count),
            };
            let kept = kept.as_ref().map(|kept| kept.narrow(1, start, count));
            let seen = head.tokens(&some, kept.as_ref());
            if settings.name == Objective::Simzss {
                let with_mentions: Vec<i64> = rows_with_mentions(&mentions).map(i64::from).collect();
                let with_mentions = send(&Tensor::from_slice(&with_mentions), seen.patches.device());
                patches = Some(unit(&seen.patches.index_select(0, &with_mentions)).to_kind(kind));
            }
            of_gram = (settings.gram_weight > 0.0).then(|| gram(&seen.patches, &some.patches));
            unit(&head.embed(&seen))
        }
    };
    Embeddings { captions: embedded, images, concepts, patches, gram: of_gram }
}

/// The embeddings of mentions, [b, d_v], from the tokens of their captions.
fn mentions_of_tokens(text: &TextTower, how: Tokens, mentions: &[Mention], tokens: &Tensor) -> Tensor {
    if mentions.is_empty() {
        return Tensor::zeros([0, text.patches()], (Kind::Float, tokens.device()));
    }
    let mentions = Mentions::new(mentions, tokens.size()[1], tokens.device());
    embed_mentions(how, &mentions, tokens, |rows| text.project_to_patches(rows))
}

/// The embeddings of all mentions of the batch by the averaged copy of the text tower, which is not trained; `None` without one.
fn averaged_mentions(
    settings: &ObjectiveSettings,
    input: &StepInput<'_>,
    starts: &[i64],
    piece: i64,
    kind: Kind,
) -> Option<Tensor> {
    let averaged = input.beyond.averaged.filter(|_| settings.name == Objective::Simzss)?;
    let batch = input.captions.end.size()[0];
    let embed = |&start: &i64| {
        let count = piece.min(batch - start);
        let tokens = averaged.tokens(&input.captions.narrow(start, count), kind);
        mentions_of_tokens(averaged, settings.tokens, &rows(&input.mentions, start, count), &tokens)
    };
    Some(tch::no_grad(|| Tensor::cat(&starts.iter().map(embed).collect::<Vec<_>>(), 0)))
}

/// The rows that have mentions, in ascending order; mentions are sorted by row.
fn rows_with_mentions(mentions: &[Mention]) -> impl Iterator<Item = u32> + '_ {
    mentions.chunk_by(|a, b| a.row == b.row).filter_map(|of_row| of_row.first()).map(|mention| mention.row)
}

/// The mentions of the rows `start .. start + count`; their row numbers are relative to `start`.
fn rows(mentions: &[Mention], start: i64, count: i64) -> Vec<Mention> {
    let (start, end) = (start as u32, (start + count) as u32);
    let first = mentions.partition_point(|m| m.row < start);
    let last = mentions.partition_point(|m| m.row < end);
    mentions[first..last].iter().map(|m| Mention { row: m.row - start, ..m.clone() }).collect()
}

/// The embeddings of all micro-batches, detached from the graph that computed them.
fn join(parts: &[Embeddings]) -> Embeddings {
    let cat = |tensors: Vec<&Tensor>| Tensor::cat(&tensors, 0).detach();
    let concepts: Option<Vec<&Tensor>> = parts.iter().map(|part| part.concepts.as_ref()).collect();
    let patches: Option<Vec<&Tensor>> = parts.iter().map(|part| part.patches.as_ref()).collect();
    let grams: Option<Vec<&Tensor>> = parts.iter().map(|part| part.gram.as_ref()).collect();
    Embeddings {
        patches: patches.map(cat),
        captions: cat(parts.iter().map(|part| &part.captions).collect()),
        images: cat(parts.iter().map(|part| &part.images).collect()),
        concepts: concepts.map(cat),
        gram: grams.map(|sums| Tensor::stack(&sums, 0).detach().sum(Kind::Float)),
    }
}

/// Phase 2: this rank's part of the losses, and the gradients of its own embeddings.
fn losses(
    text: &TextTower,
    settings: &ObjectiveSettings,
    input: &StepInput<'_>,
    own: &Embeddings,
    averaged: Option<&Tensor>,
    group: &Group,
) -> Result<(StepReport, Gradients)> {
    let rank = group.rank() as i64;
    let batch = own.captions.size()[0];
    let leaf = |rows: &Tensor, trained: bool| -> Result<Tensor> {
        Ok(group.gather(rows)?.set_requires_grad(trained))
    };
    let captions = leaf(&own.captions, true)?;
    let images = leaf(&own.images, matches!(input.images, Images::ToTrain(..) | Images::Headed(..)))?;
    let own_rows = rank * batch..(rank + 1) * batch;
    let whole_batch = captions.size()[0] as f64;
    let siblings = match settings.siblings {
        Siblings::Negative => None,
        Siblings::Ignore | Siblings::Positive => {
            let numbers = group.gather_numbers(&input.beyond.images)?;
            let numbers = unmentioned::numbers(&numbers, captions.device());
            numbers.map(|numbers| unmentioned::sibling_pairs(&numbers, &own_rows))
        }
    };
    let siblings = siblings.as_ref();
    let contrastive = match text.logit_bias() {
        None => losses::contrastive(&images, &captions, &text.logit_scale(), own_rows, siblings),
        Some(bias) => sigmoid::sigmoid(&images, &captions, &text.logit_scale(), bias, own_rows, siblings),
    };
    let mut loss = contrastive.shallow_clone();
    let patch_leaf = own.patches.as_ref().map(|patches| patches.shallow_clone().set_requires_grad(true));

    let mut concept = None;
    let mut concept_leaves = None;
    let mut count = 0;
    if let (Some(texts), Some((patches, mentions))) =
        (&own.concepts, patches_and_mentions(input, patch_leaf.as_ref()))
    {
        let labels: Vec<i64> = input.mentions.iter().map(|m| i64::from(m.label)).collect();
        let labels = group.gather_numbers(&labels)?;
        if labels.iter().any(|labels| !labels.is_empty()) {
            let concepts = Concepts::new(&labels, group.rank(), texts.device());
            // Sums by concept are all that is needed of the mentions of other ranks.
            let summed = |texts: &Tensor| -> Result<Tensor> {
                let sums = concepts.sum(&texts.detach());
                group.sum(std::slice::from_ref(&sums))?;
                Ok(sums)
            };
            let texts = texts.shallow_clone().set_requires_grad(true);
            let sums = match settings.concepts {
                Scope::Global => summed(&texts)?.set_requires_grad(true),
                Scope::Rank => concepts.sum(&texts),
            };
            let averaged = averaged.map(summed).transpose()?;
            let siblings = siblings_of_mentions(settings, input);
            let next = if settings.shortcut_check || settings.image_negatives_weight > 0.0 {
                Some(next_image(patches, &mentions, &siblings, &labels, group)?)
            } else {
                None
            };
            let mentions = Mentions::new(&mentions, input.captions.ids.size()[1], texts.device());
            let unmentioned = Unmentioned { siblings, averaged, next };
            let part = concept_loss(settings, patches, &mentions, &texts, &concepts, &sums, &unmentioned);
            count = part.concepts;
            loss = &loss + &part.loss * settings.concept_weight;
            if let Some(patch) = &part.patch {
                loss = &loss + patch * (settings.patch_weight / whole_batch);
            }
            if let Some(separation) = &part.separation {
                loss = &loss + separation * settings.separation_weight;
            }
            if let Some(image_negatives) = &part.image_negatives {
                loss = &loss + image_negatives * settings.image_negatives_weight;
            }
            concept = Some(part);
            concept_leaves = Some((texts, concepts, sums));
        }
    }
    if loss.requires_grad() {
        loss.backward();
    }
    // Its gradient needs no other rank, and is added in phase 3.
    let of_gram = own.gram.as_ref().map(|sum| sum / whole_batch);
    if let Some(part) = &of_gram {
        loss = &loss + part * settings.gram_weight;
    }

    // Of a rank without mentions, some are not there.
    let gradient = |leaf: &Tensor| {
        let gradient = leaf.grad();
        if gradient.defined() { gradient } else { leaf.detach().zeros_like() }
    };
    let back = |leaf: &Tensor| group.scatter_sum(&gradient(leaf));
    let of_mentions = |(texts, concepts, sums): &(Tensor, Concepts, Tensor)| -> Result<Tensor> {
        if settings.concepts == Scope::Rank {
            return Ok(gradient(texts));
        }
        let of_sums = gradient(sums).contiguous();
        group.sum(std::slice::from_ref(&of_sums))?;
        Ok(gradient(texts) + of_sums.index_select(0, concepts.rows()))
    };
    let gradients = Gradients {
        captions: back(&captions)?,
        images: images.requires_grad().then(|| back(&images)).transpose()?,
        concepts: concept_leaves.as_ref().map(of_mentions).transpose()?,
        // Only this rank has them.
        patches: patch_leaf.as_ref().map(gradient),
    };
    let wants_concepts = settings.name == Objective::Simzss;
    let zero = || contrastive.detach().zeros_like();
    // 0 in a step without mentions.
    let part = |wanted: bool, part: &dyn Fn(&ConceptPart) -> Option<Tensor>| {
        let of_part = || concept.as_ref().and_then(part).map_or_else(zero, |part| part.detach());
        (wants_concepts && wanted).then(of_part)
    };
    let report = StepReport {
        loss: loss.detach(),
        contrastive: contrastive.detach(),
        concept: part(true, &|c| Some(c.loss.shallow_clone())),
        concept_accuracy: part(true, &|c| Some(c.accuracy.shallow_clone())),
        separation: part(settings.separation_weight > 0.0, &|c| {
            c.separation.as_ref().map(Tensor::shallow_clone)
        }),
        patch: part(settings.patch_weight > 0.0, &|c| c.patch.as_ref().map(|sum| sum / whole_batch)),
        image_negatives: part(settings.image_negatives_weight > 0.0, &|c| {
            c.image_negatives.as_ref().map(Tensor::shallow_clone)
        }),
        other_image: part(settings.shortcut_check, &|c| c.other_image.as_ref().map(Tensor::shallow_clone)),
        doubtful: part(settings.doubtful.decay > 0.0, &|c| c.doubtful.as_ref().map(Tensor::shallow_clone)),
        added: part(settings.doubtful.added_weight > 0.0, &|c| c.added.as_ref().map(Tensor::shallow_clone)),
        gram: of_gram,
        concepts: count,
    };
    Ok((report, gradients))
}

/// For each mention, the concepts that other captions of its image mention; empty if nothing is known of any, or not to be used.
fn siblings_of_mentions<'a>(settings: &ObjectiveSettings, input: &'a StepInput<'_>) -> Vec<&'a [u32]> {
    let siblings = &input.beyond.siblings;
    if settings.siblings == Siblings::Negative || siblings.iter().all(Vec::is_empty) {
        return Vec::new();
    }
    input.mentions.iter().map(|m| siblings.get(m.row as usize).map_or(&[][..], Vec::as_slice)).collect()
}

/// The patches of a batch, those behind a head in `headed`, and its mentions with the rows of their images in the patches; `None`
/// without patches.
fn patches_and_mentions<'a>(
    input: &'a StepInput<'_>,
    headed: Option<&'a Tensor>,
) -> Option<(&'a Tensor, Cow<'a, [Mention]>)> {
    let moved = |rows: &[u32]| -> Cow<'a, [Mention]> {
        let at = |row: u32| rows.partition_point(|&with_patches| with_patches < row) as u32;
        input.mentions.iter().map(|m| Mention { row: at(m.row), ..m.clone() }).collect()
    };
    match &input.images {
        Images::Seen(seen) => Some((&seen.patches, Cow::Borrowed(&input.mentions[..]))),
        Images::SeenInPart(seen, rows) => Some((&seen.patches, moved(rows))),
        Images::Headed(..) => {
            let rows: Vec<u32> = rows_with_mentions(&input.mentions).collect();
            headed.map(|patches| (patches, moved(&rows)))
        }
        Images::ToTrain(..) | Images::HeadMeans(_) => None,
    }
}
