//! Tables, statistics and sidecars next to the shards: used if they match, otherwise rejected with an error.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::{
    content, damage, identity, key_of, settings, sidecar_path, stats_path, table_path, with, write_shards,
    write_table,
};
use concepts::sidecar::{CaptionCheck, Metadata, Writer};
use concepts::{Bank, CANONICAL_VERSION, Matching, Mention, TaggerDescription};
use loader::{Batch, BatchMention, Cache, Loader, Position, SampleError, Settings};

fn first(settings: &Settings, count: usize) -> Vec<Batch> {
    let loader = Loader::open(settings.clone()).unwrap();
    loader.batches(Position::default()).take(count).map(Result::unwrap).collect()
}

/// The first error, when opening the dataset or in a batch.
fn error(settings: &Settings) -> String {
    match Loader::open(settings.clone()) {
        Ok(loader) => loader.batches(Position::default()).take(50).find_map(Result::err).unwrap().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_table_gives_image_positions_and_captions() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[20, 9], |_, _| None);
    for shard in &shards {
        write_table(shard, 0);
    }
    let settings = settings(shards.clone(), 4);
    for batch in first(&settings, 7) {
        for row in 0..4 {
            let (shard, sample) = identity(&batch, row);
            assert_eq!(batch.keys[row], key_of(shard, sample));
            assert_eq!(batch.captions[row], format!("from the table: {}", key_of(shard, sample)));
        }
    }
    // In a compressed shard, the table's offsets refer to the uncompressed tar.
    let plain = first(&settings, 7);
    let packed: Vec<PathBuf> = shards
        .iter()
        .map(|shard| {
            let packed = shard.with_extension("tar.zst");
            fs::write(&packed, zstd::encode_all(File::open(shard).unwrap(), 1).unwrap()).unwrap();
            fs::remove_file(shard).unwrap();
            packed
        })
        .collect();
    let again = first(&with(settings, |s| s.shards = packed.into_iter().map(Into::into).collect()), 7);
    assert!(plain.iter().map(content).eq(again.iter().map(content)));
}

