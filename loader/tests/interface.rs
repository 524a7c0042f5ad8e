//! Memory that the consumer allocates, choice of captions, mixtures of datasets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use crate::common::{TarFile, content, identity, image_of, key_of, settings, with, write_shards};
use concepts::sidecar::{Metadata, Writer};
use concepts::{Bank, Matching, Mention, TaggerDescription};
use loader::shards::sidecar;
use loader::{
    Allocator, Batch, CaptionChoice, CaptionSource, CropKind, Error, ImageBuffer, Loader, Position,
    RowBuffer, Settings, Share,
};

fn first(settings: &Settings, count: usize) -> Vec<Batch> {
    let loader = Loader::open(settings.clone()).unwrap();
    loader.batches(Position::default()).take(count).map(Result::unwrap).collect()
}

/// A consumer's buffer, in which every row has its own allocation until the rows are joined.
struct Lent {
    number: usize,
    rows: Vec<Vec<u8>>,
    joined: Vec<u8>,
}

impl ImageBuffer for Lent {
    fn lend(&mut self, rows: usize, bytes: usize) -> Vec<Box<dyn RowBuffer>> {
        self.joined.clear();
        self.rows.resize(rows, vec![0; bytes]);
        self.rows.drain(..).map(|row| Box::new(row) as Box<dyn RowBuffer>).collect()
    }

    fn take_back(&mut self, lent: Vec<Box<dyn RowBuffer>>) {
        for row in lent {
            let row: Box<dyn std::any::Any> = row;
            let row = *row.downcast::<Vec<u8>>().unwrap();
            self.joined.extend(&row);
            self.rows.push(row);
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.joined
    }
}

fn allocator(made: &Arc<AtomicUsize>) -> Allocator {
    let made = Arc::clone(made);
    Box::new(move |bytes| {
        assert_eq!(bytes, 8 * 4 * 4 * 3);
        let number = made.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Lent { number, rows: Vec::new(), joined: Vec::new() }))
    })
}

#[test]
fn images_are_written_into_memory_that_the_consumer_allocates() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        with(settings(write_shards(folder.path(), &[50], |_, _| None), 8), |s| s.options.prefetch = 2);
    let expected = first(&settings, 20);
    let loader = Loader::open(settings).unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let mut seen = HashSet::new();
    for (batch, expected) in loader.batches_in(Position::default(), allocator(&made)).zip(&expected) {
        let batch = batch.unwrap();
        assert_eq!(content(&batch), content(expected));
        seen.insert(batch.images.buffer::<Lent>().unwrap().number);
    }
    // Three batches in the queue, and the one that the consumer holds.
    assert!(made.load(Ordering::Relaxed) <= 4 && seen.len() >= 3, "{seen:?} of {made:?}");

    // A consumer that keeps batches gets new memory for each, and the kept batches do not change.
    let made = Arc::new(AtomicUsize::new(0));
    let kept: Vec<_> =
        loader.batches_in(Position::default(), allocator(&made)).take(10).map(Result::unwrap).collect();
    assert!(kept.iter().map(content).eq(expected[..10].iter().map(content)));
    assert!(made.load(Ordering::Relaxed) >= 10);
}

/// A buffer whose row buffers are one byte too short.
struct Short;
impl ImageBuffer for Short {
    fn lend(&mut self, rows: usize, bytes: usize) -> Vec<Box<dyn RowBuffer>> {
        (0..rows).map(|_| Box::new(vec![0_u8; bytes - 1]) as Box<dyn RowBuffer>).collect()
    }
    fn take_back(&mut self, _: Vec<Box<dyn RowBuffer>>) {}
    fn bytes(&self) -> &[u8] {
        &[]
    }
}

#[test]
fn a_failed_or_wrong_allocation_ends_the_iteration() {
    let folder = tempfile::tempdir().unwrap();
    let loader = Loader::open(settings(write_shards(folder.path(), &[50], |_, _| None), 8)).unwrap();
    let mut left = 4;
    let few: Allocator = Box::new(move |_| {
        left -= 1;
        if left == 0 { Err("out of device memory".into()) } else { allocator(&Arc::default())(384) }
    });
    let kept: Vec<_> = loader.batches_in(Position::default(), few).collect();
    let error = kept.last().unwrap().as_ref().unwrap_err();
    assert!(
        matches!(error, Error::Buffer(_)) && error.to_string().contains("out of device memory"),
        "{error}"
    );

    let mut batches = loader.batches_in(Position::default(), Box::new(|_| Ok(Box::new(Short))));
    let error = batches.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("not lent as 8 row buffers of 48 bytes"), "{error}");
    assert!(batches.next().is_none());
}

/// A row that the threads of the loader cannot write while the gate is locked.
struct Held(Vec<u8>, Arc<Mutex<()>>);

