//! Which losses a run minimises, and its step: embed, loss on the embeddings of all ranks, back through the towers.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::device::send;
use crate::error::Result;
use crate::group::Group;
use crate::losses::{self, Concepts, Target};
use crate::pooling::{Mention, Mentions};
use crate::towers::{CaptionTokens, ClipVisionTower, TextTower, VisionFeatures, unit};

/// The losses of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Image-caption contrast and concept alignment.
    #[default]
    Simzss,
    /// Image-caption contrast alone.
    Lit,
    /// Image-caption contrast alone, and CLIP's own vision tower is trained too.
    Clip,
}

impl std::fmt::Display for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Simzss => "simzss",
            Self::Lit => "lit",
            Self::Clip => "clip",
        })
    }
}

/// What a mention's patches are pooled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Query {
    /// Its own words, c~_t: the paper's.
    #[default]
    Mention,
    /// The mean of all mentions of its concept in the global batch, h: the released code's.
    Concept,
}

/// Settings of the losses; the defaults are the paper's.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveSettings {
    /// `simzss`, `lit` or `clip`.
    pub name: Objective,
    /// tau: temperature of the softmax over patches.
    pub pooling_temperature: f64,
    /// alpha: fixed scale of the concept logits, 1 / 0.07.
    pub concept_scale: f64,
    /// lambda: weight of the concept loss.
    pub concept_weight: f64,
    /// What the concept loss wants to be nearest: `label` (the paper) or `argmax` (the released code).
    pub target: Target,
    /// What patches are pooled with: `mention` (the paper) or `concept` (the released code).
    pub query: Query,
}

impl Default for ObjectiveSettings {
    fn default() -> Self {
        Self {
            name: Objective::Simzss,
            pooling_temperature: 0.1,
            concept_scale: 1.0 / 0.07,
            concept_weight: 0.05,
            target: Target::default(),
            query: Query::default(),
        }
    }
}

/// The images of a batch.
#[derive(Debug)]
pub enum Images<'a> {
    /// As a frozen tower sees them: class tokens and patches of unit length. `lit` needs no patches.
    Seen(VisionFeatures),
    /// Normalised pixels, [B, 3, H, W], and the tower that is trained on them.
    ToTrain(&'a ClipVisionTower, Tensor),
}

/// One rank's part of a batch, on the device.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// The images.
    pub images: Images<'a>,
    /// Captions, row i of image i.
    pub captions: CaptionTokens,
    /// Mentions of concepts, sorted by row.
    pub mentions: Vec<Mention>,
}

/// What a step measured: this rank's part, which adds up over the ranks. Scalars on the device, so that only those that
/// are shown are waited for.
#[derive(Debug)]
pub struct StepReport {
    /// L, what was minimised.
    pub loss: Tensor,
    /// L_g.
    pub contrastive: Tensor,
    /// L_l; none without the concept loss.
    pub concept: Option<Tensor>,
    /// Share of mentions nearest to their own concept; none without the concept loss.
    pub concept_accuracy: Option<Tensor>,
    /// Distinct concepts in the global batch.
    pub concepts: i64,
}

/// What phase 1 makes of (a part of) a batch: rows of unit length.
struct Embeddings {
    /// [B, d_v].
    captions: Tensor,
    /// [B, d_v]; needs a gradient only where the vision tower is trained.
    images: Tensor,
    /// c~_t, [b, d_v]; none without the concept loss.
    concepts: Option<Tensor>,
}

/// The losses' gradients with respect to a rank's own embeddings.
struct Gradients {
    captions: Tensor,
    images: Option<Tensor>,
    concepts: Option<Tensor>,
}

/// Computes the losses of one global batch and leaves their gradients, the same on every rank, in the towers' parameters.
///
/// Phase 1 embeds this rank's captions. Phase 2 gathers the embeddings of all ranks as fresh leaves, computes the rows of
/// the losses that are this rank's, and brings each rank the gradients of its own embeddings. Phase 3 goes back through
/// phase 1 from those. With `micro_batch` > 0 phase 1 keeps no activations and phase 3 repeats it in pieces of that many
/// rows: the same gradients in the memory of one piece.
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

    // Phase 1. A single piece keeps its graph; several are embedded again in phase 3.
    let mut whole = None;
    let own = if starts.len() == 1 {
        let embeddings = whole.insert(embed(0));
        join(std::slice::from_ref(embeddings))
    } else {
        join(&tch::no_grad(|| starts.iter().map(|&start| embed(start)).collect::<Vec<_>>()))
    };

    // Phase 2.
    let (report, gradients) = losses(text, settings, input, &own, group)?;

    // Phase 3: d loss / d weights = sum over rows of (d loss / d row) · (d row / d weights).
    let mut mention_start = 0;
    for &start in &starts {
        let part = whole.take().unwrap_or_else(|| embed(start));
        let mentions = part.concepts.as_ref().map_or(0, |texts| texts.size()[0]);
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
        sum.backward();
        mention_start += mentions;
    }

    let mut parameters = text.named();
    if let Images::ToTrain(tower, _) = &input.images {
        parameters.extend(tower.named());
    }
    let of_weights: Vec<Tensor> = parameters.iter().map(|(_, p)| p.grad()).filter(Tensor::defined).collect();
    group.sum(&of_weights)?;
    Ok(report)
}

/// Phase 1 for `count` rows from `start` on.
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
    let concepts = (settings.name == Objective::Simzss).then(|| {
        let mentions = rows(&input.mentions, start, count);
        if mentions.is_empty() {
            return Tensor::zeros([0, embedded.size()[1]], (embedded.kind(), embedded.device()));
        }
        let mentions = Mentions::new(&mentions, tokens.size()[1], tokens.device());
        unit(&text.project(&mentions.mean_tokens(&tokens)))
    });
    let images = match &input.images {
        Images::Seen(seen) => seen.class.narrow(0, start, count),
        Images::ToTrain(tower, pixels) => unit(&tower.class(&pixels.narrow(0, start, count))),
    };
    Embeddings { captions: embedded, images, concepts }
}

