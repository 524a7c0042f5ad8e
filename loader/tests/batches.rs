//! Batches of small datasets: independent of threads and ranks, resumed at any position, with broken samples.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::fs;

use crate::common::{content, identity, image_of, key_of, settings, with, write_shards};
use loader::{
    Batch, Crop, DecodeError, Error, ImageBuffer, ImageSettings, Loader, Position, RowBuffer, SampleId,
    Settings,
};
use proptest::prelude::*;

fn batches(settings: &Settings, from: Position, count: usize) -> Vec<Batch> {
    let loader = Loader::open(settings.clone()).unwrap();
    loader.batches(from).take(count).map(Result::unwrap).collect()
}

#[test]
fn rows_are_the_samples_of_the_order() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[30, 7, 41], |_, _| None);
    let loader = Loader::open(settings(shards, 8)).unwrap();
    assert_eq!((loader.samples(), loader.steps_per_epoch(), loader.rows()), (78, 9, 8));
    let mut seen = HashSet::new();
    let mut position = Position::default();
    for batch in loader.batches(position).take(20) {
        let batch = batch.unwrap();
        assert_eq!(batch.position, position);
        assert_eq!((batch.size, batch.images.len(), batch.tokens.len()), (8, 8 * 4 * 4 * 3, 8 * 77));
        for (row, mut samples) in loader.samples_of(position).into_iter().enumerate() {
            let id = samples.next().unwrap();
            let (shard, sample) = identity(&batch, row);
            assert_eq!((shard as u32, sample as u32), (id.shard, id.sample));
            assert_eq!(batch.keys[row], key_of(shard, sample));
            assert_eq!(batch.samples[row], ([0, 30, 37][shard] + sample) as u64);
            assert_eq!(batch.captions[row], format!("a photo of sample {sample} of shard {shard}"));
            assert_eq!(batch.tokens[row * 77], 49_406, "start of text");
            assert!(batch.tokens[row * 77..][..77].contains(&49_407), "end of text");
            assert!(seen.insert((position.epoch, id)), "the sample came twice in an epoch");
        }
        assert!(batch.counters.bytes > 0 && batch.counters.skipped.is_empty());
        position = position.next(loader.steps_per_epoch());
    }
    assert_eq!(position, Position { epoch: 2, step: 2 });
}

#[test]
fn threads_ranks_and_resuming_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[40, 25, 60], |_, _| None);
    let random = Crop::RandomResized { size: 5, scale: (0.25, 1.0), ratio: (0.75, 1.333) };
    let base = with(settings(shards, 16), |s| {
        s.seed = 11;
        s.streams = 8;
        s.window = 7;
        s.image = ImageSettings::new(random, 0.5);
    });
    let whole = batches(&base, Position::default(), 16);
    for (threads, prefetch) in [(1, 0), (3, 1), (16, 5)] {
        let again = batches(
            &with(base.clone(), |s| {
                s.threads = threads;
                s.prefetch = prefetch;
            }),
            Position::default(),
            16,
        );
        assert!(whole.iter().map(content).eq(again.iter().map(content)), "{threads} threads");
    }
    for start in [1, 6, 7, 8, 13] {
        let again = batches(&base, whole[start].position, 16 - start);
        assert!(whole[start..].iter().map(content).eq(again.iter().map(content)), "resumed at {start}");
    }
    for world_size in [2, 4, 8] {
        let ranks: Vec<Vec<Batch>> = (0..world_size)
            .map(|rank| {
                batches(
                    &with(base.clone(), |s| {
                        s.rank = rank;
                        s.world_size = world_size;
                    }),
                    Position::default(),
                    16,
                )
            })
            .collect();
        for (step, global) in whole.iter().enumerate() {
            let images: Vec<u8> = ranks.iter().flat_map(|rank| rank[step].images.to_vec()).collect();
            let keys: Vec<String> = ranks.iter().flat_map(|rank| rank[step].keys.clone()).collect();
            let tokens: Vec<i64> = ranks.iter().flat_map(|rank| rank[step].tokens.clone()).collect();
            assert!(images == *global.images && keys == global.keys && tokens == global.tokens);
        }
    }
    assert!(matches!(
        Loader::open(with(base, |s| s.world_size = 3)).unwrap_err(),
        Error::Ranks { world_size: 3, streams: 8, .. }
    ));
}

