//! Marks inside phrases: hyphens, strokes, signs of multiplication and per cent.

use super::{MAX_MODIFIERS, Place, Role, Tag};
use crate::grammar::is_figure;

impl Place<'_> {
    /// Rules for single marks. Returns whether one applied.
    pub(super) fn mark(&mut self) -> bool {
        let at = self.at;
        match self.own() {
            // "8 x 10", "5 ft x 7 rug", "100 % cotton"
            "x" | "×" if self.next() == Role::Number => self.set(Tag::CD),
            "%" if self.before() == Role::Number => self.set(Tag::CD),
            // `a 3.5" screen`: inches or feet after a figure, unless a quotation mark is open
            "\"" | "\"\"" | "'" | "''" if self.is_unit() => self.set(Tag::CD),
            // "#sunset" is not a number. "upper deck #72 randy johnson": the number belongs to neither name.
            "#" if self.next() != Role::Number => self.set(Tag::SYM),
            "#" if is_figure(self.word(at + 1)) => self.tags[at..=at + 1].fill(Tag::SYM),
            // "a full - length mirror", as corpora write it whose punctuation is set off by spaces
            "-" if self.joins_modifiers() => self.tags[at - 1..=at].fill(Tag::JJ),
            // "3/4 sleeve"
            "/" if self.before() == Role::Number && self.next() == Role::Number && self.is_attached() => {
                self.set(Tag::CD);
            }
            // "a tub/shower combination", "melrose gray/blue rug"
            "/" if self.joins_alternatives() => {
                let tag = if self.tags[at - 1].is_noun() || self.second_before() == Role::Noun {
                    Tag::NN
                } else {
                    Tag::JJ
                };
                self.tags[at - 1..=at].fill(tag);
                if tag == Tag::NN {
                    self.tags[at + 1] = Tag::NN;
                }
            }
            // "the violent: high stakes"
            ":" | ";" if self.before() == Role::Adjective => self.set(Tag::SYM),
            _ => return false,
        }
        true
    }

    /// Whether a stroke without spaces joins two words that describe a noun after them.
    fn joins_alternatives(&self) -> bool {
        let at = self.at;
        let describes = |role: Role| matches!(role, Role::Noun | Role::Adjective);
        describes(self.before())
            && describes(self.next())
            && describes(self.role(at + 2))
            && self.is_attached()
    }

    /// Whether a quotation mark directly after a figure is the sign for inches or feet. Looks for an open one among the words
    /// directly before, so that long texts take no longer.
    fn is_unit(&self) -> bool {
        let at = self.at;
        self.before() == Role::Number
            && self.words[at - 1].end == self.words[at].start
            && matches!(self.next(), Role::Noun | Role::Adjective | Role::Number | Role::Participle)
            && (at.saturating_sub(MAX_MODIFIERS)..at)
                .filter(|&before| self.word(before) == self.own() && self.tags[before] != Tag::CD)
                .count()
                % 2
                == 0
    }

    /// Whether there are no spaces around a mark.
    fn is_attached(&self) -> bool {
        let at = self.at;
        self.words[at - 1].end == self.words[at].start && self.words[at].end == self.words[at + 1].start
    }

    /// Whether a hyphen with a space on both sides joins two parts of a modifier: "t - shirts", "a military - style coat",
    /// "a high - heeled shoe". Elsewhere such a hyphen separates titles: "fever tree - book cover".
    fn joins_modifiers(&self) -> bool {
        let at = self.at;
        let first = self.before();
        if !matches!(first, Role::Noun | Role::Adjective | Role::Adverb | Role::Number) {
            // "my off - road wheels"
            return matches!(self.tags[at - 1], Tag::IN | Tag::RP)
                && self.second_before() == Role::Determiner
                && self.next() == Role::Noun
                && self.role(at + 2) == Role::Noun;
        }
        // "a pale pink heart - shaped flower": the part before the hyphen may be described itself, after a determiner.
        let start = self.first_adjective(at - 1).wrapping_sub(1);
        let determiner = self.role(start) == Role::Determiner;
        let before = if determiner { Role::Determiner } else { self.second_before() };
        if matches!(before, Role::Noun | Role::Adjective | Role::Possessive) {
            return false;
        }
        let letter = self.word(at - 1).len() == 1 && first != Role::Number;
        let described = self.role(at + 2);
        match self.next() {
            Role::Noun if letter => true,
            // "high - waisted skinny jeans"
            Role::Participle => matches!(described, Role::Noun | Role::Adjective) && before != Role::Number,
            _ if described != Role::Noun => false,
            _ if self.word(at + 1) == "like" => true,
            // "the game - winning goal"
            Role::Noun | Role::Adjective if determiner => {
                let the = self.word(start) == "the"
                    && first != Role::Adjective
                    && !self.word(at + 1).ends_with("ing");
                !the && self.role(at + 3) != Role::Noun
            }
            Role::Noun | Role::Adjective => first == Role::Number && before == Role::Outside,
            _ => false,
        }
    }

    /// A hyphenated word before a noun belongs to the phrase: "a stand-up comedian", "chair metal-net seat".
    pub(super) fn hyphenated(&mut self) {
        let next = self.next();
        let tag = match (self.before(), self.role(self.at)) {
            (Role::Noun, Role::Adjective) if next == Role::Noun => Tag::NN,
            (Role::Noun, Role::Outside) if next == Role::Noun && self.tags[self.at] == Tag::RP => Tag::NN,
            (Role::Determiner | Role::Adjective | Role::Possessive, Role::Outside) if next == Role::Noun => {
                Tag::JJ
            }
            // "a short-sleeve floral dress"
            (Role::Determiner, Role::Noun)
                if next == Role::Adjective && self.role(self.at + 2) == Role::Noun =>
            {
                Tag::JJ
            }
            _ => return,
        };
        if self.own().contains('-') {
            self.set(tag);
        }
    }
}
