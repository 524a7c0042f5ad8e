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
//! The head is the last noun. Before the grammar runs, the tags of a few word sequences are corrected ([`correct`]:
//! "it's" written for "its", "a close up", "8 x 10", a colour that stands for a noun as in "a man in black"). Afterwards,
//! a [`Phrase`] that is part of a preposition ("in front of") or starts with a pronoun is dropped, and a verb that was
//! tagged as a plural noun is cut off ("a pizza sits").

mod correct;

use crate::tagger::Tag;
use crate::words::Word;

/// Version of this grammar and of the rule for concepts; stored in every sidecar.
pub(crate) const VERSION: u32 = 3;

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
    correct::correct(text, words, tags);
    let mut at = 0;
    while at < tags.len() {
        let Some(end) = phrase_end(tags, at) else {
            at += 1;
            continue;
        };
        let phrase = Phrase { start: at, end };
        if !is_preposition(text, words, tags, phrase) && !is_pronoun(text, words, tags, phrase) {
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
            // "red, white, and blue"; after an article also "an old, metal sign", "a wet, smiling child"
            Role::Joint => {
                before == Role::Adjective && (next == Role::Adjective || next == Role::Joint)
                    || before == Role::Joint && next == Role::Adjective
                    || before == Role::Adjective
                        && tags[at] == Tag::COMMA
                        && tags[start] == Tag::DT
                        && matches!(next, Role::Noun | Role::Participle)
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
        // "strawberry shortcake large backpack": names of things are not sentences.
        let title = matches!(tags[end - 1], Tag::NNP | Tag::NNPS);
        let link = tags.get(end).is_some_and(|tag| *tag == Tag::VBN || title && *tag == Tag::JJ);
        if next == end && link {
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

/// A pronoun, also with the adverb or verb after it that was tagged as a noun: "something offstage", "someone surf".
/// "Someone's hand" and "significant others" are phrases.
fn is_pronoun(text: &str, words: &[Word], tags: &[Tag], phrase: Phrase) -> bool {
    let pronoun = |at: usize| {
        let word = words[at].of(text);
        word.len() >= 6 && is_noun(tags[at]) && PRONOUNS.contains(&word)
    };
    let (start, end) = (phrase.start, phrase.end);
    let first = || end - start > 1 && pronoun(start) && role_at(tags, start + 1) != Role::Possessive;
    let others = || end - start == 1 && words[start].of(text) == "others";
    pronoun(end - 1) || first() || others()
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
            ("showing/VBG it/PRP 's/VBZ stuffed/VBN contents/NNS", "showing [it 's stuffed contents]"),
            ("so/RB it/PRP 's/VBZ throwing/VBG sand/NN", "so it 's throwing [sand]"),
            ("close/RB -/: up/RB of/IN food/NN", "[close - up] of [food]"),
            ("keep/VB close/RB -/: up/RB the/DT hill/NN", "keep close - up [the hill]"),
            // colours
            ("a/DT man/NN in/IN black/JJ plays/VBZ", "[a man] in [black] plays"),
            ("a/DT man/NN in/IN black/JJ riding/VBG a/DT horse/NN", "[a man] in [black] riding [a horse]"),
            ("in/IN black/JJ riding/VBG boots/NNS", "in [black riding boots]"),
            ("in/IN dark/JJ red/JJ and/CC white/JJ ./.", "in [dark red] and [white] ."),
            ("wearing/VBG black/JJ ,/, white/JJ ,/, and/CC red/JJ", "wearing [black] , [white] , and [red]"),
            ("in/IN red/JJ and/CC a/DT hat/NN", "in [red] and [a hat]"),
            ("in/IN teal/NN and/CC red/JJ ./.", "in [teal] and [red] ."),
            ("in/IN silver/NN and/CC red/JJ socks/NNS", "in [silver] and [red socks]"),
            ("in/IN red/JJ and/CC striped/VBN socks/NNS", "in red and [striped socks]"),
            ("in/IN red/JJ and/CC white/JJ shirts/NNS", "in [red and white shirts]"),
            ("is/VBZ painted/VBN red/JJ ./.", "is painted red ."),
            // adjectives and adverbs after an article
            ("a/DT male/JJ wearing/VBG a/DT hat/NN", "[a male] wearing [a hat]"),
            ("a/DT male/JJ swimming/VBG teacher/NN", "[a male swimming teacher]"),
            ("in/IN the/DT dark/JJ ./.", "in [the dark] ."),
            ("all/DT white/JJ ./.", "all white ."),
            ("an/DT outdoors/RB concert/NN", "[an outdoors concert]"),
            ("enjoying/VBG the/DT outdoors/RB", "enjoying [the outdoors]"),
            ("fans/NNS of/IN the/DT walking/VBG dead/JJ", "[fans] of [the walking dead]"),
            ("a/DT bald/JJ headed/VBD man/NN", "[a bald headed man]"),
            ("the/DT old/JJ saw/VBD the/DT sea/NN", "[the old] saw [the sea]"),
            ("an/DT adult/NN black/JJ bear/NN", "[an adult black bear]"),
            ("an/DT adult/NN happy/JJ to/TO run/VB", "[an adult] happy to run"),
            // adverbs
            ("an/DT upside/NN down/RB trick/NN", "[an upside down trick]"),
            ("a/DT bike/NN upside/NN down/RP in/IN mud/NN", "[a bike] upside down in [mud]"),
            ("something/NN offstage/NN", "something offstage"),
            ("someone/NN 's/POS hand/NN", "[someone 's hand]"),
            ("an/DT old/JJ ,/, metal/NN sign/NN", "[an old , metal sign]"),
            ("a/DT wet/JJ ,/, smiling/VBG child/NN", "[a wet , smiling child]"),
            ("old/JJ ,/, dogs/NNS", "old , [dogs]"),
            ("a/DT good/JJ swim/VBP ./.", "[a good swim] ."),
            ("the/DT old/JJ swim/VBP ./.", "[the old] swim ."),
            ("people/NNS each/DT holding/VBG flowers/NNS", "[people] each holding [flowers]"),
            ("she/PRP shows/VBZ her/PRP$ a/DT phone/NN", "she shows her [a phone]"),
            ("facing/VBG each/DT other/JJ make/NN sense/NN", "facing each other [make sense]"),
            ("a/DT view/NN #/# sunset/NN", "[a view] # [sunset]"),
            ("a/DT donut/NN like/IN toy/NN", "[a donut like toy]"),
            ("oval/JJ like/IN mirrors/NNS", "[oval like mirrors]"),
            ("animals/NNS like/IN dogs/NNS", "[animals] like [dogs]"),
            ("with/IN blocked/VBN off/RP windows/NNS", "with [blocked off windows]"),
            ("is/VBZ blocked/VBN off/RP windows/NNS", "is blocked off [windows]"),
            ("in/IN swim/VBP trunks/NNS", "in [swim trunks]"),
            ("an/DT empty/JJ hall/NN today/NN ./.", "[an empty hall] today ."),
            ("volunteers/NNS paint/NN the/DT fence/NN", "[volunteers] paint [the fence]"),
            ("the/DT bridge/NN spans/NNS a/DT river/NN", "[the bridge] spans [a river]"),
            ("a/DT man/NN in/IN red/JJ rides/NNS a/DT bike/NN", "[a man] in [red] rides [a bike]"),
            ("are/VBP all/DT riding/VBG bikes/NNS", "are all riding [bikes]"),
            ("all/DT riding/VBG boots/NNS", "[all riding boots]"),
            ("two/CD bus/NN stops/NNS on/IN a/DT road/NN", "[two bus stops] on [a road]"),
            ("under/IN the/DT awning/VBG keeping/VBG out/RP", "under [the awning] keeping out"),
            ("the/DT smiling/VBG running/VBG man/NN", "[the smiling running man]"),
            ("a/DT rug/NN 9cm/NN wide/JJ", "[a rug] 9cm wide"),
            ("carbon/NNP steel/NNP perforated/VBD mesh/NNP", "[carbon steel perforated mesh]"),
            ("the/DT perfect/JJ opt-in/RP offer/NN", "[the perfect opt-in offer]"),
            // participles
            ("a/DT pyramid/NN shaped/VBD tree/NN", "[a pyramid shaped tree]"),
            ("a/DT man/NN carried/VBD water/NN", "[a man] carried [water]"),
            ("with/IN matching/VBG shoes/NNS", "with [matching shoes]"),
            ("a/DT man/NN in/IN running/VBG shorts/NNS", "[a man] in [running shorts]"),
            ("engaged/VBN in/IN playing/VBG games/NNS", "engaged in playing [games]"),
            ("for/IN catching/VBG fish/NN", "for catching [fish]"),
            ("at/IN dusk/NN ,/, smiling/VBG women/NNS", "at [dusk] , [smiling women]"),
            ("with/IN their/PRP$ loved/VBD ones/NNS", "with [their loved ones]"),
            ("a/DT carnival/NN -/: like/IN mood/NN", "[a carnival - like mood]"),
            // verbs after "to"
            ("waits/VBZ to/TO board/NN the/DT train/NN", "waits to board [the train]"),
            ("next/JJ to/TO water/NN the/DT dogs/NNS run/VBP", "next to [water] [the dogs] run"),
            // hyphens
            ("t/NN -/: shirts/NNS", "[t - shirts]"),
            ("plan/NN b/NN -/: poster/NN", "[plan b] - [poster]"),
            ("a/DT full/JJ -/: length/NN mirror/NN", "[a full - length mirror]"),
            ("the/DT mirror/NN -/: book/NN cover/NN", "[the mirror] - [book cover]"),
            ("film/NN -/: inspired/VBN party/NN", "[film - inspired party]"),
            ("wall/NN art/NN -/: framed/VBN print/NN", "[wall art] - [framed print]"),
            ("100/CD %/NN cotton/NN towel/NN", "[100 % cotton towel]"),
        ] {
            assert_eq!(bracketed(tagged), expected, "{tagged}");
        }
    }

    #[test]
    fn a_stroke_without_spaces_joins_two_nouns_before_a_third() {
        for (text, expected) in [("tub/shower unit", Some("tub/shower unit")), ("tub / shower unit", None)] {
            let mut words = Vec::new();
            crate::words::split(text, &mut words);
            let mut tags = [Tag::NN, Tag::SYM, Tag::NN, Tag::NN];
            let mut found = Vec::new();
            phrases(text, &words, &mut tags, &mut found);
            let whole = found == [Phrase { start: 0, end: 4 }];
            assert_eq!(whole.then_some(text), expected, "{found:?}");
        }
    }

    #[test]
    fn a_long_run_of_modifiers_without_a_noun_ends() {
        assert_eq!(bracketed(&vec!["red/JJ"; 5000].join(" ")), vec!["red"; 5000].join(" "));
    }
}
