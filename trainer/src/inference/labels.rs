//! From similarities to labels: upsampling to the size of the mask, argmax over the classes, background threshold.

use tch::{Kind, Tensor};

/// Number of classes that are upsampled at a time: 150 classes at the full size of an image would take gigabytes.
const CLASS_CHUNK: i64 = 16;

/// How the label of a pixel follows from its scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The class with the highest score.
    HighestScore,
    /// Label 0, background, if the softmax of `scale` times the similarities is below `threshold` for every class. Class i gets
    /// label i + 1.
    Threshold {
        /// Minimum probability of a class that is not background.
        threshold: f64,
        /// Scale of the similarities before the softmax.
        scale: f64,
    },
    /// Label 0, background, if no score is above this. Class i gets label i + 1.
    Floor(f64),
}

/// Labels of an image of `height` x `width` pixels, uint8 [height, width] on the CPU, from scores of another size, [C, h, w]. See
/// [`upsample`].
pub fn decide(scores: &Tensor, height: i64, width: i64, rule: Rule) -> Tensor {
    tch::no_grad(|| {
        let classes = scores.size()[0];
        let (mut best, mut label, mut total) = (Tensor::new(), Tensor::new(), Tensor::new());
        for start in (0..classes).step_by(CLASS_CHUNK as usize) {
            let chunk = scores.narrow(0, start, CLASS_CHUNK.min(classes - start)).unsqueeze(0);
            let chunk = upsample(&chunk, height, width);
            let (highest, at) = chunk.max_dim(1, false);
            let at = (at + start).to_kind(Kind::Int);
            let higher = if start == 0 {
                label = at;
                highest.shallow_clone()
            } else {
                label = at.where_self(&highest.gt_tensor(&best), &label);
                best.maximum(&highest)
            };
            if let Rule::Threshold { scale, .. } = rule {
                // The denominator of the softmax, with the highest score so far subtracted, so that nothing overflows.
                let new = ((chunk - higher.unsqueeze(1)) * scale).exp().sum_dim_intlist(
                    [1i64].as_slice(),
                    false,
                    Kind::Float,
                );
                total = if start == 0 { new } else { total * ((&best - &higher) * scale).exp() + new };
            }
            best = higher;
        }
        match rule {
            Rule::HighestScore => finish(&label),
            Rule::Floor(floor) => finish(&((label + 1) * best.gt(floor).to_kind(Kind::Int))),
            Rule::Threshold { threshold, .. } => {
                finish(&((label + 1) * total.reciprocal().ge(threshold).to_kind(Kind::Int)))
            }
        }
    })
}

/// Resizes [B, C, h, w] bilinearly, as PyTorch's `interpolate` with `align_corners=False`.
pub fn upsample(scores: &Tensor, height: i64, width: i64) -> Tensor {
    if scores.size()[2..] == [height, width] {
        return scores.shallow_clone();
    }
    scores.upsample_bilinear2d([height, width], false, None, None)
}

/// [1, h, w] -> uint8 [h, w] on the CPU.
pub(super) fn finish(label: &Tensor) -> Tensor {
    label.squeeze_dim(0).to_kind(Kind::Uint8).to_device(tch::Device::Cpu)
}

/// Labels as bytes, row by row.
pub fn bytes(labels: &Tensor) -> Vec<u8> {
    let labels = labels.to_kind(Kind::Uint8).contiguous();
    let mut out = vec![0; labels.numel()];
    labels.copy_data_u8(&mut out, labels.numel());
    out
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// The reference: softmax over all classes at once, then the threshold.
    fn plain(scores: &Tensor, height: i64, width: i64, threshold: f64, scale: f64) -> Vec<u8> {
        let all = scores.unsqueeze(0).upsample_bilinear2d([height, width], false, None, None).squeeze_dim(0);
        let (probability, label) = (all * scale).softmax(0, Kind::Float).max_dim(0, false);
        bytes(&((label + 1) * probability.ge(threshold).to_kind(Kind::Int64)))
    }

    #[test]
    fn pieces_of_the_classes_give_what_all_give() {
        tch::manual_seed(3);
        for classes in [1, 15, 16, 40] {
            let scores = Tensor::rand([classes, 9, 7], (Kind::Float, Device::Cpu)) * 0.5;
            let upsampled = scores.unsqueeze(0).upsample_bilinear2d([20, 31], false, None, None);
            let expected = bytes(&upsampled.argmax(1, false));
            assert_eq!(bytes(&decide(&scores, 20, 31, Rule::HighestScore)), expected, "{classes}");
            for (threshold, scale) in [(0.3, 10.0), (0.5, 40.0)] {
                let rule = Rule::Threshold { threshold, scale };
                let found = bytes(&decide(&scores, 20, 31, rule));
                assert_eq!(found, plain(&scores, 20, 31, threshold, scale), "{classes} {threshold}");
            }
        }
    }
}
