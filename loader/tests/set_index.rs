//! The index of a set: with it everything is as without it, and an index of another state of the folder is never believed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use concepts::sidecar::{Metadata, Writer};
use concepts::{Bank, Extractor, Matching, TaggerDescription, TaggerKind};
use loader::shards::set_index::{INDEX, SetIndex};
use loader::shards::{self, Archive, Index, StoredCaptions, describe};
use loader::{CaptionSource, Expected, Loader, Position, Settings, Share};
use storage::Location;

use crate::common::server::{Answer, Server};
use crate::common::{content, damage, settings, sidecar_path, stats_path, with, write_shards, write_table};

/// Writes the index of a folder as it is now.
fn write_index(folder: &Path) {
    let describe = |shard: &Location| (shard.file_name().into_owned(), describe(shard).unwrap());
    let index = SetIndex { shards: shards::list([folder]).unwrap().iter().map(describe).collect() };
    index.write(&folder.into()).unwrap();
}

/// Writes a sidecar of the captions that the loader reads, with what the tagger finds; `name` is that of the tagger in the footer.
fn tag(shard: &Path, name: &str) {
    let extractor = Extractor::new(TaggerKind::Perceptron).unwrap();
    let tagger = TaggerDescription { name: name.to_owned(), ..extractor.description() };
    let metadata = Metadata::new(&tagger, shard, fs::metadata(shard).unwrap().len());
    let mut writer = Writer::create(&sidecar_path(shard), metadata).unwrap();
    let archive = Archive::open(shard).unwrap();
    let index = Index::load(&archive).unwrap();
    for sample in 0..index.len() as u32 {
        let add = |stored: StoredCaptions<'_>| {
            let text = concepts::canonical(&stored.texts()[0]);
            writer.push(sample, index.key(sample), &text, &extractor.mentions(&text)).unwrap();
            writer.check(sample, stored.check());
        };
        index.captions_of(&archive, sample, None, add).unwrap();
    }
    writer.finish().unwrap();
}

/// Every batch of two epochs, or the first error.
fn batches(settings: &Settings) -> Result<Vec<impl PartialEq + std::fmt::Debug + use<>>, String> {
    let loader = Loader::open(settings.clone()).map_err(|error| error.to_string())?;
    let count = 2 * loader.steps_per_epoch() as usize;
    let all: Result<Vec<_>, _> = loader.batches(Position::default()).take(count).collect();
    Ok(all.map_err(|error| error.to_string())?.iter().map(content).collect())
}

fn bank(settings: &mut Settings) {
    let names = ["sample", "shard", "photo"];
    settings.bank = Some((Arc::new(Bank::from_names(names).unwrap()), Matching::Longest));
}

/// The settings with and without an index of each folder must give the same.
fn same_with_index(folders: &[&Path], settings: &Settings) {
    let without = batches(settings).unwrap();
    for folder in folders {
        write_index(folder);
    }
    assert!(without == batches(settings).unwrap());
    for folder in folders {
        fs::remove_file(folder.join(INDEX)).unwrap();
    }
}

#[test]
fn order_and_batches_are_those_without_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[30, 7, 41, 12], |_, _| None);
    same_with_index(&[folder.path()], &settings(shards.clone(), 8));
    for shard in &shards {
        tag(shard, "perceptron");
    }
    same_with_index(&[folder.path()], &with(settings(shards.clone(), 8), bank));
    for rank in 0..2 {
        let of_rank = with(settings(shards.clone(), 8), |s| (s.rank, s.world_size) = (rank, 2));
        same_with_index(&[folder.path()], &with(of_rank, bank));
    }
    for shard in &shards[1..] {
        write_table(shard, 0);
    }
    same_with_index(&[folder.path()], &settings(shards.clone(), 8));
    let field = CaptionSource::Json { key: "c".to_owned(), choice: loader::CaptionChoice::First };
    let images = with(settings(shards.clone(), 8), |s| (s.captions, s.options.captions) = (false, field));
    same_with_index(&[folder.path()], &images);
    // Two datasets with weights, of which one is compressed and may have no index.
    let other = tempfile::tempdir().unwrap();
    let packed: Vec<PathBuf> = write_shards(other.path(), &[9, 20], |_, _| None)
        .iter()
        .map(|shard| {
            let packed = shard.with_extension("tar.zst");
            fs::write(&packed, zstd::encode_all(fs::File::open(shard).unwrap(), 1).unwrap()).unwrap();
            fs::remove_file(shard).unwrap();
            packed
        })
        .collect();
    let all = with(settings([shards, packed].concat(), 8), |s| {
        s.sets = vec![Share { shards: 4, weight: 1.0 }, Share { shards: 2, weight: 3.0 }];
    });
    same_with_index(&[folder.path()], &all);
    same_with_index(&[folder.path(), other.path()], &all);
}

