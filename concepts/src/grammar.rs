//! The phrase grammar: tags to noun phrases.
//!
//! ```text
//! phrase  = part (possessive part)*          the dog 's red bowl
//! part    = before* noun+                    two big red fire trucks
//! before  = determiner                       the, a, his, all the        only first
//!         | number                           two
//!         | adjective                        red
//!         | adverb                           very                        before an adjective or participle
//!         | participle                       parked, smiling             after another `before`; "tiled" also
//!                                                                        where no verb can stand: "with tiled walls"
//!         | joint                            and , -                     between two adjectives
//! noun+   = noun (link? noun)*               yamaha kodiak 700 eps
//! link    = number | past participle         snow covered mountain
//! ```
//!
//! The head is the last noun. Before that the tags of a few word sequences are set right ("it's" written for
//! "its", "a close up"); after that a [`Phrase`] that is part of a preposition ("in front of") or a pronoun is
//! dropped, and a verb that was tagged as a plural noun is cut off ("a pizza sits").

use crate::tagger::Tag;
use crate::words::Word;

/// Version of this grammar and of the concept rule; stored with every sidecar.
pub(crate) const VERSION: u32 = 1;

/// A noun phrase: words `start..end`; the head is word `end - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phrase {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What a tag can be in a phrase.
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
    match tag {
        Tag::DT | Tag::PDT | Tag::PRPS | Tag::WPS => Role::Determiner,
        Tag::CD | Tag::DOLLAR | Tag::HASH => Role::Number,
        Tag::JJ | Tag::JJR | Tag::JJS => Role::Adjective,
        Tag::RB | Tag::RBR | Tag::RBS => Role::Adverb,
        Tag::VBN | Tag::VBG => Role::Participle,
        Tag::CC | Tag::COMMA | Tag::COLON => Role::Joint,
        Tag::NN | Tag::NNS | Tag::NNP | Tag::NNPS | Tag::FW => Role::Noun,
        Tag::POS => Role::Possessive,
        _ => Role::Outside,
    }
}

pub(crate) fn is_noun(tag: Tag) -> bool {
    role(tag) == Role::Noun
}

/// Whether the grammar treats two tags alike, but for the rules of single words.
pub(crate) fn same_role(a: Tag, b: Tag) -> bool {
    role(a) == role(b)
}

/// The phrases of a tagged text, from left to right. `phrases` is cleared first; some `tags` are set right.
pub(crate) fn phrases(text: &str, words: &[Word], tags: &mut [Tag], phrases: &mut Vec<Phrase>) {
    phrases.clear();
    correct(text, words, tags);
    let mut at = 0;
    while at < tags.len() {
        let Some(end) = phrase_end(tags, at) else {
            at += 1;
            continue;
        };
        let phrase = Phrase { start: at, end };
        if !is_preposition(text, words, tags, phrase) && !is_pronoun(text, words, phrase) {
            phrases.push(agree(text, words, tags, phrase));
        }
        at = end;
    }
}

/// Words before a noun, at most: a text without a noun must not be searched to its end from every word.
const LONGEST_BEFORE: usize = 32;

/// End of the phrase that starts at `start`, if one does.
fn phrase_end(tags: &[Tag], start: usize) -> Option<usize> {
    let mut end = part_end(tags, start)?;
    while role_at(tags, end) == Role::Possessive {
        match role_at(tags, end + 1) {
            Role::Determiner => break,
            _ => match part_end(tags, end + 1) {
                Some(next) => end = next,
                None => break,
            },
        }
    }
    Some(end)
}

fn part_end(tags: &[Tag], start: usize) -> Option<usize> {
    for at in start..start + LONGEST_BEFORE {
        let before = if at == start { Role::Outside } else { role_at(tags, at - 1) };
        let next = role_at(tags, at + 1);
        let fits = match role_at(tags, at) {
            Role::Noun => return Some(nouns_end(tags, at)),
            Role::Determiner => at == start || before == Role::Determiner,
            Role::Number | Role::Adjective => true,
            Role::Adverb => matches!(next, Role::Adjective | Role::Participle | Role::Adverb | Role::Number),
            Role::Participle => at > start || is_adjectival(tags, at),
            // "red, white, and blue"
            Role::Joint => {
                before == Role::Adjective && (next == Role::Adjective || next == Role::Joint)
                    || before == Role::Joint && next == Role::Adjective
            }
            Role::Possessive | Role::Outside => false,
        };
        if !fits {
            return None;
        }
    }
    None
}

