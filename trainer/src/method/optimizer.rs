//! AdamW with moments that can be saved, and the learning rate schedule.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::groups::LrFactors;
use crate::error::Result;
use crate::torch::{self, AdamW, ParameterState};

/// How the number of warm-up steps is made a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// To the nearest whole number.
    #[default]
    Nearest,
    /// To the next smaller one: as in the authors' code.
    Down,
}

/// Settings of AdamW and the learning rate schedule. The defaults are those of the published recipe.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerSettings {
    /// Maximum learning rate, reached at the end of the warm-up. Leave it out to use `lr_per_256`.
    pub lr: Option<f64>,
    /// Maximum learning rate for a batch of 256 samples. It is multiplied by `data.batch_size` / 256, as in the authors'
    /// code: 3e-5 becomes 1.92e-3 with a batch of 16,384. Not used if `lr` is set.
    pub lr_per_256: f64,
    /// Weight decay of parameters with two or more dimensions. Biases, LayerNorm parameters and the logit scale have none.
    pub weight_decay: f64,
    /// Decay rate of the running mean of the gradient.
    pub beta1: f64,
    /// Decay rate of the running mean of the squared gradient.
    pub beta2: f64,
    /// Added to the denominator of the update for numerical stability.
    pub eps: f64,
    /// Fraction of the steps over which the learning rate rises linearly from 0; after that it follows a cosine down to 0.
    pub warmup: f64,
    /// How the number of these steps is rounded: `nearest` or, as in the authors' code, `down`.
    pub warmup_rounding: Rounding,
    /// Gradient clipping: maximum L2 norm of all gradients together; 0 = no clipping.
    pub clip: f64,
    /// Parameters that keep their initial values: a list of names as in a checkpoint, in which `*` stands for any characters, such as
    /// `['token_embedding.weight', 'transformer.resblocks.*']`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<String>,
    /// Factors on the learning rate of groups of parameters.
    #[serde(skip_serializing_if = "LrFactors::is_default")]
    pub factor: LrFactors,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self {
            lr: None,
            lr_per_256: 3e-5,
            weight_decay: 0.2,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-6,
            warmup: 0.1,
            warmup_rounding: Rounding::default(),
            clip: 0.0,
            factor: LrFactors::default(),
            frozen: Vec::new(),
        }
    }
}

impl OptimizerSettings {
    /// The maximum learning rate for a batch of this many samples, over all processes.
    pub fn max_lr(&self, batch_size: usize) -> f64 {
        self.lr.unwrap_or(self.lr_per_256 * batch_size as f64 / 256.0)
    }

    /// The same in words, with the setting that it comes from.
    pub fn describe_lr(&self, batch_size: usize) -> String {
        let max = self.max_lr(batch_size);
        let source = match self.lr {
            Some(_) => "optimizer.lr".to_owned(),
            None => {
                format!("optimizer.lr_per_256 = {:e}, times the batch of {batch_size} / 256", self.lr_per_256)
            }
        };
        let factors: String = self
            .factor
            .all()
            .into_iter()
            .filter(|(_, factor)| *factor != 1.0)
            .map(|(name, factor)| format!("; {factor} of it for optimizer.factor.{name}"))
            .collect();
        format!("{max:.3e} ({source}{factors})")
    }

    /// The learning rate of step `step` (counted from 0) of `steps` with batches of `batch_size` samples: linear
    /// warm-up, then cosine decay to zero.
    pub fn lr_at(&self, batch_size: usize, step: u64, steps: u64) -> f64 {
        let max = self.max_lr(batch_size);
        let warmup = self.warmup * steps as f64;
        let warmup = match self.warmup_rounding {
            Rounding::Nearest => warmup.round(),
            Rounding::Down => warmup.floor(),
        };
        let step = step as f64;
        if step < warmup {
            return max * (step + 1.0) / warmup;
        }
        let progress = (step - warmup) / (steps as f64 - warmup).max(1.0);
        max * 0.5 * (1.0 + (PI * progress).cos())
    }
}

