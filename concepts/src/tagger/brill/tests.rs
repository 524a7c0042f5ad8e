//! Rules applied by hand, compared with the queue and with a plain implementation of what a list of rules means.

use proptest::prelude::*;

use super::template::{Feature, TEMPLATES};
use super::*;
use crate::tagger::{LexiconBuilder, LexiconOptions};
use crate::words;

const MODEL: &[u8] = include_bytes!("../../../models/brill.bin");

/// The most frequent tag first; a word can get all of them.
const LEXICON: &[(&str, &[Tag])] = &[
    ("the", &[Tag::DT]),
    ("to", &[Tag::TO]),
    ("dogs", &[Tag::NNS]),
    ("run", &[Tag::NN, Tag::VB, Tag::VBP]),
    ("park", &[Tag::NN, Tag::VB]),
    ("that", &[Tag::IN, Tag::DT, Tag::WDT]),
];

fn vocabulary() -> Vocabulary {
    let mut lexicon = LexiconBuilder::default();
    for (word, tags) in LEXICON {
        for (tag, times) in tags.iter().zip([30, 20, 10]) {
            (0..times).for_each(|_| lexicon.add(word, *tag));
        }
    }
    let mut guesser = GuesserBuilder::default();
    for _ in 0..20 {
        guesser.add(&Form::bare("walking"), Tag::VBG);
        guesser.add(&Form::bare("dog"), Tag::NN);
        guesser.add(&Form::bare("12"), Tag::CD);
    }
    let (lexicon, classes) = lexicon.build(LexiconOptions { class_ratio: 100, rare: 0, frequent: 0 });
    Vocabulary { lexicon, classes, guesser: guesser.build() }
}

fn rule(from: Tag, to: Tag, conditions: &[(Feature, u32)]) -> Rule {
    let features = |features: &[Feature; WIDTH]| {
        features
            .iter()
            .filter(|feature| **feature != Feature::Nothing)
            .eq(conditions.iter().map(|(feature, _)| feature))
    };
    let template = TEMPLATES.iter().position(features).expect("a template of these features");
    let mut values = [0; WIDTH];
    values.iter_mut().zip(conditions).for_each(|(value, condition)| *value = condition.1);
    Rule { template: template as u8, from, to, values }
}

fn is(tag: Tag) -> u32 {
    u32::from(tag.0)
}

fn brill(rules: &[Rule]) -> Brill {
    let words = LEXICON.iter().map(|(word, _)| *word);
    Brill::from_bytes(&Brill::to_bytes(&vocabulary(), rules, words)).expect("its own bytes")
}

fn tag(tagger: &Brill, text: &str) -> String {
    let (mut words, mut tags) = (Vec::new(), Vec::new());
    words::split(text, &mut words);
    tagger.tag(text, &words, &mut tags);
    tags.iter().map(|tag| tag.name()).collect::<Vec<_>>().join(" ")
}

#[test]
fn without_rules_words_have_their_most_frequent_tags() {
    let tagger = brill(&[]);
    assert_eq!(tag(&tagger, "the dogs run that park"), "DT NNS NN IN NN");
    assert_eq!(tag(&tagger, "sailing 77 , gnu"), "VBG CD , NN", "unknown words are tagged by their ending");
    assert_eq!(tag(&tagger, ""), "");
}

#[test]
fn a_rule_changes_tags_in_its_context() {
    let after_to = rule(Tag::NN, Tag::VB, &[(Feature::TagBefore, is(Tag::TO))]);
    let tagger = brill(&[after_to]);
    assert_eq!(tag(&tagger, "to run the run to park"), "TO VB DT NN TO VB");
    assert_eq!(tag(&tagger, "to dogs"), "TO NNS", "the word has another tag");
    assert_eq!(tag(&tagger, "to that"), "TO IN");

    let to_foreign = rule(Tag::NN, Tag::FW, &[(Feature::TagBefore, is(Tag::TO))]);
    let tagger = brill(&[to_foreign]);
    assert_eq!(tag(&tagger, "to run to gnu"), "TO NN TO FW", "a known word only gets tags it was seen with");
}

#[test]
fn rules_are_applied_in_their_order() {
    let verb = rule(Tag::NN, Tag::VB, &[(Feature::TagBefore, is(Tag::TO))]);
    let base = rule(Tag::VB, Tag::VBP, &[(Feature::TagAfter, is(Tag::NNS))]);
    assert_eq!(
        tag(&brill(&[verb, base]), "to run dogs"),
        "TO VBP NNS",
        "the first creates the second's context"
    );
    assert_eq!(tag(&brill(&[base, verb]), "to run dogs"), "TO VB NNS", "now its context comes too late");

    // Removes the context that the last rule needs.
    let noun = rule(Tag::VB, Tag::NN, &[(Feature::TagAfter, is(Tag::DT))]);
    let determiner = rule(Tag::IN, Tag::DT, &[(Feature::TagBefore, is(Tag::VB))]);
    assert_eq!(tag(&brill(&[verb, determiner]), "to run that park"), "TO VB DT NN");
    assert_eq!(tag(&brill(&[verb, determiner, noun]), "to run that park"), "TO NN DT NN");
    assert_eq!(tag(&brill(&[verb, noun, determiner]), "to run that the park"), "TO VB DT DT NN");
}

