//! From the map of an expression to its mask.

use super::choose::{Anchor, choose};
use super::components::{Components, NONE};
use super::expression::Expression;
use super::map::{CutRule, Map};
use crate::error::{Error, Result};

/// How an expression is followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct ReferSettings {
    /// Weight of the embedding of the whole expression; that of its head phrase has the rest. `None` = as suits the model
    /// ([`default_weight`](super::vectors::default_weight)).
    pub expression_weight: Option<f64>,
    /// Where the map is cut.
    pub cut: CutRule,
    /// Nothing is meant if the highest similarity of a patch is below this cosine; `None` = something always is.
    pub absent_below: Option<f64>,
}

impl ReferSettings {
    /// Refuses values outside their range.
    pub fn check(&self) -> Result<()> {
        let refuse = |name: &str, value: f64, right: &str| {
            Err(Error::Setting { name: name.to_owned(), problem: format!("is {value}; it must be {right}") })
        };
        if let Some(weight) = self.expression_weight.filter(|weight| !(0.0..=1.0).contains(weight)) {
            return refuse("--expression-weight", weight, "0 to 1");
        }
        if let Some(least) = self.absent_below.filter(|least| !(-1.0..=1.0).contains(least)) {
            return refuse("--absent-below", least, "a cosine, -1 to 1");
        }
        Ok(())
    }
}

/// What an expression was found to mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Which pixels; also if `absent`, for scores that count a mask that was held back.
    pub mask: Vec<bool>,
    /// The threshold, as a share of the range of the map.
    pub cut: f64,
    /// The highest similarity of a patch.
    pub highest: f64,
    /// Whether it is below `absent_below`, so that nothing is meant.
    pub absent: bool,
}

/// The mask of an expression in its map. `other` is the map of the other thing of its relation, and `highest` the maximum of the
/// expression's map over the patches.
pub fn find(
    expression: &Expression,
    map: &Map,
    other: Option<&Map>,
    highest: f64,
    settings: &ReferSettings,
) -> Found {
    let own = map.cut(settings.cut);
    let parts = Components::new(map, &own.inside);
    let anchor = expression.relation.as_ref().zip(other).map(|((_, thing), map)| {
        let parts = Components::new(map, &map.cut(settings.cut).inside);
        let chosen = choose(&parts.all, thing, None, &[]);
        let place = chosen.first().map(|&number| Anchor { x: parts.all[number].x, y: parts.all[number].y });
        (place, parts.mask(&chosen))
    });
    let (place, taken) = match anchor {
        Some((place, mask)) => (place, mostly_in(&parts, &mask)),
        None => (None, Vec::new()),
    };
    let mask = parts.mask(&choose(&parts.all, expression, place, &taken));
    let absent = settings.absent_below.is_some_and(|least| highest < least);
    Found { mask, cut: own.share, highest, absent }
}