/// AdamW over named parameters.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    states: Vec<(String, ParameterState)>,
}

impl Optimizer {
    /// With moments of zero for `parameters`, all of which are trained.
    pub fn new(settings: &OptimizerSettings, parameters: Vec<(String, Tensor)>) -> Self {
        let state = |parameter: Tensor| ParameterState {
            first_moment: parameter.zeros_like().detach(),
            second_moment: parameter.zeros_like().detach(),
            step: Tensor::zeros([] as [i64; 0], (Kind::Float, parameter.device())),
            parameter,
        };
        let states = parameters.into_iter().map(|(name, parameter)| (name, state(parameter))).collect();
        Self { settings: settings.clone(), states }
    }

    /// One step with learning rate `lr` from the accumulated gradients, which are then cleared.
    pub fn step(&mut self, lr: f64) -> Result<()> {
        if self.settings.clip > 0.0 {
            let gradients: Vec<Tensor> =
                self.with_gradient().map(|(_, state)| state.parameter.grad()).collect();
            torch::clip_gradients(&gradients, self.settings.clip)?;
        }
        for (factor, weight_decay, states) in self.groups() {
            let settings = AdamW {
                lr: lr * factor,
                betas: (self.settings.beta1, self.settings.beta2),
                weight_decay,
                eps: self.settings.eps,
            };
            torch::fused_adamw(&states, &settings)?;
        }
        for (_, state) in &mut self.states {
            state.parameter.zero_grad();
        }
        Ok(())
    }

    fn with_gradient(&self) -> impl Iterator<Item = (&str, &ParameterState)> {
        let states = self.states.iter().map(|(name, state)| (name.as_str(), state));
        states.filter(|(_, state)| state.parameter.grad().defined())
    }

    /// The parameters with gradients that have the same factor on the learning rate, and the same weight decay.
    fn groups(&self) -> Vec<(f64, f64, Vec<&ParameterState>)> {
        let mut groups: Vec<(f64, f64, Vec<&ParameterState>)> = Vec::new();
        for (decayed, weight_decay) in [(true, self.settings.weight_decay), (false, 0.0)] {
            let first = groups.len();
            for (name, state) in self.with_gradient().filter(|(_, s)| (s.parameter.dim() > 1) == decayed) {
                let factor = self.settings.factor.of(name);
                match groups[first..].iter_mut().find(|(of_group, ..)| *of_group == factor) {
                    Some((.., states)) => states.push(state),
                    None => groups.push((factor, weight_decay, vec![state])),
                }
            }
        }
        groups
    }

