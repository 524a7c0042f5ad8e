//! Which losses a run minimises, and its step: embed, loss on the embeddings, back through the towers.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::losses;
use crate::pooling::{Mention, Mentions};
use crate::towers::{CaptionTokens, TextTower, VisionFeatures, unit};

/// The losses of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Image-caption contrast and concept alignment.
    #[default]
    Simzss,
    /// Image-caption contrast alone.
    Lit,
}

impl std::fmt::Display for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Simzss => "simzss",
            Self::Lit => "lit",
        })
    }
}

/// Settings of the losses; the defaults are the paper's.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveSettings {
    /// `simzss` or `lit`.
    pub name: Objective,
    /// tau: temperature of the softmax over patches.
    pub pooling_temperature: f64,
    /// alpha: fixed scale of the concept logits, 1 / 0.07.
    pub concept_scale: f64,
    /// lambda: weight of the concept loss.
    pub concept_weight: f64,
}

impl Default for ObjectiveSettings {
    fn default() -> Self {
        Self {
            name: Objective::Simzss,
            pooling_temperature: 0.1,
            concept_scale: 1.0 / 0.07,
            concept_weight: 0.05,
        }
    }
}

/// A batch on the device, its images already seen by the frozen tower.
#[derive(Debug)]
pub struct StepInput {
    /// Features of the images, any length (they are normalised here).
    pub images: VisionFeatures,
    /// Captions, row i of image i.
    pub captions: CaptionTokens,
    /// Mentions of concepts, sorted by row.
    pub mentions: Vec<Mention>,
}

/// What a step measured; scalars on the device, so that only those that are shown are waited for.
#[derive(Debug)]
pub struct StepReport {
    /// L, what was minimised.
    pub loss: Tensor,
    /// L_g.
    pub contrastive: Tensor,
    /// L_l; none for `lit`.
    pub concept: Option<Tensor>,
    /// Share of mentions nearest to their own concept; none for `lit`.
    pub concept_accuracy: Option<Tensor>,
    /// Distinct concepts in the batch.
    pub concepts: usize,
    /// Mentions in the batch.
    pub mentions: usize,
}

/// What phase 1 makes of (a part of) a batch: rows of unit length.
struct Embeddings {
    /// [B, d_v].
    captions: Tensor,
    /// c~_t and c_v, [b, d_v] each; none for `lit`.
    concepts: Option<(Tensor, Tensor)>,
}

impl Embeddings {
    fn tensors(&self) -> Vec<&Tensor> {
        let (texts, pooled) = self.concepts.as_ref().map(|(t, p)| (t, p)).unzip();
        [Some(&self.captions), texts, pooled].into_iter().flatten().collect()
    }
}

