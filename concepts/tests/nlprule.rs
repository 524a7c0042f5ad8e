//! The tagger `nlprule`: phrases compared with annotated captions, and robustness to any text.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use concepts::{Extractor, TaggerKind, canonical};
use proptest::prelude::*;

use crate::noun_phrases::gold;

/// `None` if the tagger's data is missing, with a message; in continuous integration it must exist.
fn extractor() -> Option<Extractor> {
    match Extractor::new(TaggerKind::Nlprule) {
        Ok(extractor) => Some(extractor),
        Err(error) if error.to_string().contains("is missing") && std::env::var_os("CI").is_none() => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn concepts_of(extractor: &Extractor, caption: &str) -> Vec<String> {
    extractor.mentions(&canonical(caption)).into_iter().map(|mention| mention.concept).collect()
}

#[test]
fn phrases_are_as_good_as_in_earlier_experiments() {
    let Some(extractor) = extractor() else { return };
    // F1 of phrases and heads with the library's chunks, cut by rules, from the experiments before this crate.
    for (file, earlier) in [("dev_coco100.jsonl", [95.3, 96.7]), ("dev_laion40.jsonl", [73.6, 87.1])] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/pos").join(file);
        if !path.exists() {
            println!("skipped: {} does not exist", path.display());
            continue;
        }
        let captions = gold::read(&path).unwrap();
        let score = gold::score(&gold::tagged(&extractor, &captions), &captions, |_, _| {});
        let found = [score.phrases, score.heads].map(gold::Counts::f1);
        assert!(found[0] > earlier[0] - 1.5 && found[1] > earlier[1] - 1.5, "{file}: {found:?}");
    }
}

#[test]
fn chunks_are_cut_where_a_phrase_ends() {
    let Some(extractor) = extractor() else { return };
    for (caption, concepts) in [
        ("A man riding a skateboard and a dog running.", &["man", "skateboard", "dog"][..]),
        ("A black and white cat, an umbrella and two mice", &["cat", "umbrella", "mouse"]),
        // Straight and curly apostrophes, and words that the library splits differently.
        ("the men's hats", &["hat"]),
        ("The women’s t-shirts", &["t-shirt"]),
        ("I see a zebra", &["zebra"]),
        ("A WOMAN HOLDING KNIVES", &["woman", "knife"]),
        ("a street that has four lanes", &["street", "lane"]),
        ("", &[]),
        (" ... !? ’ “”", &[]),
    ] {
        assert_eq!(concepts_of(&extractor, caption), concepts, "{caption}");
    }
}

#[test]
fn the_description_contains_the_hash_of_the_data() {
    let Some(extractor) = extractor() else { return };
    let description = extractor.description();
    assert_eq!(description.name, "nlprule");
    // sha256sum of the file in the package that contains it.
    assert_eq!(description.hash, "e2b51e506aede495268ee05dee0b97956e768107f5bb5891585144a5ff2fd773");
}

#[test]
fn threads_share_it_and_agree() {
    let Some(extractor) = extractor() else { return };
    let captions: Vec<String> =
        (0..200).map(|n| format!("{n} dogs' red bowls and a man riding horse number {n}")).collect();
    let tag = || captions.iter().map(|caption| extractor.mentions(caption)).collect::<Vec<_>>();
    let alone = tag();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(tag)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), alone);
        }
    });
}

/// No panic; spans inside the text and in order; the head at the end.
fn check(extractor: &Extractor, raw: &str) {
    let text = canonical(raw);
    let mut end = 0;
    for mention in extractor.mentions(&text) {
        assert!(mention.phrase.start >= end && !mention.phrase.is_empty(), "{text:?}");
        end = mention.phrase.end;
        assert!(text.get(mention.phrase.clone()).is_some(), "{text:?}");
        assert!(text.get(mention.head_span.clone()).is_some_and(|head| !head.is_empty()), "{text:?}");
        assert_eq!(mention.head_span.end, end, "{text:?}");
    }
}

#[test]
fn any_string_and_any_bytes() {
    let Some(extractor) = extractor() else { return };
    let word = prop_oneof![
        "(a|the|two|dogs|stop signs|café|men's|it's|riding|and|-|—|'s|’s|,|https://a.bc/d|i|\\.|\u{85}|\u{200b})",
        "\\PC{0,6}",
        "[-.'&,$# ’0-9a-c\u{0}-\u{1f}]{0,8}",
    ];
    let captions = proptest::collection::vec((word, "[ \t\u{a0}\u{1c}]?"), 0..30);
    proptest!(ProptestConfig::with_cases(500), |(parts in captions)| {
        let raw: String = parts.iter().flat_map(|(word, space)| [word.as_str(), space]).collect();
        check(&extractor, &raw);
    });
    proptest!(ProptestConfig::with_cases(500), |(bytes in proptest::collection::vec(any::<u8>(), 0..200))| {
        check(&extractor, &String::from_utf8_lossy(&bytes));
    });
}

#[test]
fn long_texts() {
    let Some(extractor) = extractor() else { return };
    for piece in ["a dog ", "a", "'s", "red, ", "and ", "é", "-", "1,", "\u{300}", ". ", "a.", "www."] {
        check(&extractor, &piece.repeat(3000));
    }
    let many = extractor.mentions(&"a dog and ".repeat(1000));
    assert_eq!(many.len(), 1000, "no mention is lost where the text is split");
}
