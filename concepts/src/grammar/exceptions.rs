//! Phrases of the grammar that are none, or that end with a verb.

use super::colours::{is_basic, is_shade};
use super::{Phrase, Role, is_mark, role, role_at};
use crate::tagger::Tag;
use crate::words::Word;

/// Nouns that form a preposition between "in", "on" or "at", and "of".
const PREPOSITION_NOUNS: &[&str] = &["front", "top", "back"];

/// "in front of" and "on top of" are prepositions, "in front" is an adverb; they are no phrases.
pub(super) fn is_preposition(text: &str, words: &[Word], tags: &[Tag], phrase: Phrase) -> bool {
    if phrase.end - phrase.start > 1 || phrase.start == 0 || tags[phrase.start - 1] != Tag::IN {
        return false;
    }
    let noun = words[phrase.start].of(text);
    PREPOSITION_NOUNS.contains(&noun)
        && (words.get(phrase.end).is_some_and(|word| word.of(text) == "of")
            || noun == "front" && words[phrase.start - 1].of(text) == "in")
}

/// Whether a word that is tagged as a noun is a pronoun.
fn is_pronoun_noun(word: &str) -> bool {
    matches!(
        word,
        "something"
            | "someone"
            | "somebody"
            | "anything"
            | "anyone"
            | "anybody"
            | "nothing"
            | "nobody"
            | "everything"
            | "everyone"
            | "everybody"
            | "itself"
            | "himself"
            | "herself"
            | "themselves"
    )
}

/// A pronoun, also with the adverb or verb after it that was tagged as a noun: "something offstage", "someone surf".
/// "Someone's hand" and "significant others" are phrases.
pub(super) fn is_pronoun(text: &str, words: &[Word], tags: &[Tag], phrase: Phrase) -> bool {
    let pronoun = |at: usize| tags[at].is_noun() && is_pronoun_noun(words[at].of(text));
    let (start, end) = (phrase.start, phrase.end);
    let first = || end - start > 1 && pronoun(start) && role_at(tags, start + 1) != Role::Possessive;
    let other = || match words[end - 1].of(text) {
        "others" => end - start == 1,
        // "like this one"
        "one" => end - start > 1,
        _ => false,
    };
    pronoun(end - 1) || first() || other()
}

/// Singular determiners.
const SINGULAR: &[&str] = &["a", "an", "one", "this", "each", "every", "another"];

/// Nouns with a plural form that may follow [`SINGULAR`].
const INVARIANT: &[&str] =
    &["series", "species", "headquarters", "crossroads", "means", "works", "barracks", "gallows"];

/// Nouns in -ing that are not the act of a verb.
const NOUNS_IN_ING: &[&str] = &[
    "advertising",
    "awning",
    "backing",
    "bedding",
    "beginning",
    "being",
    "building",
    "carving",
    "ceiling",
    "clearing",
    "clothing",
    "coating",
    "covering",
    "crossing",
    "drawing",
    "dressing",
    "duckling",
    "dumpling",
    "earring",
    "ending",
    "engraving",
    "etching",
    "evening",
    "filling",
    "flooring",
    "frosting",
    "gathering",
    "greeting",
    "housing",
    "icing",
    "landing",
    "lighting",
    "lightning",
    "lining",
    "listing",
    "marking",
    "meeting",
    "morning",
    "opening",
    "outing",
    "packaging",
    "padding",
    "painting",
    "parking",
    "piping",
    "plumbing",
    "pudding",
    "railing",
    "rating",
    "recording",
    "scaffolding",
    "setting",
    "sibling",
    "siding",
    "spring",
    "stocking",
    "string",
    "stuffing",
    "swing",
    "topping",
    "training",
    "tubing",
    "viking",
    "wedding",
];

/// A phrase without the colours at its end that describe it, as in "leather glove - gray", "leather gloves gray" or "pump
/// (black)"; `None` if nothing is left. After a determiner or a preposition a colour is a noun: "the light blue", "in black",
/// and a name may end with one: "jack black".
pub(super) fn without_colours(text: &str, words: &[Word], tags: &[Tag], phrase: Phrase) -> Option<Phrase> {
    let word = |at: usize| words[at].of(text);
    // The fruit is as frequent as its colour.
    let colour = |at: usize| tags[at].is_noun() && is_basic(word(at)) && word(at) != "orange";
    let (start, head) = (phrase.start, phrase.end - 1);
    // "black/teal"
    let joined = |at: usize, other: usize| {
        words.get(at).is_some_and(|it| it.of(text) == "/")
            && words.get(other).is_some_and(|it| is_basic(it.of(text)) || is_shade(it.of(text)))
    };
    let ends = tags.get(phrase.end).is_none_or(|&tag| is_mark(tag)) || joined(phrase.end, phrase.end + 1);
    if start == head {
        let opens = head > 0 && matches!(tags[head - 1], Tag::OPEN | Tag::COLON)
            || head > 1 && joined(head - 1, head - 2);
        return (!(ends && opens && (colour(head) || is_shade(word(head))))).then_some(phrase);
    }
    if !ends || !colour(head) {
        return Some(phrase);
    }
    let mut end = head;
    while end > start && (colour(end - 1) || word(end - 1) == "/" || is_shade(word(end - 1))) {
        end -= 1;
    }
    match end - start {
        0 if start > 0 && tags[start - 1] == Tag::IN => Some(phrase),
        0 => None,
        1 => Some(phrase),
        _ if !tags[end - 1].is_noun() || role(tags[start]) == Role::Determiner => Some(phrase),
        _ => Some(Phrase { start, end }),
    }
}

/// A phrase without the verb at its end that was tagged as a noun; `None` if nothing is left.
///
/// "A pizza sits": after a singular determiner and a noun, a word that looks like a plural is the verb. "A dozen bike
/// riders" has a number. "A dog leaping at", "fishing at the river": a word in -ing after a complete phrase or without
/// a modifier, before a preposition or an object, is a verb.
pub(super) fn without_verb(text: &str, words: &[Word], tags: &[Tag], phrase: Phrase) -> Option<Phrase> {
    let head = phrase.end - 1;
    let word = words[head].of(text);
    let noun_before = head > phrase.start && tags[head - 1].is_noun();
    let verb = match tags[head] {
        Tag::NNS | Tag::NNPS => {
            head >= phrase.start + 2
                && noun_before
                && SINGULAR.contains(&words[phrase.start].of(text))
                && tags[phrase.start + 1] != Tag::CD
                && word.ends_with('s')
                && !INVARIANT.contains(&word)
                && words[head - 1].of(text) != "stock"
        }
        Tag::NN => {
            word.len() >= 6
                && word.ends_with("ing")
                && matches!(
                    tags.get(phrase.end),
                    Some(&(Tag::IN | Tag::TO | Tag::RP | Tag::DT | Tag::PRP | Tag::PRPS))
                )
                && (head == phrase.start
                    || noun_before && matches!(role(tags[phrase.start]), Role::Determiner | Role::Number))
                && !NOUNS_IN_ING.contains(&word)
        }
        _ => false,
    };
    match verb {
        true if head == phrase.start => None,
        true => Some(Phrase { end: head, ..phrase }),
        false => Some(phrase),
    }
}