#[test]
fn tables_and_statistics_of_another_shard_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let shard = write_shards(folder.path(), &[20], |_, _| None).remove(0);
    let settings = settings(vec![shard.clone()], 4);
    let refused = |part: &str, name: &str| {
        let error = error(&settings);
        assert!(error.contains(part) && error.contains(name), "{error}");
    };
    write_table(&shard, 512);
    refused("does not match its shard", "00000.parquet");
    write_table(&shard, 1 << 40);
    refused("does not match its shard", "00000.parquet");
    fs::write(table_path(&shard), "not parquet").unwrap();
    refused("not a valid Parquet table", "00000.parquet");

    write_table(&shard, 0);
    fs::write(stats_path(&shard), r#"{"successes": 21}"#).unwrap();
    refused("counts 21 samples, but the shard has 20", "00000_stats.json");
    fs::write(stats_path(&shard), "{").unwrap();
    refused("not a valid JSON object", "00000_stats.json");
    fs::write(stats_path(&shard), "{}").unwrap();
    refused("no count `successes`", "00000_stats.json");

    // With statistics of img2dataset and no offsets, the headers are read instead.
    fs::write(stats_path(&shard), r#"{"successes": 20, "failed_to_download": 3}"#).unwrap();
    fs::remove_file(table_path(&shard)).unwrap();
    assert_eq!(first(&settings, 1)[0].size, 4);
}

const CAPTION: &str = "a photo of sample 7 of shard 0";

/// Mentions of "sample" (label 0), "a photo" under the concept "photo" (label 1), "shard" (no label).
fn mentions(caption: &str) -> Vec<Mention> {
    let mention = |phrase: &str, concept: &str| {
        let start = caption.find(phrase).unwrap();
        let end = start + phrase.len();
        Mention {
            phrase: start..end,
            concept_span: end - concept.len()..end,
            head_span: end - concept.len()..end,
            concept: concept.to_owned(),
            head: concept.to_owned(),
            tags: "NN".to_owned(),
        }
    };
    vec![mention("a photo", "photo"), mention("sample", "sample"), mention("shard", "shard")]
}

fn write_sidecar(shard: &Path, key: impl Fn(usize) -> String, samples: usize) {
    write_sidecar_of(CANONICAL_VERSION, shard, key, samples);
}

fn write_sidecar_of(canonical: u32, shard: &Path, key: impl Fn(usize) -> String, samples: usize) {
    let tagger = TaggerDescription { name: "by hand".to_owned(), hash: String::new(), grammar: 1 };
    let bytes = fs::metadata(shard).unwrap().len();
    let mut metadata = Metadata::new(&tagger, shard, bytes);
    metadata.canonical = canonical;
    let mut writer = Writer::create(&sidecar_path(shard), metadata).unwrap();
    for sample in 0..samples {
        let caption = CAPTION.replace('7', &sample.to_string());
        writer.push(sample as u32, &key(sample), &caption, &mentions(&caption)).unwrap();
    }
    writer.finish().unwrap();
}

fn with_bank(shards: Vec<PathBuf>) -> Settings {
    let bank = Arc::new(Bank::from_names(["sample", "photo"]).unwrap());
    with(settings(shards, 4), |s| s.bank = Some((bank, Matching::Strict)))
}

#[test]
fn mentions_carry_labels_and_token_positions() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[8], |_, _| None);
    write_sidecar(&shards[0], |sample| key_of(0, sample), 8);
    let settings = with_bank(shards);
    let batch = first(&settings, 1).remove(0);
    assert_eq!(batch.mentions.len(), 8);
    assert_eq!(batch.mentions.offsets, [0, 2, 4, 6, 8]);
    for row in 0..4 {
        // start, a, photo, of, sample: positions 2 and 4; the byte ranges are counted by hand in CAPTION.
        let expected = [
            BatchMention { label: 1, positions: 2..3, span: 2..7 },
            BatchMention { label: 0, positions: 4..5, span: 11..17 },
        ];
        assert!(batch.mentions.of_row(row).eq(expected));
    }
    let limited = |change: fn(&mut Settings)| {
        let mut settings = settings.clone();
        change(&mut settings);
        let batch = first(&settings, 1).remove(0);
        (batch.mentions.len(), batch.counters.mentions_left_out)
    };
    assert_eq!(limited(|s| s.options.max_mentions = 1), (4, 4));
    assert_eq!(limited(|s| s.options.max_mention_tokens = 0), (0, 8));
    assert_eq!(limited(|s| s.context = 5), (4, 4), "start, a, photo, of, end: sample is truncated");
}

#[test]
fn sidecars_of_another_shard_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[8], |_, _| None);
    let shard = shards[0].clone();
    let settings = with_bank(shards);
    let refused = |part: &str| {
        let error = error(&settings);
        assert!(error.contains(part) && error.contains("00000"), "{error}");
    };
    refused("run `ingest tag`");
    write_sidecar(&shard, |sample| key_of(0, sample), 7);
    refused("7 samples");
    write_sidecar(&shard, |sample| key_of(0, sample + 1), 8);
    refused("does not match its shard");
    write_sidecar(&shard, |sample| key_of(0, sample), 8);
    assert_eq!(first(&settings, 2).len(), 2);
    // The same number of samples, but the shard's size has changed.
    damage(&shard, |bytes| bytes.extend([0; 512]));
    refused("bytes");
    fs::write(sidecar_path(&shard), "not parquet").unwrap();
    refused("00000.concepts.parquet");

    let without_captions = with(settings, |s| s.captions = false);
    assert!(Loader::open(without_captions).unwrap_err().to_string().contains("mentions need captions"));
}

/// Before the first batch, although their text would be the same for all captions here.
#[test]
fn outdated_sidecars_are_named_when_the_dataset_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[8; 9], |_, _| None);
    let write = |canonical: u32, shard: usize| {
        write_sidecar_of(canonical, &shards[shard], |sample| key_of(shard, sample), 8);
    };
    (0..9).for_each(|shard| write(CANONICAL_VERSION, shard));
    let settings = with_bank(shards.clone());
    assert!(Loader::open(settings.clone()).is_ok());
    for shard in [3, 8] {
        write(1, shard);
    }
    let error = Loader::open(settings.clone()).unwrap_err().to_string();
    let name = |shard: usize| sidecar_path(&shards[shard]).display().to_string();
    let expected = format!("{}, {}; run `ingest tag` on {}", name(3), name(8), folder.path().display());
    assert!(error.starts_with("2 of 9 sidecars") && error.ends_with(&expected), "{error}");
    (0..9).for_each(|shard| write(1, shard));
    let error = Loader::open(settings.clone()).unwrap_err().to_string();
    assert!(error.contains(&name(4)) && !error.contains(&name(5)) && error.contains("4 more"), "{error}");
    // Without mentions, sidecars are not needed.
    assert!(Loader::open(with(settings, |s| s.bank = None)).is_ok());
}

