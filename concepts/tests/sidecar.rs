//! The sidecar: reading returns what was written, and a sidecar that does not match is rejected.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_schema::DataType;
use concepts::sidecar::{CaptionCheck, CaptionChecks, MentionRow, Metadata, Sidecar, Writer, path_for};
use concepts::{CANONICAL_VERSION, Error, Extractor, Mention, TaggerDescription, TaggerKind};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

const TEXT: &str = "a man with two tennis rackets";

fn tagger() -> TaggerDescription {
    TaggerDescription { name: "hand".into(), hash: "00".into(), grammar: 7 }
}

fn mentions() -> Vec<Mention> {
    vec![
        Mention {
            phrase: 0..5,
            concept_span: 2..5,
            head_span: 2..5,
            concept: "man".into(),
            head: "man".into(),
            tags: "DT NN".into(),
        },
        Mention {
            phrase: 11..29,
            concept_span: 15..29,
            head_span: 22..29,
            concept: "tennis racket".into(),
            head: "racket".into(),
            tags: "CD NN NNS".into(),
        },
    ]
}

fn write(path: &Path) {
    let mut writer =
        Writer::create(path, Metadata::new(&tagger(), Path::new("/data/00003.tar"), 10_240)).unwrap();
    writer.push(0, "000030000", "", &[]).unwrap();
    writer.push(1, "000030001", TEXT, &mentions()).unwrap();
    writer.push(4, "000030004", TEXT, &mentions()[..1]).unwrap();
    writer.push(5, "000030005", "running", &[]).unwrap();
    assert!(!path.exists(), "the file does not exist before it is finished");
    writer.finish().unwrap();
}

#[test]
fn rows_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00003.concepts.parquet");
    write(&path);
    let sidecar = Sidecar::open(&path).unwrap();
    assert_eq!(sidecar.metadata, Sidecar::read_metadata(&path).unwrap());
    let Metadata { samples, captions_without_mention, mentions, grammar, ref shard, .. } = sidecar.metadata;
    assert_eq!((samples, captions_without_mention, mentions, grammar), (6, 2, 3, 7));
    assert_eq!(shard, "00003.tar");
    let rows: Vec<_> = sidecar.mentions(1).collect();
    assert_eq!(rows.len(), 2);
    let racket = &rows[1];
    assert_eq!(
        (racket.phrase, racket.concept, racket.head),
        ("two tennis rackets", "tennis racket", "racket")
    );
    assert_eq!(
        (racket.phrase_span.clone(), racket.concept_span.clone(), racket.tags),
        (11..29, 15..29, "CD NN NNS")
    );
    assert_eq!((racket.key, racket.sample), ("000030001", 1));
    assert_eq!((sidecar.key(4), sidecar.key(5), sidecar.key(6)), (Some("000030004"), None, None));
    for (sample, count) in [(0, 0), (2, 0), (3, 0), (4, 1), (5, 0), (6, 0), (u32::MAX, 0)] {
        assert_eq!(sidecar.mentions(sample).count(), count, "sample {sample}");
    }
}

#[test]
fn a_stale_sidecar_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00003.concepts.parquet");
    write(&path);
    let sidecar = Sidecar::open(&path).unwrap();
    sidecar.refuse_unless_for(Path::new("elsewhere/00003.tar"), 10_240, 6).unwrap();
    for (shard, bytes, samples) in
        [("00004.tar", 10_240, 6), ("00003.tar", 10_241, 6), ("00003.tar", 10_240, 7)]
    {
        let error = sidecar.refuse_unless_for(Path::new(shard), bytes, samples).unwrap_err();
        assert!(matches!(error, Error::Stale { .. }));
        assert!(error.to_string().contains("00003.concepts.parquet"), "{error}");
    }
}

#[test]
fn offsets_in_canonical_text_of_another_version_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00003.concepts.parquet");
    let write = |canonical| {
        let mut metadata = Metadata::new(&tagger(), Path::new("00003.tar"), 10_240);
        metadata.canonical = canonical;
        let mut writer = Writer::create(&path, metadata).unwrap();
        writer.push(0, "000030000", TEXT, &mentions()).unwrap();
        writer.finish().unwrap();
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        (text.contains("\"canonical\":"), Sidecar::open(&path).unwrap())
    };
    let check = |sidecar: &Sidecar| sidecar.refuse_unless_for(Path::new("00003.tar"), 10_240, 1);

    let (has_field, current) = write(CANONICAL_VERSION);
    assert!(has_field && current.metadata.is_current());
    check(&current).unwrap();
    // The first version did not write the field.
    let (has_field, first) = write(1);
    assert!(!has_field && first.metadata.canonical == 1 && !first.metadata.is_current());
    let error = check(&first).unwrap_err().to_string();
    assert!(error.contains("00003.concepts.parquet") && error.contains("version 1 of the rules"), "{error}");
    let (_, newer) = write(CANONICAL_VERSION + 1);
    assert!(check(&newer).is_err());

    // The footer alone is enough to see it, also without the beginning of the file.
    let bytes = bytes::Bytes::from(fs::read(&path).unwrap());
    let length = bytes.len() as u64;
    let end = bytes.slice(4..);
    assert_eq!(Sidecar::metadata_at_end(&path, &end, length).unwrap(), newer.metadata);
    assert!(Sidecar::metadata_at_end(&path, &bytes.slice(bytes.len() - 20..), length).is_err());
}

