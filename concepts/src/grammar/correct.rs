//! Corrects tags that taggers cannot learn from their training data, such as the adjective in "a man in black".

use super::{MAX_MODIFIERS, Role, is_noun, role, role_at};
use crate::tagger::Tag;
use crate::words::Word;

/// Corrects the tags of a text, from left to right.
pub(super) fn correct(text: &str, words: &[Word], tags: &mut [Tag]) {
    for at in 1..tags.len() {
        let mut place = Place { text, words, tags, at };
        if place.may_be_special() && place.special() {
            continue;
        }
        match place.tags[at] {
            Tag::NN | Tag::NNS | Tag::NNP | Tag::NNPS | Tag::FW => place.noun(),
            Tag::JJ | Tag::RB => place.adjective(),
            Tag::VBG => place.participle(),
            Tag::VBD => place.past(),
            Tag::VB | Tag::VBP => place.verb(),
            Tag::RP => place.particle(),
            // "shows her a phone"
            Tag::PRPS if place.tags.get(at + 1) == Some(&Tag::DT) => place.set(Tag::PRP),
            _ => {}
        }
        place.hyphenated();
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
    /// Some word of the text; empty beyond its end.
    fn word(&self, at: usize) -> &'a str {
        self.words.get(at).map_or("", |word| word.of(self.text))
    }

    fn own(&self) -> &'a str {
        self.word(self.at)
    }

    fn role(&self, at: usize) -> Role {
        role_at(self.tags, at)
    }

    fn before(&self) -> Role {
        role(self.tags[self.at - 1])
    }

    fn next(&self) -> Role {
        self.role(self.at + 1)
    }

    /// The role of the second word before.
    fn second_before(&self) -> Role {
        if self.at >= 2 { role(self.tags[self.at - 2]) } else { Role::Outside }
    }

    fn follows_article(&self) -> bool {
        matches!(self.word(self.at - 1), "a" | "an" | "the")
    }

    fn set(&mut self, tag: Tag) {
        self.tags[self.at] = tag;
    }

    /// Whether [`Place::special`] may be about this word, by its length and its first byte: saves most comparisons.
    fn may_be_special(&self) -> bool {
        let word = self.words[self.at];
        let first = self.text.as_bytes()[word.start as usize];
        match word.end - word.start {
            1 => matches!(first, b'x' | b'%' | b'#' | b'-' | b'/'),
            2 => matches!(first, b'\'' | b'u' | 0xc3),
            3 => matches!(first, b'a' | b'u'),
            4 => matches!(first, b'b' | b'd' | b'e' | b'l' | 0xe2),
            5 => first == b'o',
            6 => first == b'c',
            7 => first == b'a',
            _ => false,
        }
    }

    /// Rules for single words. Returns whether one applied.
    fn special(&mut self) -> bool {
        let at = self.at;
        let (before, next) = (self.before(), self.next());
        match self.own() {
            // "with it's monitor": after a preposition or a verb, and before a noun or what describes it, "it's" means
            // "its".
            "'s" | "’s" if at >= 2 && self.word(at - 1) == "it" => {
                let takes_object = matches!(
                    self.tags[at - 2],
                    Tag::IN | Tag::RP | Tag::VB | Tag::VBG | Tag::VBN | Tag::VBZ | Tag::VBP
                );
                let describes = next == Role::Participle && self.role(at + 2) == Role::Noun;
                if takes_object && (matches!(next, Role::Noun | Role::Adjective) || describes) {
                    self.tags[at - 1..=at].fill(Tag::PRPS);
                }
            }
            // "a close up of", "close up photo", "close - up of"
            "up" | "ups" if self.is_close_up() => {
                let close = if self.word(at - 1) == "-" { at - 2 } else { at - 1 };
                self.tags[close..at].fill(Tag::JJ);
                self.set(Tag::NN);
            }
            // "a bike upside down", "an upside down bike"
            "down" if self.word(at - 1) == "upside" => {
                let describes = self.second_before() == Role::Determiner && next == Role::Noun;
                self.tags[at - 1..=at].fill(if describes { Tag::JJ } else { Tag::RB });
            }
            // "8 x 10", "5 ft x 7 rug", "100 % cotton"
            "x" | "×" if next == Role::Number => self.set(Tag::CD),
            "%" if before == Role::Number => self.set(Tag::CD),
            // "#sunset" is no number.
            "#" if next != Role::Number => self.set(Tag::SYM),
            // "a full - length mirror", as corpora write it whose punctuation is set off by spaces
            "-" if self.joins_modifiers() => self.tags[at - 1..=at].fill(Tag::JJ),
            // "a tub/shower combination"
            "/" if next == before
                && matches!(next, Role::Noun | Role::Adjective)
                && self.role(at + 2) == Role::Noun
                && self.words[at - 1].end == self.words[at].start
                && self.words[at].end == self.words[at + 1].start =>
            {
                self.tags[at - 1..=at].fill(Tag::JJ);
            }
            // "are all riding bikes", "each holding flowers", "facing each other", "next to one another"
            "all" if self.tags.get(at + 1) == Some(&Tag::VBG) && before == Role::Outside => {
                self.set(Tag::PRP);
            }
            "each" | "both" if next == Role::Participle => self.set(Tag::PRP),
            "other" | "another"
                if matches!(self.word(at - 1), "each" | "one") && next != Role::Possessive =>
            {
                self.tags[at - 1..=at].fill(Tag::PRP);
            }
            "cannot" => self.set(Tag::MD),
            // "a donut like toy"
            "like" if self.tags[at] == Tag::IN && next == Role::Noun && self.is_likened() => {
                self.tags[at - 1..=at].fill(Tag::JJ);
            }
            _ => return false,
        }
        true
    }

    /// Whether "up" ends the noun "close up" or "close - up".
    fn is_close_up(&self) -> bool {
        let close = if self.at >= 2 && self.word(self.at - 1) == "-" { self.at - 2 } else { self.at - 1 };
        let before = if close == 0 { Role::Determiner } else { role(self.tags[close - 1]) };
        self.word(close) == "close"
            && (matches!(before, Role::Determiner | Role::Adjective) || self.word(self.at + 1) == "of")
    }

    /// Whether a hyphen with a space on both sides joins two parts of a modifier: "t - shirts", "a military - style coat",
    /// "a high - heeled shoe". Elsewhere such a hyphen separates titles: "fever tree - book cover".
    fn joins_modifiers(&self) -> bool {
        let at = self.at;
        let before = self.second_before();
        let first = self.before();
        // The part before the hyphen is not the end of a longer phrase.
        if !matches!(first, Role::Noun | Role::Adjective | Role::Adverb | Role::Number)
            || matches!(before, Role::Noun | Role::Adjective | Role::Possessive)
        {
            return false;
        }
        let letter = self.word(at - 1).len() == 1 && first != Role::Number;
        let noun_follows = self.role(at + 2) == Role::Noun;
        match self.next() {
            Role::Noun if letter => true,
            Role::Participle => noun_follows && before != Role::Number,
            _ if self.word(at + 1) == "like" => noun_follows,
            Role::Noun | Role::Adjective if noun_follows => {
                let determiner = before == Role::Determiner && self.word(at - 2) != "the";
                determiner && self.role(at + 3) != Role::Noun
                    || first == Role::Number && before == Role::Outside
            }
            _ => false,
        }
    }

    /// Whether "like" after the previous word means "-like": "a donut like toy", "oval like mirrors". "Animals like dogs" and
    /// "looks like rain" are different.
    fn is_likened(&self) -> bool {
        match self.tags[self.at - 1] {
            Tag::JJ => true,
            Tag::NN => self.at >= 2 && self.follows_a(self.at - 1),
            _ => false,
        }
    }

    /// Whether nothing but adjectives stands between "a" and the word at `at`.
    fn follows_a(&self, at: usize) -> bool {
        matches!(self.word(self.first_adjective(at) - 1), "a" | "an")
    }

    /// The first of the adjectives directly before `at`; `at` itself if there is none.
    fn first_adjective(&self, at: usize) -> usize {
        let mut first = at;
        while first > 1 && at - first < MAX_MODIFIERS && role(self.tags[first - 1]) == Role::Adjective {
            first -= 1;
        }
        first
    }

    fn noun(&mut self) {
        let at = self.at;
        let (tag, before, next) = (self.tags[at], self.before(), self.next());
        // "9cm" is a number, "1970s" is none.
        if self.text.as_bytes()[self.words[at].start as usize].is_ascii_digit() && !self.own().ends_with('s')
        {
            self.set(Tag::CD);
        } else if next == Role::Determiner && self.word(at + 1) != "no" {
            if tag == Tag::NN && self.tags[at - 1] == Tag::TO {
                // "waits to board the train"
                if at >= 2 && !matches!(self.word(at - 2), "next" | "close") {
                    self.set(Tag::VB);
                }
            } else if tag == Tag::NN && self.tags[at - 1] == Tag::NNS {
                // "volunteers paint the fence", "the bridge spans a river": a noun is not followed by a determiner.
                self.set(Tag::VBP);
            } else if tag == Tag::NNS
                && (matches!(self.tags[at - 1], Tag::NN | Tag::NNP)
                    || self.follows_a(at)
                    || at >= 2 && self.word(at - 2) == "in" && COLOURS.contains(&self.word(at - 1)))
            {
                self.set(Tag::VBZ);
                if before == Role::Adjective {
                    self.tags[at - 1] = Tag::NN;
                }
            }
        } else if before == Role::Noun && next != Role::Noun {
            // "an empty building today", "something offstage"
            if ADVERBS.contains(&self.own()) {
                self.set(Tag::RB);
            }
        } else if tag == Tag::NN && next == Role::Adjective {
            // "an adult black bear"
            if self.role(at + 2) == Role::Noun && AGES.contains(&self.own()) {
                self.set(Tag::JJ);
            }
        }
    }

    fn adjective(&mut self) {
        let at = self.at;
        if self.follows_article() {
            if self.tags[at] == Tag::RB && self.next() == Role::Noun {
                // "an outdoors concert"
                self.set(Tag::JJ);
            } else if self.ends_phrase()
                && !(self.tags.get(at + 1) == Some(&Tag::VBP) && self.word(at - 1) != "the")
                && !STAND_FOR_NOUNS.contains(&self.own())
            {
                // "the north won", "the outdoors": an adjective or adverb after an article, at the end of a phrase, is a
                // noun.
                self.set(Tag::NN);
            }
        } else if self.tags[at - 1] == Tag::VBG
            && at >= 2
            && self.tags[at] == Tag::JJ
            && self.word(at - 2) == "the"
            && self.ends_phrase()
        {
            // "the walking dead"
            self.set(Tag::NN);
        } else if self.tags[at] == Tag::JJ && self.own().len() <= 6 && COLOURS.contains(&self.own()) {
            self.name_colours();
        }
    }

    /// Whether a noun phrase cannot continue after this word.
    fn ends_phrase(&self) -> bool {
        let (next, second) = (self.at + 1, self.role(self.at + 2));
        match self.tags.get(next).copied() {
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

    /// Makes colours nouns if they stand after a preposition or "wearing", and not before the noun that they describe: "in
    /// black", "wearing dark red and white".
    fn name_colours(&mut self) {
        let is_colour = |place: &Self, at: usize| COLOURS.contains(&place.word(at));
        let mut first = self.first_adjective(self.at);
        // "in lavender and white"
        if first >= 3 && matches!(self.tags[first - 1], Tag::CC | Tag::COMMA) && is_noun(self.tags[first - 2])
        {
            first -= 2;
        }
        if self.tags[first - 1] != Tag::IN && self.word(first - 1) != "wearing" {
            return;
        }
        // "black , white , and red"
        let mut end = self.at + 1;
        loop {
            let joints =
                self.tags[end..].iter().take_while(|tag| matches!(**tag, Tag::CC | Tag::COMMA)).count();
            if joints == 0 || !is_colour(self, end + joints) {
                break;
            }
            end += joints + 1;
        }
        let next = self.role(end + 1);
        let stand_alone = match self.role(end) {
            Role::Noun | Role::Adjective | Role::Number => false,
            Role::Participle => !matches!(next, Role::Noun | Role::Adjective),
            // "in black and a hat", not "in black and striped trousers"
            Role::Joint if self.tags[end] == Tag::CC => matches!(next, Role::Determiner | Role::Outside),
            _ => true,
        };
        for at in self.at..end {
            if stand_alone && is_colour(self, at) {
                self.tags[at] = Tag::NN;
            }
        }
    }

    /// A present participle.
    fn participle(&mut self) {
        let (before, next) = (self.before(), self.next());
        let word = self.word(self.at - 1);
        if before == Role::Noun {
            // "a basement living area"
            if PURPOSES.contains(&self.own()) && PLACES.contains(&self.word(self.at + 1)) {
                self.set(Tag::NN);
            }
        } else if next == Role::Noun {
            // "smiling woman": the verb has no object. "With matching shoes", "a man in running shorts"; after most prepositions it is a verb: "for catching fish",
            // "engaged in playing games".
            let in_noun = || word == "in" && self.second_before() == Role::Noun;
            if word == "with" || INTRANSITIVE.contains(&self.own()) || in_noun() {
                self.set(Tag::JJ);
            }
        } else if self.follows_article()
            && (next == Role::Outside || next == Role::Participle && self.role(self.at + 2) != Role::Noun)
        {
            // "the awning", "a parking"
            self.set(Tag::NN);
        }
    }

    /// A verb in the past, which often is a participle that describes the noun after it.
    fn past(&mut self) {
        if self.next() != Role::Noun {
            return;
        }
        let own = self.own();
        let describes = match self.tags[self.at - 1] {
            // titles: "carbon steel perforated mesh", but "a runner named kim"
            Tag::NNP => own.ends_with("ed") && !matches!(own, "named" | "called"),
            // "a bald headed man", "their loved ones"
            Tag::JJ if self.second_before() == Role::Determiner => true,
            Tag::PRPS => true,
            // "a pyramid shaped tree"
            tag => role(tag) != Role::Outside && PARTS.contains(&own),
        };
        if describes {
            self.set(Tag::VBN);
        }
    }

    /// A verb without ending.
    fn verb(&mut self) {
        // "a man in swim trunks"; "a good swim": no verb can follow "a" and adjectives.
        if PREPOSITIONS.contains(&self.word(self.at - 1))
            || self.next() != Role::Noun && self.follows_a(self.at)
        {
            self.set(Tag::NN);
        }
    }

    /// "with blocked off windows", "a lit up tie"
    fn particle(&mut self) {
        if self.next() == Role::Noun
            && self.before() == Role::Participle
            && self.at >= 2
            && (self.second_before() == Role::Determiner || self.word(self.at - 2) == "with")
        {
            self.set(Tag::JJ);
        }
    }

    /// A hyphenated word before a noun belongs to the phrase: "a stand-up comedian", "chair metal-net seat".
    fn hyphenated(&mut self) {
        let tag = match (self.before(), role(self.tags[self.at])) {
            (Role::Noun, Role::Adjective) => Tag::NN,
            (Role::Determiner | Role::Adjective, Role::Outside) => Tag::JJ,
            _ => return,
        };
        if self.next() == Role::Noun && self.own().contains('-') {
            self.set(tag);
        }
    }
}

/// Prepositions that no finite verb follows.
const PREPOSITIONS: &[&str] =
    &["in", "with", "of", "on", "at", "from", "by", "for", "into", "onto", "near", "over", "under"];

/// Present participles of verbs without an object.
const INTRANSITIVE: &[&str] = &[
    "blooming",
    "crying",
    "falling",
    "floating",
    "glowing",
    "laughing",
    "rising",
    "shining",
    "sleeping",
    "smiling",
    "sparkling",
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

/// Nouns that come before the adjectives of another noun and describe it.
const AGES: &[&str] = &["adult", "baby", "female", "juvenile", "male", "toddler"];

/// The basic colour terms of English (Berlin and Kay 1969).
const COLOURS: &[&str] = &[
    "black", "white", "red", "green", "yellow", "blue", "brown", "purple", "pink", "orange", "gray", "grey",
];

/// Participles made from nouns; what they describe follows: "a heart shaped cake".
const PARTS: &[&str] = &[
    "based",
    "bodied",
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
    "striped",
    "styled",
    "themed",
    "topped",
];

/// Gerunds that describe the purpose of a [`PLACES`] noun.
const PURPOSES: &[&str] = &[
    "living", "dining", "parking", "sleeping", "sitting", "seating", "waiting", "eating", "washing",
    "changing", "cooking", "working", "playing", "swimming", "boarding", "loading",
];

/// Nouns before which a gerund describes their purpose, even after another noun: "kitchen dining area".
const PLACES: &[&str] = &[
    "area", "areas", "room", "rooms", "space", "spaces", "lot", "lots", "table", "tables", "pool", "pools",
    "zone", "zones", "dock", "docks", "bench", "benches",
];

/// Adjectives that replace a noun mentioned before: "one on top of the other".
const STAND_FOR_NOUNS: &[&str] = &[
    "other", "same", "first", "second", "third", "next", "last", "few", "many", "more", "most", "least",
    "only", "such", "little", "lot", "latter", "former", "own",
];
