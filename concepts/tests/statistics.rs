//! Statistics: compared with counts made by hand, and independent of how the shards are split.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use concepts::sidecar::{Metadata, Sidecar, Writer};
use concepts::statistics::Counts;
use concepts::{Mention, TaggerDescription};

/// Writes a sidecar whose samples mention these concepts.
fn sidecar(folder: &Path, shard: &str, samples: &[&[&str]]) -> Sidecar {
    let tagger = TaggerDescription { name: "hand".into(), hash: String::new(), grammar: 1 };
    let path = folder.join(format!("{shard}.concepts.parquet"));
    let metadata = Metadata::new(&tagger, Path::new(&format!("{shard}.tar")), 1);
    let mut writer = Writer::create(&path, metadata).unwrap();
    for (sample, concepts) in samples.iter().enumerate() {
        let mention = |concept: &&str| Mention {
            phrase: 0..1,
            concept_span: 0..1,
            head_span: 0..1,
            concept: (*concept).to_owned(),
            head: (*concept).to_owned(),
            tags: "NN".into(),
        };
        let mentions: Vec<_> = concepts.iter().map(mention).collect();
        writer.push(sample as u32, &format!("{shard}-{sample}"), "x", &mentions).unwrap();
    }
    writer.finish().unwrap();
    Sidecar::open(&path).unwrap()
}

const SHARDS: [(&str, &[&[&str]]); 3] = [
    ("00000", &[&["dog", "dog", "frisbee"], &[], &["cat"]]),
    ("00001", &[&["cat", "dog"], &["frisbee", "dog"], &["sofa"]]),
    ("00002", &[&["dog"], &["dog"], &["dog"]]),
];

#[test]
fn counts_equal_those_made_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let mut counts = Counts::new();
    for (shard, samples) in SHARDS {
        counts.add_shard(&sidecar(folder.path(), shard, samples));
    }
    let totals = counts.totals();
    assert_eq!((totals.shards, totals.samples, totals.samples_without_mention), (3, 9, 1));
    assert_eq!((totals.mentions, totals.concepts, totals.pairs), (12, 4, 2));
    let dog = counts.concept("dog").unwrap();
    assert_eq!((dog.mentions, dog.samples, dog.shards), (7, 6, 3));
    let examples: Vec<_> = dog.examples.iter().map(|(_, key)| key.as_str()).collect();
    assert_eq!(examples, ["00000-0", "00001-0", "00001-1", "00002-0"]);
    assert_eq!(
        (counts.pair("dog", "frisbee"), counts.pair("frisbee", "dog"), counts.pair("cat", "sofa")),
        (2, 2, 0)
    );
    assert_eq!(
        counts.concepts().iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["dog", "cat", "frisbee", "sofa"]
    );
    assert_eq!(counts.names_seen(2).collect::<Vec<_>>(), ["dog", "cat", "frisbee"]);
}

#[test]
fn merged_parts_equal_the_whole_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let sidecars: Vec<_> =
        SHARDS.iter().map(|(shard, samples)| sidecar(folder.path(), shard, samples)).collect();
    let count = |sidecars: &[&Sidecar]| {
        let mut counts = Counts::new();
        for sidecar in sidecars {
            counts.add_shard(sidecar);
        }
        counts
    };
    let files = |counts: &Counts, name: &str| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        counts.write(&folder).unwrap();
        ["concepts.parquet", "pairs.parquet", "stats.json"]
            .map(|file| std::fs::read(folder.join(file)).unwrap())
    };
    let whole = files(&count(&[&sidecars[0], &sidecars[1], &sidecars[2]]), "whole");
    let parts = count(&[&sidecars[2]]);
    files(&parts, "part");
    let mut merged = Counts::read(&folder.path().join("part")).unwrap();
    merged.merge(&count(&[&sidecars[1], &sidecars[0]]));
    assert_eq!(files(&merged, "merged"), whole);
    assert_eq!(files(&Counts::read(&folder.path().join("whole")).unwrap(), "again"), whole);
    // Empty statistics can be written and read, too.
    files(&Counts::new(), "empty");
    assert_eq!(Counts::read(&folder.path().join("empty")).unwrap().totals().samples, 0);
}
