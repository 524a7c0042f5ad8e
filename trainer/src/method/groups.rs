//! Groups of parameters: each has a learning rate of its own, and any can be frozen by its name.

use serde::{Deserialize, Serialize};

use crate::towers::MAP_PREFIX;

/// Factors on the learning rate of groups of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LrFactors {
    /// Factor on the learning rate of the text tower, without its projection.
    #[serde(skip_serializing_if = "is_one")]
    pub text: f64,
    /// Factor on the learning rate of the text tower's projection into the embedding space of the images, or of the map of
    /// `objective.name = "talk2dino"`.
    #[serde(skip_serializing_if = "is_one")]
    pub projection: f64,
    /// Factor on the learning rate of the blocks behind the frozen vision tower (`vision.head`).
    #[serde(skip_serializing_if = "is_one")]
    pub head: f64,
    /// Factor on the learning rate of the vision tower that `objective.name = "clip"` trains.
    #[serde(skip_serializing_if = "is_one")]
    pub vision: f64,
    /// Factor on the learning rate of the scale and the bias of the image-caption logits.
    #[serde(skip_serializing_if = "is_one")]
    pub logits: f64,
}

// With `skip_serializing_if`: saved settings have what differs, and only that is named where it stops a run from being resumed.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_one(factor: &f64) -> bool {
    *factor == 1.0
}

impl Default for LrFactors {
    fn default() -> Self {
        Self { text: 1.0, projection: 1.0, head: 1.0, vision: 1.0, logits: 1.0 }
    }
}

impl LrFactors {
    /// Name and factor of each group.
    pub fn all(&self) -> [(&'static str, f64); 5] {
        [
            ("text", self.text),
            ("projection", self.projection),
            ("head", self.head),
            ("vision", self.vision),
            ("logits", self.logits),
        ]
    }

    /// The factor for a parameter.
    pub fn of(&self, parameter: &str) -> f64 {
        let group = group(parameter);
        self.all().into_iter().find(|(name, _)| *name == group).map_or(1.0, |(_, factor)| factor)
    }

    /// Whether there is no factor but 1.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The group of a parameter, by its state-dict key in a checkpoint.
pub fn group(parameter: &str) -> &'static str {
    match parameter {
        "text_projection" => "projection",
        "logit_scale" | "logit_bias" => "logits",
        name if name.starts_with("head.") => "head",
        name if name.starts_with("visual.") => "vision",
        name if name.starts_with(MAP_PREFIX) => "projection",
        _ => "text",
    }
}

/// Whether a name has the form of a pattern, in which `*` stands for any characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.into_iter().any(|at| matches(rest, &name[at..]))
        }),
    }
}

/// What is wrong with factors and patterns for parameters of these names: the setting, and the rest of a sentence about it.
pub fn problem(factors: &LrFactors, frozen: &[String], parameters: &[&str]) -> Option<(String, String)> {
    for (name, factor) in factors.all() {
        let setting = || format!("optimizer.factor.{name}");
        if !factor.is_finite() || factor < 0.0 {
            return Some((setting(), "must be 0 or more".to_owned()));
        }
        if factor != 1.0 && !parameters.iter().any(|parameter| group(parameter) == name) {
            let problem =
                format!("is {factor}, but this run trains no parameters of that group; leave it out");
            return Some((setting(), problem));
        }
    }
    let setting = || "optimizer.frozen".to_owned();
    if let Some(pattern) = frozen.iter().find(|pattern| !parameters.iter().any(|name| matches(pattern, name)))
    {
        let examples = parameters.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        let problem = format!(
            "has the pattern {pattern:?}, which no parameter of this run has; parameters are named as in a checkpoint: \
             {examples}, .. (* stands for any characters)"
        );
        return Some((setting(), problem));
    }
    // A scale alone learns nothing about images and texts.
    let left = |name: &&str| group(name) != "logits" && !is_frozen(frozen, name);
    (!parameters.iter().any(left)).then(|| (setting(), "leaves nothing to train".to_owned()))
}

/// Whether a parameter is frozen by one of the patterns.
pub fn is_frozen(frozen: &[String], parameter: &str) -> bool {
    frozen.iter().any(|pattern| matches(pattern, parameter))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = [
        "token_embedding.weight",
        "transformer.resblocks.1.ln_1.weight",
        "transformer.resblocks.11.ln_1.weight",
        "text_projection",
        "logit_scale",
    ];

    #[test]
    fn patterns_match_whole_names() {
        let of = |pattern| NAMES.iter().filter(|name| matches(pattern, name)).count();
        assert_eq!(of("*"), 5);
        assert_eq!(of("text_projection"), 1);
        assert_eq!(of("text"), 0);
        assert_eq!(of("transformer.resblocks.1.*"), 1);
        assert_eq!(of("transformer.resblocks.1*"), 2);
        assert_eq!(of("*ln_1*"), 2);
        assert_eq!(of("*.weight"), 3);
        assert_eq!(of("t*.weight"), 3);
        assert!(matches("**", "") && matches("a*b*c", "abbc") && !matches("a*b*c", "acb"));
    }

    #[test]
    fn every_parameter_has_the_factor_of_its_group() {
        let factors = LrFactors { text: 0.1, projection: 2.0, head: 3.0, vision: 4.0, logits: 5.0 };
        let of = |name| factors.of(name);
        assert_eq!(NAMES.map(of), [0.1, 0.1, 0.1, 2.0, 5.0]);
        assert_eq!(["head.ln_final.bias", "visual.proj", "logit_bias"].map(of), [3.0, 4.0, 5.0]);
        assert_eq!(of("map.linear_layer.bias"), 2.0);
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let told = |factors: LrFactors, frozen: &[&str]| {
            let frozen: Vec<String> = frozen.iter().map(|&pattern| pattern.to_owned()).collect();
            problem(&factors, &frozen, &NAMES).map(|(name, why)| format!("{name} {why}"))
        };
        let plain = LrFactors::default();
        assert_eq!(told(plain, &["token_embedding.*", "logit_scale"]), None);
        let head = told(LrFactors { head: 0.5, ..plain }, &[]).unwrap();
        assert!(head.starts_with("optimizer.factor.head is 0.5, but this run trains no"), "{head}");
        let unknown = told(plain, &["*.weight", "transfomer.*"]).unwrap();
        assert!(unknown.contains("\"transfomer.*\", which no parameter"), "{unknown}");
        assert!(told(plain, &["t*"]).unwrap().contains("leaves nothing to train"));
        assert!(told(LrFactors { text: -1.0, ..plain }, &[]).unwrap().contains("must be 0 or more"));
        assert!(told(LrFactors { text: f64::NAN, ..plain }, &[]).is_some());
    }
}
