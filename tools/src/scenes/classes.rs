//! The classes of the scenes, with their names and the words that correctly describe them.

/// One class. Its index in [`CLASSES`] is its value in the masks and its line in `classes.txt`.
#[derive(Debug)]
pub(crate) struct Class {
    /// The name, as in `classes.txt` and in captions.
    pub(crate) name: &'static str,
    /// The plural; empty for grounds, which are not counted.
    pub(crate) plural: &'static str,
    /// Adjectives, and nouns used like adjectives, that are true of every image of it.
    pub(crate) words: &'static [&'static str],
    /// For grounds: phrases for an object on it; `{}` is replaced by the ground's noun phrase.
    pub(crate) places: &'static [&'static str],
    /// For grounds: phrases for a part of it.
    pub(crate) pieces: &'static [&'static str],
    /// Whether it can belong to a person ("a child's umbrella").
    pub(crate) owned: bool,
    /// Its colour in the masks of the overview sheet.
    pub(crate) colour: [u8; 3],
}

const fn ground(
    name: &'static str,
    words: &'static [&'static str],
    places: &'static [&'static str],
    pieces: &'static [&'static str],
    colour: [u8; 3],
) -> Class {
    Class { name, plural: "", words, places, pieces, owned: false, colour }
}

const fn object(
    name: &'static str,
    plural: &'static str,
    words: &'static [&'static str],
    owned: bool,
    colour: [u8; 3],
) -> Class {
    Class { name, plural, words, places: &[], pieces: &[], owned, colour }
}

/// The first this many of [`CLASSES`] are grounds; the others are objects.
pub(crate) const GROUNDS: usize = 6;

/// All classes. Any two of them differ in colour, texture and shape.
pub(crate) const CLASSES: [Class; 18] = [
    ground(
        "grass",
        &["green", "fresh", "lush", "soft"],
        &["on {}", "in {}"],
        &["a patch of"],
        [124, 179, 66],
    ),
    ground(
        "sand",
        &["golden", "dry", "fine", "warm"],
        &["on {}", "in {}"],
        &["a stretch of", "a lot of"],
        [240, 214, 140],
    ),
    ground(
        "water",
        &["blue", "clear", "calm", "cold"],
        &["in {}", "on {}"],
        &["a stretch of", "a lot of"],
        [66, 133, 214],
    ),
    ground(
        "snow",
        &["white", "fresh", "cold", "bright"],
        &["in {}", "on {}"],
        &["a blanket of", "a lot of"],
        [236, 242, 250],
    ),
    ground(
        "brick wall",
        &["red", "old", "rough"],
        &["in front of {}", "against {}", "by {}"],
        &["a piece of", "a part of"],
        [166, 84, 66],
    ),
    ground("wood", &["dark", "brown", "polished", "old"], &["on {}"], &["a piece of"], [112, 74, 48]),
    object("tennis ball", "tennis balls", &["yellow", "fuzzy", "bright"], true, [206, 230, 36]),
    object("soccer ball", "soccer balls", &["black and white", "leather"], true, [60, 60, 66]),
    object("traffic cone", "traffic cones", &["orange", "striped", "plastic"], false, [255, 118, 20]),
    object("rubber duck", "rubber ducks", &["yellow", "cute", "shiny"], true, [255, 206, 0]),
    object("tree", "trees", &["green", "pine", "evergreen"], false, [8, 92, 62]),
    object("mushroom", "mushrooms", &["red", "spotted"], false, [222, 38, 46]),
    object("umbrella", "umbrellas", &["purple", "open"], true, [142, 68, 190]),
    object("fish", "fish", &["turquoise", "tropical", "colorful"], false, [0, 196, 190]),
    object("flower", "flowers", &["pink", "pretty", "lovely"], false, [255, 128, 178]),
    object("donut", "donuts", &["chocolate", "sweet", "round"], true, [94, 44, 30]),
    object("crate", "crates", &["wooden", "square", "heavy"], true, [222, 176, 96]),
    object("butterfly", "butterflies", &["blue", "elegant", "beautiful"], false, [40, 62, 200]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_colours_are_different() {
        for (i, one) in CLASSES.iter().enumerate() {
            assert_eq!(one.plural.is_empty(), i < GROUNDS, "{}", one.name);
            assert_eq!(one.places.is_empty() || one.pieces.is_empty(), i >= GROUNDS, "{}", one.name);
            assert!(!one.words.is_empty());
            for other in &CLASSES[..i] {
                assert_ne!(one.name, other.name);
                let far = one.colour.iter().zip(other.colour).map(|(a, b)| a.abs_diff(b)).max();
                assert!(far >= Some(24), "{} and {} have similar colours in the masks", one.name, other.name);
            }
        }
        assert!(
            CLASSES.iter().filter(|class| class.name.contains(' ')).count() >= 3,
            "compound nouns are needed"
        );
    }
}