    /// Moments and step counts by name, to be saved.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut named = Vec::new();
        for (name, state) in &self.states {
            for (part, tensor) in [
                ("exp_avg", &state.first_moment),
                ("exp_avg_sq", &state.second_moment),
                ("step", &state.step),
            ] {
                named.push((format!("{name}.{part}"), tensor.shallow_clone()));
            }
        }
        named
    }

    /// Continues with what [`Optimizer::state`] gave. `saved` returns the tensor with a name, which must have a shape.
    pub fn restore(&mut self, mut saved: impl FnMut(&str, &[i64]) -> Result<Tensor>) -> Result<()> {
        for (name, state) in &mut self.states {
            let size = state.parameter.size();
            state.first_moment = saved(&format!("{name}.exp_avg"), &size)?;
            state.second_moment = saved(&format!("{name}.exp_avg_sq"), &size)?;
            state.step = saved(&format!("{name}.step"), &[])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_then_falls_to_zero() {
        let settings = OptimizerSettings { lr: Some(1.0), warmup: 0.1, ..Default::default() };
        let at = |step| settings.lr_at(512, step, 100);
        assert!((at(0) - 0.1).abs() < 1e-12);
        assert!((at(9) - 1.0).abs() < 1e-12);
        assert!((at(10) - 1.0).abs() < 1e-12, "the cosine starts at its top");
        assert!((at(55) - 0.5).abs() < 1e-12, "and is half-way down in its middle");
        assert!(at(99) < 0.001);
    }

    /// 10 % of 27 steps: 2.7.
    #[test]
    fn warm_up_steps_are_rounded_as_asked() {
        let nearest = OptimizerSettings { lr: Some(1.0), ..Default::default() };
        let down = OptimizerSettings { warmup_rounding: Rounding::Down, ..nearest.clone() };
        assert_eq!([0, 1, 2].map(|step| nearest.lr_at(512, step, 27)), [1.0 / 3.0, 2.0 / 3.0, 1.0]);
        assert_eq!([0, 1].map(|step| down.lr_at(512, step, 27)), [0.5, 1.0]);
        // The cosine then has 25 steps, the first of which is its top.
        assert_eq!(down.lr_at(512, 2, 27), 1.0);
        let expected = 0.5 * (1.0 + (PI / 25.0).cos());
        assert!((down.lr_at(512, 3, 27) - expected).abs() < 1e-12);
    }

    /// The arguments and batches of the authors' two published runs.
    #[test]
    fn a_rate_per_256_samples_grows_with_the_batch() {
        let settings = OptimizerSettings::default();
        assert!((settings.max_lr(16_384) - 1.92e-3).abs() < 1e-12);
        assert!((settings.max_lr(512) - 6e-5).abs() < 1e-12);
        let fixed = OptimizerSettings { lr: Some(1e-3), ..settings };
        assert_eq!((fixed.max_lr(16_384), fixed.max_lr(512)), (1e-3, 1e-3));
    }

    /// Compared with AdamW written out by hand: decoupled decay, bias-corrected moments, and a factor on the learning rate per group.
    #[test]
    fn a_step_is_adamw() {
        for factor in [LrFactors::default(), LrFactors { text: 0.25, logits: 3.0, ..LrFactors::default() }] {
            let settings = OptimizerSettings { weight_decay: 0.1, factor, ..Default::default() };
            let matrix = Tensor::from_slice(&[1.0f32, -2.0]).view([1, 2]).set_requires_grad(true);
            let [bias, scale] = [(); 2].map(|()| Tensor::from_slice(&[0.5f32]).set_requires_grad(true));
            let named = [("w", &matrix), ("logit_scale", &scale), ("b", &bias)];
            let named = named.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
            let mut optimizer = Optimizer::new(&settings, Vec::from(named));
            // Value, running mean of the gradient, and of its square, of each number: two of the matrix, bias and scale.
            let mut expected = [1.0f64, -2.0, 0.5, 0.5].map(|value| [value, 0.0, 0.0]);
            for step in 1..=5 {
                // loss = sum(matrix²) + 3 bias + 3 scale
                ((&bias + &scale).sum(Kind::Float) * 3.0 + matrix.square().sum(Kind::Float)).backward();
                optimizer.step(0.01).unwrap();
                for (at, [value, mean, square]) in expected.iter_mut().enumerate() {
                    let (gradient, decay) = if at < 2 { (2.0 * *value, 0.1) } else { (3.0, 0.0) };
                    let lr = 0.01 * if at == 3 { factor.logits } else { factor.text };
                    *mean = 0.9 * *mean + 0.1 * gradient;
                    *square = 0.98 * *square + 0.02 * gradient * gradient;
                    let (m, v) = (*mean / (1.0 - 0.9f64.powi(step)), *square / (1.0 - 0.98f64.powi(step)));
                    *value = *value * (1.0 - lr * decay) - lr * m / (v.sqrt() + 1e-6);
                }
            }
            let found = Tensor::cat(&[matrix.view([2]), bias, scale], 0);
            for (at, [expected, ..]) in expected.iter().enumerate() {
                assert!((found.double_value(&[at as i64]) - expected).abs() < 1e-6, "{at}");
            }
        }
    }
}
