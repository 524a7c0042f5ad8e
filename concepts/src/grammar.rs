//! The phrase grammar: finds noun phrases in a sequence of part-of-speech tags.
//!
//! ```text
//! phrase    = part (possessive part)*        the dog 's red bowl
//! part      = modifier* noun+                two big red fire trucks
//! modifier  = determiner                     the, a, his, all the        only first
//!           | number                         two
//!           | adjective                      red
//!           | adverb                         very                        before an adjective or participle
//!           | participle                     parked, smiling             after another modifier; a past participle also
//!                                                                        where no verb can stand: "with tiled walls"
//!           | joint                          and , -                     between two adjectives
//! noun+     = noun (link noun)*              yamaha kodiak 700 eps
//! link      = figure*                        "two" starts a new phrase
//!           | past participle                snow covered mountain
//!           | noun-taking adjective        water resistant jacket
//!           | trade mark                   flex™ refrigerator
//!           | figure* (adverb* (adjective | past participle))*   in titles only: iphone 3 very tough cover
//! ```
//!
//! The head is the last noun. Before the grammar runs, the tags of a few word sequences are corrected ([`correct`]:
//! "it's" written for "its", "a close up", "8 x 10", a colour that stands for a noun as in "a man in black"). Afterwards,
//! a [`Phrase`] that is part of a preposition ("in front of") or starts with a pronoun is dropped, and a verb that was
//! tagged as a noun is cut off ("a pizza sits"; [`exceptions`]).

mod colours;
mod correct;
mod exceptions;
#[cfg(test)]
mod tests;

use crate::tagger::Tag;
use crate::words::Word;
use exceptions::{is_preposition, is_pronoun, without_colours, without_verb};

/// Version of this grammar and of the rule for concepts; stored in every sidecar.
pub(crate) const VERSION: u32 = 6;

/// A noun phrase: the words `start..end`; the head is word `end - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phrase {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The role of a tag in a phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Determiner,
    Number,
    Adjective,
    Adverb,
    Participle,
    Joint,
    Noun,
    Possessive,
    Outside,
}

fn role(tag: Tag) -> Role {
    // Read from a table: a jump for each tag would be hard to predict.
    const ROLES: [Role; Tag::COUNT] = {
        let mut roles = [Role::Outside; Tag::COUNT];
        let mut number = 0;
        while number < Tag::COUNT {
            roles[number] = role_of(Tag(number as u8));
            number += 1;
        }
        roles
    };
    ROLES.get(usize::from(tag.0)).copied().unwrap_or(Role::Outside)
}

const fn role_of(tag: Tag) -> Role {
    match tag {
        Tag::DT | Tag::PDT | Tag::PRPS | Tag::WPS => Role::Determiner,
        Tag::CD | Tag::DOLLAR | Tag::HASH => Role::Number,
        Tag::JJ | Tag::JJR | Tag::JJS => Role::Adjective,
        Tag::RB | Tag::RBR | Tag::RBS => Role::Adverb,
        Tag::VBN | Tag::VBG => Role::Participle,
        Tag::CC | Tag::COMMA | Tag::COLON => Role::Joint,
        Tag::POS => Role::Possessive,
        noun if noun.is_noun() => Role::Noun,
        _ => Role::Outside,
    }
}

/// Whether the grammar treats two tags alike (apart from rules for single words).
pub(crate) fn same_role(a: Tag, b: Tag) -> bool {
    role(a) == role(b)
}

/// Finds the phrases of a tagged text, from left to right. `phrases` is cleared first; some `tags` are corrected.
pub(crate) fn phrases(text: &str, words: &[Word], tags: &mut [Tag], phrases: &mut Vec<Phrase>) {
    phrases.clear();
    correct::correct(text, words, tags);
    let mut at = 0;
    while at < tags.len() {
        let Some(end) = phrase_end(text, words, tags, at) else {
            at += 1;
            continue;
        };
        let phrase = Phrase { start: at, end };
        if !is_preposition(text, words, tags, phrase) && !is_pronoun(text, words, tags, phrase) {
            let phrase = without_verb(text, words, tags, phrase);
            phrases.extend(phrase.and_then(|phrase| without_colours(text, words, tags, phrase)));
        }
        at = end;
    }
}

