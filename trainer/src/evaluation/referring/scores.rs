//! Scores of masks: those of referring segmentation, and the generalised ones for expressions that mean nothing in an image.

use std::collections::BTreeMap;

use serde::Serialize;

/// IoUs of which the precision is given.
pub const PRECISIONS: [f64; 5] = [0.5, 0.6, 0.7, 0.8, 0.9];

/// What is counted for one expression, in pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Pixels of the target.
    pub target: u64,
    /// Pixels of the mask, also if it was held back.
    pub mask: u64,
    /// Pixels of both.
    pub intersection: u64,
    /// Whether the mask was held back: the model says that nothing in the image is meant.
    pub absent: bool,
}

impl Counts {
    /// Of a mask and its target.
    pub fn new(mask: &[bool], target: &[bool], absent: bool) -> Self {
        let count = |which: &mut dyn Iterator<Item = bool>| which.filter(|inside| *inside).count() as u64;
        Self {
            target: count(&mut target.iter().copied()),
            mask: count(&mut mask.iter().copied()),
            intersection: count(&mut mask.iter().zip(target).map(|(a, b)| *a && *b)),
            absent,
        }
    }

    /// Pixels of the mask or the target.
    pub fn union(self) -> u64 {
        self.mask + self.target - self.intersection
    }

    /// Whether there is no mask: it was held back, or has no pixel.
    fn is_none(self) -> bool {
        self.absent || self.mask == 0
    }

    /// Intersection over union; 1 if there is neither a mask nor a target, 0 if there is only one of them.
    pub fn iou(self) -> f64 {
        match (self.is_none(), self.target == 0) {
            (true, true) => 1.0,
            (true, false) | (false, true) => 0.0,
            (false, false) => self.intersection as f64 / self.union() as f64,
        }
    }
}

/// Scores of some expressions, as fractions of 1. What has no expressions to count is `None`.
#[derive(Debug, Clone, Serialize)]
pub struct Scores {
    /// Number of expressions.
    pub expressions: u64,
    /// Those that mean something in their image.
    pub with_target: u64,
    /// Sum of intersections over sum of unions of the expressions with a target; held back masks are empty. Also called cIoU.
    pub oiou: Option<f64>,
    /// Mean IoU of the expressions with a target.
    pub miou: Option<f64>,
    /// Of these, the share with an IoU of at least (or with `above`: more than) each of [`PRECISIONS`].
    pub precision: Option<[f64; 5]>,
    /// Mean IoU of all expressions: gIoU.
    pub giou: Option<f64>,
    /// Sum of intersections over sum of unions of all expressions by ReLA's rules: a held back mask counts in the union, and nothing is
    /// added for an expression without a target that is told to have none.
    pub ciou: Option<f64>,
    /// Share of the expressions without a target that are told to have none.
    pub n_acc: Option<f64>,
    /// Share of the expressions with a target that are given a mask.
    pub t_acc: Option<f64>,
}

/// Sums over expressions.
#[derive(Debug, Clone, Default)]
struct Sums {
    with: u64,
    without: u64,
    intersection: u64,
    union: u64,
    ious: f64,
    precise: [u64; 5],
    all_ious: f64,
    general: [u64; 2],
    told_none: u64,
    told_some: u64,
}

impl Sums {
    fn add(&mut self, counts: Counts, above: bool) {
        let (iou, none) = (counts.iou(), counts.is_none());
        self.all_ious += iou;
        if counts.target == 0 {
            self.without += 1;
            self.told_none += u64::from(none);
            self.general[1] += if none { 0 } else { counts.mask };
            return;
        }
        self.with += 1;
        self.told_some += u64::from(!none);
        self.ious += iou;
        let hit = |at: &f64| if above { iou > *at } else { iou >= *at };
        self.precise.iter_mut().zip(&PRECISIONS).for_each(|(count, at)| *count += u64::from(hit(at)));
        let intersection = if none { 0 } else { counts.intersection };
        self.intersection += intersection;
        self.union += if none { counts.target } else { counts.union() };
        self.general[0] += intersection;
        self.general[1] += counts.union();
    }

    fn scores(&self) -> Scores {
        let of = |part: u64, all: u64| (all > 0).then(|| part as f64 / all as f64);
        let mean = |sum: f64, all: u64| (all > 0).then(|| sum / all as f64);
        Scores {
            expressions: self.with + self.without,
            with_target: self.with,
            oiou: of(self.intersection, self.union),
            miou: mean(self.ious, self.with),
            precision: (self.with > 0).then(|| self.precise.map(|count| count as f64 / self.with as f64)),
            giou: mean(self.all_ious, self.with + self.without),
            ciou: of(self.general[0], self.general[1]),
            n_acc: of(self.told_none, self.without),
            t_acc: of(self.told_some, self.with),
        }
    }
}