/// The cache keeps the image positions that a pass over the headers finds: opening the dataset again needs no pass, and
/// an entry for another version of the shard is not used.
#[test]
fn image_positions_are_kept_in_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[20], |_, _| None);
    let cache = Cache { folder: folder.path().join("cache"), limit: 1 << 20 };
    let cached = with(settings(shards.clone(), 5), |s| s.options.cache = Some(cache.clone()));
    let expected: Vec<_> = first(&settings(shards.clone(), 5), 6).iter().map(content).collect();
    assert!(first(&cached, 6).iter().map(content).eq(expected));
    let entry = fs::read_dir(&cache.folder).unwrap().next().unwrap().unwrap().path();
    // A key that is only in the cache.
    damage(&entry, |bytes| {
        let changed = String::from_utf8_lossy(bytes).replace(&key_of(0, 7), "cached");
        *bytes = changed.into_bytes();
    });
    assert!(first(&cached, 4).iter().any(|batch| batch.keys.contains(&"cached".to_owned())));
    write_shards(folder.path(), &[21], |_, _| None);
    assert_eq!(Loader::open(cached).unwrap().samples(), 21);
}

/// The texts that the sidecar has for the sample are in both captions, so only their checks tell them apart.
#[test]
fn a_caption_that_was_not_tagged_is_refused_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[8], |_, _| None);
    let raw = |sample: usize| format!("A photo  of sample {sample} of shard 0");
    let tagger = TaggerDescription { name: "by hand".to_owned(), hash: String::new(), grammar: 1 };
    let bytes = fs::metadata(&shards[0]).unwrap().len();
    let write = |mentioned: &[usize]| {
        let metadata = Metadata::new(&tagger, &shards[0], bytes);
        let mut writer = Writer::create(&sidecar_path(&shards[0]), metadata).unwrap();
        for sample in 0..8 {
            writer.check(sample as u32, CaptionCheck::of(raw(sample).as_bytes()));
            let caption = CAPTION.replace('7', &sample.to_string());
            let mentions = if mentioned.contains(&sample) { mentions(&caption) } else { Vec::new() };
            writer.push(sample as u32, &key_of(0, sample), &caption, &mentions).unwrap();
        }
        writer.finish().unwrap();
    };
    let all: Vec<usize> = (0..8).collect();
    let settings = with_bank(shards.clone());
    write(&all);
    assert_eq!(first(&settings, 2).len(), 2);
    // The size of the tar stays.
    damage(&shards[0], |bytes| {
        let old = raw(3).into_bytes();
        let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
        bytes[at + old.len() - 1] = b'9';
    });
    let refused = |error: &str| {
        let all = ["00000.concepts.parquet", "sample 3", &key_of(0, 3), "run `ingest tag`"];
        assert!(all.iter().all(|part| error.contains(part)), "{error}");
    };
    refused(&error(&settings));
    // Also where the sample has no mention.
    write(&[0, 1]);
    refused(&error(&settings));
    let whole = |part: &str| {
        let metadata = concepts::sidecar::Sidecar::read_metadata(&sidecar_path(&shards[0])).unwrap();
        let compared = {
            let sidecar = sidecar_path(&shards[0]);
            loader::shards::sidecar::compare_captions(&shards[0].clone().into(), &sidecar.into(), &metadata)
        };
        assert!(compared.unwrap_err().to_string().contains(part));
    };
    whole("other captions");
    // With a table, its captions are the ones that are read.
    write_table(&shards[0], 0);
    whole("other captions");
    let error = error(&settings);
    assert!(error.contains("is not the one that was tagged"), "{error}");
}