#[test]
fn samples_out_of_order_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.concepts.parquet");
    let mut writer = Writer::create(&path, Metadata::new(&tagger(), Path::new("x.tar"), 1)).unwrap();
    writer.push(3, "d", "", &[]).unwrap();
    let error = writer.push(3, "e", "", &[]).unwrap_err();
    assert!(matches!(error, Error::Order { sample: 3, previous: 3, .. }), "{error}");
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "an unfinished sidecar leaves no file");
}

#[test]
fn errors_of_damaged_files_contain_their_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00003.concepts.parquet");
    write(&path);
    let whole = fs::read(&path).unwrap();
    for length in [0, 3, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Sidecar::open(&path).unwrap_err().to_string();
        assert!(error.contains("00003.concepts.parquet"), "{error}");
    }
    assert!(matches!(Sidecar::open(&folder.path().join("none")), Err(Error::Io { .. })));
}

#[test]
fn a_sidecar_with_several_row_groups() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.concepts.parquet");
    let mut writer = Writer::create(&path, Metadata::new(&tagger(), Path::new("big.tar"), 1)).unwrap();
    let samples = 130_000;
    for sample in 0..samples {
        writer.push(sample, &format!("{sample:09}"), TEXT, &mentions()[..=(sample as usize % 2)]).unwrap();
    }
    writer.finish().unwrap();
    let sidecar = Sidecar::open(&path).unwrap();
    assert_eq!(sidecar.metadata.mentions, u64::from(samples) * 3 / 2);
    for sample in [0, 1, 81_919, 81_920, 81_921, 129_999] {
        assert_eq!(sidecar.mentions(sample).count(), 1 + sample as usize % 2);
        assert_eq!(sidecar.key(sample), Some(format!("{sample:09}").as_str()));
    }
}

/// A row as the test draws it: phrase, concept, head and tags; bytes; number of the caption.
type Drawn = ([String; 4], [u32; 4], u32);

fn drawn() -> impl Strategy<Value = Drawn> {
    let text = || "[a-c\u{e9}]{0,3}";
    // Numbers of any size, and numbers near each other, of which a page stores only differences.
    let number = || prop_oneof![any::<u32>(), 0..9u32, Just(7)];
    let texts = (text(), text(), text(), text()).prop_map(|(a, b, c, d)| [a, b, c, d]);
    (texts, [number(), number(), number(), number()], number())
}

/// What Parquet's own reader finds in a sidecar of these samples, which are at these positions with these keys.
fn check_rows(samples: &[(u32, String, Vec<Drawn>)]) {
    let mut metadata = Metadata::new(&tagger(), Path::new("a.tar"), 1);
    metadata.field = Some("captions".to_owned());
    let mut writer = Writer::in_memory(Path::new("a.concepts.parquet"), metadata).unwrap();
    for (sample, key, rows) in samples {
        let rows = rows.iter().map(|([phrase, concept, head, tags], [a, b, c, d], caption)| MentionRow {
            key: "",
            sample: 0,
            caption: *caption,
            phrase,
            concept,
            head,
            phrase_span: *a..*b,
            concept_span: *c..*d,
            tags,
        });
        writer.copy(*sample, key, rows).unwrap();
    }
    let bytes = bytes::Bytes::from(writer.into_bytes().unwrap().0);
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().with_batch_size(999).build().unwrap();
    let mut columns = vec![Vec::new(); 11];
    for batch in reader {
        let batch = batch.unwrap();
        for (values, column) in columns.iter_mut().zip(batch.columns()) {
            let column = arrow_cast::cast(column, &DataType::Utf8).unwrap();
            values.extend(column.as_string::<i32>().iter().map(|value| value.unwrap().to_owned()));
        }
    }
    let rows = samples.iter().flat_map(|(sample, key, rows)| rows.iter().map(move |row| (sample, key, row)));
    let mut expected = vec![Vec::new(); 11];
    for (sample, key, ([phrase, concept, head, tags], bytes, caption)) in rows {
        let [a, b, c, d] = bytes.map(|byte| byte.to_string());
        let row =
            [key, &sample.to_string(), phrase, concept, head, &a, &b, &c, &d, tags, &caption.to_string()];
        expected.iter_mut().zip(row).for_each(|(column, value)| column.push(value.clone()));
    }
    assert!(columns == expected);
}