/// The scores so far, of all expressions and of each group.
#[derive(Debug, Default)]
pub struct Tally {
    all: Sums,
    groups: BTreeMap<String, Sums>,
    above: bool,
}

impl Tally {
    /// `above`: precision counts IoUs above the threshold only, not those equal to it.
    pub fn new(above: bool) -> Self {
        Self { above, ..Self::default() }
    }

    /// Adds an expression of these groups.
    pub fn add(&mut self, counts: Counts, groups: &[String]) {
        self.all.add(counts, self.above);
        for group in groups {
            self.groups.entry(group.clone()).or_default().add(counts, self.above);
        }
    }

    /// Scores of all expressions.
    pub fn scores(&self) -> Scores {
        self.all.scores()
    }

    /// Scores of each group, by name.
    pub fn groups(&self) -> BTreeMap<String, Scores> {
        self.groups.iter().map(|(name, sums)| (name.clone(), sums.scores())).collect()
    }
}

/// Share of the expressions with a target that must still be given a mask by [`calibrated`].
pub const KEPT: f64 = 0.95;

/// The highest threshold for the maximum of a map at which at least [`KEPT`] of the expressions with a target still get a mask, and the
/// shares of the expressions without and with a target that are then told right; from the maximum of each map and whether there is a
/// target. `None` without an expression with a target.
pub fn calibrated(maxima: &[(f64, bool)]) -> Option<Calibration> {
    let mut with: Vec<f64> = maxima.iter().filter(|(_, target)| *target).map(|(value, _)| *value).collect();
    with.sort_by(f64::total_cmp);
    let lost = (with.len() as f64 * (1.0 - KEPT) + 1e-9) as usize;
    let threshold = *with.get(lost)?;
    let share = |values: Vec<bool>| {
        (!values.is_empty()).then(|| values.iter().filter(|hit| **hit).count() as f64 / values.len() as f64)
    };
    let of = |wanted: bool| maxima.iter().filter(move |(_, target)| *target == wanted);
    Some(Calibration {
        absent_below: threshold,
        t_acc: share(of(true).map(|(value, _)| *value >= threshold).collect()),
        n_acc: share(of(false).map(|(value, _)| *value < threshold).collect()),
    })
}

/// See [`calibrated`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Calibration {
    /// The value for `--absent-below`.
    pub absent_below: f64,
    /// T-acc there.
    pub t_acc: Option<f64>,
    /// N-acc there.
    pub n_acc: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(mask: u64, target: u64, intersection: u64, absent: bool) -> Counts {
        Counts { target, mask, intersection, absent }
    }

    #[test]
    fn scores_by_hand() {
        let mut tally = Tally::new(false);
        for each in [
            counts(10, 10, 10, false), // IoU 1
            counts(6, 4, 4, false),    // 4 / 6
            counts(5, 10, 5, false),   // 0.5 exactly
            counts(8, 2, 1, true),     // held back: 0, union 9 by ReLA, 2 otherwise
            counts(7, 0, 0, true),     // right: no target
            counts(7, 0, 0, false),    // wrong
        ] {
            tally.add(each, &[]);
        }
        let found = tally.scores();
        assert_eq!((found.expressions, found.with_target), (6, 4));
        let near = |found: Option<f64>, expected: f64| {
            assert!((found.unwrap() - expected).abs() < 1e-12, "{found:?} {expected}");
        };
        near(found.oiou, 19.0 / (10.0 + 6.0 + 10.0 + 2.0));
        near(found.miou, (1.0 + 4.0 / 6.0 + 0.5 + 0.0) / 4.0);
        near(found.ciou, 19.0 / (10.0 + 6.0 + 10.0 + 9.0 + 7.0));
        near(found.giou, (1.0 + 4.0 / 6.0 + 0.5 + 0.0 + 1.0 + 0.0) / 6.0);
        near(found.n_acc, 0.5);
        near(found.t_acc, 0.75);
        assert_eq!(found.precision.unwrap(), [0.75, 0.5, 0.25, 0.25, 0.25]);
        let mut above = Tally::new(true);
        above.add(counts(5, 10, 5, false), &["a".to_owned()]);
        assert_eq!(above.groups()["a"].precision.unwrap(), [0.0; 5], "0.5 is not above 0.5");
    }

    #[test]
    fn calibration_keeps_95_of_100() {
        let mut maxima: Vec<(f64, bool)> = (0..100).map(|i| (f64::from(i), true)).collect();
        maxima.extend([(3.0, false), (4.5, false), (5.0, false), (50.0, false)]);
        let found = calibrated(&maxima).unwrap();
        assert_eq!((found.absent_below, found.t_acc, found.n_acc), (5.0, Some(0.95), Some(0.5)));
        assert_eq!(calibrated(&[(1.0, false)]), None);
    }
}
