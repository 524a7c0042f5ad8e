//! The settings of the losses. Their defaults are those of the paper.

use serde::{Deserialize, Serialize};

use super::losses::Target;
use super::talk2dino;
use super::unmentioned::{DoubtfulSettings, Siblings};

/// The losses of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Image-caption contrastive loss and concept loss.
    #[default]
    Simzss,
    /// Image-caption contrastive loss only, with a frozen vision tower.
    Lit,
    /// Image-caption contrastive loss only; CLIP's own vision tower is trained too.
    Clip,
    /// Contrastive loss of captions and parts of images; both towers are frozen, and a map between them is trained.
    Talk2dino,
}

impl Objective {
    /// Whether a run with this objective trains a parameter that is not frozen by name.
    pub fn trains(self, parameter: &str) -> bool {
        self != Self::Talk2dino || talk2dino::trains(parameter)
    }
}

impl std::fmt::Display for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Simzss => "simzss",
            Self::Lit => "lit",
            Self::Clip => "clip",
            Self::Talk2dino => "talk2dino",
        })
    }
}

/// The query with which a mention pools the patches of its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Query {
    /// The embedding of its own words, c~_t: as in the paper.
    #[default]
    Mention,
    /// The vector of its concept, h: as in the authors' code.
    Concept,
}

/// How the tokens of mentions become the vector of their concept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Tokens {
    /// The mean of a mention's tokens is projected and normalized, and each mention of a concept has the same weight: as in the
    /// paper.
    #[default]
    Mean,
    /// Each token is projected and normalized, and each token of a concept has the same weight: as in the authors' code.
    Unit,
}

/// Whose mentions make the concept vectors with which a rank's mentions are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Those of the global batch, so that the loss does not depend on the number of ranks: as in the paper.
    #[default]
    Global,
    /// Those of the rank itself: as in the authors' code.
    Rank,
}

/// The loss of images and captions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum CaptionLoss {
    /// Symmetric InfoNCE, as in the paper, LiT and CLIP.
    #[default]
    Infonce,
    /// A sigmoid for each pair of the batch, as in SigLIP.
    Sigmoid,
}

/// Settings of the losses. The defaults are those of the paper.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveSettings {
    /// `simzss` (contrastive loss + concept loss), `lit` (contrastive loss only), `clip` (contrastive loss only, and the vision
    /// tower is trained too) or `talk2dino` (contrastive loss of captions and parts of images; both towers are frozen, and a map
    /// behind the text tower is trained).
    pub name: Objective,
    /// Loss of images and captions: `infonce` (symmetric InfoNCE, as in the paper) or `sigmoid` (a sigmoid for each pair of the batch,
    /// as in SigLIP).
    pub caption: CaptionLoss,
    /// Initial scale of the image-caption logits, which is learned. If not set, 1 / 0.07 for `infonce` and 10 for `sigmoid`.
    pub logit_scale: Option<f64>,
    /// Initial bias of these logits for `sigmoid`, which is learned too. SigLIP starts with -10; big_vision's recipe for a frozen vision
    /// tower with -2.71.
    pub logit_bias: f64,
    /// Temperature of the softmax over patches in concept pooling (tau in the paper).
    pub pooling_temperature: f64,
    /// Fixed scale of the logits in the concept loss (alpha in the paper): 1 / 0.07.
    pub concept_scale: f64,
    /// Weight of the concept loss (lambda in the paper).
    pub concept_weight: f64,
    /// Target class of the concept loss for a mention: `label` (the concept that is mentioned, as in the paper) or `argmax` (the
    /// concept that is most similar already, as in the authors' code).
    pub target: Target,
    /// Query of concept pooling: `mention` (the embedding of the mention's own words, as in the paper) or `concept` (the vector of
    /// its concept, which is made of all mentions of the concept in the batch, as in the authors' code).
    pub query: Query,
    /// How the tokens of mentions become the vector of their concept: `mean` (the mean of a mention's tokens is projected and
    /// normalized, then the mentions are summed, as in the paper) or `unit` (each token is projected and normalized, then the tokens
    /// of all mentions are summed, as in the authors' code). The sum is normalized in both.
    pub tokens: Tokens,
    /// Whose mentions make the concept vectors: `global` (those of the whole batch, as in the paper) or `rank` (each process uses
    /// its own mentions, and compares them with zeros for the concepts that only other processes have; the loss is the mean of
    /// the processes' means: as in the authors' code). The same in a single process.
    pub concepts: Scope,
    /// What the other captions of an image are, for samples with several (`data.captions` of a field): `negative` (captions and
    /// concepts like those of any other image, as in the paper), `ignore` (two captions of one image are no negatives of each other,
    /// and concepts that only other captions of the image mention take no part in the softmax of the concept loss) or `positive` (as
    /// `ignore`, but those concepts and the mentioned one are the targets of the concept loss, all with the same weight). Needs
    /// captions that were tagged in that field.
    #[serde(skip_serializing_if = "is_default")]
    pub siblings: Siblings,
    /// Negatives of the concept loss that are dropped because the image seems to show them, or become mentions.
    #[serde(skip_serializing_if = "is_default")]
    pub doubtful: DoubtfulSettings,
    /// Weight of the patch loss: every patch is classified by itself among the concepts of the batch, with the scale `concept_scale`, and
    /// all concepts that the captions of its image mention are right (with `siblings = "ignore"` or `"positive"`, those of its other
    /// captions too): -log of the sum of their probabilities, averaged over all patches of the batch. 0 = no such loss, as in the paper.
    #[serde(skip_serializing_if = "is_default")]
    pub patch_weight: f64,
    /// Weight of the loss that separates the concepts of a caption in its image: the cross-entropy of the concept loss among the concepts
    /// of the mention's own caption alone. 0 = no such loss, as in the paper.
    #[serde(skip_serializing_if = "is_default")]
    pub separation_weight: f64,
    /// Weight of the loss whose negatives are other images instead of other concepts, as in FLAIR: -log of the sigmoid of how much better
    /// the concept of a mention fits what the mention pools from its own image than what it pools from the image of the next caption
    /// with mentions, unless a caption of that image mentions the concept or the averaged copy of the text tower finds it there. A
    /// loss that ignores the image cannot become small. 0 = no such loss, as in the paper.
    #[serde(skip_serializing_if = "is_default")]
    pub image_negatives_weight: f64,
    /// Log also the concept loss of each mention on the image of the next caption with mentions. The gap between both says how much the
    /// loss depends on the image; without one, the texts alone explain the loss. It trains nothing.
    #[serde(skip_serializing_if = "is_default")]
    pub shortcut_check: bool,
    /// Weight of the Gram loss, which keeps the similarities between the patches of an image: the mean squared difference between those
    /// behind the head (`vision.head`) and those before it. 0 = none; dino.txt's code, where it is off by default, has 1.
    #[serde(skip_serializing_if = "is_default")]
    pub gram_weight: f64,
}