#[test]
fn a_rule_goes_from_left_to_right_and_sees_its_own_changes() {
    // Every second of a series of nouns: after a change, the next word has no noun before it.
    let second = rule(Tag::NN, Tag::VB, &[(Feature::TagBefore, is(Tag::NN))]);
    assert_eq!(tag(&brill(&[second]), "run run run run run"), "NN VB NN VB NN");
    // All of them: each change is the context of the next.
    let row = rule(Tag::NN, Tag::VB, &[(Feature::TagBefore, is(Tag::TO))]);
    let on = rule(Tag::NN, Tag::VB, &[(Feature::TagBefore, is(Tag::VB))]);
    assert_eq!(tag(&brill(&[row, on]), "to run run run"), "TO VB VB VB");
    // From the right only one: when its context appears, the rule has passed the word already.
    let last = rule(Tag::NN, Tag::VB, &[(Feature::TagAfter, is(EDGE))]);
    let before = rule(Tag::NN, Tag::VB, &[(Feature::TagAfter, is(Tag::VB))]);
    assert_eq!(tag(&brill(&[last, before]), "run run run"), "NN VB VB");
}

#[test]
fn words_classes_endings_and_edges_can_be_contexts() {
    let word = |word| Form::bare(word).word;
    let vocabulary = vocabulary();
    let class = |word| u32::from(vocabulary.first(word).0.entry.class);
    let by_word = rule(Tag::NN, Tag::VB, &[(Feature::Word, word("run")), (Feature::TagBefore, is(EDGE))]);
    assert_eq!(tag(&brill(&[by_word]), "run park run"), "VB NN NN");
    let by_neighbour = rule(Tag::IN, Tag::WDT, &[(Feature::WordAfter, word("run"))]);
    assert_eq!(tag(&brill(&[by_neighbour]), "that run that park"), "WDT NN IN NN");
    let by_class =
        rule(Tag::NN, Tag::VB, &[(Feature::Class, class("park")), (Feature::TagAfter, is(Tag::DT))]);
    assert_eq!(tag(&brill(&[by_class]), "park the run the gnu"), "VB DT NN DT NN");
    let by_ending = rule(Tag::NN, Tag::FW, &[(Feature::Suffix2, 0x6e75), (Feature::Class, 0)]);
    assert_eq!(tag(&brill(&[by_ending]), "gnu gna"), "FW NN");

    let tagger = brill(&[by_word, by_neighbour, by_class, by_ending]);
    assert_eq!(
        tagger.rules().collect::<Vec<_>>(),
        [
            "NN -> VB if the word is \"run\" and the previous tag is the edge of the text",
            "IN -> WDT if the next word is \"run\"",
            "NN -> VB if the word can be NN or VB and the next tag is DT",
            "NN -> FW if the word ends in \"nu\" and the word is unknown",
        ]
    );
}

/// A plain implementation of a list of rules: each goes over the text once, from left to right.
fn apply_one_by_one(tagger: &Brill, text: &str, words: &[Word]) -> Vec<Tag> {
    let mut text = Tagged::new(&tagger.vocabulary, text, words);
    for rule in &tagger.rules {
        for at in REACH..REACH + words.len() {
            let view = View::of(&text.forms, &text.tags, at).expect("inside");
            let allowed = text.allowed[at] >> rule.to.0 & 1 == 1;
            if allowed && text.tags[at] == rule.from && rule.fits(&view) {
                text.tags[at] = rule.to;
            }
        }
    }
    text.tags[REACH..REACH + words.len()].to_vec()
}

#[test]
fn the_queue_gives_the_same_tags_as_applying_rules_one_by_one() {
    let tagger = Brill::from_bytes(MODEL).expect("the embedded model");
    let word = prop_oneof![
        "(a|the|two|red|it|to|that|her|and|of|in|on|up|with|while|,|as|more|'s|s|for|like|there|all|no)",
        "(run|park|walks|rides|waves|stands|parked|painted|covered|sitting|building|cooking|close|back|light|open)",
        "(dog|dogs|men's|surfing|surfboards|snow|young|orange|stop|sign|set|cut|put|read|left|right|brown|cross)",
        "[a-z]{1,4}(ing|ed|s|ly|er|est|-up|00)",
    ];
    let captions = proptest::collection::vec(word, 0..16);
    proptest!(ProptestConfig::with_cases(2000), |(parts in captions)| {
        let text = parts.join(" ");
        let (mut words, mut tags) = (Vec::new(), Vec::new());
        words::split(&text, &mut words);
        tagger.tag(&text, &words, &mut tags);
        prop_assert_eq!(&tags, &apply_one_by_one(&tagger, &text, &words), "{}", text);
    });
}

#[test]
fn damaged_models_are_rejected_or_harmless() {
    for length in (0..MODEL.len()).step_by(997) {
        Brill::from_bytes(&MODEL[..length]).expect_err("a truncated model");
    }
    assert!(Brill::from_bytes(include_bytes!("../../../models/perceptron.bin")).is_err());
    let text = "a man that rides 2 waves, snow-covered";
    for at in (0..MODEL.len()).step_by(4999) {
        let mut model = MODEL.to_vec();
        model[at] ^= 0xff;
        if let Ok(tagger) = Brill::from_bytes(&model) {
            assert_eq!(tag(&tagger, text).split(' ').count(), 8);
        }
    }
}
