//! Referring expressions: phrases that mean certain objects of a scene, or nothing in it, by kind.
//!
//! An expression is written only where it means exactly its objects: where objects of the class are hidden, or too similar in what the
//! kind is about (size, place), there is none of that kind.

use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::classes::{CLASSES, GROUNDS};
use super::colours::COLOURS;
use super::draw::{Placed, Scene};

/// A phrase for objects of a scene.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expression {
    pub(crate) text: String,
    /// What tells the objects from others: `name`, `colour`, `size`, `place`, `relation` or `all`; for nothing in the scene
    /// `absent-name`, `absent-colour` or `absent-pairing`.
    pub(crate) kind: &'static str,
    /// The values of the objects in the mask of instances; empty: none is meant.
    pub(crate) objects: Vec<u8>,
}

/// How much larger an object is than another, in radius and in visible pixels, if one is "the larger".
const LARGER: f32 = 1.25;
/// How far apart two objects are on an axis if one is "on the left", as a fraction of the image's width.
const APART: f32 = 0.15;
/// How much nearer an object is than another if it is "next to" something.
const NEARER: f32 = 0.6;

/// The objects of one class, with their values in the mask of instances.
type Group<'a> = Vec<(u8, &'a Placed)>;

/// Writes at most one expression of each kind.
pub(crate) fn write(scene: &Scene, rng: &mut ChaCha8Rng) -> Vec<Expression> {
    let mut groups: Vec<Group> = vec![Vec::new(); CLASSES.len()];
    for (value, placed) in (1..).zip(&scene.placed) {
        groups[placed.object.class].push((value, placed));
    }
    let absent: Vec<usize> = (GROUNDS..CLASSES.len()).filter(|&class| groups[class].is_empty()).collect();
    // An object that is hidden but for a few pixels could be meant too.
    let mut clear: Vec<&Group> = groups
        .iter()
        .filter(|group| !group.is_empty() && group.iter().all(|(_, placed)| placed.visible))
        .collect();
    clear.shuffle(rng);
    let several: Vec<&Group> = clear.iter().copied().filter(|group| group.len() > 1).collect();
    let single: Vec<&Group> = clear.iter().copied().filter(|group| group.len() == 1).collect();

    let mut found = Vec::new();
    if let Some(group) = single.first() {
        found.push(one("name", format!("the {}", name(group)), group[0].0));
    }
    found.extend(several.iter().find_map(|group| by_colour(group)));
    found.extend(several.iter().find_map(|group| by_size(group, rng)));
    found.extend(several.iter().find_map(|group| by_place(group, rng)));
    found.extend(
        several.iter().find_map(|group| single.iter().find_map(|other| by_relation(group, other, rng))),
    );
    if let Some(group) = several.first() {
        let plural = CLASSES[group[0].1.object.class].plural;
        let number = if group.len() == 2 { "both" } else { "all" };
        let text =
            [format!("{number} {plural}"), format!("the {plural}")].choose(rng).cloned().unwrap_or_default();
        found.push(Expression {
            text,
            kind: "all",
            objects: group.iter().map(|&(value, _)| value).collect(),
        });
    }
    let none = |kind, text| Expression { text, kind, objects: Vec::new() };
    if let Some(&class) = absent.choose(rng) {
        found.push(none("absent-name", format!("the {}", CLASSES[class].name)));
    }
    let present = |colour: usize| scene.placed.iter().any(|placed| placed.object.colour == Some(colour));
    let (there, elsewhere): (Vec<usize>, Vec<usize>) =
        (0..COLOURS.len()).partition(|&colour| present(colour));
    if let Some(group) = clear.first().filter(|group| group[0].1.object.colour.is_some()) {
        if let Some(&colour) = elsewhere.choose(rng) {
            found.push(none("absent-colour", format!("the {} {}", COLOURS[colour], name(group))));
        }
        let others: Vec<usize> = there
            .into_iter()
            .filter(|&colour| group.iter().all(|(_, p)| p.object.colour != Some(colour)))
            .collect();
        if let Some(&colour) = others.choose(rng) {
            found.push(none("absent-pairing", format!("the {} {}", COLOURS[colour], name(group))));
        }
    }
    found
}

fn name(group: &Group) -> &'static str {
    CLASSES[group[0].1.object.class].name
}

fn one(kind: &'static str, text: String, object: u8) -> Expression {
    Expression { text, kind, objects: vec![object] }
}

