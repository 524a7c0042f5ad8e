//! For any caption: no panic; spans on character boundaries, inside the text and in order; the concept inside the
//! phrase.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use concepts::sidecar::MentionRow;
use concepts::{Bank, Extractor, Matching, TaggerKind, Tokenizer, canonical};
use proptest::prelude::*;

fn check(extractors: &[Extractor], tokenizer: &Tokenizer, bank: &Bank, raw: &str) {
    let text = canonical(raw);
    assert_eq!(text, text.split_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!(text, text.to_lowercase());
    let tokens = tokenizer.encode(&text, 77);
    assert_eq!((tokens.ids.len(), tokens.spans.len()), (77, 77));
    for span in &tokens.spans {
        assert!(text.get(span.start as usize..span.end as usize).is_some(), "{span:?} of {text:?}");
    }
    for extractor in extractors {
        check_mentions(extractor, bank, &text);
    }
}

fn check_mentions(extractor: &Extractor, bank: &Bank, text: &str) {
    let mut end = 0;
    for mention in extractor.mentions(text) {
        assert!(mention.phrase.start >= end && !mention.phrase.is_empty());
        end = mention.phrase.end;
        let phrase = text.get(mention.phrase.clone()).expect("on boundaries, inside the text");
        let concept = text.get(mention.concept_span.clone()).expect("on boundaries, inside the text");
        let head = text.get(mention.head_span.clone()).expect("on boundaries, inside the text");
        assert!(phrase.ends_with(concept) && concept.ends_with(head) && !head.is_empty());
        assert!(!mention.concept.is_empty() && mention.concept.ends_with(&mention.head));
        let row = MentionRow {
            key: "",
            sample: 0,
            caption: 0,
            phrase,
            concept: &mention.concept,
            head: &mention.head,
            phrase_span: mention.phrase.start as u32..mention.phrase.end as u32,
            concept_span: mention.concept_span.start as u32..mention.concept_span.end as u32,
            tags: &mention.tags,
        };
        for matching in [Matching::Strict, Matching::Longest] {
            if let Some((label, span)) = bank.find(matching, &row) {
                assert!((label as usize) < bank.len());
                assert!(
                    span.start >= row.phrase_span.start
                        && span.end == row.phrase_span.end
                        && !span.is_empty()
                );
                assert!(text.get(span.start as usize..span.end as usize).is_some());
            }
        }
    }
}

fn tools() -> (Vec<Extractor>, Tokenizer, Bank) {
    let bank = Bank::from_names(["dog", "t-shirt", "man", "stop sign", "é", "café"]).unwrap();
    let embedded = [TaggerKind::Brill, TaggerKind::Perceptron];
    let extractors = embedded.map(|kind| Extractor::new(kind).unwrap());
    (extractors.into(), Tokenizer::clip(), bank)
}

#[test]
fn any_string() {
    let (extractors, tokenizer, bank) = tools();
    let word = prop_oneof![
        "(a|the|two|red|dogs|t-shirts|stop signs|café|men's|in front of|it's|&amp;|&#233;|&eacut|é|—|-|'s|’s|,|and|sits)",
        "\\PC{0,6}",
        "[-.'&,$# ’0-9a-c]{0,8}",
    ];
    let captions = proptest::collection::vec((word, "[ \t\u{a0}\u{1c}]?"), 0..30);
    proptest!(ProptestConfig::with_cases(3000), |(parts in captions)| {
        let raw: String = parts.iter().flat_map(|(word, space)| [word.as_str(), space]).collect();
        check(&extractors, &tokenizer, &bank, &raw);
    });
}

#[test]
fn any_bytes() {
    let (extractors, tokenizer, bank) = tools();
    proptest!(ProptestConfig::with_cases(3000), |(bytes in proptest::collection::vec(any::<u8>(), 0..200))| {
        check(&extractors, &tokenizer, &bank, &String::from_utf8_lossy(&bytes));
    });
}

#[test]
fn long_texts_take_little_time() {
    let (extractors, tokenizer, bank) = tools();
    let started = std::time::Instant::now();
    for piece in [
        "a dog ", "a", "'s", "red, ", "very ", "&amp", "&#x26;", "é", "the ", "dog's ", "-", "1,", "\u{300}",
        "Ã©", "Š", "Ã ", "Â",
    ] {
        check(&extractors, &tokenizer, &bank, &piece.repeat(200_000));
    }
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}