/// The mentions of `count` rows from `start` on, rows counted from there.
fn rows(mentions: &[Mention], start: i64, count: i64) -> Vec<Mention> {
    let (start, end) = (start as u32, (start + count) as u32);
    let first = mentions.partition_point(|m| m.row < start);
    let last = mentions.partition_point(|m| m.row < end);
    mentions[first..last].iter().map(|m| Mention { row: m.row - start, ..m.clone() }).collect()
}

/// The embeddings of all pieces, cut from the graph that made them.
fn join(parts: &[Embeddings]) -> Embeddings {
    let cat = |tensors: Vec<&Tensor>| Tensor::cat(&tensors, 0).detach();
    let concepts: Option<Vec<&Tensor>> = parts.iter().map(|part| part.concepts.as_ref()).collect();
    Embeddings {
        captions: cat(parts.iter().map(|part| &part.captions).collect()),
        images: cat(parts.iter().map(|part| &part.images).collect()),
        concepts: concepts.map(cat),
    }
}

/// Phase 2: this rank's part of the losses, and the gradients of its own embeddings.
fn losses(
    text: &TextTower,
    settings: &ObjectiveSettings,
    input: &StepInput<'_>,
    own: &Embeddings,
    group: &Group,
) -> Result<(StepReport, Gradients)> {
    let rank = group.rank() as i64;
    let batch = own.captions.size()[0];
    let leaf = |rows: &Tensor, trained: bool| -> Result<Tensor> {
        Ok(group.gather(rows)?.set_requires_grad(trained))
    };
    let captions = leaf(&own.captions, true)?;
    let images = leaf(&own.images, matches!(input.images, Images::ToTrain(..)))?;
    let own_rows = rank * batch..(rank + 1) * batch;
    let contrastive = losses::contrastive(&images, &captions, &text.logit_scale(), own_rows);
    let mut loss = contrastive.shallow_clone();

    // Ranks differ in their mentions: rows are padded to the most of any rank for the exchange.
    let mut concept = None;
    let mut concept_leaf = None;
    let mut count = 0;
    if let (Some(texts), Images::Seen(seen)) = (&own.concepts, &input.images) {
        let labels: Vec<i64> = input.mentions.iter().map(|m| i64::from(m.label)).collect();
        let labels = group.gather_numbers(&labels)?;
        let most = labels.iter().map(Vec::len).max().unwrap_or(0) as i64;
        if most > 0 {
            let padding = [0, 0, 0, most - texts.size()[0]];
            let gathered = leaf(&texts.constant_pad_nd(padding), true)?;
            let part = concept_part(settings, seen, input, &gathered, &labels, most, group.rank());
            count = part.1;
            loss = &loss + &part.0.loss * settings.concept_weight;
            concept = Some(part.0);
            concept_leaf = Some(gathered);
        }
    }
    loss.backward();

    let back = |leaf: &Tensor| -> Result<Tensor> {
        let gradient = leaf.grad();
        group.scatter_sum(&if gradient.defined() { gradient } else { leaf.zeros_like() })
    };
    let gradients = Gradients {
        captions: back(&captions)?,
        images: images.requires_grad().then(|| back(&images)).transpose()?,
        concepts: concept_leaf.as_ref().map(back).transpose()?,
    };
    let wants_concepts = settings.name == Objective::Simzss;
    let zero = || contrastive.detach().zeros_like();
    let report = StepReport {
        loss: loss.detach(),
        contrastive: contrastive.detach(),
        concept: wants_concepts.then(|| concept.as_ref().map_or_else(zero, |c| c.loss.detach())),
        concept_accuracy: wants_concepts.then(|| concept.map_or_else(zero, |c| c.accuracy)),
        concepts: count,
    };
    Ok((report, gradients))
}

/// The concept loss's part of this rank, and the number of distinct concepts.
///
/// `texts`: c~_t of all ranks, [ranks · most, d_v], of which rank r has `labels[r]` from row r · most on.
fn concept_part(
    settings: &ObjectiveSettings,
    seen: &VisionFeatures,
    input: &StepInput<'_>,
    texts: &Tensor,
    labels: &[Vec<i64>],
    most: i64,
    rank: usize,
) -> (losses::ConceptLoss, i64) {
    let device = texts.device();
    let real: Vec<i64> =
        labels.iter().zip(0..).flat_map(|(l, r)| r * most..r * most + l.len() as i64).collect();
    let texts = if real.len() as i64 == texts.size()[0] {
        texts.shallow_clone()
    } else {
        texts.index_select(0, &send(&Tensor::from_slice(&real), device))
    };
    let first: i64 = labels[..rank].iter().map(|l| l.len() as i64).sum();
    let own = first..first + labels[rank].len() as i64;
    let all: Vec<u32> = labels.iter().flatten().map(|&label| label as u32).collect();
    let concepts = Concepts::new(&all, device);
    let vectors = concepts.vectors(&texts);
    let queries = match settings.query {
        Query::Mention => texts.narrow(0, own.start, own.end - own.start),
        Query::Concept => vectors.index_select(0, &concepts.rows(&own)),
    };
    let pooled = if own.is_empty() {
        queries
    } else {
        let mentions = Mentions::new(&input.mentions, input.captions.ids.size()[1], device);
        mentions.pool(&seen.patches, &queries, settings.pooling_temperature)
    };
    let part = losses::concept(&pooled, &vectors, &concepts, &own, settings.concept_scale, settings.target);
    (part, concepts.count())
}
