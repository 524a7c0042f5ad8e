//! Training of the taggers on a few sentences.

use concepts::training::Tag;
use concepts::training::{self, BrillOptions, Sentence};

const BRILL: &[u8] = include_bytes!("../models/brill.bin");
const PERCEPTRON: &[u8] = include_bytes!("../models/perceptron.bin");

fn sentence(text: &str) -> Sentence {
    let word = |word: &str| {
        let (word, tag) = word.split_once('/').unwrap();
        (word.to_owned(), Tag::from_name(tag).unwrap())
    };
    text.split(' ').map(word).collect()
}

#[test]
fn the_rule_that_corrects_most_is_learned_first() {
    // "can" is a modal 12 times, a noun 8 times, always after a determiner; "run" a noun 9 times, a verb 6 times,
    // always after "can".
    let mut sentences = Vec::new();
    for _ in 0..6 {
        sentences.push(sentence("dogs/NNS can/MD run/VB"));
        sentences.push(sentence("dogs/NNS can/MD"));
    }
    for _ in 0..8 {
        sentences.push(sentence("the/DT can/NN"));
    }
    for _ in 0..9 {
        sentences.push(sentence("run/NN the/DT"));
    }
    let options = BrillOptions { min_gain: 3, ..BrillOptions::default() };
    let mut wrong = Vec::new();
    let model = training::brill(&sentences, options, |rules, fraction| wrong.push((rules, fraction)));
    let rules = concepts::training::brill_rules(&model).unwrap();
    assert_eq!(
        rules,
        ["MD -> NN if the previous tag is DT", "NN -> VB if the previous tag is MD"],
        "of rules with the same gain, the simplest"
    );
    // 14 of 6 * 3 + 6 * 2 + 8 * 2 + 9 * 2 = 64 words at first, none at the end.
    assert_eq!(wrong.first(), Some(&(0, 14.0 / 64.0)));
    assert_eq!(wrong.last(), Some(&(2, 0.0)));
    assert_eq!(model, training::brill(&sentences, options, |_, _| {}), "the same sentences, the same bytes");
}

#[test]
fn a_teacher_replaces_tags_and_nothing_else() {
    let mut sentences = [sentence("a/NN dog/VB sits/NNS on/NN the/NN grass/VB")];
    training::retag(&mut sentences, PERCEPTRON).unwrap();
    assert_eq!(sentences, [sentence("a/DT dog/NN sits/VBZ on/IN the/DT grass/NN")]);
    assert!(training::retag(&mut sentences, BRILL).is_err(), "only a perceptron can be a teacher");
}

#[test]
fn tables_are_read_as_sentences() {
    let table = "The\tDT\tX\nGore-\tNNP\nBush\tNNP\nre-\tAFX\tX\n\n\nIt\tPRP\n's\tPRP\n";
    let sentences = training::sentences(table).unwrap();
    assert_eq!(sentences, [sentence("the/DT gore-bush/NNP re-/JJ"), sentence("it/PRP 's/POS")]);
    let error = training::sentences("a\tDT\nb\tDET\n").unwrap_err().to_string();
    assert_eq!(error, "line 2 has the unknown tag \"DET\"");
    assert!(training::sentences("").unwrap().is_empty());
}
