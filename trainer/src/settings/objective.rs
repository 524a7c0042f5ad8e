//! What the objective of a run needs of its other settings.

use super::Settings;

impl Settings {
    /// The setting that does not suit the objective, and the rest of a sentence about it; `None` if all do.
    pub(super) fn problem_of_objective(&self) -> Option<(&'static str, String)> {
        let several = self.data.loading.captions.field().is_some();
        let of_concepts = self.objective.problem(several);
        of_concepts.map(|(name, problem)| (name, problem.to_owned())).or_else(|| self.problem_of_gram())
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
}