/// The parts of which more than half is inside a mask.
fn mostly_in(parts: &Components, mask: &[bool]) -> Vec<usize> {
    let mut inside = vec![0; parts.all.len()];
    for (&number, _) in parts.numbers.iter().zip(mask).filter(|(number, inside)| **number != NONE && **inside)
    {
        inside[number as usize] += 1;
    }
    (0..parts.all.len()).filter(|&number| 2 * inside[number] > parts.all[number].area).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use concepts::{Extractor, TaggerKind};

    use super::*;
    use crate::inference::referring::words::mirrored;

    static EXTRACTOR: LazyLock<Extractor> = LazyLock::new(|| Extractor::new(TaggerKind::default()).unwrap());

    fn read(text: &str) -> Expression {
        Expression::read(&EXTRACTOR, text)
    }

    /// A map in which '9' is 0.95, '8' is 0.9, '7' is 0.85 .., and '.' is 0.
    fn map(rows: &[&str]) -> Map {
        let value = |c: char| c.to_digit(10).map_or(0.0, |digit| 0.5 + digit as f32 / 20.0);
        let values = rows.iter().flat_map(|row| row.chars().map(value)).collect();
        Map { width: rows[0].len(), height: rows.len(), values }
    }

    fn found(text: &str, map: &Map, other: Option<&Map>) -> Vec<bool> {
        find(&read(text), map, other, 1.0, &ReferSettings::default()).mask
    }

    /// Checks that each expression means the pixels of these digits, and no others.
    fn check(rows: &[&str], other: Option<&[&str]>, expected: &[(&str, &str)]) {
        let other = other.map(map);
        for (text, digits) in expected {
            let wanted: Vec<bool> =
                rows.iter().flat_map(|row| row.chars().map(|c| digits.contains(c))).collect();
            assert_eq!(found(text, &map(rows), other.as_ref()), wanted, "{text}");
        }
    }

    /// Four things. The best cut has all of them: their mean is 0.875 above the rest, and that of the '9' alone 0.95 - 0.15 = 0.8.
    const FOUR: [&str; 6] = [
        "99........88", //
        "99........88",
        "............",
        "............",
        "77........66",
        "77........66",
    ];

    #[test]
    fn one_thing_is_the_most_similar_part() {
        check(&FOUR, None, &[("the crate", "9"), ("crate in the picture", "9")]);
        let settings = ReferSettings { cut: CutRule::Share(0.95), ..ReferSettings::default() };
        let fixed = find(&read("the crates"), &map(&FOUR), None, 1.0, &settings);
        assert_eq!((fixed.cut, fixed.mask.iter().filter(|inside| **inside).count()), (0.95, 4));
    }

    /// The ramps are 11/12 and 1/12 from left to right, 5/6 and 1/6 from top to bottom.
    #[test]
    fn words_of_place_are_ramps() {
        check(
            &FOUR,
            None,
            &[
                ("the crate on the left", "9"),
                ("right crate", "8"),
                ("the lower crate", "7"),
                ("the crate at the bottom right", "6"),
                ("the crate in the upper right corner", "8"),
            ],
        );
        // The ramp of the middle is 1 at the centre and 7/13 at both ends of a single row.
        check(&["9.....8.....9"], None, &[("the crate in the middle", "8")]);
    }

    #[test]
    fn ordinals_are_ranks() {
        check(
            &["7..9..6..8"],
            None,
            &[
                ("the second crate from the left", "9"),
                ("second crate from the right", "6"),
                ("the third crate", "6"),
                ("the leftmost crate", "7"),
                ("the eighth crate from the left", "8"),
            ],
        );
        check(
            &["7", ".", "8", ".", "9"],
            None,
            &[("the second crate from the top", "8"), ("the lowermost crate", "9")],
        );
    }

    #[test]
    fn words_of_size_compare_areas() {
        let rows = ["9..88...77777", "...88...77777"];
        check(
            rows.as_slice(),
            None,
            &[("the small crate", "9"), ("the largest crate", "7"), ("the crate", "9")],
        );
        // Parts below 5 % of the largest are nothing: 1 pixel of 21.
        let rows = ["9.8888888.", "..8888888.", "..8888888."];
        check(rows.as_slice(), None, &[("the small crate", "8"), ("the crate", "8")]);
    }

    #[test]
    fn plurals_keep_several_parts() {
        check(
            &FOUR,
            None,
            &[
                ("the crates", "6789"),
                ("all crates", "6789"),
                ("the two crates", "89"),
                ("three crates", "789"),
                ("the crates on the right", "86"),
                ("the two crates at the bottom", "67"),
            ],
        );
    }

    #[test]
    fn relations_look_from_the_other_thing() {
        let crates = ["9....8....7"];
        let ball = ["......9...."];
        check(
            &crates,
            Some(&ball),
            &[
                ("the crate next to the ball", "8"),
                ("the crate to the right of the ball", "7"),
                ("the crate left of the ball", "9"),
                ("the crates left of the ball", "98"),
            ],
        );
        let column = ["9", ".", ".", ".", "8"];
        let middle = [".", ".", "9", ".", "."];
        check(
            &column,
            Some(&middle),
            &[("the crate below the ball", "8"), ("the crate above the ball", "9")],
        );
        // The other thing is not the thing itself.
        check(&["9..8......7"], Some(&["9..8......7"]), &[("the crate next to the crate", "8")]);
    }

    #[test]
    fn nothing_is_meant_below_the_threshold() {
        let settings = ReferSettings { absent_below: Some(0.3), ..ReferSettings::default() };
        let at = |highest| find(&read("the crate"), &map(&FOUR), None, highest, &settings);
        assert!(at(0.29).absent && !at(0.3).absent);
        assert!(at(0.29).mask.contains(&true), "the mask that is held back is kept for the scores");
    }

    #[test]
    fn the_mirror_image_and_swapped_words_give_the_mirrored_mask() {
        let (width, height) = (15, 8);
        let mut state = 7u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let flip = |map: &Map| {
            let values = map.values.chunks(width).flat_map(|row| row.iter().rev().copied()).collect();
            Map { values, ..*map }
        };
        let mut differ = 0;
        for _ in 0..40 {
            let mut values = || (0..width * height).map(|_| random()).collect::<Vec<f32>>();
            let (own, other) =
                (Map { width, height, values: values() }, Map { width, height, values: values() });
            for text in [
                "the crate on the left",
                "the second crate from the right",
                "the rightmost crate",
                "crates on the right",
                "the large crate left of the ball",
                "the crate next to the ball in the middle",
            ] {
                let straight = found(text, &own, Some(&other));
                let swapped = found(&mirrored(text), &flip(&own), Some(&flip(&other)));
                let back: Vec<bool> =
                    swapped.chunks(width).flat_map(|row| row.iter().rev().copied()).collect();
                assert_eq!(straight, back, "{text}");
                differ += usize::from(found(text, &flip(&own), Some(&flip(&other))) != swapped);
            }
        }
        assert!(differ > 50, "the words matter: {differ} of 240 masks change without the swap");
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for (settings, option) in [
            (
                ReferSettings { expression_weight: Some(1.5), ..ReferSettings::default() },
                "--expression-weight",
            ),
            (ReferSettings { absent_below: Some(f64::NAN), ..ReferSettings::default() }, "--absent-below"),
        ] {
            let error = settings.check().unwrap_err();
            assert!(error.is_wrong_use() && error.to_string().contains(option), "{error}");
        }
    }
}
