//! From the similarities of all names to labels, as the frame that SCLIP, NACLIP, ClearCLIP and ProxyCLIP share decides: a softmax over
//! the names, of which a class has as many as its list says, then the best name of each class, then thresholds. More names split the
//! probability.

use std::ops::Range;

use serde::Serialize;
use tch::{Kind, Tensor};

use super::labels::{finish, upsample};
use super::pamr::Pamr;

/// Number of names that are up-sampled at a time: all of a large image would take gigabytes.
const NAME_CHUNK: i64 = 16;

/// How the labels are decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NameRule {
    /// Scale of the similarities before the softmax.
    pub scale: f64,
    /// Below this probability, a pixel gets class 0; 0 = never.
    pub threshold: f64,
    /// Of the pixels that are not of class 0, the share that a class must exceed; otherwise it is left out, and its pixels get the class
    /// that is next.
    pub least_area: Option<f64>,
    /// Refinement of the similarities at the size of the image.
    pub pamr: Option<Pamr>,
}

/// Labels of an image of `height` x `width` pixels, uint8 [height, width] on the CPU, from similarities of another size, [W, h, w]. The
/// names of class i are those in `classes[i]`. `pixels`: the resized image, [1, h, w, 3].
pub fn decide(
    scores: &Tensor,
    classes: &[Range<i64>],
    [height, width]: [i64; 2],
    rule: &NameRule,
    pixels: &Tensor,
) -> Tensor {
    tch::no_grad(|| {
        let image = rule.pamr.as_ref().map(|pamr| {
            let planes = upsample(&pixels.permute([0, 3, 1, 2]), height, width).squeeze_dim(0);
            (pamr, planes)
        });
        let names = |first: i64, count: i64| {
            let full = upsample(&scores.narrow(0, first, count).unsqueeze(0), height, width).squeeze_dim(0);
            match &image {
                Some((pamr, planes)) => pamr.refine(planes, &full),
                None => full,
            }
        };
        let every = vec![true; classes.len()];
        let seen = best(names, classes, &every, rule.scale);
        let label = match rule.least_area {
            None => seen,
            Some(share) => {
                let counts = count(&seen.label, classes.len());
                let least = share * counts.iter().skip(1).sum::<f64>();
                // Class 0 always stays.
                let kept: Vec<bool> =
                    counts.iter().enumerate().map(|(class, &count)| class == 0 || count > least).collect();
                if kept.iter().all(|&kept| kept) { seen } else { best(names, classes, &kept, rule.scale) }
            }
        };
        finish(&(label.label * label.probability.ge(rule.threshold).to_kind(Kind::Int)).unsqueeze(0))
    })
}

/// The best class of each pixel, [height, width], and its probability.
struct Best {
    label: Tensor,
    probability: Tensor,
}

/// Among those classes that are kept. The softmax is over all names.
fn best(names: impl Fn(i64, i64) -> Tensor, classes: &[Range<i64>], kept: &[bool], scale: f64) -> Best {
    let count = classes.last().map_or(0, |range| range.end);
    let mut class_of: Vec<i32> = vec![0; count as usize];
    for (class, range) in classes.iter().enumerate() {
        class_of[range.start as usize..range.end as usize].fill(class as i32);
    }
    let left_out: Vec<bool> = class_of.iter().map(|&class| !kept[class as usize]).collect();
    let (mut highest, mut top, mut name, mut total) =
        (Tensor::new(), Tensor::new(), Tensor::new(), Tensor::new());
    for first in (0..count).step_by(NAME_CHUNK as usize) {
        let some = NAME_CHUNK.min(count - first);
        let chunk = names(first, some) * scale;
        let all = chunk.amax([0i64].as_slice(), false);
        let out = &left_out[first as usize..(first + some) as usize];
        let out = Tensor::from_slice(out).to_device(chunk.device()).view([some, 1, 1]);
        let (best, at) = chunk.masked_fill(&out, f64::NEG_INFINITY).max_dim(0, false);
        let at = at + first;
        // The denominator, with the highest score of any name so far subtracted, so that nothing overflows.
        let higher = if first == 0 { all.shallow_clone() } else { highest.maximum(&all) };
        let new = (chunk - &higher).exp().sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
        if first == 0 {
            (top, name, total) = (best, at, new);
        } else {
            name = at.where_self(&best.gt_tensor(&top), &name);
            top = top.maximum(&best);
            total = total * (&highest - &higher).exp() + new;
        }
        highest = higher;
    }
    let class_of = Tensor::from_slice(&class_of).to_device(name.device());
    let label = class_of.take(&name);
    Best { label, probability: (top - highest).exp() / total }
}