#[test]
fn the_library_reads_the_rows_that_were_written() {
    let sample = (1..4u32, "[0-9]{1,2}", proptest::collection::vec(drawn(), 0..40));
    let samples = proptest::collection::vec(sample, 0..20);
    proptest!(ProptestConfig::with_cases(300), |(samples in samples)| {
        let mut at = 0;
        let samples: Vec<_> = samples.into_iter().map(|(step, key, rows)| {
            at += step;
            (at, key, rows)
        }).collect();
        check_rows(&samples);
    });
}

/// Several pages, one of which ends within a group of eight numbers, and one sample in two row groups.
#[test]
fn the_library_reads_many_rows() {
    let row = |number: u32| {
        let text = |of: u32| (number % of).to_string();
        (
            [text(90_000), text(70), text(3), text(1)],
            [number, number / 3, 4_000_000_000 - number, 5],
            number % 4,
        )
    };
    let rows = (0..130_001).map(row).collect();
    check_rows(&[(3, "x".to_owned(), rows), (4, "x".to_owned(), vec![row(1)])]);
}

#[test]
fn paths_of_sidecars() {
    for (shard, sidecar) in [
        ("a/00000.tar", "a/00000.concepts.parquet"),
        ("00000.tar.zst", "00000.concepts.parquet"),
        ("set.v2.tar", "set.v2.concepts.parquet"),
    ] {
        assert_eq!(path_for(Path::new(shard)), Path::new(sidecar));
    }
}

#[test]
fn samples_are_copied_into_another_sidecar() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00003.concepts.parquet");
    let mut writer = Writer::create(&path, Metadata::new(&tagger(), Path::new("00003.tar"), 10_240)).unwrap();
    for (sample, caption) in (0..).zip(["one", "two", "three"]) {
        writer.check(sample, CaptionCheck::of(caption.as_bytes()));
        let mentions = if sample == 1 { Vec::new() } else { mentions() };
        writer.push(sample, &format!("key{sample}"), TEXT, &mentions).unwrap();
    }
    writer.finish().unwrap();
    let from = Sidecar::open(&path).unwrap();
    // The last sample, then the one without mentions.
    let mut metadata = from.metadata.clone();
    (metadata.shard, metadata.shard_bytes) = ("00000.tar".to_owned(), 512);
    let mut writer = Writer::in_memory(Path::new("00000.concepts.parquet"), metadata).unwrap();
    for (sample, before) in [(0, 2), (1, 1)] {
        writer.copy(sample, &format!("key{before}"), from.mentions(before)).unwrap();
        writer.check(sample, from.check(before).unwrap());
    }
    assert_eq!(from.check(3), None);
    let (bytes, _) = writer.into_bytes().unwrap();
    let copied = Sidecar::from_bytes(Path::new("00000.concepts.parquet"), bytes.into()).unwrap();
    copied.refuse_unless_for(Path::new("00000.tar"), 512, 2).unwrap();
    let Metadata { captions_without_mention, mentions, .. } = copied.metadata;
    assert_eq!((captions_without_mention, mentions), (1, 2));
    let has = |sample, caption: &[u8]| copied.has_captions(sample, CaptionCheck::of(caption));
    assert_eq!((has(0, b"three"), has(1, b"two")), (Some(true), Some(true)));
    for (row, expected) in copied.mentions(0).zip(from.mentions(2)) {
        assert_eq!(row, concepts::sidecar::MentionRow { sample: 0, ..expected });
    }
    assert_eq!((copied.key(0), copied.key(1)), (Some("key2"), None));
}

