//! The library's answer for a word, and the choice of one tag from it.
//!
//! Its rules leave several tags to most words ("sink": noun or verb). The chunk that contains the word decides: in a
//! noun chunk, a word that can be a noun or an adjective is one; outside, a word that can be a verb or a preposition is
//! that. Chunks also contain coordinations, and participles with their nouns ("a dog and a man riding"). There the tags
//! must end the phrase, because the grammar looks at nothing else.

use ::nlprule::types::Token;

use crate::tagger::Tag;
use crate::words::Word;

/// The possible tags and the chunk of one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reading {
    tags: TagSet,
    chunk: Chunk,
}

/// The position of a word relative to chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Chunk {
    /// In a noun chunk, but not its last word.
    Noun,
    /// The last word of a noun chunk.
    NounEnd,
    /// In another chunk or in none; also if the library's two tokenizers disagree.
    #[default]
    Other,
}

/// A set of tags, one bit per tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct TagSet(u64);

impl TagSet {
    fn add(&mut self, tag: Tag) {
        self.0 |= 1 << tag.0;
    }

    fn has(self, tag: Tag) -> bool {
        self.0 >> tag.0 & 1 == 1
    }

    /// The first of `wanted` that is in the set.
    fn first_of(self, wanted: &[Tag]) -> Option<Tag> {
        wanted.iter().copied().find(|tag| self.has(*tag))
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Some tag of the set.
    fn any(self) -> Option<Tag> {
        (!self.is_empty()).then(|| Tag(self.0.trailing_zeros() as u8))
    }
}

impl Reading {
    /// Adds a token that is part of the word.
    pub(super) fn add(&mut self, token: &Token<'_>) {
        for data in token.word().tags() {
            // "NN:UN" and "NN:U" are uncountable nouns; "UNKNOWN" and the like are no tags.
            let name = data.pos().as_str();
            match name.split(':').next() {
                Some("ORD") => self.tags.add(Tag::JJ),
                Some(name) => Tag::from_name(name).into_iter().for_each(|tag| self.tags.add(tag)),
                None => {}
            }
        }
        for label in token.chunks() {
            match label.get(..4) {
                Some("B-NP" | "I-NP") => self.chunk = Chunk::Noun,
                Some("E-NP") => self.chunk = Chunk::NounEnd,
                _ => self.chunk = Chunk::Other,
            }
        }
    }
}

/// Appends one tag for each word; `words` and `readings` have the same length.
pub(super) fn choose(text: &str, words: &[Word], readings: &[Reading], tags: &mut Vec<Tag>) {
    let first = tags.len();
    for (at, (word, reading)) in words.iter().zip(readings).enumerate() {
        let chunk_before = if at == 0 { Chunk::Other } else { readings[at - 1].chunk };
        let before = match tags[first..].last() {
            // "this is": a determiner at the end of its chunk is a pronoun.
            Some(&Tag::DT) if chunk_before == Chunk::NounEnd => Tag::PRP,
            Some(&tag) => tag,
            None => Tag::STOP,
        };
        let word = word.of(text);
        let tag = match Tag::of_mark(word) {
            Some(mark) => mark,
            None if word.starts_with(['\'', '’']) => clitic(word, before),
            None if reading.tags.is_empty() => unknown(word, reading.chunk, before),
            // The library's rules treat these as nouns, as in "the others".
            None if matches!(word, "other" | "few") => Tag::JJ,
            None => match reading.chunk {
                Chunk::Noun => inside_noun_chunk(reading.tags, &readings[at + 1..], before),
                Chunk::NounEnd => end_of_noun_chunk(reading.tags, before),
                Chunk::Other => elsewhere(reading.tags, before),
            },
        };
        tags.push(tag);
    }
}

/// The tag of a clitic: "'s" after a pronoun is a verb, otherwise a possessive, as is ' after a plural.
fn clitic(word: &str, before: Tag) -> Tag {
    match word.trim_start_matches(['\'', '’']) {
        "s" if matches!(before, Tag::PRP | Tag::EX | Tag::WP | Tag::WDT | Tag::WRB) => Tag::VBZ,
        "s" => Tag::POS,
        "" if before == Tag::NNS => Tag::POS,
        "" => Tag::CLOSE_QUOTE,
        "t" => Tag::RB,
        "ll" | "d" => Tag::MD,
        _ => Tag::VBP,
    }
}

/// The tag of a word that is not in the dictionary: a number, a participle or a name.
fn unknown(word: &str, chunk: Chunk, before: Tag) -> Tag {
    if word.starts_with(|c: char| c.is_ascii_digit()) {
        Tag::CD
    } else if chunk == Chunk::Other && before.is_noun() && word.ends_with("ing") {
        Tag::VBG
    } else {
        Tag::NNP
    }
}

/// Tags that are chosen in a noun chunk, whatever other tags the word can have.
const CERTAIN: &[Tag] = &[
    Tag::DT,
    Tag::PDT,
    Tag::PRPS,
    Tag::WPS,
    Tag::WDT,
    Tag::WP,
    Tag::EX,
    Tag::CD,
    Tag::PRP,
    Tag::CC,
    Tag::TO,
];
const NOUNS: &[Tag] = &[Tag::NNS, Tag::NN, Tag::NNPS, Tag::NNP];
const ADJECTIVES: &[Tag] = &[Tag::JJ, Tag::JJS, Tag::JJR];

/// Whether a word needs a noun after it, so that no finite verb can follow.
fn opens_phrase(tag: Tag) -> bool {
    matches!(tag, Tag::DT | Tag::PDT | Tag::PRPS | Tag::JJ | Tag::JJR | Tag::JJS)
}

fn inside_noun_chunk(tags: TagSet, after: &[Reading], before: Tag) -> Tag {
    let next = after.first().copied().unwrap_or_default();
    if let Some(tag) = tags.first_of(CERTAIN) {
        return tag;
    }
    // "riding" is a participle in "a man riding a horse", and a modifier in "a riding man".
    if tags.has(Tag::VBG) && (before.is_noun() || tags.first_of(NOUNS).is_none()) {
        return Tag::VBG;
    }
    let noun = if next.tags.has(Tag::CC) || next.tags.has(Tag::COMMA) {
        // An adjective in "a black and white cat", a noun in "an umbrella and a cat".
        after.get(1).is_none_or(|two| two.chunk == Chunk::NounEnd || two.tags.first_of(ADJECTIVES).is_none())
    } else {
        before.is_noun() || next.chunk == Chunk::NounEnd && next.tags.has(Tag::VBG)
    };
    let order = if noun { [NOUNS, ADJECTIVES] } else { [ADJECTIVES, NOUNS] };
    match order.into_iter().find_map(|wanted| tags.first_of(wanted)) {
        // The chunker takes a word between two nouns for a noun, even if the dictionary only has the adjective.
        Some(Tag::JJ) if before.is_noun() => Tag::NN,
        Some(tag) => tag,
        None if tags.has(Tag::VBN) || tags.has(Tag::VBD) => Tag::VBN,
        None => tags.first_of(&[Tag::RB, Tag::IN]).unwrap_or_else(|| verb_as_noun(tags)),
    }
}

fn end_of_noun_chunk(tags: TagSet, before: Tag) -> Tag {
    // At the end of a chunk these are pronouns: "a street that has lanes", "shows her a phone".
    if let Some(tag) = tags.first_of(&[Tag::WDT, Tag::PRP]).or_else(|| tags.first_of(CERTAIN)) {
        return tag;
    }
    if tags.has(Tag::VBG) && (before.is_noun() || tags.first_of(NOUNS).is_none()) {
        return Tag::VBG;
    }
    // An adverb in "playing tennis outside", a noun in "the outside".
    if before.is_noun() && (tags.has(Tag::RB) || tags.has(Tag::IN)) {
        return Tag::RB;
    }
    if let Some(tag) = tags.first_of(NOUNS) {
        return tag;
    }
    match tags.first_of(ADJECTIVES) {
        // "a woman": the library's rules leave only the adjective.
        Some(_) if opens_phrase(before) || before.is_noun() => Tag::NN,
        Some(tag) => tag,
        // "a great shot"
        None if opens_phrase(before) => Tag::NN,
        None => verb_as_noun(tags),
    }
}

/// The noun for a word that the library's rules left as a verb, although it is in a noun chunk.
fn verb_as_noun(tags: TagSet) -> Tag {
    match tags.first_of(&[Tag::VBZ, Tag::VBP, Tag::VB]) {
        Some(Tag::VBZ) => Tag::NNS,
        Some(_) => Tag::NN,
        None => tags.any().unwrap_or(Tag::NN),
    }
}

/// The order in which tags are tried outside of noun chunks.
const ELSEWHERE: &[Tag] = &[
    Tag::MD,
    Tag::TO,
    Tag::IN,
    Tag::CC,
    Tag::VBZ,
    Tag::VBP,
    Tag::VBD,
    Tag::VBN,
    Tag::VBG,
    Tag::VB,
    Tag::RP,
    Tag::RB,
    Tag::DT,
    Tag::PRP,
    Tag::JJ,
    Tag::CD,
    Tag::NNS,
    Tag::NN,
];

fn elsewhere(tags: TagSet, before: Tag) -> Tag {
    let tag = tags.first_of(ELSEWHERE).or(tags.any()).unwrap_or(Tag::NN);
    let plural_before =
        matches!(before, Tag::NNS | Tag::NNPS | Tag::PRP | Tag::TO | Tag::MD | Tag::RB | Tag::WDT | Tag::WP);
    match tag {
        // "a great shot of"
        Tag::VBZ | Tag::VBP | Tag::VBD | Tag::VB if opens_phrase(before) => {
            tags.first_of(NOUNS).unwrap_or_else(|| verb_as_noun(tags))
        }
        Tag::VBP | Tag::VB if !plural_before => tags.first_of(NOUNS).unwrap_or(tag),
        tag => tag,
    }
}