#[test]
fn a_run_resumes_from_the_position_it_reports() {
    let folder = tempfile::tempdir().unwrap();
    let loader = Loader::open(settings(write_shards(folder.path(), &[50], |_, _| None), 4)).unwrap();
    let mut first = loader.batches(Position::default());
    for _ in 0..5 {
        first.next().unwrap().unwrap();
    }
    let position = first.position();
    let expected = first.next().unwrap().unwrap();
    drop(first);
    assert_eq!(position, expected.position);
    assert_eq!(content(&loader.batches(position).next().unwrap().unwrap()), content(&expected));
    // The end of an epoch may also be given as one step too many.
    let end = Position { epoch: 0, step: loader.steps_per_epoch() };
    assert_eq!(loader.batches(end).position(), Position { epoch: 1, step: 0 });
}

#[test]
fn a_dataset_smaller_than_the_streams_works() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[5], |_, _| None);
    let batches = batches(&settings(shards.clone(), 5), Position::default(), 3);
    for batch in &batches {
        let rows: HashSet<_> = (0..5).map(|row| identity(batch, row)).collect();
        assert_eq!(rows.len(), 5, "every sample once per epoch");
    }
    let error = Loader::open(settings(shards, 6)).unwrap_err().to_string();
    assert!(error.contains("5 samples") && error.contains("batch of 6"), "{error}");
}

#[test]
fn images_can_be_loaded_without_captions() {
    let folder = tempfile::tempdir().unwrap();
    let settings = with(settings(write_shards(folder.path(), &[9], |_, _| None), 3), |s| s.captions = false);
    let batch = batches(&settings, Position::default(), 1).remove(0);
    assert!(batch.captions.is_empty() && batch.tokens.is_empty() && batch.keys.len() == 3);
}

#[test]
fn broken_samples_are_replaced_by_the_next_good_one_of_the_stream_and_reported() {
    let is_broken = |shard: usize, sample: usize| (shard * 31 + sample) % 7 == 3;
    let broken = |shard, sample| is_broken(shard, sample).then(|| b"not an image".to_vec());
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[30, 30], broken);
    let base = with(settings(shards, 8), |s| s.streams = 4);
    let loader = Loader::open(base.clone()).unwrap();
    let whole: Vec<Batch> = loader.batches(Position::default()).take(10).map(Result::unwrap).collect();
    let mut replaced = 0;
    for batch in &whole {
        let mut skipped = batch.counters.skipped.iter();
        for (row, mut samples) in loader.samples_of(batch.position).into_iter().enumerate() {
            // The first good sample of those for this row; those before it are reported in order.
            let good = loop {
                let SampleId { shard, sample } = samples.next().unwrap();
                let (shard, sample) = (shard as usize, sample as usize);
                if !is_broken(shard, sample) {
                    break (shard, sample);
                }
                let reported = skipped.next().unwrap();
                assert_eq!(reported.key, key_of(shard, sample));
                assert_eq!(reported.shard.file_name(), format!("{shard:05}.tar"));
                assert_eq!(reported.cause, DecodeError::NotAnImage.into());
                replaced += 1;
            };
            assert_eq!(identity(batch, row), good);
            assert_eq!(batch.keys[row], key_of(good.0, good.1));
        }
        assert!(skipped.next().is_none());
    }
    assert!(replaced > 5);
    for threads in [1, 5] {
        let again = batches(&with(base.clone(), |s| s.threads = threads), whole[4].position, 6);
        assert!(whole[4..].iter().map(content).eq(again.iter().map(content)));
    }
}

#[test]
fn missing_parts_make_a_sample_broken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00000.tar");
    let mut tar = crate::common::TarFile::create(&path);
    tar.add("good.png", &image_of(0, 0)).add("good.txt", b"good").add("alone.txt", b"no image");
    tar.add("silent.png", &image_of(0, 2)).add("latin.png", &image_of(0, 3)).add("latin.txt", b"caf\xe9");
    tar.finish();
    let one_stream = with(settings(vec![path], 4), |s| s.streams = 1);
    let batch = batches(&one_stream, Position::default(), 1).remove(0);
    assert_eq!(batch.keys, ["good"; 4]);
    let causes: HashSet<_> =
        batch.counters.skipped.iter().map(|s| (s.key.as_str(), s.cause.to_string())).collect();
    let expected = [
        ("alone", "it has no image"),
        ("silent", "it has no caption (no txt)"),
        ("latin", "its caption is not UTF-8"),
    ];
    assert_eq!(causes, HashSet::from(expected.map(|(key, cause)| (key, cause.to_owned()))));
}

