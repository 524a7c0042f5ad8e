//! Shards on an http server: which bytes are read, and how network failures are handled.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::server::{Answer, Server, Validator};
use crate::common::{content, settings, with, write_shards};
use loader::{Batch, Cache, Loader, Position, Settings};
use storage::{Error, Source};

fn batches(settings: &Settings, count: usize) -> Vec<Batch> {
    let loader = Loader::open(settings.clone()).unwrap();
    loader.batches(Position::default()).take(count).map(Result::unwrap).collect()
}

fn urls(server: &Server, shards: &[PathBuf]) -> Vec<PathBuf> {
    shards.iter().map(|shard| server.url(shard.file_name().unwrap().to_str().unwrap())).collect()
}

#[test]
fn batches_over_http_equal_those_of_local_files() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[30, 7, 41], |_, _| None);
    let server = Server::new(folder.path(), |_, _| Answer::Normal);
    let local = batches(&settings(shards.clone(), 8), 20);
    let remote = batches(&settings(urls(&server, &shards), 8), 20);
    for (local, remote) in local.iter().zip(&remote) {
        assert!(
            (&local.images, &local.keys, &local.captions) == (&remote.images, &remote.keys, &remote.captions)
        );
    }
}

/// Dropped connections, the status 503 and slow transfers do not change the batches.
#[test]
fn a_bad_network_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[30, 30], |_, sample| {
        // Large enough to be cut anywhere, because noise does not compress.
        Some(noise(sample))
    });
    let server = Server::new(folder.path(), |number, _| match number % 7 {
        1 => Answer::Status(503),
        3 => Answer::Drop(number * 37 % 900),
        5 => Answer::Slow(400, Duration::from_millis(2)),
        _ => Answer::Normal,
    });
    let local = batches(&settings(shards.clone(), 10), 6);
    let remote = batches(&settings(urls(&server, &shards), 10), 6);
    for (local, remote) in local.iter().zip(&remote) {
        assert!(local.images == remote.images && local.captions == remote.captions);
        assert!(remote.counters.skipped.is_empty(), "{:?}", remote.counters.skipped);
    }
}

fn noise(seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let image = image::RgbImage::from_fn(24, 18, |_, _| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        image::Rgb([(state >> 40) as u8, (state >> 48) as u8, (state >> 56) as u8])
    });
    let mut png = Vec::new();
    image.write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
    png
}

/// The loader waits until an outage is over; no sample is lost or repeated after it.
#[test]
fn an_outage_delays_batches_but_does_not_change_them() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[40], |_, _| None);
    let expected = batches(&settings(shards.clone(), 8), 5);
    let started = Instant::now();
    let outage = Duration::from_secs(3);
    let server = Server::new(folder.path(), move |number, _| {
        if number > 6 && started.elapsed() < outage { Answer::Status(503) } else { Answer::Normal }
    });
    let got = batches(&settings(urls(&server, &shards), 8), 5);
    assert!(started.elapsed() >= outage);
    for (expected, got) in expected.iter().zip(&got) {
        assert!(expected.images == got.images && expected.keys == got.keys);
    }
}

#[test]
fn permanent_failures_are_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[8], |_, _| None);
    fs::copy(&shards[0], folder.path().join("secret.tar")).unwrap();
    fs::copy(&shards[0], folder.path().join("whole.tar")).unwrap();
    let server = Server::new(folder.path(), |_, path| match path {
        "/secret.tar" => Answer::Status(403),
        "/whole.tar" => Answer::Whole,
        _ => Answer::Normal,
    });
    let started = Instant::now();
    let missing = storage::read(server.url("none.tar")).unwrap_err();
    assert!(matches!(&missing, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound));
    let text = missing.to_string();
    assert!(text.ends_with("none.tar does not exist"), "{text}");
    let text = storage::read(server.url("secret.tar")).unwrap_err().to_string();
    assert!(text.contains("secret.tar") && text.contains("denies access"), "{text}");
    let opened = Source::open(server.url("whole.tar")).unwrap();
    let text = opened.read(512, 10).unwrap_err().to_string();
    assert!(text.contains("whole.tar") && text.contains("range"), "{text}");
    let text = storage::read("http://127.0.0.1:1/a.tar?token=1").unwrap_err().to_string();
    assert!(text.contains("query"), "{text}");
    let text = Loader::open(settings(vec![server.url("00009.tar")], 4)).unwrap_err().to_string();
    assert!(text.contains("00009.tar"), "{text}");
    assert!(started.elapsed() < storage::RETRY_FOR / 2, "these failures must not be retried");
}

