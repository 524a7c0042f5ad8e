//! Any bytes as a caption, up to the columns of a sidecar: no panic, and all byte ranges are valid.

use std::sync::LazyLock;

use concepts::{Extractor, TaggerKind, canonical, split_words};

static EXTRACTOR: LazyLock<Extractor> =
    // A test of `concepts` also loads it.
    LazyLock::new(|| Extractor::new(TaggerKind::default()).expect("the model is embedded"));

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let text = canonical(&String::from_utf8_lossy(bytes));
    assert!(!text.starts_with(' ') && !text.ends_with(' ') && !text.contains("  "), "{text:?}");

    // Words are on character boundaries, in order, and leave out nothing but whitespace.
    let mut cut = Vec::new();
    split_words(&text, &mut cut);
    let mut end = 0;
    for word in &cut {
        let (start, stop) = (word.start as usize, word.end as usize);
        assert!(start >= end && stop > start);
        assert!(text[end..start].chars().all(|c| c <= ' '), "{:?} was left out", &text[end..start]);
        assert!(!word.of(&text).is_empty());
        end = stop;
    }
    assert!(text[end..].chars().all(|c| c <= ' '));

    let mut end = 0;
    let mut views = 0;
    EXTRACTOR.visit(&text, |mention| {
        views += 1;
        let (phrase, concept, head) = (mention.phrase, mention.concept_span, mention.head_span);
        assert!(end <= phrase.start && phrase.start <= concept.start && concept.start <= head.start);
        assert!(head.start < head.end && head.end == concept.end && concept.end == phrase.end);
        end = phrase.end;
        let phrase = &text[phrase];
        assert!(phrase.ends_with(&text[concept]) && phrase.ends_with(&text[head]));
        assert!(!mention.head.is_empty() && mention.concept.ends_with(mention.head));
        // Control characters separate words, as spaces do.
        let words = phrase.split(|c| c <= ' ').filter(|word| !word.is_empty()).count();
        assert!(mention.tags.split(' ').count() >= words);
    });
    assert_eq!(EXTRACTOR.mentions(&text).len(), views);
}