#[test]
fn a_broken_dataset_stops_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[20, 20], |_, _| Some(b"not an image".to_vec()));
    let loader = Loader::open(settings(shards, 4)).unwrap();
    let mut batches = loader.batches(Position::default());
    let error = batches.next().unwrap().unwrap_err().to_string();
    // All 40: the 10 of the row's own stream, and those of the other three.
    assert!(error.contains("40 samples in a row are broken") && error.contains(".tar"), "{error}");
    assert!(batches.next().is_none(), "an error ends the iteration");
}

#[test]
fn a_broken_sample_alone_in_its_stream_is_replaced_by_one_of_the_next_stream() {
    let folder = tempfile::tempdir().unwrap();
    let is_broken = |sample: usize| sample == 1 || sample == 4;
    let shards =
        write_shards(folder.path(), &[5], |_, sample| is_broken(sample).then(|| b"not an image".to_vec()));
    let one_each = with(settings(shards, 5), |s| s.streams = 5);
    let loader = Loader::open(one_each.clone()).unwrap();
    let mut whole = Vec::new();
    for batch in loader.batches(Position::default()).take(8) {
        let batch = batch.unwrap();
        // Each is alone in its stream; the following ones are those of the next streams.
        let of_rows = loader.samples_of(batch.position);
        let samples: Vec<Vec<usize>> =
            of_rows.into_iter().map(|row| row.map(|id| id.sample as usize).collect()).collect();
        for (row, tried) in samples.iter().enumerate() {
            assert!(tried.iter().eq((row..row + 5).map(|stream| &samples[stream % 5][0])));
            let good = tried.iter().find(|&&sample| !is_broken(sample)).unwrap();
            assert_eq!(batch.keys[row], key_of(0, *good));
        }
        whole.push(batch);
    }
    // The same on five ranks, each of which has one stream only.
    for rank in 0..5 {
        let alone = batches(
            &with(one_each.clone(), |s| {
                s.rank = rank;
                s.world_size = 5;
            }),
            Position::default(),
            8,
        );
        assert!(alone.iter().zip(&whole).all(|(alone, whole)| alone.keys[0] == whole.keys[rank]));
    }
}

/// Memory that cannot be written: the threads of the loader panic outside of decoding.
struct Unwritable(Vec<u8>);

impl AsMut<[u8]> for Unwritable {
    fn as_mut(&mut self) -> &mut [u8] {
        assert_ne!(std::thread::current().name(), Some("loader"), "this memory cannot be written");
        &mut self.0
    }
}

struct UnwritableBuffer;

impl ImageBuffer for UnwritableBuffer {
    fn lend(&mut self, rows: usize, bytes: usize) -> Vec<Box<dyn RowBuffer>> {
        (0..rows).map(|_| Box::new(Unwritable(vec![0; bytes])) as Box<dyn RowBuffer>).collect()
    }

    fn take_back(&mut self, _: Vec<Box<dyn RowBuffer>>) {}

    fn bytes(&self) -> &[u8] {
        &[]
    }
}

#[test]
fn a_panic_in_a_thread_ends_the_iteration_and_names_the_sample() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[20], |_, _| None);
    let loader = Loader::open(settings(shards, 4)).unwrap();
    let mut batches = loader.batches_in(Position::default(), Box::new(|_| Ok(Box::new(UnwritableBuffer))));
    let first = loader.samples_of(Position::default())[0].next().unwrap().sample as usize;
    let error = batches.next().unwrap().unwrap_err();
    assert!(matches!(error, Error::Panicked { .. }));
    let error = error.to_string();
    for part in ["00000.tar", &key_of(0, first), "this memory cannot be written"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(batches.next().is_none());
}

