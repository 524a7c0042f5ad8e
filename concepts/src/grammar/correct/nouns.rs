//! Words that are tagged as nouns and are not, and verbs that are nouns.

use super::{PREPOSITIONS, Place, Role, Tag, colours};

impl Place<'_> {
    /// A noun.
    pub(super) fn noun(&mut self) {
        let at = self.at;
        let (before, next) = (self.before(), self.next());
        if self.special_noun(before, next) {
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

    /// Rules for single words that are tagged as nouns, by their first byte. Returns whether one applied.
    fn special_noun(&mut self, before: Role, next: Role) -> bool {
        let own = self.own();
        let describes = matches!(next, Role::Noun | Role::Adjective);
        let tag = match own.as_bytes()[0] {
            // "9cm" is a number, "1970s" is none.
            b'0'..=b'9' if self.at > 0 && !own.ends_with('s') => Tag::CD,
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
        } else if tag == Tag::NN && self.tags[at - 1] == Tag::TO {
            // "waits to board the train"
            if at >= 2 && !matches!(self.word(at - 2), "next" | "close") {
                self.set(Tag::VB);
            }
        } else if tag == Tag::NN && self.tags[at - 1] == Tag::NNS {
            // "volunteers paint the fence"
            self.set(Tag::VBP);
        } else if tag == Tag::NNS
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

    /// A verb without ending.
    pub(super) fn verb(&mut self) {
        let at = self.at;
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

/// The days of the week, which are adverbs after a complete phrase.
const DAYS: &[&str] = &["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Nouns that come before the adjectives of another noun and describe it.
const AGES: &[&str] = &["adult", "baby", "female", "juvenile", "male", "toddler"];

/// Parts of the body whose names are verbs, too.
const BODY: &[&str] = &["arm", "back", "eye", "face", "hand", "head", "nose", "shoulder"];
