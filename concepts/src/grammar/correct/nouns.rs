//! Words that are tagged as nouns and are not, and verbs that are nouns.

use super::{ADVERBS, MAX_MODIFIERS, PREPOSITIONS, Place, Role, Tag};
use crate::grammar::{colours, is_roman};

impl Place<'_> {
    /// A noun.
    pub(super) fn noun(&mut self) {
        let at = self.at;
        let (before, next) = (self.before(), self.next());
        if self.special_noun(before, next) {
        } else if self.tag(at + 1) == Some(Tag::CC) && self.role(at + 2) != Role::Outside {
            self.join_colours();
            self.join_pair();
        } else if next == Role::Determiner && self.word(at + 1) != "no" {
            self.verb_with_object();
        } else if next == Role::Adjective && self.tags[at] == Tag::NN {
            // "an adult black bear"
            if self.role(at + 2) == Role::Noun && AGES.contains(&self.own()) {
                self.set(Tag::JJ);
            }
        } else if next == Role::Noun && before == Role::Joint {
            // "a black and tan dog"
            if at >= 2 && colours::is_basic(self.word(at - 2)) && colours::is_material(self.own()) {
                self.set(Tag::JJ);
            }
        }
    }

    /// Makes one noun of two that together describe the noun after them: two that are often joined ("a salt and pepper
    /// shaker"), or the first words of a title ("walking & hiking boot socks").
    fn join_pair(&mut self) {
        let at = self.at;
        let starts = at == 0 || matches!(self.tags[at - 1], Tag::COLON | Tag::COMMA | Tag::OPEN | Tag::STOP);
        let name = starts
            && self.word(at + 1) == "&"
            && matches!(self.tags[at], Tag::NN | Tag::NNP)
            && matches!(self.tags[at + 2], Tag::NN | Tag::NNP | Tag::VBG);
        if self.role(at + 3) == Role::Noun && (name || PAIRS.contains(&(self.own(), self.word(at + 2)))) {
            self.tags[at..at + 3].fill(Tag::NN);
        }
    }

    /// Rules for single words that are tagged as nouns, by their first byte. Returns whether one applied.
    fn special_noun(&mut self, before: Role, next: Role) -> bool {
        let own = self.own();
        // "a woman who dances", "it stinks"
        if self.tags[self.at] == Tag::NNS
            && before == Role::Outside
            && matches!(self.word_before(), "who" | "he" | "she" | "it")
            && self.tag(self.at.wrapping_sub(2)) != Some(Tag::VBZ)
            && own.ends_with('s')
        {
            self.set(Tag::VBZ);
            return true;
        }
        let describes = matches!(next, Role::Noun | Role::Adjective);
        let tag = match own.as_bytes()[0] {
            // "9cm" is a number, "1970s" is none.
            // "a rug 9cm wide", but "chicken breast 500g"
            b'0'..=b'9'
                if self.at > 0 && !own.ends_with('s') && !(before == Role::Noun && self.is_amount()) =>
            {
                Tag::CD
            }
            // "canvas print #oxm237"
            _ if self.word_before() == "#"
                && !own.ends_with('s')
                && own.bytes().any(|byte| byte.is_ascii_digit()) =>
            {
                Tag::CD
            }
            // "the chief breaks down"
            _ if self.tags[self.at] == Tag::NNS
                && matches!(self.tag_before(), Some(Tag::NN | Tag::NNP))
                && matches!(self.tag(self.at + 1), Some(Tag::RB | Tag::RP))
                && matches!(self.word(self.at + 1), "down" | "up" | "off" | "out" | "away")
                && MOVES.contains(&own) =>
            {
                Tag::VBZ
            }
            // "world war ii"
            b'i' | b'v' | b'x' if self.at > 0 && before != Role::Determiner && is_roman(own) => Tag::CD,
            // "womens new boots"
            b'm' | b'w' | b'c' if describes && matches!(own, "mens" | "womens" | "childrens") => Tag::JJ,
            b'u' if own == "upside-down" => {
                if next == Role::Noun {
                    Tag::JJ
                } else {
                    Tag::RB
                }
            }
            // "an empty building today", "something offstage"
            b'd' | b'i' | b'n' | b'o' | b't' | b'u' | b'y'
                if next != Role::Noun && ADVERBS.contains(&own) && self.may_precede_adverb() =>
            {
                Tag::RB
            }
            // "shares a smile monday"
            b'f' | b'm' | b's' | b't' | b'w'
                if next != Role::Noun
                    && before == Role::Noun
                    && own.ends_with("day")
                    && DAYS.contains(&own) =>
            {
                Tag::RB
            }
            _ => return false,
        };
        self.set(tag);
        true
    }

    /// Whether a word is an amount at the end of a name: "500g", but not "10th" or "1.jpg".
    fn is_amount(&self) -> bool {
        const OTHER: [&str; 6] = ["st", "nd", "rd", "th", "jpg", "png"];
        let own = self.own();
        self.ends_text()
            && own.ends_with(|c: char| c.is_ascii_alphabetic())
            && !OTHER.iter().any(|end| own.ends_with(end))
    }

    /// Whether the word before is a noun, a verb or an adverb.
    fn may_precede_adverb(&self) -> bool {
        match self.tag_before() {
            Some(Tag::VB | Tag::VBZ | Tag::VBP | Tag::VBD | Tag::VBG | Tag::VBN | Tag::RB) => true,
            Some(tag) => tag.is_noun(),
            None => false,
        }
    }

    /// A word before a determiner is a verb: a noun phrase ends before the next one starts.
    fn verb_with_object(&mut self) {
        let at = self.at;
        let tag = self.tags[at];
        if at == 0 {
        } else if tag == Tag::NN
            && self.own() == "show"
            && matches!(self.word_before(), "picture" | "image" | "photo")
        {
            self.set(Tag::VBP);
        } else if tag == Tag::NN && self.tags[at - 1] == Tag::TO {
            // "waits to board the train"
            if at >= 2 && !matches!(self.word(at - 2), "next" | "close") {
                self.set(Tag::VB);
            }
        } else if tag == Tag::NN && self.tags[at - 1] == Tag::NNS {
            // "volunteers paint the fence"
            self.set(Tag::VBP);
        } else if tag == Tag::NNS
            && self.own() != "wars"
            && (matches!(self.tags[at - 1], Tag::NN | Tag::NNP)
                || self.follows_a(at)
                || at >= 2 && self.word(at - 2) == "in" && colours::is_basic(self.word(at - 1)))
        {
            // "the bridge spans a river"
            self.set(Tag::VBZ);
            if self.before() == Role::Adjective {
                self.tags[at - 1] = Tag::NN;
            }
        }
    }

    /// Whether a word without ending after a noun in the singular, or after "and", cannot be a verb: nothing before it makes it
    /// an infinitive or its subject plural.
    fn is_verbless(&self) -> bool {
        let at = self.at;
        let before = &self.tags[at.saturating_sub(MAX_MODIFIERS)..at];
        let verb = |tag: &Tag| {
            matches!(
                *tag,
                Tag::VB | Tag::VBP | Tag::VBZ | Tag::VBD | Tag::VBG | Tag::MD | Tag::TO | Tag::PRP | Tag::DT
            )
        };
        match self.tag_before() {
            Some(Tag::CC) => at >= 2 && self.tags[at - 2].is_noun() && !before.iter().any(verb),
            Some(Tag::NNP) => {
                !matches!(self.own(), "are" | "be" | "do" | "have")
                    && !before.iter().any(|tag| verb(tag) || matches!(*tag, Tag::CC | Tag::COMMA | Tag::NNS))
            }
            _ => false,
        }
    }

    /// A verb without ending.
    pub(super) fn verb(&mut self) {
        let at = self.at;
        // "thumbnail for a film", "cover image for"; "alba gloss pocket leggings", "leather and suede camera strap"
        let thing = at == 0
            && (self.own() == "thumbnail"
                || self.next() == Role::Noun && matches!(self.own(), "cover" | "sample" | "stock"));
        if thing || matches!(self.next(), Role::Noun | Role::Adjective) && self.is_verbless() {
            self.set(Tag::NN);
            return;
        }
        // "a boys bicycle", "licks its owners face": a possessive that lacks its apostrophe
        let possessive = self.tag_before() == Some(Tag::NNS)
            && (self.follows_a(at - 1)
                || BODY.contains(&self.own())
                    && matches!(self.second_before(), Role::Determiner | Role::Adjective)
                    && matches!(self.tag(at + 1), None | Some(Tag::STOP | Tag::COMMA | Tag::IN | Tag::CC)));
        // "a man in swim trunks"; "a good swim", "watch the train come in": no verb can follow an article.
        if possessive
            || PREPOSITIONS.contains(&self.word_before())
            || self.next() != Role::Noun && (self.follows_a(at) || self.follows_article())
        {
            self.set(Tag::NN);
        }
    }
}