#[test]
fn shards_too_small_to_stay_open_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let small = write_shards(folder.path(), &[2; 600], |_, _| None);
    let warning = |shards: &[std::path::PathBuf], window: usize| {
        Loader::open(with(settings(shards.to_vec(), 64), |s| s.window = window)).unwrap().warning()
    };
    let told = warning(&small, 4096).unwrap();
    assert!(told.contains("600 shards") && told.contains("2 samples"), "{told}");
    // Windows of 2 samples: at most 3 shards for each of the 64 streams.
    assert_eq!(warning(&small, 2), None);
    assert_eq!(warning(&small[..500], 4096), None);
}

#[test]
fn a_shard_that_cannot_be_read_stops_the_run_and_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[30, 30], |_, _| None);
    let whole = fs::read(&shards[1]).unwrap();
    fs::write(&shards[1], &whole[..whole.len() / 2]).unwrap();
    let error = Loader::open(settings(shards.clone(), 4)).unwrap_err().to_string();
    assert!(error.contains("00001.tar: it is truncated inside"), "{error}");

    // Truncated after it was indexed: batches that do not need the shard still come.
    fs::write(&shards[1], &whole).unwrap();
    let loader = Loader::open(settings(shards.clone(), 4)).unwrap();
    fs::write(&shards[1], &whole[..1000]).unwrap();
    let ends: Vec<_> = loader.batches(Position::default()).collect();
    let error = ends.last().unwrap().as_ref().unwrap_err().to_string();
    assert!(error.contains("00001.tar"), "{error}");
    assert!(loader.batches(Position::default()).count() == ends.len(), "the same end every time");

    let missing = folder.path().join("00009.tar");
    assert!(Loader::open(settings(vec![missing], 4)).unwrap_err().to_string().contains("00009.tar"));
}

/// More shards than stay open; one of them is written again, with the same samples but another image.
#[test]
fn a_shard_that_is_written_again_during_a_run_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[4; 30], |_, _| None);
    // One stream with windows of one sample: three shards stay open.
    let settings = with(settings(shards.clone(), 2), |s| {
        s.streams = 1;
        s.window = 1;
        s.threads = 1;
        s.prefetch = 0;
    });
    let loader = Loader::open(settings).unwrap();
    let mut batches = loader.batches(Position::default());
    for _ in 0..60 {
        batches.next().unwrap().unwrap();
    }
    let other = tempfile::tempdir().unwrap();
    let again = write_shards(other.path(), &[4; 30], |shard, sample| {
        (shard == 7).then(|| image_of(shard + 100, sample + 100)).map(|mut image| {
            image.extend([0; 600]);
            image
        })
    });
    fs::rename(&again[7], &shards[7]).unwrap();
    let error = batches.find_map(Result::err).unwrap().to_string();
    assert!(error.contains("00007.tar has changed since it was opened"), "{error}");
}

#[test]
fn unusable_inputs_and_shards_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let list = |name: &str| loader::shards::list(&[folder.path().join(name)]).map_err(|e| e.to_string());
    assert!(list("").unwrap_err().contains("no shards"));
    assert!(list("{}.tar").unwrap_err().contains("the braces {} are empty"));
    assert!(list("{0..2}.tar").unwrap_err().contains("0.tar"));

    let path = folder.path().join("00000.tar");
    let opened = |path: &std::path::Path| {
        let one_stream = with(settings(vec![path.to_owned()], 2), |s| s.streams = 1);
        let loader = Loader::open(one_stream).map_err(|e| e.to_string())?;
        let batch = loader.batches(Position::default()).next().unwrap().map_err(|e| e.to_string());
        batch.map(|batch| batch.counters.skipped)
    };
    fs::write(&path, b"").unwrap();
    assert!(opened(&path).unwrap_err().contains("00000.tar: it is empty"));
    let mut tar = crate::common::TarFile::create(&path);
    tar.add("a.txt", b"only").add("b.txt", b"texts");
    tar.finish();
    assert!(opened(&path).unwrap_err().contains("it has no image"));
    let mut tar = crate::common::TarFile::create(&path);
    tar.add("a.jpg", b"").add("a.txt", b"empty").add("b.png", &image_of(0, 1)).add("b.txt", b"good");
    tar.finish();
    let skipped = opened(&path).unwrap();
    assert!(!skipped.is_empty() && skipped.iter().all(|skipped| skipped.key == "a"), "{skipped:?}");
    // A symbolic link is followed; a dangling one is an error.
    let link = folder.path().join("00001.tar");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(opened(&link).unwrap(), {
        let shard = |mut one: loader::Skipped| {
            one.shard = link.as_path().into();
            one
        };
        skipped.into_iter().map(shard).collect::<Vec<_>>()
    });
    fs::remove_file(&path).unwrap();
    let missing = opened(&link).unwrap_err();
    assert!(missing.ends_with("00001.tar does not exist"), "{missing}");
}

