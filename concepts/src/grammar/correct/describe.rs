//! Words that describe a noun, and those that only look so: adjectives, adverbs and participles.

use super::{ADVERBS, PREPOSITIONS, Place, Role, Tag, is_title, role};
use crate::grammar::colours;

impl Place<'_> {
    /// An adjective or adverb.
    pub(super) fn adjective(&mut self) {
        let at = self.at;
        if self.tags[at] == Tag::RB && self.next() == Role::Adjective && ADVERBS.contains(&self.own()) {
            // "playing outdoors slow motion": it does not describe the adjective.
            self.set(Tag::RP);
        } else if at == 0 && self.own() == "still" && self.next() == Role::Noun {
            // "still frame from"
            self.set(Tag::JJ);
        } else if self.follows_article() {
            if self.tags[at] == Tag::RB && self.next() == Role::Noun {
                // "an outdoors concert"
                self.set(Tag::JJ);
            } else if self.ends_phrase()
                && !(self.tag(at + 1) == Some(Tag::VBP) && self.word_before() != "the")
                && !STAND_FOR_NOUNS.contains(&self.own())
            {
                // "the north won", "the outdoors": an adjective or adverb after an article, at the end of a phrase, is a
                // noun.
                self.set(Tag::NN);
            }
        } else if self.tag_before() == Some(Tag::VBG)
            && self.tags[at] == Tag::JJ
            && self.word(at.wrapping_sub(2)) == "the"
            && self.ends_phrase()
        {
            // "the walking dead"
            self.set(Tag::NN);
        } else if matches!(self.own(), "male" | "female")
            && matches!(self.before(), Role::Determiner | Role::Adjective | Role::Number)
            && self.ends_phrase()
        {
            // "an older male standing on a ladder"
            self.set(Tag::NN);
        } else if self.tag_before() == Some(Tag::PRPS) {
            // "jumps over his back", "on her right"
            if matches!(self.own(), "back" | "front" | "left" | "right") && self.next() != Role::Noun {
                self.set(Tag::NN);
            }
        } else if self.tags[at] == Tag::JJ
            && self.tag_before() == Some(Tag::IN)
            && matches!(self.tag(at + 1), Some(Tag::VBZ | Tag::MD))
        {
            // "as pianist awaits his turn"
            self.set(Tag::NN);
        } else if self.tags[at] == Tag::JJ && colours::is_basic(self.own()) {
            if matches!(self.tag_before(), Some(Tag::NN | Tag::NNP)) && self.next() == Role::Noun {
                // "a navy blue shirt"
                self.set(Tag::NN);
            } else {
                self.name_colours();
            }
        }
    }

    /// A present participle.
    pub(super) fn present_participle(&mut self) {
        let (before, next) = (self.before(), self.next());
        let word = self.word_before();
        if matches!(
            self.own(),
            "bedding" | "clothing" | "flooring" | "plumbing" | "railing" | "siding" | "wedding"
        ) {
            self.set(Tag::NN);
        } else if before == Role::Noun {
            // "a basement living area"
            let purpose = PURPOSES.contains(&self.own()) && PLACES.contains(&self.word(self.at + 1));
            if purpose || next == Role::Noun && self.is_in_name() {
                self.set(Tag::NN);
            }
        } else if before == Role::Adjective
            && next == Role::Noun
            && self.is_after_noun()
            && !TRANSITIVE.contains(&self.own())
            && is_title(self.tags, self.at)
        {
            // "vintage futuristic flying machines"
            self.set(Tag::JJ);
        } else if next == Role::Noun {
            // "smiling woman": the verb has no object. "With matching shoes", "a man in running shorts"; after most
            // prepositions it is a verb: "for catching fish", "engaged in playing games".
            let in_noun = || word == "in" && self.second_before() == Role::Noun;
            let place = matches!(word, "against" | "behind" | "near" | "over" | "under")
                && !TRANSITIVE.contains(&self.own());
            if word == "with" || place || INTRANSITIVE.contains(&self.own()) || in_noun() {
                self.set(Tag::JJ);
            }
        } else if (self.follows_article() || word == "no")
            && (next == Role::Outside || next == Role::Participle && self.role(self.at + 2) != Role::Noun)
        {
            // "the awning", "a parking", "no racing"
            self.set(Tag::NN);
        }
    }

    /// Whether a noun stands before the adjectives before this word.
    fn is_after_noun(&self) -> bool {
        self.role(self.first_adjective(self.at).wrapping_sub(1)) == Role::Noun
    }

    /// Whether a participle between nouns is part of a name: "bike touring route", "tomy track cleaning car".
    fn is_in_name(&self) -> bool {
        (self.tag_before() == Some(Tag::NNP) || self.tag(self.at + 1) == Some(Tag::NNP))
            && !TRANSITIVE.contains(&self.own())
            && is_title(self.tags, self.at)
    }

    /// A past participle, or a verb in the past, which often is a participle that describes the noun after it.
    pub(super) fn past_participle(&mut self) {
        let next = self.next();
        if self.word_before() == "the" && self.ends_phrase() {
            // "the wanted", "the injured"
            self.set(Tag::NN);
        }
        if self.tags[self.at] != Tag::VBD || !matches!(next, Role::Noun | Role::Adjective | Role::Participle)
        {
            return;
        }
        let own = self.own();
        let noun = next == Role::Noun;
        let describes = match self.tag_before() {
            // "works above shattered stone"
            Some(Tag::IN) => PREPOSITIONS.contains(&self.word_before()),
            // titles: "carbon steel perforated mesh", but "a runner named kim"
            Some(tag)
                if tag == Tag::NNP || role(tag) == Role::Noun && self.tag(self.at + 1) == Some(Tag::NNP) =>
            {
                noun && own.ends_with("ed") && !matches!(own, "named" | "called")
            }
            // "a bald headed man", "short sleeved shirts"
            Some(Tag::JJ) => own.ends_with("ed") || noun && self.second_before() == Role::Determiner,
            // "their loved ones"
            Some(Tag::PRPS) => true,
            // "a pyramid shaped tree"
            Some(tag) => noun && role(tag) != Role::Outside && PARTS.contains(&own),
            None => false,
        };
        if describes {
            self.set(Tag::VBN);
        }
    }

    /// "with blocked off windows", "a lit up tie"
    pub(super) fn particle(&mut self) {
        if self.next() == Role::Noun
            && self.before() == Role::Participle
            && (self.second_before() == Role::Determiner || self.word(self.at.wrapping_sub(2)) == "with")
        {
            self.set(Tag::JJ);
        }
    }
}