/// An object whose colour no other of its class has.
fn by_colour(group: &Group) -> Option<Expression> {
    group.iter().find_map(|&(value, placed)| {
        let colour = placed.object.colour?;
        let alone = group.iter().filter(|(_, other)| other.object.colour == Some(colour)).count() == 1;
        alone.then(|| one("colour", format!("the {} {}", COLOURS[colour], name(group)), value))
    })
}

/// The larger or the smaller of two.
fn by_size(group: &Group, rng: &mut ChaCha8Rng) -> Option<Expression> {
    let [first, second] = group[..] else { return None };
    let (large, small) =
        if first.1.object.radius > second.1.object.radius { (first, second) } else { (second, first) };
    let clear = large.1.object.radius >= LARGER * small.1.object.radius
        && large.1.pixels as f32 >= LARGER * small.1.pixels as f32;
    let words = [("larger", large), ("big", large), ("smaller", small), ("small", small)];
    let (word, (value, _)) = clear.then(|| words.choose(rng).copied()).flatten()?;
    Some(one("size", format!("the {word} {}", name(group)), value))
}

/// The object that is farthest to a side.
fn by_place(group: &Group, rng: &mut ChaCha8Rng) -> Option<Expression> {
    type Along = fn(&Placed) -> f32;
    let mut sides: [(Along, [&str; 2]); 4] = [
        (|placed| placed.object.x, ["the {} on the left", "the left {}"]),
        (|placed| -placed.object.x, ["the {} on the right", "the right {}"]),
        (|placed| placed.object.y, ["the {} at the top", "the upper {}"]),
        (|placed| -placed.object.y, ["the {} at the bottom", "the lower {}"]),
    ];
    sides.shuffle(rng);
    let (pattern, value) = sides.into_iter().find_map(|(along, patterns)| {
        let mut ranked = group.clone();
        ranked.sort_by(|a, b| along(a.1).total_cmp(&along(b.1)));
        let apart = along(ranked[1].1) - along(ranked[0].1) >= APART;
        apart.then(|| (patterns.choose(rng).copied().unwrap_or(patterns[0]), ranked[0].0))
    })?;
    Some(one("place", pattern.replace("{}", name(group)), value))
}