/// The days of the week, which are adverbs after a complete phrase.
const DAYS: &[&str] = &["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Nouns that come before the adjectives of another noun and describe it.
const AGES: &[&str] = &["adult", "baby", "female", "juvenile", "male", "toddler"];

/// Parts of the body whose names are verbs, too.
const BODY: &[&str] = &["arm", "back", "eye", "face", "hand", "head", "nose", "shoulder"];

/// Nouns that are often joined by "and" and together describe another one.
const PAIRS: &[(&str, &str)] = &[
    ("arts", "crafts"),
    ("art", "craft"),
    ("bacon", "egg"),
    ("bath", "body"),
    ("bed", "breakfast"),
    ("drum", "bass"),
    ("fish", "chip"),
    ("food", "beverage"),
    ("food", "drink"),
    ("food", "wine"),
    ("gas", "oil"),
    ("hair", "beauty"),
    ("hair", "makeup"),
    ("ham", "cheese"),
    ("health", "beauty"),
    ("health", "fitness"),
    ("health", "safety"),
    ("health", "wellness"),
    ("hide", "seek"),
    ("home", "garden"),
    ("home", "interior"),
    ("lawn", "garden"),
    ("mac", "cheese"),
    ("macaroni", "cheese"),
    ("oil", "gas"),
    ("patio", "garden"),
    ("peanut", "jelly"),
    ("research", "development"),
    ("salt", "pepper"),
    ("science", "technology"),
    ("search", "rescue"),
    ("sport", "leisure"),
    ("sports", "leisure"),
    ("truth", "dare"),
    ("wine", "cheese"),
    ("wine", "food"),
];

/// Verbs that "up", "down" and the like often follow.
const MOVES: &[&str] = &[
    "breaks", "comes", "gives", "goes", "heads", "lays", "lies", "lights", "lines", "looks", "picks", "runs",
    "shows", "sits", "stands", "steps", "suits", "takes", "walks", "warms",
];