/// Maximum number of modifiers. Otherwise a text without a noun would be searched to its end from every word.
const MAX_MODIFIERS: usize = 32;

/// End of the phrase that starts at `start`; `None` if none does.
fn phrase_end(text: &str, words: &[Word], tags: &[Tag], start: usize) -> Option<usize> {
    let mut end = nouns_end(text, words, tags, first_noun(tags, start)?);
    while role_at(tags, end) == Role::Possessive {
        match role_at(tags, end + 1) {
            Role::Determiner => break,
            _ => match first_noun(tags, end + 1) {
                Some(noun) => end = nouns_end(text, words, tags, noun),
                None => break,
            },
        }
    }
    Some(end)
}

/// The noun after the modifiers that start at `start`; `None` if there is none.
fn first_noun(tags: &[Tag], start: usize) -> Option<usize> {
    for at in start..start + MAX_MODIFIERS {
        let before = if at == start { Role::Outside } else { role_at(tags, at - 1) };
        let next = role_at(tags, at + 1);
        let fits = match role_at(tags, at) {
            Role::Noun => return Some(at),
            Role::Determiner => at == start || before == Role::Determiner,
            Role::Number | Role::Adjective => true,
            Role::Adverb => matches!(next, Role::Adjective | Role::Participle | Role::Adverb | Role::Number),
            Role::Participle => at > start || is_adjectival(tags, at),
            // "red, white, and blue"; after an article also "an old, metal sign", "a wet, smiling child"
            Role::Joint => {
                before == Role::Adjective && (next == Role::Adjective || next == Role::Joint)
                    || before == Role::Joint && next == Role::Adjective
                    || before == Role::Adjective
                        && tags[at] == Tag::COMMA
                        && tags[start] == Tag::DT
                        && matches!(next, Role::Noun | Role::Participle)
            }
            Role::Possessive | Role::Outside => false,
        };
        if !fits {
            return None;
        }
    }
    None
}

/// The end of the nouns, with the links between them, of which the first is at `start`.
fn nouns_end(text: &str, words: &[Word], tags: &[Tag], start: usize) -> usize {
    let mut end = start;
    loop {
        while role_at(tags, end) == Role::Noun {
            // "at the exchange may 13"
            if end > start && role_at(tags, end + 1) == Role::Number && is_date(text, words, end) {
                return end;
            }
            end += 1;
        }
        let mut next = end;
        // "at night two dogs": a number that is written out belongs to the noun after it.
        while role_at(tags, next) == Role::Number && is_figure(words[next].of(text))
            || tags.get(next) == Some(&Tag::SYM) && matches!(words[next].of(text), "™" | "®")
        {
            next += 1;
        }
        if matches!(role_at(tags, next), Role::Adjective | Role::Participle | Role::Adverb) {
            next = link_end(text, words, tags, end, next);
        }
        if next == end || role_at(tags, next) != Role::Noun {
            return end;
        }
        end = next;
    }
}

/// The end of the adjectives and participles from `at` on that can stand between the nouns of a name; `end` is the end of
/// the nouns before. Sentences have a past participle there ("snow covered mountain"), and names an adjective ("strawberry
/// shortcake large backpack").
fn link_end(text: &str, words: &[Word], tags: &[Tag], end: usize, at: usize) -> usize {
    let is_adjective = |at: usize| matches!(tags.get(at), Some(&(Tag::JJ | Tag::JJR | Tag::JJS | Tag::VBN)));
    let is_link = |at: usize| {
        let adverb = || tags.get(at) == Some(&Tag::RB) && words[at].of(text).ends_with("ly");
        is_adjective(at) || adverb() && is_adjective(at + 1)
    };
    let name = || {
        let time = matches!(words[at].of(text), "last" | "next");
        matches!(tags[end - 1], Tag::NNP | Tag::NNPS) && tags[at] == Tag::JJ && !time
    };
    if !is_link(at) {
        at
    } else if is_title(tags, at) {
        (at..at + MAX_MODIFIERS).find(|&at| !is_link(at)).unwrap_or(at)
    } else if at == end
        && (tags[at] == Tag::VBN || name() || takes_noun(words[at - 1].of(text), words[at].of(text)))
    {
        at + 1
    } else {
        at
    }
}

