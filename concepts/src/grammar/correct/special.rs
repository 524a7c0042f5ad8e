//! Rules for single words.

use super::{Place, Role, Tag, is_title};

impl Place<'_> {
    /// Whether [`Place::special`] may be about this word, by its length and its first byte: saves most comparisons.
    pub(super) fn may_be_special(&self) -> bool {
        let word = self.words[self.at];
        let first = self.text.as_bytes()[word.start as usize];
        let kind = match word.end - word.start {
            1 => matches!(first, b'x' | b'w' | b'%' | b'#' | b'-' | b'/' | b':' | b';' | b'"' | b'\''),
            2 => matches!(first, b'\'' | b'u' | b'v' | b'"' | 0xc3),
            3 => matches!(first, b'a' | b'i' | b'l' | b's' | b'u' | b'v'),
            4 => matches!(first, b'b' | b'c' | b'd' | b'e' | b'i' | b'l' | b'p' | 0xe2),
            5 => matches!(first, b'o' | b'l' | b'd'),
            6 => first == b'c',
            7 => first == b'a',
            _ => false,
        };
        kind && (self.at > 0 || first == b'#')
    }

    /// Rules for single words; not for the first of the text. Returns whether one applied.
    pub(super) fn special(&mut self) -> bool {
        let at = self.at;
        let (before, next) = (self.before(), self.next());
        match self.own() {
            "x" | "×" | "%" | "#" | "-" | "/" | ":" | ";" | "\"" | "\"\"" | "'" | "''" => {
                return self.mark();
            }
            // "bangladesh vs west indies"
            "vs" | "vs." if before != Role::Determiner && self.word(at + 1) != "/" => self.set(Tag::IN),
            // "led light"
            "led" if LIGHTS.contains(&self.word(at + 1)) => self.set(Tag::NN),
            // "a gift set by", "vanity set"
            "set" if before == Role::Noun && self.ends_name() => self.set(Tag::NN),
            // "keep calm and love goats"
            "calm" if self.word(at - 1) == "keep" => {
                self.set(Tag::JJ);
                if self.word(at + 1) == "and" && at + 3 < self.tags.len() {
                    self.tags[at + 2] = Tag::VB;
                }
            }
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
            // "a 1920 's envelope"
            "'s" | "’s" if self.tags[at] == Tag::POS && self.tags[at - 1] == Tag::CD => self.set(Tag::NNS),
            // "a close up of", "close up photo", "close - up of", "a clean - up"
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
            // "are all riding bikes", "each holding flowers", "facing each other", "next to one another"
            "all" if self.tag(at + 1) == Some(Tag::VBG) && before == Role::Outside => {
                self.set(Tag::PRP);
            }
            "each" | "both" if next == Role::Participle => self.set(Tag::PRP),
            "other" | "another"
                if matches!(self.word(at - 1), "each" | "one") && next != Role::Possessive =>
            {
                self.tags[at - 1..=at].fill(Tag::PRP);
            }
            "cannot" => self.set(Tag::MD),
            // "catskill craftsmen, inc."
            "inc" | "inc." | "llc" | "ltd" | "ltd."
                if self.tags[at - 1] == Tag::COMMA && self.second_before() == Role::Noun =>
            {
                self.tags[at - 1..=at].fill(Tag::NNP);
            }
            // "w/ hat"
            "w" if self.word(at + 1) == "/" => self.set(Tag::IN),
            // "a donut like toy"
            "like" if self.tags[at] == Tag::IN && next == Role::Noun && self.is_likened() => {
                self.tags[at - 1..=at].fill(Tag::JJ);
            }
            // "at least one ship"
            "least" if self.word(at - 1) == "at" && next == Role::Number => {
                self.tags[at - 1..=at].fill(Tag::RB);
            }
            // "second from left"
            "left" if self.word(at - 1) == "from" && next != Role::Noun => self.set(Tag::NN),
            // "walks past theaters"
            "past"
                if before == Role::Noun
                    && matches!(next, Role::Noun | Role::Determiner | Role::Adjective) =>
            {
                self.set(Tag::IN);
            }
            // "a dozen eggs"
            "dozen" if next == Role::Noun => self.set(Tag::CD),
            // "an iphone 7 plus case"
            "plus" if before == Role::Number && next == Role::Noun => self.set(Tag::NN),
            _ => return false,
        }
        true
    }

    /// Whether a name ends here: at the end of the text or before a mark, in titles also before "by", "of", "with" or "for".
    fn ends_name(&self) -> bool {
        self.ends_text()
            || is_title(self.tags, self.at)
                && match self.word(self.at + 1) {
                    "by" | "of" => true,
                    // "a table set for dinner"
                    "with" | "for" => !matches!(self.word_before(), "table" | "tables"),
                    _ => false,
                }
    }

    /// Whether "up" ends the noun "close up" or "close - up", or another one that is written with a spaced hyphen.
    fn is_close_up(&self) -> bool {
        let hyphen = self.at >= 2 && self.word(self.at - 1) == "-";
        let close = if hyphen { self.at - 2 } else { self.at - 1 };
        let before = self.role(close.wrapping_sub(1));
        let article = before == Role::Determiner || close == 0;
        if self.word(close) == "close" {
            article || before == Role::Adjective || self.word(self.at + 1) == "of"
        } else {
            // "warm - up, leads the team"
            let starts = close == 0
                && self.role(0) != Role::Participle
                && self.tag(self.at + 1).is_none_or(|tag| matches!(tag, Tag::COMMA | Tag::COLON));
            hyphen && (before == Role::Determiner || starts)
        }
    }

    /// Whether "like" after the previous word means "-like": "a donut like toy", "oval like mirrors". "Animals like dogs" and
    /// "looks like rain" are different.
    fn is_likened(&self) -> bool {
        match self.tags[self.at - 1] {
            Tag::JJ => true,
            Tag::NN => self.follows_a(self.at - 1),
            _ => false,
        }
    }
}

/// What is lit by light-emitting diodes: "led light".
const LIGHTS: &[&str] = &[
    "bulb",
    "bulbs",
    "candle",
    "candles",
    "display",
    "flashlight",
    "headlight",
    "headlights",
    "lamp",
    "lamps",
    "light",
    "lighting",
    "lights",
    "monitor",
    "panel",
    "screen",
    "strip",
    "strips",
    "tube",
    "tv",
];
