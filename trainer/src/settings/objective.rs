//! What the objective of a run needs of its other settings.

use super::Settings;
use crate::method::objective::{CaptionLoss, Objective};
use crate::towers::Embedding;

impl Settings {
    /// The setting that does not suit the objective, and the rest of a sentence about it; `None` if all do.
    pub(super) fn problem_of_objective(&self) -> Option<(&'static str, String)> {
        let several = self.data.loading.captions.field().is_some();
        let of_concepts = self.objective.problem(several);
        of_concepts
            .map(|(name, problem)| (name, problem.to_owned()))
            .or_else(|| self.problem_of_gram())
            .or_else(|| self.problem_of_talk2dino())
    }

    fn problem_of_gram(&self) -> Option<(&'static str, String)> {
        let weight = self.objective.gram_weight;
        let problem = if !weight.is_finite() || weight < 0.0 {
            "must be 0 or more".to_owned()
        } else if weight > 0.0 && self.vision.head.blocks == 0 {
            format!(
                "is {weight}, but without a head all patches stay as the frozen tower gives them; add --set vision.head.blocks=2, or \
                 leave it out"
            )
        } else {
            return None;
        };
        Some(("objective.gram_weight", problem))
    }

    fn problem_of_talk2dino(&self) -> Option<(&'static str, String)> {
        if self.objective.name != Objective::Talk2dino {
            return None;
        }
        let has_none = "but objective talk2dino trains a map behind the frozen text tower only; leave it out";
        for (name, is_set, problem) in [
            (
                "vision.head.blocks",
                self.vision.head.blocks > 0,
                format!("is for a head that is trained behind the vision tower, {has_none}"),
            ),
            (
                "vision.embedding",
                self.vision.embedding != Embedding::Class,
                "is for whole images, but objective talk2dino compares captions with parts of images; leave it out"
                    .to_owned(),
            ),
            (
                "objective.caption",
                self.objective.caption != CaptionLoss::Infonce,
                "must be infonce with objective talk2dino".to_owned(),
            ),
            (
                "text.new_projection",
                self.text.new_projection,
                format!("is for a projection that is trained, {has_none}"),
            ),
        ] {
            if is_set {
                return Some((name, problem));
            }
        }
        None
    }
}