/// Whether a tag is that of a mark which separates the parts of a text.
fn is_mark(tag: Tag) -> bool {
    matches!(tag, Tag::OPEN | Tag::CLOSE | Tag::COLON | Tag::COMMA | Tag::STOP)
}

/// No title is longer. Otherwise a long text would be searched to its ends from every word.
const MAX_TITLE: usize = 64;

/// Whether the words before `at` are part of a title rather than of a sentence: no article is before them, and there is no
/// verb in the present or past.
fn is_title(tags: &[Tag], at: usize) -> bool {
    let (start, end) = (at.saturating_sub(MAX_TITLE), tags.len().min(at + MAX_TITLE));
    !tags[start..at].contains(&Tag::DT)
        && !tags[start..end].iter().any(|tag| matches!(*tag, Tag::VBZ | Tag::VBP | Tag::VBD | Tag::MD))
}

/// Whether an adjective is described by the noun before it: "a fungus resistant plant", "sugar free cake".
fn takes_noun(noun: &str, adjective: &str) -> bool {
    match adjective {
        "resistant" | "proof" | "friendly" | "ready" | "rich" | "safe" | "tolerant" => true,
        "free" => FREE_OF.contains(&noun),
        _ => false,
    }
}

/// What things are free of: "sugar free cake". Other nouns before "free" end their phrase: "sweater free shipping".
const FREE_OF: &[&str] = &[
    "acid", "alcohol", "bpa", "caffeine", "chemical", "cruelty", "dairy", "duty", "egg", "fat", "gluten",
    "grain", "hassle", "lead", "leaf", "nut", "oil", "pain", "royalty", "rust", "smoke", "stress", "sugar",
    "tax", "traffic", "wheat", "worry", "wrinkle",
];

/// Whether the name of a month is followed by a day or a year, and no day is before it.
fn is_date(text: &str, words: &[Word], at: usize) -> bool {
    let digit = |at: usize| words[at].of(text).as_bytes().first().is_some_and(u8::is_ascii_digit);
    digit(at + 1) && !digit(at - 1) && is_among(MONTHS, words[at].of(text).trim_end_matches('.'))
}

const MONTHS: &str = "january february march april may june july august september october november december \
    jan feb mar apr jun jul aug sept sep oct nov dec";

/// Whether a word is in a list of words with spaces between them.
fn is_among(list: &str, word: &str) -> bool {
    list.split(' ').any(|it| it == word)
}

/// Whether a number is written in digits or signs ("700", "x" in "8 x 10", "%") or in Roman numerals.
fn is_figure(number: &str) -> bool {
    number == "x" || !number.starts_with(|c: char| c.is_ascii_alphabetic()) || is_roman(number)
}

/// Whether a word is a Roman numeral that is not also another word or a letter.
fn is_roman(word: &str) -> bool {
    matches!(word, "ii" | "iii" | "iv" | "vi" | "vii" | "viii" | "ix" | "xi" | "xii" | "xiii")
}

fn role_at(tags: &[Tag], at: usize) -> Role {
    tags.get(at).map_or(Role::Outside, |tag| role(*tag))
}

/// Whether a past participle starts a phrase: yes in "with tiled walls", no in "is given food".
fn is_adjectival(tags: &[Tag], at: usize) -> bool {
    const NO_VERB_AFTER: [Tag; 6] = [Tag::IN, Tag::CC, Tag::COMMA, Tag::COLON, Tag::STOP, Tag::VBG];
    tags[at] == Tag::VBN
        && (at == 0 || NO_VERB_AFTER.contains(&tags[at - 1]))
        && matches!(role_at(tags, at + 1), Role::Noun | Role::Adjective)
}
