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
//! noun+     = noun (link? noun)*             yamaha kodiak 700 eps
//! link      = number* | past participle      snow covered mountain
//! ```
//!
//! The head is the last noun. Before the grammar runs, the tags of a few word sequences are corrected (`correct`:
//! "it's" written for "its", "a close up", "8 x 10"). Afterwards, a [`Phrase`] that is part of a preposition ("in front
//! of") or is a pronoun is dropped, and a verb that was tagged as a plural noun is cut off ("a pizza sits").

use crate::tagger::Tag;
use crate::words::Word;

/// Version of this grammar and of the rule for concepts; stored in every sidecar.
pub(crate) const VERSION: u32 = 2;

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

/// Whether the grammar treats two tags alike (apart from rules for single words).
pub(crate) fn same_role(a: Tag, b: Tag) -> bool {
    role(a) == role(b)
}

/// Finds the phrases of a tagged text, from left to right. `phrases` is cleared first; some `tags` are corrected.
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

/// Maximum number of modifiers. Otherwise a text without a noun would be searched to its end from every word.
const MAX_MODIFIERS: usize = 32;

/// End of the phrase that starts at `start`; `None` if none does.
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
    for at in start..start + MAX_MODIFIERS {
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
        let mut next = end;
        while role_at(tags, next) == Role::Number {
            next += 1;
        }
        if next == end && tags.get(end) == Some(&Tag::VBN) {
            next += 1;
        }
        if next == end || role_at(tags, next) != Role::Noun {
            return end;
        }
        end = next;
    }
}

fn role_at(tags: &[Tag], at: usize) -> Role {
    tags.get(at).map_or(Role::Outside, |tag| role(*tag))
}

/// Whether a past participle starts a phrase: yes in "with tiled walls", no in "is given food".
fn is_adjectival(tags: &[Tag], at: usize) -> bool {
    const NO_VERB_AFTER: [Tag; 5] = [Tag::IN, Tag::CC, Tag::COMMA, Tag::COLON, Tag::VBG];
    tags[at] == Tag::VBN
        && (at == 0 || NO_VERB_AFTER.contains(&tags[at - 1]))
        && matches!(role_at(tags, at + 1), Role::Noun | Role::Adjective)
}

/// Nouns that form a preposition between "in", "on" or "at", and "of".
const PREPOSITION_NOUNS: &[&str] = &["front", "top", "back"];

/// "in front of" and "on top of" are prepositions, not phrases.
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

