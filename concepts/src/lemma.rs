//! Lemmas (singular forms) of nouns: "women" -> "woman", "sandwiches" -> "sandwich", "tennis" -> "tennis".

use std::borrow::Cow;
use std::collections::HashMap;

use crate::tagger::{Form, Tag};

/// Irregular plurals of WordNet 3.0, one per line: "plural singular ..".
const IRREGULAR: &str = include_str!("../models/noun.exc");
/// The single-word nouns of WordNet 3.0, one per line.
const NOUNS: &str = include_str!("../models/nouns.txt");

/// Exceptions: plurals for which WordNet's list gives a singular that captions do not mean, and words for things that
/// come in pairs, such as jeans.
const OVERRIDES: &[(&str, &str)] = &[
    ("people", "people"),
    ("men", "man"),
    ("women", "woman"),
    ("children", "child"),
    ("data", "data"),
    ("media", "media"),
    ("news", "news"),
    ("series", "series"),
    ("species", "species"),
    ("axes", "axe"),
    ("graffiti", "graffiti"),
    ("goggles", "goggles"),
    ("jeans", "jeans"),
    ("leggings", "leggings"),
    ("pajamas", "pajamas"),
    ("pants", "pants"),
    ("shorts", "shorts"),
    ("sunglasses", "sunglasses"),
    ("tights", "tights"),
    ("trousers", "trousers"),
];

/// Plural ending -> singular ending, tried in this order; the first one that gives a known noun is used.
const SUFFIXES: &[(&str, &str)] = &[
    ("ies", "y"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("xes", "x"),
    ("zes", "z"),
    ("sses", "ss"),
    ("s", ""),
    ("ses", "s"),
    ("men", "man"),
];

/// Finds the singular of nouns.
#[derive(Debug)]
pub(crate) struct Lemmatiser {
    irregular: HashMap<&'static str, &'static str>,
    /// The keys of `irregular`: a faster search, which most words end.
    plurals: WordSet,
    nouns: WordSet,
}

impl Lemmatiser {
    pub(crate) fn new() -> Self {
        let pairs = IRREGULAR.lines().filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?))
        });
        let mut irregular: HashMap<_, _> = pairs.collect();
        irregular.extend(OVERRIDES.iter().copied());
        let plurals = WordSet::new(irregular.keys().copied());
        Self { irregular, plurals, nouns: WordSet::new(NOUNS.lines()) }
    }

    /// The lemma of a noun with this part-of-speech tag.
    pub(crate) fn lemma<'a>(&self, word: &'a str, tag: Tag) -> Cow<'a, str> {
        let hash = WordSet::hash(word);
        if self.plurals.contains(hash)
            && let Some(singular) = self.irregular.get(word)
        {
            return Cow::Borrowed(singular);
        }
        let plural = tag == Tag::NNS || tag == Tag::NNPS;
        if !word.ends_with('s') && !word.ends_with("men") || !plural && self.nouns.contains(hash) {
            return Cow::Borrowed(word);
        }
        // Only the last part of a hyphenated word such as "double-deckers" is looked up.
        let part = word.rfind('-').map_or(0, |hyphen| hyphen + 1);
        for (ending, singular) in SUFFIXES {
            let Some(stem) = word.strip_suffix(ending).filter(|stem| stem.len() > part + 1) else { continue };
            let candidate = match *singular {
                "" => Cow::Borrowed(stem),
                singular => Cow::Owned(format!("{stem}{singular}")),
            };
            if self.nouns.contains(WordSet::hash(&candidate[part..])) {
                return candidate;
            }
        }
        // Left: an unknown plural ("selfies"), or a noun without a singular ("scissors").
        if plural && !self.nouns.contains(WordSet::hash(&word[part..])) {
            regular(word)
        } else {
            Cow::Borrowed(word)
        }
    }
}

/// The singular by spelling rules only.
fn regular(word: &str) -> Cow<'_, str> {
    let ends = |endings: &[&str]| endings.iter().any(|ending| word.ends_with(ending));
    if word.len() < 4 || ends(&["ss", "us", "is"]) {
        Cow::Borrowed(word)
    } else if ends(&["ches", "shes", "xes", "sses"]) {
        Cow::Borrowed(&word[..word.len() - 2])
    } else {
        Cow::Borrowed(word.strip_suffix('s').unwrap_or(word))
    }
}

/// A set of words, stored as 32-bit hashes: about one unknown word in 70,000 is wrongly found in it.
#[derive(Debug)]
struct WordSet {
    /// Open addressing; 0 marks an empty slot.
    slots: Vec<u32>,
}

impl WordSet {
    fn new(words: impl Iterator<Item = &'static str> + Clone) -> Self {
        let size = (words.clone().count() * 2).next_power_of_two().max(2);
        let mut slots = vec![0; size];
        for word in words {
            let hash = Self::hash(word);
            let mut at = hash as usize & (size - 1);
            while slots[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            slots[at] = hash;
        }
        Self { slots }
    }

    fn hash(word: &str) -> u32 {
        Form::bare(word).word.max(1)
    }

    /// Whether the word with this hash is in the set.
    fn contains(&self, hash: u32) -> bool {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != 0 {
            if self.slots[at] == hash {
                return true;
            }
            at = (at + 1) & mask;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_become_singular_and_singulars_stay() {
        let lemmatiser = Lemmatiser::new();
        for (plural, singular) in [
            ("dogs", "dog"),
            ("women", "woman"),
            ("sandwiches", "sandwich"),
            ("buses", "bus"),
            ("knives", "knife"),
            ("berries", "berry"),
            ("movies", "movie"),
            ("shoes", "shoe"),
            ("horses", "horse"),
            ("glasses", "glass"),
            ("boxes", "box"),
            ("firemen", "fireman"),
            ("double-deckers", "double-decker"),
            ("sheep", "sheep"),
            ("people", "people"),
            ("selfies", "selfie"),
            ("scissors", "scissors"),
            ("jeans", "jeans"),
            ("axes", "axe"),
        ] {
            assert_eq!(lemmatiser.lemma(plural, Tag::NNS), singular, "{plural}");
        }
        for word in
            ["tennis", "bus", "glass", "grass", "gas", "christmas", "news", "series", "dog", "", "s", "-s"]
        {
            assert_eq!(lemmatiser.lemma(word, Tag::NN), word);
        }
        assert_eq!(lemmatiser.lemma("zebras", Tag::NN), "zebra", "a plural that is tagged as a singular");
    }
}