/// Present participles of verbs without an object.
const INTRANSITIVE: &[&str] = &[
    "aging",
    "blooming",
    "crying",
    "falling",
    "floating",
    "flowering",
    "flowing",
    "glowing",
    "graduating",
    "laughing",
    "matching",
    "opposing",
    "rising",
    "roaring",
    "shining",
    "sleeping",
    "sliding",
    "smiling",
    "sparkling",
    "towering",
    "winding",
];

/// Present participles of verbs whose object is often a name: "lewis holding trophy".
const TRANSITIVE: &[&str] = &[
    "attending",
    "carrying",
    "catching",
    "celebrating",
    "containing",
    "depicting",
    "displaying",
    "doing",
    "drinking",
    "eating",
    "enjoying",
    "featuring",
    "giving",
    "having",
    "hitting",
    "holding",
    "hugging",
    "including",
    "kissing",
    "leaving",
    "making",
    "meeting",
    "performing",
    "playing",
    "representing",
    "riding",
    "selling",
    "showing",
    "signing",
    "singing",
    "starring",
    "taking",
    "throwing",
    "using",
    "visiting",
    "watching",
    "wearing",
];

/// Participles made from nouns; what they describe follows: "a heart shaped cake".
const PARTS: &[&str] = &[
    "based",
    "bodied",
    "collared",
    "colored",
    "coloured",
    "covered",
    "eyed",
    "faced",
    "filled",
    "haired",
    "handed",
    "headed",
    "inspired",
    "legged",
    "lined",
    "patterned",
    "shaped",
    "sized",
    "sleeved",
    "striped",
    "styled",
    "terraced",
    "themed",
    "topped",
];

/// Gerunds that describe the purpose of a [`PLACES`] noun.
const PURPOSES: &[&str] = &[
    "living",
    "dining",
    "parking",
    "sleeping",
    "sitting",
    "seating",
    "waiting",
    "eating",
    "washing",
    "changing",
    "cooking",
    "working",
    "playing",
    "swimming",
    "boarding",
    "loading",
    "coloring",
    "colouring",
];

/// Nouns before which a gerund describes their purpose, even after another noun: "kitchen dining area".
const PLACES: &[&str] = &[
    "area", "areas", "room", "rooms", "space", "spaces", "lot", "lots", "table", "tables", "pool", "pools",
    "zone", "zones", "dock", "docks", "bench", "benches", "page", "pages", "book", "books",
];

/// Adjectives that replace a noun mentioned before: "one on top of the other".
const STAND_FOR_NOUNS: &[&str] = &[
    "other", "same", "first", "second", "third", "next", "last", "few", "many", "more", "most", "least",
    "only", "such", "little", "lot", "latter", "former", "own",
];