fn nouns_end(tags: &[Tag], start: usize) -> usize {
    let mut end = start;
    loop {
        while role_at(tags, end) == Role::Noun {
            end += 1;
        }
        let link = role_at(tags, end) == Role::Number || tags.get(end) == Some(&Tag::VBN);
        if link && role_at(tags, end + 1) == Role::Noun {
            end += 1;
        } else {
            return end;
        }
    }
}

fn role_at(tags: &[Tag], at: usize) -> Role {
    tags.get(at).map_or(Role::Outside, |tag| role(*tag))
}

/// A past participle that starts a phrase: "with tiled walls", not "is given food".
fn is_adjectival(tags: &[Tag], at: usize) -> bool {
    const NO_VERB_AFTER: [Tag; 5] = [Tag::IN, Tag::CC, Tag::COMMA, Tag::COLON, Tag::VBG];
    tags[at] == Tag::VBN
        && (at == 0 || NO_VERB_AFTER.contains(&tags[at - 1]))
        && matches!(role_at(tags, at + 1), Role::Noun | Role::Adjective)
}

/// Nouns that make a preposition between "in", "on", "at" and "of".
const PREPOSITION_NOUNS: &[&str] = &["front", "top", "back"];

/// "in front of", "on top of": no phrase.
fn is_preposition(text: &str, words: &[Word], tags: &[Tag], phrase: Phrase) -> bool {
    phrase.end - phrase.start == 1
        && PREPOSITION_NOUNS.contains(&words[phrase.start].of(text))
        && phrase.start > 0
        && tags[phrase.start - 1] == Tag::IN
        && words.get(phrase.end).is_some_and(|word| word.of(text) == "of")
}

/// Pronouns that are tagged as nouns.
const PRONOUNS: &[&str] = &[
    "something",
    "someone",
    "somebody",
    "anything",
    "anyone",
    "anybody",
    "nothing",
    "nobody",
    "everything",
    "everyone",
    "everybody",
    "itself",
    "himself",
    "herself",
    "themselves",
];

fn is_pronoun(text: &str, words: &[Word], phrase: Phrase) -> bool {
    PRONOUNS.contains(&words[phrase.end - 1].of(text))
}

/// Sets right what taggers cannot learn from their data.
fn correct(text: &str, words: &[Word], tags: &mut [Tag]) {
    for at in 1..tags.len() {
        let word = |at: usize| words.get(at).map_or("", |word| word.of(text));
        match word(at) {
            // "with it's monitor": after a preposition or a verb, and before a noun, "it's" means "its".
            "'s" | "’s" if word(at - 1) == "it" && at >= 2 => {
                let takes_object = matches!(
                    tags[at - 2],
                    Tag::IN | Tag::RP | Tag::VB | Tag::VBG | Tag::VBN | Tag::VBZ | Tag::VBP
                );
                if takes_object && matches!(role_at(tags, at + 1), Role::Noun | Role::Adjective) {
                    tags[at - 1] = Tag::PRPS;
                    tags[at] = Tag::PRPS;
                }
            }
            // "a close up of", "close up photo"
            "up" | "ups" if word(at - 1) == "close" => {
                let before = if at == 1 { Role::Determiner } else { role(tags[at - 2]) };
                if matches!(before, Role::Determiner | Role::Adjective) || word(at + 1) == "of" {
                    tags[at - 1] = Tag::JJ;
                    tags[at] = Tag::NN;
                }
            }
            _ => {}
        }
    }
}

/// Determiners of one thing.
const SINGULAR: &[&str] = &["a", "an", "one", "this", "each", "every", "another"];

/// Plurals in form that may follow [`SINGULAR`].
const INVARIANT: &[&str] =
    &["series", "species", "headquarters", "crossroads", "means", "works", "barracks", "gallows"];

/// "a pizza sits": what looks like a plural after a singular determiner and a noun is the verb.
fn agree(text: &str, words: &[Word], tags: &[Tag], phrase: Phrase) -> Phrase {
    let head = phrase.end - 1;
    let verb = head >= phrase.start + 2
        && matches!(tags[head], Tag::NNS | Tag::NNPS)
        && is_noun(tags[head - 1])
        && SINGULAR.contains(&words[phrase.start].of(text))
        && words[head].of(text).ends_with('s')
        && !INVARIANT.contains(&words[head].of(text));
    if verb { Phrase { end: head, ..phrase } } else { phrase }
}