/// Corrects tags that taggers cannot learn from their training data.
fn correct(text: &str, words: &[Word], tags: &mut [Tag]) {
    for at in 1..tags.len() {
        let word = |at: usize| words.get(at).map_or("", |word| word.of(text));
        let (before, next) = (role(tags[at - 1]), role_at(tags, at + 1));
        match word(at) {
            // "with it's monitor": after a preposition or a verb, and before a noun or adjective, "it's" means "its".
            "'s" | "’s" if word(at - 1) == "it" && at >= 2 => {
                let takes_object = matches!(
                    tags[at - 2],
                    Tag::IN | Tag::RP | Tag::VB | Tag::VBG | Tag::VBN | Tag::VBZ | Tag::VBP
                );
                if takes_object && matches!(next, Role::Noun | Role::Adjective) {
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
            // "8 x 10", "5 ft x 7 rug"
            "x" | "×" if next == Role::Number => tags[at] = Tag::CD,
            // "a basement living area"
            purpose
                if tags[at] == Tag::VBG
                    && before == Role::Noun
                    && PURPOSES.contains(&purpose)
                    && PLACES.contains(&word(at + 1)) =>
            {
                tags[at] = Tag::NN;
            }
            // "the north won": an adjective after a determiner, at the end of a phrase, is a noun.
            last if tags[at] == Tag::JJ
                && tags[at - 1] == Tag::DT
                && ends_phrase(tags, at + 1)
                && !STAND_FOR_NOUNS.contains(&last) =>
            {
                tags[at] = Tag::NN;
            }
            // A hyphenated word before a noun belongs to the phrase: "a stand-up comedian", "chair metal-net seat".
            joined if next == Role::Noun && joined.contains('-') => match (before, role(tags[at])) {
                (Role::Noun, Role::Adjective) => tags[at] = Tag::NN,
                (Role::Determiner, Role::Outside) => tags[at] = Tag::JJ,
                _ => {}
            },
            _ => {}
        }
    }
}

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

/// Whether a noun phrase cannot continue with the tags from `at` on.
fn ends_phrase(tags: &[Tag], at: usize) -> bool {
    match tags.get(at).copied() {
        None => true,
        Some(Tag::CC) => matches!(role_at(tags, at + 1), Role::Determiner | Role::Number),
        Some(tag) => matches!(tag, Tag::IN | Tag::TO | Tag::VBZ | Tag::VBP | Tag::VBD | Tag::MD | Tag::WDT),
    }
}

/// Singular determiners.
const SINGULAR: &[&str] = &["a", "an", "one", "this", "each", "every", "another"];

/// Nouns with a plural form that may follow [`SINGULAR`].
const INVARIANT: &[&str] =
    &["series", "species", "headquarters", "crossroads", "means", "works", "barracks", "gallows"];

/// "a pizza sits": after a singular determiner and a noun, a word that looks like a plural is the verb.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks the phrases of a tagged text: "the/DT dog/NN" becomes "[the dog]".
    fn bracketed(tagged: &str) -> String {
        let (mut text, mut words, mut tags) = (String::new(), Vec::new(), Vec::new());
        for word in tagged.split(' ') {
            let (word, tag) = word.rsplit_once('/').unwrap();
            if !text.is_empty() {
                text.push(' ');
            }
            let start = text.len() as u32;
            text.push_str(word);
            words.push(Word { start, end: text.len() as u32 });
            tags.push(Tag::from_name(tag).unwrap());
        }
        let mut found = Vec::new();
        phrases(&text, &words, &mut tags, &mut found);
        let mut line = Vec::new();
        for (at, word) in words.iter().enumerate() {
            let opens = found.iter().any(|phrase| phrase.start == at);
            let closes = found.iter().any(|phrase| phrase.end == at + 1);
            line.push(format!(
                "{}{}{}",
                if opens { "[" } else { "" },
                word.of(&text),
                if closes { "]" } else { "" }
            ));
        }
        line.join(" ")
    }

    #[test]
    fn each_rule_of_the_grammar() {
        for (tagged, expected) in [
            // modifiers
            ("two/CD big/JJ red/JJ fire/NN trucks/NNS", "[two big red fire trucks]"),
            ("all/PDT the/DT dogs/NNS run/VBP", "[all the dogs] run"),
            ("a/DT very/RB old/JJ car/NN", "[a very old car]"),
            ("runs/VBZ very/RB fast/RB", "runs very fast"),
            ("a/DT red/JJ ,/, white/JJ ,/, and/CC blue/JJ flag/NN", "[a red , white , and blue flag]"),
            ("the/DT parked/VBN car/NN", "[the parked car]"),
            ("room/NN with/IN tiled/VBN walls/NNS", "[room] with [tiled walls]"),
            ("is/VBZ given/VBN food/NN", "is given [food]"),
            // possessives
            ("the/DT dog/NN 's/POS red/JJ bowl/NN", "[the dog 's red bowl]"),
            ("the/DT dog/NN 's/POS the/DT bowl/NN", "[the dog] 's [the bowl]"),
            // between nouns
            ("yamaha/NNP kodiak/NNP 700/CD eps/NNP", "[yamaha kodiak 700 eps]"),
            ("a/DT snow/NN covered/VBN mountain/NN", "[a snow covered mountain]"),
            ("ivory/NN 8/CD x/NN 10/CD rug/NN", "[ivory 8 x 10 rug]"),
            ("ivory/NN 8/CD ft/NN ×/NN 10/CD", "[ivory 8 ft] × 10"),
            ("a/DT dog/NN running/VBG water/NN", "[a dog] running [water]"),
            ("a/DT basement/NN living/VBG area/NN", "[a basement living area]"),
            // no phrases, or shortened ones
            ("in/IN front/NN of/IN a/DT house/NN", "in front of [a house]"),
            ("the/DT front/NN of/IN a/DT house/NN", "[the front] of [a house]"),
            ("something/NN on/IN a/DT plate/NN", "something on [a plate]"),
            ("a/DT pizza/NN sits/NNS on/IN a/DT plate/NN", "[a pizza] sits on [a plate]"),
            ("two/CD pizza/NN pans/NNS", "[two pizza pans]"),
            ("a/DT tv/NN series/NNS", "[a tv series]"),
            // words whose tags are corrected
            ("computer/NN with/IN it/PRP 's/VBZ monitor/NN", "[computer] with [it 's monitor]"),
            ("so/RB it/PRP 's/VBZ monday/NNP", "so it 's [monday]"),
            ("a/DT close/JJ up/RP of/IN food/NN", "[a close up] of [food]"),
            ("an/DT iguana/JJ and/CC two/CD birds/NNS", "[an iguana] and [two birds]"),
            ("the/DT north/JJ won/VBD the/DT war/NN", "[the north] won [the war]"),
            ("next/IN to/TO the/DT other/JJ in/IN a/DT row/NN", "next to the other in [a row]"),
            ("a/DT black/JJ and/CC white/JJ cat/NN", "[a black and white cat]"),
            ("a/DT stand-up/VB video/NN game/NN", "[a stand-up video game]"),
            ("pet/NN metal-net/JJ look/NN chair/NN", "[pet metal-net look chair]"),
        ] {
            assert_eq!(bracketed(tagged), expected, "{tagged}");
        }
    }

    #[test]
    fn a_long_run_of_modifiers_without_a_noun_ends() {
        assert_eq!(bracketed(&vec!["red/JJ"; 5000].join(" ")), vec!["red"; 5000].join(" "));
    }
}
