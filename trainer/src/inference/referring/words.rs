//! The words of expressions that are followed by rule: of place, order, size, number, and between two things.

/// A side of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Small x.
    Left,
    /// Large x.
    Right,
    /// Small y.
    Top,
    /// Large y.
    Bottom,
}

/// A place in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Towards a side.
    At(Side),
    /// Towards the centre.
    Middle,
    /// Towards the nearest corner.
    Corner,
}

/// A size among the things of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// A large area.
    Big,
    /// A small area.
    Small,
}

/// Where a thing is, seen from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Further to this side.
    Towards(Side),
    /// Not far away.
    Near,
}

const PLACES: [(&str, Place); 16] = [
    ("left", Place::At(Side::Left)),
    ("lefthand", Place::At(Side::Left)),
    ("right", Place::At(Side::Right)),
    ("righthand", Place::At(Side::Right)),
    ("top", Place::At(Side::Top)),
    ("upper", Place::At(Side::Top)),
    ("above", Place::At(Side::Top)),
    ("bottom", Place::At(Side::Bottom)),
    ("lower", Place::At(Side::Bottom)),
    ("below", Place::At(Side::Bottom)),
    ("middle", Place::Middle),
    ("center", Place::Middle),
    ("centre", Place::Middle),
    ("central", Place::Middle),
    ("corner", Place::Corner),
    ("corners", Place::Corner),
];

/// Words that are "first from" a side.
const OUTERMOST: [(&str, Side); 6] = [
    ("leftmost", Side::Left),
    ("rightmost", Side::Right),
    ("topmost", Side::Top),
    ("uppermost", Side::Top),
    ("bottommost", Side::Bottom),
    ("lowermost", Side::Bottom),
];

const ORDINALS: [(&str, &str); 8] = [
    ("first", "1st"),
    ("second", "2nd"),
    ("third", "3rd"),
    ("fourth", "4th"),
    ("fifth", "5th"),
    ("sixth", "6th"),
    ("seventh", "7th"),
    ("eighth", "8th"),
];

const NUMBERS: [&str; 9] = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

const BIG: [&str; 7] = ["big", "bigger", "biggest", "large", "larger", "largest", "huge"];
const SMALL: [&str; 7] = ["small", "smaller", "smallest", "little", "tiny", "tinier", "tiniest"];

/// The longest first.
const RELATIONS: [(&[&str], Relation); 20] = [
    (&["to", "the", "left", "of"], Relation::Towards(Side::Left)),
    (&["on", "the", "left", "of"], Relation::Towards(Side::Left)),
    (&["to", "the", "right", "of"], Relation::Towards(Side::Right)),
    (&["on", "the", "right", "of"], Relation::Towards(Side::Right)),
    (&["on", "top", "of"], Relation::Towards(Side::Top)),
    (&["left", "of"], Relation::Towards(Side::Left)),
    (&["right", "of"], Relation::Towards(Side::Right)),
    (&["above"], Relation::Towards(Side::Top)),
    (&["over"], Relation::Towards(Side::Top)),
    (&["below"], Relation::Towards(Side::Bottom)),
    (&["under"], Relation::Towards(Side::Bottom)),
    (&["beneath"], Relation::Towards(Side::Bottom)),
    (&["underneath"], Relation::Towards(Side::Bottom)),
    (&["next", "to"], Relation::Near),
    (&["close", "to"], Relation::Near),
    (&["closest", "to"], Relation::Near),
    (&["nearest", "to"], Relation::Near),
    (&["beside"], Relation::Near),
    (&["near"], Relation::Near),
    (&["by"], Relation::Near),
];

/// Nouns that name a part of the image, or the image, but nothing in it.
const NO_THINGS: [&str; 22] = [
    "side",
    "part",
    "half",
    "region",
    "section",
    "area",
    "edge",
    "end",
    "row",
    "column",
    "image",
    "picture",
    "photo",
    "photograph",
    "pic",
    "frame",
    "view",
    "front",
    "back",
    "background",
    "foreground",
    "way",
];

/// Without the hyphen of "left-most" and "left-hand".
fn plain(word: &str) -> String {
    word.replace('-', "")
}

pub(super) fn place(word: &str) -> Option<Place> {
    let word = plain(word);
    PLACES.iter().find(|(name, _)| *name == word).map(|(_, place)| *place)
}

pub(super) fn outermost(word: &str) -> Option<Side> {
    let word = plain(word);
    OUTERMOST.iter().find(|(name, _)| *name == word).map(|(_, side)| *side)
}

/// "second" is 2.
pub(super) fn ordinal(word: &str) -> Option<usize> {
    ORDINALS.iter().position(|(name, figure)| *name == word || *figure == word).map(|at| at + 1)
}

/// "two" is 2, and so is "both".
pub(super) fn number(word: &str) -> Option<usize> {
    let figure = || word.parse().ok().filter(|&count: &usize| (2..=99).contains(&count));
    let named = NUMBERS.iter().position(|name| *name == word).map(|at| at + 2);
    named.or_else(|| (word == "both").then_some(2)).or_else(figure)
}

pub(super) fn size(word: &str) -> Option<Size> {
    if BIG.contains(&word) {
        return Some(Size::Big);
    }
    SMALL.contains(&word).then_some(Size::Small)
}

/// The relation that these words begin with, and how many words it has.
pub(super) fn relation(words: &[&str]) -> Option<(Relation, usize)> {
    let begins = |(names, _): &&(&[&str], Relation)| words.starts_with(names);
    RELATIONS.iter().find(begins).map(|(names, relation)| (*relation, names.len()))
}

/// Whether a noun names a thing in the image.
pub(super) fn is_thing(noun: &str) -> bool {
    place(noun).is_none() && !NO_THINGS.contains(&noun.trim_end_matches('s'))
}

/// The expression for the image mirrored left to right: the words for left and right change places.
pub fn mirrored(expression: &str) -> String {
    let swap = |word: &str| {
        let lower = word.to_ascii_lowercase();
        for (from, to) in [("left", "right"), ("right", "left")] {
            if lower == from || lower == format!("{from}most") || lower == format!("{from}hand") {
                return format!("{to}{}", &lower[from.len()..]);
            }
        }
        word.to_owned()
    };
    let mut out = String::new();
    let mut word = String::new();
    for c in expression.chars() {
        if c.is_alphanumeric() {
            word.push(c);
        } else {
            out.push_str(&swap(&std::mem::take(&mut word)));
            out.push(c);
        }
    }
    out.push_str(&swap(&word));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_and_right_change_places() {
        for (text, expected) in [
            ("the car left of the tree", "the car right of the tree"),
            ("Rightmost dog, upper-left corner", "leftmost dog, upper-right corner"),
            ("right-hand one leftover", "left-hand one leftover"),
            ("the bright crate", "the bright crate"),
        ] {
            assert_eq!(mirrored(text), expected);
        }
        assert_eq!(mirrored(&mirrored("second from the left")), "second from the left");
    }

    #[test]
    fn words_have_their_meaning() {
        assert_eq!(place("left-hand"), Some(Place::At(Side::Left)));
        assert_eq!((ordinal("3rd"), ordinal("second"), ordinal("zeroth")), (Some(3), Some(2), None));
        assert_eq!(
            (number("both"), number("ten"), number("3"), number("1")),
            (Some(2), Some(10), Some(3), None)
        );
        assert_eq!(relation(&["to", "the", "left", "of", "it"]), Some((Relation::Towards(Side::Left), 4)));
        assert_eq!(relation(&["to", "the", "left"]), None);
        assert!(is_thing("car") && !is_thing("sides") && !is_thing("left"));
    }
}