/// A null of the table, and the empty file that it becomes in the tar.
#[test]
fn samples_without_a_caption_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00000.tar");
    let mut tar = crate::common::TarFile::create(&path);
    for sample in 0..8 {
        let key = key_of(0, sample);
        let caption = if sample == 5 { String::new() } else { format!("sample {sample}") };
        tar.add(&format!("{key}.png"), &crate::common::image_of(0, sample))
            .add(&format!("{key}.txt"), caption.as_bytes());
    }
    tar.finish();
    let settings = settings(vec![path.clone()], 4);
    let causes = || -> Vec<(String, SampleError)> {
        let batches = first(&settings, 2);
        assert!(
            batches.iter().all(|batch| batch.size == 4 && batch.captions.iter().all(|it| !it.is_empty()))
        );
        let skipped = batches.into_iter().flat_map(|batch| batch.counters.skipped);
        skipped.map(|skipped| (skipped.key, skipped.cause)).collect()
    };
    assert_eq!(causes(), [(key_of(0, 5), SampleError::EmptyCaption)]);
    // The table of the same shard has a null.
    write_table_with(&path, |sample| (sample != 5).then(|| format!("sample {sample}")));
    assert_eq!(causes(), [(key_of(0, 5), SampleError::NullCaption)]);
}

/// A table with these captions.
fn write_table_with(shard: &Path, caption: impl Fn(usize) -> Option<String>) {
    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    let samples = loader::shards::Archive::open(shard).unwrap().samples().unwrap();
    let texts = |of: &dyn Fn(usize) -> Option<String>| -> ArrayRef {
        Arc::new((0..samples.len()).map(of).collect::<StringArray>())
    };
    let numbers = |of: &dyn Fn(usize) -> u64| -> ArrayRef {
        Arc::new((0..samples.len()).map(|sample| of(sample) as i64).collect::<Int64Array>())
    };
    let image = |sample: usize| samples[sample].image().unwrap();
    let columns = [
        ("caption", texts(&caption)),
        ("key", texts(&|sample| Some(samples[sample].key.clone()))),
        ("status", texts(&|_| Some("success".to_owned()))),
        ("sha256", texts(&|sample| Some(format!("{sample:064}")))),
        ("offset", numbers(&|sample| image(sample).offset)),
        ("length", numbers(&|sample| image(sample).length)),
    ];
    let columns = columns.map(|(name, column)| (name, column, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let file = File::create(table_path(shard)).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Two shards with the same keys, and images of the same size at the same places: only the hashes in their tables differ.
#[test]
fn a_shard_is_known_by_its_images() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00000.tar");
    let identity = || {
        let loader = Loader::open(settings(vec![path.clone()], 4)).unwrap();
        loader.batches(Position::default()).next().unwrap().unwrap();
        let opened = loader.opened();
        assert_eq!((opened.len(), loader.opened().len()), (1, 0), "each shard is reported once");
        opened[0].1
    };
    write_shards(folder.path(), &[8], |_, _| None);
    let bare = identity();
    write_table_with(&path, |_| Some("a dog".to_owned()));
    let tabled = identity();
    assert_eq!((bare.places, bare.images, bare.captions), (tabled.places, None, None));
    assert_eq!(bare.difference(&tabled, true), None);
    write_table_with(&path, |_| Some("a cat".to_owned()));
    let recaptioned = identity();
    assert_eq!(tabled.difference(&recaptioned, true), Some("other captions"));
    assert_eq!(tabled.difference(&recaptioned, false), None);

    let loader = Loader::open(settings(vec![path.clone()], 4)).unwrap();
    let expected = |images: u64| loader::Expected {
        shards: vec![Some(loader::Identity { images: Some(images), ..tabled })],
        captions: false,
        since: "the test began; start again".to_owned(),
    };
    loader.expect(expected(tabled.images.unwrap())).unwrap();
    assert!(loader.batches(Position::default()).next().unwrap().is_ok());
    let error = loader.expect(expected(7)).unwrap_err().to_string();
    assert!(error.ends_with("00000.tar has other images than when the test began; start again"), "{error}");
    // The same if it is opened later, as are shards whose statistics tell their number of samples.
    fs::write(stats_path(&path), r#"{"successes": 8}"#).unwrap();
    let loader = Loader::open(settings(vec![path], 4)).unwrap();
    loader.expect(expected(7)).unwrap();
    assert!(loader.batches(Position::default()).next().unwrap().is_err());
}