impl AsMut<[u8]> for Held {
    fn as_mut(&mut self) -> &mut [u8] {
        if std::thread::current().name() == Some("loader") {
            drop(self.1.lock().unwrap());
        }
        &mut self.0
    }
}

struct HeldBuffer(Arc<Mutex<()>>);

impl ImageBuffer for HeldBuffer {
    fn lend(&mut self, rows: usize, bytes: usize) -> Vec<Box<dyn RowBuffer>> {
        let row = |_| Box::new(Held(vec![0; bytes], Arc::clone(&self.0))) as Box<dyn RowBuffer>;
        (0..rows).map(row).collect()
    }
    fn take_back(&mut self, _: Vec<Box<dyn RowBuffer>>) {}
    fn bytes(&self) -> &[u8] {
        &[]
    }
}

#[test]
fn waiting_ends_when_its_time_is_over_and_no_batch_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(write_shards(folder.path(), &[50], |_, _| None), 8);
    let expected = first(&settings, 2);
    let loader = Loader::open(settings).unwrap();
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let buffers = Arc::clone(&gate);
    let held = Box::new(move |_| Ok(Box::new(HeldBuffer(Arc::clone(&buffers))) as Box<dyn ImageBuffer>));
    let mut batches = loader.batches_in(Position::default(), held);
    let short = Duration::from_millis(20);
    for _ in 0..2 {
        assert!(batches.next_timeout(short).is_pending());
        assert_eq!(batches.position(), Position::default());
    }
    drop(closed);
    for (number, expected) in expected.iter().enumerate() {
        let Poll::Ready(Some(batch)) = batches.next_timeout(Duration::MAX) else { panic!("no batch") };
        let batch = batch.unwrap();
        assert_eq!((batch.position, &batch.keys), (expected.position, &expected.keys));
        assert!(number > 0 || batch.counters.waited >= 2 * short, "{:?}", batch.counters);
    }

    // The end is not the same as nothing yet.
    let mut batches = loader.batches_in(Position::default(), Box::new(|_| Ok(Box::new(Short))));
    assert!(matches!(batches.next_timeout(Duration::ZERO), Poll::Ready(Some(Err(_)))));
    assert!(matches!(batches.next_timeout(Duration::ZERO), Poll::Ready(None)));
}

const CAPTIONS: [&str; 3] = ["a red bus", "a bus in town", "people wait for a red bus"];

/// A shard of `count` samples with three captions each, the second of which is the `.txt`.
fn write_several(folder: &Path, count: usize) -> PathBuf {
    let path = folder.join("00000.tar");
    let mut tar = TarFile::create(&path);
    for sample in 0..count {
        let key = key_of(0, sample);
        let json = serde_json::json!({"captions": CAPTIONS, "width": 8}).to_string();
        tar.add(&format!("{key}.png"), &image_of(0, sample));
        tar.add(&format!("{key}.txt"), CAPTIONS[1].as_bytes());
        tar.add(&format!("{key}.json"), json.as_bytes());
    }
    tar.finish();
    path
}

#[test]
fn one_of_several_captions_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_several(folder.path(), 40);
    // The table has no positions of the JSON members, so they are found in the tar.
    crate::common::write_table(&path, 0);
    let settings = settings(vec![path], 8);
    let from = |choice| {
        let source = CaptionSource::Json { key: "captions".to_owned(), choice };
        with(settings.clone(), |s| s.options.captions = source)
    };
    assert!(first(&from(CaptionChoice::First), 5).iter().all(|batch| batch.captions == [CAPTIONS[0]; 8]));

    let random = from(CaptionChoice::Random);
    let ten = first(&random, 10);
    let mut shown: HashMap<(u64, String), String> = HashMap::new();
    for batch in &ten {
        for (key, caption) in batch.keys.iter().zip(&batch.captions) {
            assert!(CAPTIONS.contains(&caption.as_str()));
            shown.insert((batch.position.epoch, key.clone()), caption.clone());
        }
    }
    let changed = (0..40).filter(|&i| shown[&(0, key_of(0, i))] != shown[&(1, key_of(0, i))]).count();
    // Two thirds of 40 are expected, with a standard deviation of 3.
    assert!((12..40).contains(&changed), "{changed} of 40 have another caption in the next epoch");
    let again = first(&with(random.clone(), |s| s.options.threads = 5), 10);
    assert!(ten.iter().map(content).eq(again.iter().map(content)));
    let seeded = first(&with(random, |s| s.seed = 1), 5);
    assert!(seeded.iter().zip(&ten).any(|(a, b)| a.captions != b.captions));

    let other = CaptionSource::Json { key: "texts".to_owned(), choice: CaptionChoice::First };
    let loader = Loader::open(with(settings, |s| s.options.captions = other)).unwrap();
    let error = loader.batches(Position::default()).next().unwrap().unwrap_err().to_string();
    assert!(error.contains("its JSON has no field `texts`"), "{error}");
}

