//! The taggers on annotated captions: `gold/`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use concepts::{Extractor, TaggerKind};

// The example uses the parts that no test uses.
#[path = "../examples/score/gold.rs"]
#[allow(dead_code)]
pub(crate) mod gold;

use gold::{Kind, from_brackets, read, score, tagged};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("gold")
}

/// F1 of phrases on some files together.
fn f1(kind: TaggerKind, files: &[PathBuf]) -> f64 {
    let extractor = Extractor::new(kind).unwrap();
    let captions: Vec<_> = files.iter().flat_map(|file| read(file).unwrap()).collect();
    score(&tagged(&extractor, &captions), &captions, |found, wanted| {
        println!("{}: {:?} {:?}", wanted.text, found.phrases, wanted.phrases);
    })
    .phrases
    .f1()
}

#[test]
fn captions_of_coco() {
    let files = ["coco-dev.tsv", "coco-test.tsv"].map(|name| folder().join(name));
    for (kind, least) in [(TaggerKind::Perceptron, 96.8), (TaggerKind::Brill, 96.2)] {
        let found = f1(kind, &files);
        assert!(found > least, "{kind}: {found}");
    }
}

#[test]
fn each_construction_that_taggers_often_get_wrong() {
    for (name, least) in [
        ("adverb", 98.0),
        ("colour", 90.0),
        ("hyphen", 98.0),
        ("name", 95.0),
        ("participle", 98.0),
        ("possessive", 98.0),
        ("title", 94.0),
        ("verb-after-plural", 92.0),
        ("verb-after-to", 98.0),
    ] {
        let found = f1(TaggerKind::Perceptron, &[folder().join("kinds").join(name).with_extension("tsv")]);
        assert!(found >= least, "{name}: {found}");
    }
}

#[test]
fn the_scorer_counts_each_error_once() {
    let wanted =
        [from_brackets("1\tA [red dog] and [a cat] in [the car door] of [Uncle Tom], [a man]").unwrap()];
    let count = |line: &str| {
        let found = [from_brackets(line).unwrap()];
        let score = score(&found, &wanted, |_, _| {});
        (score.phrases.right, score.kinds.into_iter().collect::<Vec<_>>())
    };
    for (line, right, kinds) in [
        ("A [red dog] and [a cat] in [the car door] of [Uncle Tom], [a man]", 5, &[][..]),
        (
            "[A red dog] and [a cat] in [the car] door of [Uncle] [Tom], [a man]",
            2,
            &[(Kind::Start, 1), (Kind::End, 1), (Kind::Split, 1)],
        ),
        (
            "A red dog and [a cat] [in] [the car door] of [Uncle Tom, a man]",
            2,
            &[(Kind::Missed, 1), (Kind::Extra, 1), (Kind::Merged, 1)],
        ),
    ] {
        assert_eq!(count(line), (right, kinds.to_vec()), "{line}");
    }
    for line in ["[a dog", "a dog]", "[a [dog]]", "[] dog", "a  dog"] {
        assert!(from_brackets(line).is_err(), "{line}");
    }
}
