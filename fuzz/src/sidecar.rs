//! Any bytes as a sidecar: the ways of reading it agree.

use std::path::Path;

use bytes::Bytes;
use concepts::sidecar::{CaptionCheck, ConceptReader, Sidecar};
use concepts::statistics::Counts;

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let path = Path::new("00000.concepts.parquet");
    let bytes = Bytes::copy_from_slice(bytes);
    let footer = Sidecar::metadata_at_end(path, &bytes, bytes.len() as u64);
    let mut in_pieces = Counts::new();
    let read = ConceptReader::from_bytes(path, bytes.clone()).and_then(|reader| in_pieces.add_file(reader));
    let Ok(sidecar) = Sidecar::from_bytes(path, bytes) else { return };

    assert_eq!(footer.expect("what is read as a whole has a footer"), sidecar.metadata);
    read.expect("what is read as a whole can be read in pieces");
    let mut counts = Counts::new();
    counts.add_shard(&sidecar);
    assert_eq!(counts.totals(), in_pieces.totals());
    assert_eq!(counts.concepts(), in_pieces.concepts());

    let mut mentions = 0;
    for sample in sidecar.samples_with_mentions() {
        assert!(sample < sidecar.metadata.samples && sidecar.key(sample).is_some());
        // A sidecar of the first version has no checks.
        let answer = sidecar.has_captions(sample, CaptionCheck::of(b"a dog"));
        assert_eq!(answer.is_some(), sidecar.metadata.captions.is_some());
        let mut caption = 0;
        for mention in sidecar.mentions(sample) {
            mentions += 1;
            assert!(mention.caption >= caption && (mention.caption == 0 || sidecar.metadata.field.is_some()));
            caption = mention.caption;
            let (phrase, concept) = (mention.phrase_span, mention.concept_span);
            assert_eq!((phrase.end - phrase.start) as usize, mention.phrase.len());
            assert!(
                phrase.start <= concept.start && concept.start <= concept.end && concept.end <= phrase.end
            );
        }
    }
    assert_eq!(mentions, sidecar.metadata.mentions);
}