/// Writes mentions of "bus" in the caption of the `.txt` member.
fn write_sidecar(shard: &Path, samples: usize) {
    let tagger = TaggerDescription { name: "by hand".to_owned(), hash: String::new(), grammar: 1 };
    let bytes = fs::metadata(shard).unwrap().len();
    let mut writer =
        Writer::create(&crate::common::sidecar_path(shard), Metadata::new(&tagger, shard, bytes)).unwrap();
    let mention = Mention {
        phrase: 0..5,
        concept_span: 2..5,
        head_span: 2..5,
        concept: "bus".to_owned(),
        head: "bus".to_owned(),
        tags: "NN".to_owned(),
    };
    for sample in 0..samples {
        writer.push(sample as u32, &key_of(0, sample), CAPTIONS[1], std::slice::from_ref(&mention)).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn mentions_belong_to_the_caption_they_were_made_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_several(folder.path(), 40);
    write_sidecar(&path, 40);
    let bank = Arc::new(Bank::from_names(["bus"]).unwrap());
    let source = CaptionSource::Json { key: "captions".to_owned(), choice: CaptionChoice::Random };
    let settings = with(settings(vec![path.clone()], 8), |s| {
        s.bank = Some((bank, Matching::Strict));
        s.options.captions = source;
    });
    let mut of_the_text = 0;
    for batch in first(&settings, 10) {
        let own: Vec<usize> = (0..8).filter(|&row| batch.captions[row] == CAPTIONS[1]).collect();
        assert_eq!(batch.mentions.iter().map(|(row, _)| row).collect::<Vec<_>>(), own);
        assert_eq!(batch.counters.captions_without_mentions as usize, 8 - own.len());
        of_the_text += own.len();
    }
    assert!((10..50).contains(&of_the_text), "{of_the_text} of 80; a third is expected");

    let opened = sidecar::open(&path, Some(40)).unwrap();
    assert_eq!(opened.metadata.samples, 40);
    assert!(sidecar::open(&path, None).is_ok());
    assert!(sidecar::open(&path, Some(41)).unwrap_err().to_string().contains("40 samples"));
    let missing = sidecar::open(folder.path().join("00001.tar"), None).unwrap_err();
    assert!(missing.to_string().contains("ingest tag"), "{missing}");
}

#[test]
fn datasets_share_every_batch_by_their_weights() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[100, 50, 12], |_, _| None);
    let sets = vec![(shards[..2].to_vec(), 3.0), (shards[2..].to_vec(), 1.0)];
    let settings = with(Settings::mixed(sets, 16), |s| {
        s.options.threads = 2;
        (s.options.size, s.options.crop) = (4, CropKind::Centre);
    });
    assert_eq!(settings.sets, [Share { shards: 2, weight: 3.0 }, Share { shards: 1, weight: 1.0 }]);
    let loader = Loader::open(settings.clone()).unwrap();
    assert_eq!((loader.samples(), loader.steps_per_epoch()), (162, 10));
    let whole = first(&settings, 12);
    let mut small = Vec::new();
    for batch in &whole {
        let rows: Vec<_> = (0..16).map(|row| identity(batch, row)).collect();
        for (row, (shard, sample)) in rows.iter().enumerate() {
            assert_eq!(batch.samples[row], ([0, 100, 150][*shard] + sample) as u64);
        }
        let of_small: Vec<_> =
            rows.iter().filter(|(shard, _)| *shard == 2).map(|(_, sample)| *sample).collect();
        assert_eq!(of_small.len(), 4, "a quarter");
        small.extend(of_small);
    }
    // Three batches use the 12 samples of the small dataset once; the large one has more than twelve batches use.
    for epoch in small.chunks(12) {
        assert_eq!(epoch.iter().collect::<HashSet<_>>().len(), 12);
    }
    let large: Vec<u64> =
        whole.iter().flat_map(|batch| batch.samples.clone()).filter(|&sample| sample < 150).collect();
    assert_eq!(large.iter().collect::<HashSet<_>>().len(), 144);

    let resumed: Vec<_> = loader.batches(whole[7].position).take(5).map(Result::unwrap).collect();
    assert!(resumed.iter().map(content).eq(whole[7..].iter().map(content)));
    let ranks: Vec<_> = (0..4)
        .map(|rank| {
            first(
                &with(settings.clone(), |s| {
                    s.rank = rank;
                    s.world_size = 4;
                }),
                12,
            )
        })
        .collect();
    for (step, whole) in whole.iter().enumerate() {
        let keys: Vec<_> = ranks.iter().flat_map(|rank| rank[step].keys.clone()).collect();
        assert_eq!(keys, whole.keys);
        assert!(
            ranks.iter().all(|rank| rank[step].samples.iter().filter(|&&sample| sample >= 150).count() == 1)
        );
    }
}