// With `skip_serializing_if`: saved settings have what differs, and only that is named where it stops a run from being resumed.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for ObjectiveSettings {
    fn default() -> Self {
        Self {
            name: Objective::Simzss,
            caption: CaptionLoss::default(),
            logit_scale: None,
            logit_bias: -10.0,
            pooling_temperature: 0.1,
            concept_scale: 1.0 / 0.07,
            concept_weight: 0.05,
            target: Target::default(),
            query: Query::default(),
            tokens: Tokens::default(),
            concepts: Scope::default(),
            siblings: Siblings::default(),
            doubtful: DoubtfulSettings::default(),
            patch_weight: 0.0,
            separation_weight: 0.0,
            image_negatives_weight: 0.0,
            shortcut_check: false,
            gram_weight: 0.0,
        }
    }
}

impl ObjectiveSettings {
    /// The setting for what captions do not mention that cannot be, and the rest of a sentence about it. `several`: whether samples may
    /// have several captions.
    pub fn problem(&self, several: bool) -> Option<(&'static str, &'static str)> {
        const NO_CONCEPTS: &str = "is about the concept loss, which only objective simzss has; leave it out";
        let concepts = self.name == Objective::Simzss;
        let doubtful = &self.doubtful;
        if self.siblings != Siblings::Negative && !several {
            let problem = "needs samples with several captions; add --set data.captions=\"{ json = { key = 'FIELD', choice = 'random' } }\"";
            return Some(("objective.siblings", problem));
        }
        if self.siblings == Siblings::Positive && self.target == Target::Argmax {
            return Some((
                "objective.siblings",
                "cannot be positive with objective.target = argmax, which names one target",
            ));
        }
        if !(0.0..1.0).contains(&doubtful.decay) {
            return Some(("objective.doubtful.decay", "must be at least 0 and less than 1"));
        }
        if !(0.0..=1.0).contains(&doubtful.threshold) {
            return Some(("objective.doubtful.threshold", "must be 0 to 1"));
        }
        if !(0.0..=1.0).contains(&doubtful.soft) {
            return Some(("objective.doubtful.soft", "must be a share, 0 to 1"));
        }
        if !(0.0..=1.0).contains(&doubtful.added_threshold) {
            return Some(("objective.doubtful.added_threshold", "must be 0 to 1"));
        }
        for (name, value) in [
            ("objective.doubtful.soft", doubtful.soft),
            ("objective.doubtful.added_weight", doubtful.added_weight),
        ] {
            if value > 0.0 && doubtful.decay == 0.0 {
                return Some((name, "needs the averaged copy; add --set objective.doubtful.decay=0.999"));
            }
        }
        if doubtful.soft > 0.0 && self.target == Target::Argmax {
            return Some((
                "objective.doubtful.soft",
                "cannot be used with objective.target = argmax, which names one target",
            ));
        }
        for (name, weight) in [
            ("objective.patch_weight", self.patch_weight),
            ("objective.separation_weight", self.separation_weight),
            ("objective.image_negatives_weight", self.image_negatives_weight),
            ("objective.doubtful.added_weight", doubtful.added_weight),
        ] {
            if !weight.is_finite() || weight < 0.0 {
                return Some((name, "must be 0 or more"));
            }
        }
        [
            ("objective.doubtful.decay", doubtful.decay > 0.0),
            ("objective.patch_weight", self.patch_weight > 0.0),
            ("objective.separation_weight", self.separation_weight > 0.0),
            ("objective.image_negatives_weight", self.image_negatives_weight > 0.0),
            ("objective.shortcut_check", self.shortcut_check),
        ]
        .into_iter()
        .find(|(_, asked)| *asked && !concepts)
        .map(|(name, _)| (name, NO_CONCEPTS))
    }

    /// The initial scale of the image-caption logits, and their bias if the loss has one.
    pub fn initial_logits(&self) -> (f64, Option<f64>) {
        match self.caption {
            CaptionLoss::Infonce => (self.logit_scale.unwrap_or(1.0 / 0.07), None),
            CaptionLoss::Sigmoid => (self.logit_scale.unwrap_or(10.0), Some(self.logit_bias)),
        }
    }
}