#[test]
fn whole_files_are_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..100_000_u32).map(|i| (i * 7 / 3) as u8).collect();
    fs::write(folder.path().join("data"), &data).unwrap();
    let server =
        Server::new(folder.path(), |number, _| if number == 1 { Answer::Drop(5000) } else { Answer::Normal });
    let url = server.url("data");
    assert_eq!(storage::length(&url).unwrap(), 100_000);
    assert!(storage::read(&url).unwrap() == data, "after a dropped connection");
    let opened = Source::open(&url).unwrap();
    assert!(opened.read(10, 500).unwrap() == data[10..510]);
    assert!(opened.read(99_999, 2).is_err());
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut opened.reader(7_001), &mut read).unwrap();
    assert!(read == data);
    storage::write(server.url("a/b.bin"), data.clone()).unwrap();
    assert!(server.was_put("/a/b.bin").unwrap() == data);
    storage::upload(&folder.path().join("data"), server.url("copy")).unwrap();
    assert!(server.was_put("/copy").unwrap() == data);
}

/// Eight ranks together read the dataset once: each reads only the bytes of its own samples.
#[test]
fn ranks_share_the_bytes_of_the_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let counts = [128; 8];
    let shards = write_shards(folder.path(), &counts, |_, sample| Some(noise(sample)));
    for (shard, count) in shards.iter().zip(counts) {
        crate::common::write_table(shard, 0);
        assert_eq!(Loader::open(settings(vec![shard.clone()], 1)).unwrap().samples(), count as u64);
    }
    let images: u64 = shards
        .iter()
        .flat_map(|shard| loader::shards::Archive::open(shard).unwrap().samples().unwrap())
        .map(|sample| sample.image().unwrap().length)
        .sum();
    let server = Server::new(folder.path(), |_, _| Answer::Normal);
    let mut used = 0;
    for rank in 0..8 {
        let settings = with(settings(urls(&server, &shards), 16), |s| {
            s.rank = rank;
            s.world_size = 8;
            s.options.prefetch = 0;
        });
        let loader = Loader::open(settings).unwrap();
        let steps = loader.steps_per_epoch() as usize;
        assert_eq!(steps, 64);
        let before = server.sent(".tar");
        let read: u64 =
            loader.batches(Position::default()).take(steps).map(|batch| batch.unwrap().counters.bytes).sum();
        used += read;
        let sent = server.sent(".tar") - before;
        assert!(sent as f64 <= 1.05 * images as f64 / 8.0, "rank {rank} got {sent} of {images} bytes");
    }
    assert_eq!(used, images, "every image once");
    let sent = server.sent(".tar");
    assert!(sent >= images && sent as f64 <= 1.05 * images as f64, "{sent} bytes sent of {images}");
}

/// A run that resumes from a position reads only the samples from there on.
#[test]
fn resuming_seeks() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[128; 4], |_, sample| Some(noise(sample)));
    for shard in &shards {
        crate::common::write_table(shard, 0);
    }
    let server = Server::new(folder.path(), |_, _| Answer::Normal);
    let settings = with(settings(urls(&server, &shards), 16), |s| s.options.prefetch = 1);
    let loader = Loader::open(settings).unwrap();
    let before = server.sent(".tar");
    let mut batches = loader.batches(Position { epoch: 3, step: 20 });
    let read: u64 = (0..2).map(|_| batches.next().unwrap().unwrap().counters.bytes).sum();
    drop(batches);
    // These two batches, at most two more in the queue, and the blocks that are checked in each shard.
    let largest = 16 * noise(0).len() as u64 + 2048;
    let sent = server.sent(".tar") - before;
    assert!(sent >= read && sent <= read + 2 * largest + 4 * 2 * 512, "{sent} bytes sent, {read} used");
}

/// With a cache, a shard is downloaded once, whatever the number of ranks and epochs.
#[test]
fn a_cache_is_shared_by_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[24, 24], |_, sample| Some(noise(sample)));
    let stored: u64 = shards.iter().map(|shard| fs::metadata(shard).unwrap().len()).sum();
    let server = Server::new(folder.path(), |_, _| Answer::Normal);
    let cache = Some(Cache { folder: folder.path().join("cache"), limit: 2 * stored });
    for rank in 0..2 {
        let remote = with(settings(urls(&server, &shards), 12), |s| {
            s.rank = rank;
            s.world_size = 2;
            s.options.cache = cache.clone();
        });
        let local = with(settings(shards.clone(), 12), |s| {
            s.rank = rank;
            s.world_size = 2;
        });
        assert!(batches(&local, 9).iter().map(content).eq(batches(&remote, 9).iter().map(content)));
    }
    assert_eq!(server.sent(".tar"), stored);
}

#[test]
fn a_compressed_shard_is_read_from_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[12], |_, _| None);
    let expected = batches(&settings(shards.clone(), 4), 3);
    let packed = zstd::encode_all(&*fs::read(&shards[0]).unwrap(), 1).unwrap();
    fs::write(folder.path().join("00000.tar.zst"), packed).unwrap();
    let server = Server::new(folder.path(), |_, _| Answer::Normal);
    let got = batches(&settings(vec![server.url("00000.tar.zst")], 4), 3);
    assert!(expected.iter().map(content).eq(got.iter().map(content)));
    assert!(server.requests() > 0);
}