/// The only object of its class that is on a side of another object, or near it.
fn by_relation(group: &Group, other: &Group, rng: &mut ChaCha8Rng) -> Option<Expression> {
    let to = &other[0].1.object;
    let reach = |placed: &Placed| (placed.object.x - to.x).hypot(placed.object.y - to.y);
    type Beyond = fn(f32, f32) -> f32;
    let mut relations: [(Beyond, &str); 4] = [
        (|dx, _| -dx, "to the left of"),
        (|dx, _| dx, "to the right of"),
        (|_, dy| -dy, "above"),
        (|_, dy| dy, "below"),
    ];
    relations.shuffle(rng);
    let by_side = relations.into_iter().find_map(|(beyond, words)| {
        let far = |placed: &Placed| beyond(placed.object.x - to.x, placed.object.y - to.y);
        let (on, off): (Group, Group) = group.iter().partition(|(_, placed)| far(placed) > 0.0);
        let clear = group.iter().all(|(_, placed)| far(placed).abs() >= 0.5 * APART);
        (on.len() == 1 && !off.is_empty() && clear).then(|| (words, on[0].0))
    });
    let (words, value) = by_side.or_else(|| {
        let mut near = group.clone();
        near.sort_by(|a, b| reach(a.1).total_cmp(&reach(b.1)));
        (reach(near[0].1) < NEARER * reach(near[1].1)).then(|| ("next to", near[0].0))
    })?;
    Some(one("relation", format!("the {} {words} the {}", name(group), name(other)), value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::draw::{Content, draw, stream};
    use super::*;

    /// The expressions of many coloured scenes.
    fn scenes(mut each: impl FnMut(&Scene, &Expression)) {
        let content = Content { colours: true, ..Content::default() };
        for index in 0..250 {
            let scene = draw(5, index, 56, &content);
            for expression in write(&scene, &mut stream(5, index, 1)) {
                each(&scene, &expression);
            }
        }
    }

    #[test]
    fn every_kind_occurs_and_means_objects_of_its_class() {
        let mut counts = BTreeMap::new();
        scenes(|scene, expression| {
            *counts.entry(expression.kind).or_insert(0) += 1;
            let subject = expression.text.split(" of the ").next().unwrap_or_default();
            let subject =
                subject.split(" the ").next().unwrap_or_default().split(" to ").next().unwrap_or_default();
            for &value in &expression.objects {
                let placed = &scene.placed[usize::from(value) - 1];
                let class = &CLASSES[placed.object.class];
                assert!(
                    subject.contains(class.name) || subject.contains(class.plural),
                    "{}",
                    expression.text
                );
                assert!(placed.visible && scene.instances.contains(&value), "{}", expression.text);
            }
            assert_eq!(
                expression.objects.is_empty(),
                expression.kind.starts_with("absent"),
                "{}",
                expression.text
            );
        });
        let kinds = [
            "name",
            "colour",
            "size",
            "place",
            "relation",
            "all",
            "absent-name",
            "absent-colour",
            "absent-pairing",
        ];
        for kind in kinds {
            assert!(counts.get(kind).is_some_and(|&count| count >= 20), "{kind}: {counts:?}");
        }
        assert_eq!(counts.len(), kinds.len());
    }

    #[test]
    fn colours_are_those_of_the_objects() {
        scenes(|scene, expression| {
            let Some(colour) =
                COLOURS.iter().position(|colour| expression.text.starts_with(&format!("the {colour} ")))
            else {
                return;
            };
            let rest = expression.text[5 + COLOURS[colour].len()..].to_owned();
            let fits = (1..).zip(&scene.placed).filter(|(_, placed)| {
                CLASSES[placed.object.class].name == rest && placed.object.colour == Some(colour)
            });
            assert_eq!(
                fits.map(|(value, _)| value).collect::<Vec<u8>>(),
                expression.objects,
                "{}",
                expression.text
            );
            let present = scene.placed.iter().any(|placed| placed.object.colour == Some(colour));
            assert_eq!(
                present,
                expression.kind != "absent-colour",
                "{} ({})",
                expression.text,
                expression.kind
            );
        });
    }

    #[test]
    fn places_and_relations_hold_of_the_object_and_of_no_other() {
        let mut checked = 0;
        scenes(|scene, expression| {
            let &[value] = &expression.objects[..] else { return };
            let meant = &scene.placed[usize::from(value) - 1].object;
            let others = (1..)
                .zip(&scene.placed)
                .filter(|&(other, placed)| other != value && placed.object.class == meant.class);
            let others: Vec<_> = others.map(|(_, placed)| &placed.object).collect();
            let all =
                |holds: &dyn Fn(f32, f32, f32) -> bool| others.iter().all(|o| holds(o.x, o.y, o.radius));
            let text = &expression.text;
            let holds = match expression.kind {
                "name" => others.is_empty(),
                "size" if text.contains("larger") || text.contains("big") => all(&|_, _, r| meant.radius > r),
                "size" => all(&|_, _, r| meant.radius < r),
                "place" if text.contains("left") => all(&|x, _, _| meant.x < x),
                "place" if text.contains("right") => all(&|x, _, _| meant.x > x),
                "place" if text.contains("top") || text.contains("upper") => all(&|_, y, _| meant.y < y),
                "place" => all(&|_, y, _| meant.y > y),
                "relation" => {
                    let name = text.rsplit(" the ").next().unwrap_or_default();
                    let to = scene.placed.iter().find(|placed| CLASSES[placed.object.class].name == name);
                    let to = &to.expect("the other object is there").object;
                    let off = |one: f32, than: f32, o: f32| (one - than) * (o - than) < 0.0;
                    if text.contains("next to") {
                        let far = |x: f32, y: f32| (x - to.x).hypot(y - to.y);
                        all(&|x, y, _| far(meant.x, meant.y) < far(x, y))
                    } else if text.contains("left") {
                        meant.x < to.x && all(&|x, _, _| off(meant.x, to.x, x))
                    } else if text.contains("right") {
                        meant.x > to.x && all(&|x, _, _| off(meant.x, to.x, x))
                    } else if text.contains("above") {
                        meant.y < to.y && all(&|_, y, _| off(meant.y, to.y, y))
                    } else {
                        meant.y > to.y && all(&|_, y, _| off(meant.y, to.y, y))
                    }
                }
                _ => return,
            };
            checked += 1;
            assert!(holds, "{text}");
        });
        assert!(checked > 200, "{checked}");
    }
}
