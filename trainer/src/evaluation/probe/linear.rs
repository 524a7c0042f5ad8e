//! A linear classifier of patches: every feature is brought to mean 0 and variance 1, as a batch norm does it, and multinomial logistic
//! regression on soft labels is solved to its optimum. There is one optimum, so nothing depends on a learning rate or on the order of
//! patches.

use std::collections::VecDeque;

use tch::{Kind, Tensor};

/// Added to the variance, as in PyTorch's batch norm.
const EPS: f64 = 1e-5;
/// Pairs of steps and changes of the gradient that L-BFGS remembers.
const REMEMBERED: usize = 10;
/// The sufficient decrease of a step, as a share of what the gradient promises.
const DECREASE: f64 = 1e-4;
/// Halvings of a step before the search ends: nothing more can be gained in this precision.
const HALVINGS: usize = 30;

/// When the optimum counts as reached.
#[derive(Debug, Clone, Copy)]
pub struct LinearSettings {
    /// Weight of the penalty: half the sum of the squared weights, without the biases, is added so many times to the mean cross-entropy.
    pub penalty: f64,
    /// Largest number in the gradient at which the search ends.
    pub gradient: f64,
    /// Maximum number of steps.
    pub steps: usize,
}

impl Default for LinearSettings {
    fn default() -> Self {
        Self { penalty: 1e-4, gradient: 1e-5, steps: 200 }
    }
}

/// The classifier: scores are `weights` · features + `biases`, with features as they are.
#[derive(Debug)]
pub struct Linear {
    /// [C, d].
    pub weights: Tensor,
    /// `[C]`.
    pub biases: Tensor,
    /// Number of steps that were taken.
    pub steps: usize,
    /// The largest number in the gradient that is left.
    pub gradient: f64,
}

impl Linear {
    /// Learns from patches, [M, d], and the shares of their classes, [M, C], of which every row sums to 1. Computes in float64.
    pub fn fit(features: &Tensor, shares: &Tensor, settings: &LinearSettings) -> Self {
        tch::no_grad(|| {
            let features = features.to_kind(Kind::Double);
            let mean = features.mean_dim([0i64].as_slice(), false, Kind::Double);
            let variance = features.var_dim([0i64].as_slice(), false, false);
            let deviation = (variance + EPS).sqrt();
            let x = (features - &mean) / &deviation;
            let y = shares.to_kind(Kind::Double);
            let (width, classes) = (x.size()[1], y.size()[1]);
            let start = Tensor::zeros([classes, width + 1], (Kind::Double, x.device()));
            let end = minimum(start, settings, |at| objective(at, &x, &y, settings.penalty));
            let weights = end.at.narrow(1, 0, width) / &deviation;
            let biases = end.at.select(1, width) - weights.matmul(&mean);
            Self {
                weights: weights.to_kind(Kind::Float),
                biases: biases.to_kind(Kind::Float),
                steps: end.steps,
                gradient: end.gradient,
            }
        })
    }

    /// The scores of patches, [Q, d] -> [Q, C].
    pub fn scores(&self, patches: &Tensor) -> Tensor {
        patches.matmul(&self.weights.transpose(0, 1)) + &self.biases
    }
}

/// Mean cross-entropy with its penalty, and its gradient, at weights and biases, [C, d + 1].
fn objective(at: &Tensor, x: &Tensor, y: &Tensor, penalty: f64) -> (f64, Tensor) {
    let width = x.size()[1];
    let count = x.size()[0] as f64;
    let (weights, biases) = (at.narrow(1, 0, width), at.select(1, width));
    let log = (x.matmul(&weights.transpose(0, 1)) + biases).log_softmax(1, Kind::Double);
    let loss = -(&log * y).sum(Kind::Double) / count + weights.square().sum(Kind::Double) * (0.5 * penalty);
    let apart = (log.exp() - y) / count;
    let of_weights = apart.transpose(0, 1).matmul(x) + weights * penalty;
    let of_biases = apart.sum_dim_intlist([0i64].as_slice(), false, Kind::Double).unsqueeze(1);
    (loss.double_value(&[]), Tensor::cat(&[of_weights, of_biases], 1))
}

/// Where a search ended.
struct End {
    at: Tensor,
    steps: usize,
    gradient: f64,
}

/// The minimum of a smooth convex function by L-BFGS (Nocedal and Wright, algorithm 7.4), each step halved until it decreases the value.
fn minimum(start: Tensor, settings: &LinearSettings, value: impl Fn(&Tensor) -> (f64, Tensor)) -> End {
    let dot = |a: &Tensor, b: &Tensor| (a * b).sum(Kind::Double).double_value(&[]);
    let largest = |gradient: &Tensor| gradient.abs().max().double_value(&[]);
    let mut at = start;
    let (mut now, mut gradient) = value(&at);
    let mut memory: VecDeque<(Tensor, Tensor, f64)> = VecDeque::new();
    let mut steps = 0;
    while steps < settings.steps && largest(&gradient) > settings.gradient {
        let direction = -newton(&gradient, &memory, &dot);
        let slope = dot(&gradient, &direction);
        let mut length =
            if memory.is_empty() { (1.0 / gradient.norm().double_value(&[])).min(1.0) } else { 1.0 };
        let mut found = None;
        for _ in 0..HALVINGS {
            let there = &at + &direction * length;
            let (next, next_gradient) = value(&there);
            if next <= now + DECREASE * length * slope {
                found = Some((there, next, next_gradient));
                break;
            }
            length *= 0.5;
        }
        let Some((there, next, next_gradient)) = found else { break };
        let (step, change) = (&there - &at, &next_gradient - &gradient);
        let curvature = dot(&step, &change);
        if curvature > 0.0 {
            memory.push_back((step, change, 1.0 / curvature));
            if memory.len() > REMEMBERED {
                memory.pop_front();
            }
        }
        (at, now, gradient) = (there, next, next_gradient);
        steps += 1;
    }
    End { gradient: largest(&gradient), at, steps }
}

/// The product of the inverse of the approximated Hessian and the gradient: the two-loop recursion.
fn newton(
    gradient: &Tensor,
    memory: &VecDeque<(Tensor, Tensor, f64)>,
    dot: &impl Fn(&Tensor, &Tensor) -> f64,
) -> Tensor {
    let mut q = gradient.copy();
    let mut factors = Vec::with_capacity(memory.len());
    for (step, change, inverse) in memory.iter().rev() {
        let factor = inverse * dot(step, &q);
        q -= change * factor;
        factors.push(factor);
    }
    if let Some((step, change, _)) = memory.back() {
        q *= dot(step, change) / dot(change, change);
    }
    for ((step, change, inverse), factor) in memory.iter().zip(factors.into_iter().rev()) {
        let other = inverse * dot(change, &q);
        q += step * (factor - other);
    }
    q
}