/// A file that is replaced between two reads is noticed by what the server says about it, and only then.
#[test]
fn a_file_that_is_replaced_while_it_is_read_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    // The new file is as long as the old one, and shorter.
    for (length, noticed_without_validator) in [(5000, false), (4900, true), (2000, true)] {
        for validator in
            [Validator::Tag, Validator::IgnoredTag, Validator::WeakTag, Validator::Date, Validator::None]
        {
            let about = format!("{length} {validator:?}");
            fs::write(&path, [1; 5000]).unwrap();
            let server = Server::with(validator, folder.path(), |_, _| Answer::Normal);
            let url = server.url("a.tar");
            let opened = Source::open(&url).unwrap();
            assert_eq!(&*opened.read(0, 1000).unwrap(), [1; 1000], "{about}");
            assert_eq!(&*opened.read(4990, 10).unwrap(), [1; 10], "{about}");
            fs::write(&path, vec![2; length]).unwrap();
            let started = Instant::now();
            for offset in [0, 4980] {
                let read = opened.read(offset, 20);
                if validator != Validator::None || noticed_without_validator {
                    let expected = format!("{} was replaced while it was read", url.display());
                    let error = read.unwrap_err();
                    assert!(matches!(error, Error::Changed { .. }), "{about}: {error}");
                    assert!(error.to_string().starts_with(&expected), "{about}: {error}");
                } else {
                    assert_eq!(&*read.unwrap(), [2; 20]);
                }
            }
            assert!(started.elapsed() < storage::RETRY_FOR / 2, "{about}: not retried");
            // Opened again, it is the new file.
            let again = Source::open(&url).unwrap();
            assert_eq!(&*again.read(0, 1000).unwrap(), [2; 1000], "{about}");
        }
    }
}

/// The same within one transfer: the connection breaks, and the rest would come from the new file.
#[test]
fn a_transfer_is_not_resumed_in_another_version() {
    for validator in [Validator::Tag, Validator::IgnoredTag, Validator::WeakTag, Validator::Date] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        fs::write(&path, [1; 5000]).unwrap();
        let replaced = path.clone();
        let server = Server::with(validator, folder.path(), move |number, _| match number {
            // HEAD, the broken transfer, the next try.
            1 => Answer::Drop(1000),
            2 => {
                fs::write(&replaced, [2; 5000]).unwrap();
                Answer::Normal
            }
            _ => Answer::Normal,
        });
        let opened = Source::open(server.url("a.tar")).unwrap();
        let error = opened.read(0, 5000).unwrap_err().to_string();
        assert!(error.contains("a.tar was replaced while it was read"), "{validator:?}: {error}");
    }
}

/// A shard that is written again ends the batches with its name: no caption gets another image.
#[test]
fn a_shard_that_is_replaced_during_a_run_ends_it() {
    for (cached, compressed) in [(false, false), (true, false), (true, true)] {
        let folder = tempfile::tempdir().unwrap();
        let shards = write_shards(folder.path(), &[40], |_, sample| Some(noise(sample)));
        let other = tempfile::tempdir().unwrap();
        let mut new = write_shards(other.path(), &[40], |_, sample| Some(noise(sample + 1000)));
        let mut name = "00000.tar";
        let mut old = shards[0].clone();
        if compressed {
            name = "00000.tar.gz";
            for shard in [&mut old, &mut new[0]] {
                let plain = fs::read(&*shard).unwrap();
                let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
                std::io::Write::write_all(&mut packed, &plain).unwrap();
                shard.set_extension("tar.gz");
                fs::write(shard, packed.finish().unwrap()).unwrap();
            }
        }
        let again = new.swap_remove(0);
        let requests = AtomicUsize::new(0);
        let server = Server::with(Validator::Tag, folder.path(), move |_, path| {
            // With a cache, the second request for the shard is for all its bytes.
            let number =
                if path.contains("00000.tar") { requests.fetch_add(1, Ordering::Relaxed) } else { 0 };
            if number == if cached { 1 } else { 20 } {
                fs::rename(&again, &old).unwrap();
            }
            Answer::Normal
        });
        let cache = cached.then(|| Cache { folder: folder.path().join("cache"), limit: 1 << 20 });
        let settings = with(settings(vec![server.url(name)], 4), |s| {
            s.options.cache = cache;
            s.options.threads = 1;
        });
        let error = match Loader::open(settings) {
            Err(error) => error,
            Ok(loader) => loader.batches(Position::default()).take(40).find_map(Result::err).unwrap(),
        };
        let expected = format!("{} was replaced while it was read", server.url(name).display());
        assert!(error.to_string().starts_with(&expected), "{cached} {compressed}: {error}");
    }
}
