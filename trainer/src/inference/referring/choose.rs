//! Which parts of a mask an expression means.

use super::components::Component;
use super::expression::{Expression, Number};
use super::words::{Relation, Side, Size};

/// Parts below this share of the area of the largest one are not considered.
const LEAST: f64 = 0.05;

/// The other thing of a relation: the mean position of its pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Anchor {
    /// From the left, as a share of the width.
    pub x: f64,
    /// From the top, as a share of the height.
    pub y: f64,
}

/// The numbers of the parts that the expression means, of those in `parts` that are not in `taken` (the other thing of its relation).
///
/// - The score of a part is its mean similarity, times its ramp for each word of place, times its share for a word of size (area /
///   largest area, or smallest area / area), times its share for the relation (0.5 + half the distance towards the side, or 1 - distance /
///   diagonal).
/// - With a rank, the part of this rank from the side is meant, or the last one if there are fewer.
/// - Singular: the part with the highest score. A number: that many. Plural: all, with words of place those in this half of the image, with
///   a relation to a side those on this side.
pub fn choose(
    parts: &[Component],
    expression: &Expression,
    anchor: Option<Anchor>,
    taken: &[usize],
) -> Vec<usize> {
    let largest = parts.iter().map(|part| part.area).max().unwrap_or(0);
    let is_large = |number: &usize| parts[*number].area as f64 >= LEAST * largest as f64;
    let mut some: Vec<usize> = (0..parts.len()).filter(is_large).collect();
    if some.iter().any(|number| !taken.contains(number)) {
        some.retain(|number| !taken.contains(number));
    }
    if let Some((rank, side)) = expression.rank {
        let along = |number: &usize| match side {
            Side::Left => parts[*number].x,
            Side::Right => -parts[*number].x,
            Side::Top => parts[*number].y,
            Side::Bottom => -parts[*number].y,
        };
        some.sort_by(|a, b| along(a).total_cmp(&along(b)));
        return some.get(rank - 1).or(some.last()).copied().into_iter().collect();
    }
    let areas = || some.iter().map(|&number| parts[number].area as f64);
    let (greatest, least) = (areas().fold(0.0, f64::max), areas().fold(f64::INFINITY, f64::min));
    let related = |part: &Component| match (&expression.relation, anchor) {
        (Some((relation, _)), Some(anchor)) => share(*relation, part, anchor),
        _ => 1.0,
    };
    let score = |number: &usize| {
        let part = &parts[*number];
        let place: f64 = expression.places.iter().map(|place| part.at(*place)).product();
        let size = match expression.size {
            Some(Size::Big) => part.area as f64 / greatest,
            Some(Size::Small) => least / part.area as f64,
            None => 1.0,
        };
        part.similarity * place * size * related(part)
    };
    let mut ranked = some.clone();
    ranked.sort_by(|a, b| score(b).total_cmp(&score(a)));
    match expression.number {
        Number::One => ranked.truncate(1),
        Number::Count(count) => ranked.truncate(count),
        Number::All => {
            let to_a_side = matches!(expression.relation, Some((Relation::Towards(_), _)));
            let fits = |number: &usize| {
                let part = &parts[*number];
                expression.places.iter().all(|place| part.at(*place) >= 0.5)
                    && (!to_a_side || related(part) > 0.5)
            };
            if ranked.iter().any(fits) {
                ranked.retain(fits);
            }
        }
    }
    ranked
}

/// How well a part is where the relation says, 0 to 1.
fn share(relation: Relation, part: &Component, anchor: Anchor) -> f64 {
    let (dx, dy) = (part.x - anchor.x, part.y - anchor.y);
    match relation {
        Relation::Near => 1.0 - (dx.hypot(dy) / std::f64::consts::SQRT_2),
        Relation::Towards(Side::Left) => 0.5 - dx / 2.0,
        Relation::Towards(Side::Right) => 0.5 + dx / 2.0,
        Relation::Towards(Side::Top) => 0.5 - dy / 2.0,
        Relation::Towards(Side::Bottom) => 0.5 + dy / 2.0,
    }
}