#[test]
fn dropping_the_iterator_ends_its_threads_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[200], |_, _| None);
    let loader = Loader::open(with(settings(shards, 100), |s| {
        s.threads = 4;
        s.prefetch = 40;
    }))
    .unwrap();
    for taken in [0, 1, 3] {
        let started = std::time::Instant::now();
        let mut batches = loader.batches(Position::default());
        for _ in 0..taken {
            batches.next().unwrap().unwrap();
        }
        drop(batches);
        assert!(started.elapsed().as_secs() < 5);
    }
}

#[test]
fn invalid_settings_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let good = settings(write_shards(folder.path(), &[8], |_, _| None), 2);
    let refused = |change: fn(&mut Settings), part: &str| {
        let mut settings = good.clone();
        change(&mut settings);
        let error = Loader::open(settings).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(|s| s.shards.clear(), "no shard");
    refused(|s| s.threads = 0, "thread");
    refused(|s| s.batch_size = 0, "batch size");
    refused(|s| s.window = 0, "window");
    refused(|s| s.context = 1, "context");
    refused(|s| s.image.flip = 1.5, "flip");
    refused(|s| s.image.crop = Crop::Centre { size: 0 }, "image size");
    refused(
        |s| s.image.crop = Crop::RandomResized { size: 8, scale: (0.0, 1.0), ratio: (1.0, 1.0) },
        "scale",
    );
    refused(
        |s| s.image.crop = Crop::RandomResized { size: 8, scale: (0.5, 1.0), ratio: (2.0, 1.0) },
        "ratio",
    );
    refused(|s| s.rank = 1, "rank 1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// A run that is stopped anywhere and resumed with other ranks and threads gives the same bytes as an uninterrupted
    /// one.
    #[test]
    fn an_interrupted_run_equals_an_uninterrupted_one(
        seed in 0_u64..4, power in (0_u32..=6, 0_u32..=6), threads in (1_usize..=16, 1_usize..=16),
        prefetch in (0_usize..4, 0_usize..4), stop in 0_usize..9,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let random = Crop::RandomResized { size: 5, scale: (0.25, 1.0), ratio: (0.75, 1.333) };
        let image = ImageSettings::new(random, 0.5);
        let shards = write_shards(folder.path(), &[50, 70, 33, 90, 20], |_, _| None);
        let base = with(settings(shards, 64), |s| { s.seed = seed; s.window = 9; s.image = image; });
        let whole = batches(&base, Position::default(), 10);
        let run = |power: u32, threads: usize, prefetch: usize, from: Position, count: usize| {
            let world_size = 1 << power;
            let mut joined = vec![(Vec::new(), Vec::new(), Vec::new()); count];
            let mut next = from;
            for rank in 0..world_size {
                let settings = with(base.clone(), |s| {
                    (s.rank, s.world_size) = (rank, world_size);
                    (s.threads, s.prefetch) = (threads, prefetch);
                });
                let mut iterator = Loader::open(settings).unwrap().batches(from);
                for (images, keys, tokens) in &mut joined {
                    let batch = iterator.next().unwrap().unwrap();
                    images.extend_from_slice(&batch.images);
                    keys.extend(batch.keys);
                    tokens.extend(batch.tokens);
                }
                next = iterator.position();
            }
            (joined, next)
        };
        let (mut joined, next) = run(power.0, threads.0, prefetch.0, Position::default(), stop);
        prop_assert_eq!(next, whole[stop].position);
        joined.extend(run(power.1, threads.1, prefetch.1, next, 10 - stop).0);
        for (joined, whole) in joined.into_iter().zip(whole) {
            prop_assert!(joined == (whole.images.to_vec(), whole.keys, whole.tokens), "at {:?}", whole.position);
        }
    }
}