/// "two\u{a0}dogs" and "two dogs" are the same canonical text, but not the same caption.
#[test]
fn a_sidecar_knows_its_captions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00003.concepts.parquet");
    let captions = ["A man with two\u{a0}tennis rackets", "", "running"];
    let mut writer = Writer::create(&path, Metadata::new(&tagger(), Path::new("00003.tar"), 10_240)).unwrap();
    for (sample, caption) in (0..).zip(captions) {
        writer.check(sample, CaptionCheck::of(caption.as_bytes()));
        let mentions = if sample == 0 { mentions() } else { Vec::new() };
        writer.push(sample, "key", TEXT, &mentions).unwrap();
    }
    // A sample without a caption at the end.
    writer.push(3, "key", "", &[]).unwrap();
    let written = writer.finish().unwrap();
    let sidecar = Sidecar::open(&path).unwrap();
    assert_eq!((sidecar.metadata.version, &sidecar.metadata), (2, &written));
    let has = |sample, caption: &str| sidecar.has_captions(sample, CaptionCheck::of(caption.as_bytes()));
    for (sample, caption) in (0..).zip(captions) {
        assert_eq!(has(sample, caption), Some(true));
        assert_eq!(has(sample, "a man with two tennis rackets"), Some(false));
    }
    assert_eq!((has(3, ""), has(4, "")), (Some(true), None));

    let checks = |captions: &[&str]| {
        let mut checks = CaptionChecks::default();
        for caption in captions {
            checks.push(CaptionCheck::of(caption.as_bytes()));
        }
        checks
    };
    let same = |captions: &[&str]| written.refuse_unless_captions(&path, &checks(captions)).is_ok();
    assert!(same(&[captions[0], "", "running", ""]));
    // Another caption, another order, another number.
    assert!(!same(&[captions[0], "", "runnins", ""]));
    assert!(!same(&["", captions[0], "running", ""]));
    assert!(!same(&captions));

    // The checks are in the file where the footer says, as docs/file-formats.md describes them.
    let bytes = fs::read(&path).unwrap();
    let offset = written.captions.as_ref().unwrap().offset as usize;
    assert_eq!(bytes[offset + 8..offset + 16], 0xef46_db37_51d8_e999_u64.to_le_bytes(), "XXH64 of nothing");
    for at in offset..offset + 32 {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let error = Sidecar::from_bytes(&path, damaged.into()).unwrap_err().to_string();
        assert!(error.contains("checks of its captions are damaged"), "{error}");
    }

    // Without checks it is a sidecar as version 1 wrote it, which cannot tell.
    let path = folder.path().join("first.concepts.parquet");
    write(&path);
    let first = Sidecar::open(&path).unwrap();
    assert_eq!((first.metadata.version, first.has_captions(1, CaptionCheck::of(b"anything"))), (1, None));
    first.metadata.refuse_unless_captions(&path, &checks(&captions)).unwrap();
}

/// Several captions of a sample, from a field of its JSON: each mention knows its caption.
#[test]
fn mentions_know_which_of_several_captions_they_are_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00003.concepts.parquet");
    let mut metadata = Metadata::new(&tagger(), Path::new("00003.tar"), 10_240);
    metadata.field = Some("captions".to_owned());
    let extractor = Extractor::new(TaggerKind::Perceptron).unwrap();
    let captions = [vec!["a red car", "running", "two dogs and a car"], vec![], vec!["a red car"]];
    let mut writer = Writer::create(&path, metadata).unwrap();
    for (sample, captions) in (0..).zip(&captions) {
        writer.check(sample, CaptionCheck::of_all(captions));
        writer.tag(sample, "key", captions, &extractor).unwrap();
    }
    let written = writer.finish().unwrap();
    assert_eq!((written.version, written.samples, written.mentions), (3, 3, 4));
    assert_eq!(written.captions_without_mention, 1);

    let sidecar = Sidecar::open(&path).unwrap();
    assert_eq!(sidecar.metadata, written);
    let of = |sample| -> Vec<(u32, &str)> {
        sidecar.mentions(sample).map(|mention| (mention.caption, mention.concept)).collect()
    };
    assert_eq!(of(0), [(0, "car"), (2, "dog"), (2, "car")]);
    assert_eq!((of(1), of(2)), (vec![], vec![(0, "car")]));
    assert_eq!(sidecar.has_captions(0, CaptionCheck::of_all(&captions[0])), Some(true));
    assert_eq!(sidecar.has_captions(0, CaptionCheck::of_all(&captions[0][..2])), Some(false));
    assert_eq!(sidecar.has_captions(2, CaptionCheck::of(b"a red car")), Some(false));

    for (field, fits) in [(Some("captions"), true), (Some("caption"), false), (None, false)] {
        assert_eq!(written.refuse_unless_field(&path, field).is_ok(), fits, "{field:?}");
    }
    // Mentions of the .txt members may be used with any field.
    let of_text = Metadata::new(&tagger(), Path::new("00003.tar"), 10_240);
    of_text.refuse_unless_field(&path, Some("captions")).unwrap();
}