/// Computes the losses of one batch and leaves their gradients in the text tower's parameters.
///
/// Phase 1 embeds, phase 2 takes the embeddings as fresh leaves, computes the losses over the whole batch and
/// differentiates to the leaves, phase 3 goes back through phase 1 from those gradients. With `micro_batch` > 0
/// phase 1 keeps no activations and phase 3 repeats it in pieces of that many rows: the same gradients in the
/// memory of one piece.
pub fn gradients(
    text: &TextTower,
    settings: &ObjectiveSettings,
    input: &StepInput,
    micro_batch: usize,
    kind: Kind,
) -> StepReport {
    let batch = input.captions.end.size()[0];
    let class = unit(&input.images.class);
    let patches = unit(&input.images.patches).to_kind(kind);
    let piece = if micro_batch == 0 { batch } else { (micro_batch as i64).min(batch) };
    let starts: Vec<i64> = (0..batch).step_by(piece as usize).collect();
    let embed = |start: i64| {
        let count = piece.min(batch - start);
        let captions = input.captions.narrow(start, count);
        let mentions: Vec<Mention> = rows(&input.mentions, start, count);
        embed(text, settings, &captions, &mentions, &patches.narrow(0, start, count), kind)
    };

    // Phase 1. A single piece keeps its graph; several are embedded again in phase 3.
    let mut whole = None;
    let parts: Vec<Embeddings> = if starts.len() == 1 {
        whole = Some(embed(0));
        Vec::new()
    } else {
        tch::no_grad(|| starts.iter().map(|&start| embed(start)).collect())
    };

    // Phase 2.
    let leaf = |tensors: Vec<&Tensor>| Tensor::cat(&tensors, 0).detach().set_requires_grad(true);
    let all: Vec<&Embeddings> = whole.iter().chain(&parts).collect();
    let leaves = Embeddings {
        captions: leaf(all.iter().map(|e| &e.captions).collect()),
        concepts: (settings.name == Objective::Simzss).then(|| {
            let (texts, pooled): (Vec<_>, Vec<_>) =
                all.iter().filter_map(|e| e.concepts.as_ref()).map(|(t, p)| (t, p)).unzip();
            (leaf(texts), leaf(pooled))
        }),
    };
    let contrastive = losses::contrastive(&class, &leaves.captions, &text.logit_scale());
    let labels: Vec<u32> = input.mentions.iter().map(|m| m.label).collect();
    let concept = leaves
        .concepts
        .as_ref()
        .map(|(texts, pooled)| losses::concept(pooled, texts, &labels, settings.concept_scale));
    let loss = match &concept {
        Some(concept) => &contrastive + &concept.loss * settings.concept_weight,
        None => contrastive.shallow_clone(),
    };
    loss.backward();

    // Phase 3: d loss / d weights = sum over rows of (d loss / d row) · (d row / d weights).
    let mut mention_start = 0;
    for &start in &starts {
        let part = whole.take().unwrap_or_else(|| embed(start));
        let row_starts = [start, mention_start, mention_start];
        let mut surrogate: Option<Tensor> = None;
        for ((made, leaf), first) in part.tensors().into_iter().zip(leaves.tensors()).zip(row_starts) {
            let count = made.size()[0];
            let gradient = leaf.grad();
            if count > 0 && gradient.defined() {
                let term = (made * gradient.narrow(0, first, count)).sum(Kind::Float);
                surrogate = Some(surrogate.map_or_else(|| term.shallow_clone(), |sum| sum + &term));
            }
        }
        if let Some(surrogate) = surrogate {
            surrogate.backward();
        }
        mention_start += part.concepts.map_or(0, |(texts, _)| texts.size()[0]);
    }

    let (concept_loss, concept_accuracy, concepts) =
        concept.map_or((None, None, 0), |c| (Some(c.loss.detach()), Some(c.accuracy), c.concepts));
    StepReport {
        loss: loss.detach(),
        contrastive: contrastive.detach(),
        concept: concept_loss,
        concept_accuracy,
        concepts,
        mentions: input.mentions.len(),
    }
}

/// The mentions of `count` rows from `start` on, rows counted from there.
fn rows(mentions: &[Mention], start: i64, count: i64) -> Vec<Mention> {
    let (start, end) = (start as u32, (start + count) as u32);
    let first = mentions.partition_point(|m| m.row < start);
    let last = mentions.partition_point(|m| m.row < end);
    mentions[first..last].iter().map(|m| Mention { row: m.row - start, ..m.clone() }).collect()
}

fn embed(
    text: &TextTower,
    settings: &ObjectiveSettings,
    captions: &CaptionTokens,
    mentions: &[Mention],
    patches: &Tensor,
    kind: Kind,
) -> Embeddings {
    let tokens = text.tokens(&captions.ids, kind);
    let embedded = unit(&text.captions(&tokens, &captions.end));
    let concepts = (settings.name == Objective::Simzss).then(|| {
        if mentions.is_empty() {
            let none = || Tensor::zeros([0, embedded.size()[1]], (Kind::Float, embedded.device()));
            return (none(), none());
        }
        let mentions = Mentions::new(mentions, tokens.size()[1], tokens.device());
        let texts = unit(&text.project(&mentions.mean_tokens(&tokens)));
        let pooled = mentions.pool(patches, &texts, settings.pooling_temperature);
        (texts, pooled)
    });
    Embeddings { captions: embedded, concepts }
}
