//! Corrects tags that taggers cannot learn from their training data, such as the adjective in "a man in black".

mod colours;
mod describe;
mod marks;
mod nouns;
mod special;
mod titles;

use super::{MAX_MODIFIERS, Role, is_title, role, role_at};
use crate::tagger::Tag;
use crate::words::Word;

/// Corrects the tags of a text, from left to right.
pub(super) fn correct(text: &str, words: &[Word], tags: &mut [Tag]) {
    if !tags.contains(&Tag::DT) {
        titles::correct(text, words, tags);
    }
    // Without an early end, so that the compiler compares many bytes at once.
    let hyphens = text.bytes().fold(0, |found, byte| found | u8::from(byte == b'-')) != 0;
    for at in 0..tags.len() {
        let mut place = Place { text, words, tags, at };
        if place.may_be_special() && place.special() {
            continue;
        }
        match place.tags[at] {
            Tag::NN | Tag::NNS | Tag::NNP | Tag::NNPS | Tag::FW => place.noun(),
            Tag::JJ | Tag::RB => place.adjective(),
            Tag::VBG => place.present_participle(),
            Tag::VBD | Tag::VBN => place.past_participle(),
            Tag::VB | Tag::VBP => place.verb(),
            Tag::RP => place.particle(),
            // "can of cola", "jerry can"
            Tag::MD if place.word(at + 1) == "of" || place.before() == Role::Noun && place.ends_text() => {
                place.set(Tag::NN);
            }
            // "us rider stephen basset"
            Tag::PRP if at == 0 && place.own() == "us" => place.set(Tag::NNP),
            // "lands on a womans hand"
            Tag::VBZ if place.next() == Role::Noun && place.follows_article() => place.set(Tag::NNS),
            // "shows her a phone"
            Tag::PRPS if place.tags.get(at + 1) == Some(&Tag::DT) => place.set(Tag::PRP),
            _ => {}
        }
        if hyphens {
            place.hyphenated();
        }
    }
}

/// A word of a tagged text, and what is around it.
struct Place<'a> {
    text: &'a str,
    words: &'a [Word],
    tags: &'a mut [Tag],
    at: usize,
}

impl<'a> Place<'a> {
    /// Some word of the text; empty beyond its ends.
    fn word(&self, at: usize) -> &'a str {
        self.words.get(at).map_or("", |word| word.of(self.text))
    }

    fn own(&self) -> &'a str {
        self.word(self.at)
    }

    /// The word before; empty at the start.
    fn word_before(&self) -> &'a str {
        self.word(self.at.wrapping_sub(1))
    }

    fn tag(&self, at: usize) -> Option<Tag> {
        self.tags.get(at).copied()
    }

    fn tag_before(&self) -> Option<Tag> {
        self.tag(self.at.wrapping_sub(1))
    }

    fn role(&self, at: usize) -> Role {
        role_at(self.tags, at)
    }

    fn before(&self) -> Role {
        self.role(self.at.wrapping_sub(1))
    }

    /// The role of the second word before.
    fn second_before(&self) -> Role {
        self.role(self.at.wrapping_sub(2))
    }

    fn next(&self) -> Role {
        self.role(self.at + 1)
    }

    fn set(&mut self, tag: Tag) {
        self.tags[self.at] = tag;
    }

    fn follows_article(&self) -> bool {
        matches!(self.word_before(), "a" | "an" | "the")
    }

    /// Whether nothing but adjectives stands between "a" and the word at `at`.
    fn follows_a(&self, at: usize) -> bool {
        matches!(self.word(self.first_adjective(at).wrapping_sub(1)), "a" | "an")
    }

    /// The first of the adjectives directly before `at`; `at` itself if there is none.
    fn first_adjective(&self, at: usize) -> usize {
        let mut first = at;
        while first > 0 && at - first < MAX_MODIFIERS && role(self.tags[first - 1]) == Role::Adjective {
            first -= 1;
        }
        first
    }

    /// Whether the text ends after this word, or a mark follows.
    fn ends_text(&self) -> bool {
        self.tag(self.at + 1).is_none_or(super::is_mark)
    }

    /// Whether a noun phrase cannot continue after this word.
    fn ends_phrase(&self) -> bool {
        let (next, second) = (self.at + 1, self.role(self.at + 2));
        match self.tag(next) {
            None => true,
            Some(Tag::CC) => matches!(second, Role::Determiner | Role::Number),
            // "a male wearing a hat", not "a male swimming teacher"
            Some(Tag::VBG | Tag::VBN) => {
                !matches!(second, Role::Noun | Role::Adjective | Role::Participle | Role::Joint)
            }
            Some(Tag::VBD) => second != Role::Noun,
            Some(tag) => {
                matches!(tag, Tag::STOP | Tag::IN | Tag::TO | Tag::VBZ | Tag::VBP | Tag::MD | Tag::WDT)
            }
        }
    }
}

/// Prepositions that no finite verb follows.
const PREPOSITIONS: &[&str] = &[
    "in", "with", "of", "on", "at", "from", "by", "for", "into", "onto", "near", "over", "under", "above",
    "below", "behind", "beside", "between", "against", "around", "across", "through", "along",
];

/// Adverbs of time and place that are tagged as nouns.
const ADVERBS: &[&str] = &[
    "today",
    "tonight",
    "tomorrow",
    "yesterday",
    "indoors",
    "outdoors",
    "offstage",
    "onstage",
    "overhead",
    "downtown",
    "downstairs",
    "upstairs",
    "online",
    "nearby",
];