/// Number of pixels of each class.
fn count(label: &Tensor, classes: usize) -> Vec<f64> {
    let counts = label.reshape([-1]).bincount::<Tensor>(None, classes as i64).to_kind(Kind::Double);
    Vec::try_from(counts.to_device(tch::Device::Cpu)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::inference::labels::bytes;

    /// The definition, one step after the other: all names at once.
    fn plain(scores: &Tensor, classes: &[Range<i64>], [height, width]: [i64; 2], rule: &NameRule) -> Vec<u8> {
        let full = scores.unsqueeze(0).upsample_bilinear2d([height, width], false, None, None).squeeze_dim(0);
        let names = (full.to_kind(Kind::Double) * rule.scale).softmax(0, Kind::Double);
        let of_class = |range: &Range<i64>| {
            names.narrow(0, range.start, range.end - range.start).amax([0i64].as_slice(), false)
        };
        let probabilities = Tensor::stack(&classes.iter().map(of_class).collect::<Vec<_>>(), 0);
        if let Some(share) = rule.least_area {
            let label = probabilities.argmax(0, false);
            let foreground = label.gt(0).sum(Kind::Double).double_value(&[]);
            for class in 1..classes.len() as i64 {
                if label.eq(class).sum(Kind::Double).double_value(&[]) <= share * foreground {
                    let _ = probabilities.get(class).zero_();
                }
            }
        }
        let (probability, label) = probabilities.max_dim(0, false);
        bytes(&(label * probability.ge(rule.threshold).to_kind(Kind::Int64)))
    }

    #[test]
    fn names_in_pieces_give_what_all_give() {
        tch::manual_seed(11);
        for counts in [vec![1i64; 5], vec![7, 1, 2, 4], vec![26, 1, 1, 8, 5]] {
            let mut from = 0;
            let classes: Vec<Range<i64>> = counts
                .iter()
                .map(|count| {
                    from += count;
                    from - count..from
                })
                .collect();
            let scores = Tensor::rand([from, 9, 7], (Kind::Float, Device::Cpu)) * 0.4;
            let pixels = Tensor::zeros([1, 9, 7, 3], (Kind::Float, Device::Cpu));
            for least_area in [None, Some(0.1), Some(0.3)] {
                for (threshold, scale) in [(0.0, 40.0), (0.1, 40.0), (0.3, 65.0)] {
                    let rule = NameRule { scale, threshold, least_area, pamr: None };
                    let found = bytes(&decide(&scores, &classes, [20, 31], &rule, &pixels));
                    assert_eq!(found, plain(&scores, &classes, [20, 31], &rule), "{counts:?} {rule:?}");
                }
            }
        }
    }

    /// By hand: two classes of one name and a class of three. Three equal names share their probability, so a lower score wins.
    #[test]
    fn more_names_split_the_probability() {
        let column = |values: [f32; 5]| Tensor::from_slice(&values).view([5, 1, 1]);
        let classes = [0..1, 1..2, 2..5];
        let pixels = Tensor::zeros([1, 1, 1, 3], (Kind::Float, Device::Cpu));
        let rule = |threshold: f64| NameRule { scale: 1.0, threshold, least_area: None, pamr: None };
        let label = |values: [f32; 5], threshold: f64| {
            bytes(&decide(&column(values), &classes, [1, 1], &rule(threshold), &pixels))[0]
        };
        // exp: 1, e, and three times e: the best has e / (1 + 4 e) = 0.229; a tie goes to the first class.
        assert_eq!(label([0.0, 1.0, 1.0, 1.0, 1.0], 0.2), 1);
        assert_eq!(label([0.0, 1.0, 1.0, 1.0, 1.0], 0.24), 0);
        assert_eq!(label([0.0, 1.0, 1.1, 1.0, 1.0], 0.2), 2);
    }
}