#[test]
fn an_index_of_another_state_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = |shard: usize| folder.path().join(format!("{shard:05}.tar"));
    let fresh = || {
        let shards = write_shards(folder.path(), &[20, 20, 20], |_, _| None);
        for shard in &shards {
            tag(shard, "perceptron");
        }
        write_index(folder.path());
        shards
    };
    let refused = |settings: &Settings, part: &str| {
        let error = batches(settings).unwrap_err();
        let command = format!("tools index {}", folder.path().display());
        assert!(error.contains(INDEX) && error.contains(&command) && error.contains(part), "{part}: {error}");
    };
    let shards = fresh();
    let settings = settings(shards, 4);
    let original = fs::read(path(1)).unwrap();
    // Truncated; replaced by a shard of another size, or of the same size with other samples.
    fs::write(path(1), &original[..original.len() - 512]).unwrap();
    refused(&settings, "00001.tar has");
    let other = tempfile::tempdir().unwrap();
    fs::write(path(1), fs::read(&write_shards(other.path(), &[19], |_, _| None)[0]).unwrap()).unwrap();
    refused(&settings, "bytes");
    fs::write(path(1), renamed(original.clone())).unwrap();
    refused(&settings, "other samples");
    fs::write(path(1), &original).unwrap();
    assert!(batches(&settings).is_ok());

    // The index of another set.
    write_shards(other.path(), &[25, 25, 25], |_, _| None);
    write_index(other.path());
    fs::copy(other.path().join(INDEX), folder.path().join(INDEX)).unwrap();
    refused(&settings, "bytes");

    // A sidecar that was written again, of the same captions.
    fresh();
    let mentions = with(settings.clone(), bank);
    assert!(batches(&mentions).is_ok());
    tag(&path(2), "another");
    refused(&mentions, "sidecar of 00002.tar");

    // Damaged, cut, of another version.
    fresh();
    damage(&folder.path().join(INDEX), |bytes| bytes.truncate(bytes.len() / 2));
    refused(&settings, "not a valid index");
}

/// A tar whose members have other keys: their first digit is 9.
fn renamed(mut tar: Vec<u8>) -> Vec<u8> {
    for block in tar.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[0] = b'9';
        // The checksum is the sum of the header's bytes, of which its own count as spaces.
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

#[test]
fn shards_that_were_added_or_removed_are_used_or_left_out_as_without_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[20, 20, 20, 20], |_, _| None);
    let hidden = folder.path().join("later");
    fs::rename(&shards[3], &hidden).unwrap();
    write_index(folder.path());
    let all = |folder: &Path| settings(shards::list([folder]).unwrap(), 4);
    assert_eq!(Loader::open(all(folder.path())).unwrap().samples(), 60);
    fs::rename(&hidden, &shards[3]).unwrap();
    fs::remove_file(&shards[0]).unwrap();
    let with_index = batches(&all(folder.path())).unwrap();
    assert_eq!(Loader::open(all(folder.path())).unwrap().shard_samples(), [20, 20, 20]);
    fs::remove_file(folder.path().join(INDEX)).unwrap();
    assert!(with_index == batches(&all(folder.path())).unwrap());
}

#[test]
fn what_is_expected_of_shards_is_compared_as_without_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[20, 20], |_, _| None);
    let settings = settings(shards, 4);
    let loader = Loader::open(settings.clone()).unwrap();
    loader.batches(Position::default()).take(10).for_each(|batch| drop(batch.unwrap()));
    let mut found = loader.opened();
    found.sort_by_key(|(shard, _)| *shard);
    write_index(folder.path());
    let expect = |change: u64| {
        let loader = Loader::open(settings.clone()).unwrap();
        let mut shards: Vec<_> = found.iter().map(|(_, identity)| Some(*identity)).collect();
        shards[1].as_mut().unwrap().places ^= change;
        loader.expect(Expected { shards, captions: true, since: "then".to_owned() }).unwrap();
        loader.batches(Position::default()).take(10).find_map(Result::err)
    };
    assert!(expect(0).is_none());
    assert!(expect(1).unwrap().to_string().contains("other samples"));
}

#[test]
fn one_request_replaces_those_for_every_shard() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[5; 40], |_, _| None);
    for shard in &shards {
        write_table(shard, 0);
        tag(shard, "perceptron");
    }
    let latency = Duration::from_millis(20);
    let server = Server::new(folder.path(), move |_, _| {
        std::thread::sleep(latency);
        Answer::Normal
    });
    let braces = server.url("{00000..00039}.tar");
    let open = |server: &Server| {
        let (before, started) = (server.requests(), Instant::now());
        let loader = Loader::open(with(settings(shards::list([&braces]).unwrap(), 8), bank)).unwrap();
        (loader.samples(), server.requests() - before, started.elapsed())
    };
    let (samples, without, _) = open(&server);
    write_index(folder.path());
    let (same, with_index, took) = open(&server);
    assert_eq!((samples, same), (200, 200));
    assert!(without >= 3 * 40, "{without} requests");
    assert_eq!(with_index, 1);
    assert!(took < Duration::from_secs(1), "{took:?}");
    // This server cannot list folders; the index says what is there.
    let listed = shards::list([server.url("")]).unwrap();
    assert_eq!(listed, shards::list([&braces]).unwrap());
    assert!(batches(&with(settings(listed, 8), bank)).is_ok());
    // A remote shard of another size is found when it is opened.
    damage(&shards[7], |bytes| bytes.extend([0; 512]));
    let error = batches(&settings(shards::list([&braces]).unwrap(), 8)).unwrap_err();
    assert!(error.contains("00007.tar") && error.contains("tools index"), "{error}");
}

#[test]
fn incomplete_shards_are_not_described() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[5, 5], |_, _| None);
    for shard in &shards {
        write_table(shard, 0);
    }
    fs::remove_file(stats_path(&shards[1])).unwrap();
    write_index(folder.path());
    let index = SetIndex::open(&folder.path().into()).unwrap().unwrap();
    assert_eq!(index.shards.keys().collect::<Vec<_>>(), ["00000.tar"]);
}
