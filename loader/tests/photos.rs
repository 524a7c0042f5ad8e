//! Real photos with their captions, tagged by the default tagger, from shard to batch.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::{TarFile, content, sidecar_path, with};
use concepts::sidecar::{Metadata, Writer};
use concepts::{Bank, Extractor, Matching, TaggerKind};
use loader::images::{Preprocessor, View};
use loader::shards::Archive;
use loader::{Crop, Decoding, ImageSettings, Loader, Position, SampleId, Settings};

/// The folder of test data next to the checkout, if it exists.
fn photos() -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/coco");
    let present = data.join("captions.jsonl").exists();
    if !present {
        println!("skipped: there are no photos in {}", data.display());
    }
    present.then_some(data)
}

/// (file, captions) of every photo.
fn captions(data: &Path) -> Vec<(String, Vec<String>)> {
    let lines = fs::read_to_string(data.join("captions.jsonl")).unwrap();
    lines
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let captions = record["captions"].as_array().unwrap();
            let captions = captions.iter().map(|c| c.as_str().unwrap().to_owned()).collect();
            (record["file"].as_str().unwrap().to_owned(), captions)
        })
        .collect()
}

#[test]
fn photos_become_batches() {
    let Some(data) = photos() else { return };
    let folder = tempfile::tempdir().unwrap();
    let extractor = Extractor::new(TaggerKind::default()).unwrap();
    let photos = captions(&data);
    assert_eq!(photos.len(), 390);
    let mut shards = Vec::new();
    let mut expected = HashSet::new();
    for (number, part) in photos.chunks(100).enumerate() {
        let path = folder.path().join(format!("{number:05}.tar"));
        let mut tar = TarFile::create(&path);
        for (i, (file, captions)) in part.iter().enumerate() {
            let key = format!("{:09}", number * 10_000 + i);
            tar.add(&format!("{key}.jpg"), &fs::read(data.join("images").join(file)).unwrap());
            tar.add(&format!("{key}.txt"), captions[0].as_bytes());
            expected.insert((key, concepts::canonical(&captions[0])));
        }
        tar.finish();
        let bytes = fs::metadata(&path).unwrap().len();
        let metadata = Metadata::new(&extractor.description(), &path, bytes);
        let mut sidecar = Writer::create(&sidecar_path(&path), metadata).unwrap();
        for (i, sample) in Archive::open(&path).unwrap().samples().unwrap().iter().enumerate() {
            let text = concepts::canonical(&part[i].1[0]);
            sidecar.push(i as u32, &sample.key, &text, &extractor.mentions(&text)).unwrap();
        }
        sidecar.finish().unwrap();
        shards.push(path);
    }
    let bank = Arc::new(
        Bank::from_names(["man", "dog", "cat", "train", "bus", "street", "table", "pizza"]).unwrap(),
    );
    let settings = with(Settings::new(shards, 30), |s| {
        s.bank = Some((Arc::clone(&bank), Matching::Longest));
        s.options.threads = 3;
    });
    let loader = Loader::open(settings.clone()).unwrap();
    assert_eq!(loader.samples(), 390);
    let batches: Vec<_> = loader.batches(Position::default()).take(13).map(Result::unwrap).collect();
    let mut seen = HashSet::new();
    let mut mentions = 0;
    for batch in &batches {
        assert!(batch.counters.skipped.is_empty(), "{:?}", batch.counters.skipped);
        for (row, image) in batch.images.chunks(224 * 224 * 3).enumerate() {
            let (low, high) = (image.iter().min().unwrap(), image.iter().max().unwrap());
            assert!(high - low > 30, "{} has no contrast", batch.keys[row]);
            seen.insert((batch.keys[row].clone(), batch.captions[row].clone()));
        }
        for (row, mention) in batch.mentions.iter() {
            let caption = &batch.captions[row];
            let words = &caption[mention.span.start as usize..mention.span.end as usize];
            let name = bank.name(mention.label);
            let singular = words.strip_suffix('s').unwrap_or(words).replace("men", "man");
            assert!(words == name || singular.starts_with(&name[..2]), "{words:?} does not match {name:?}");
            assert!(!mention.positions.is_empty());
        }
        mentions += batch.mentions.len();
    }
    assert_eq!(seen, expected, "13 batches of 30 are all 390 photos");
    assert!(mentions > 100, "{mentions} mentions");

    let again: Vec<_> = Loader::open(with(settings, |s| s.options.threads = 1))
        .unwrap()
        .batches(batches[11].position)
        .take(2)
        .map(Result::unwrap)
        .collect();
    assert!(batches[11..].iter().map(content).eq(again.iter().map(content)));
}

/// The documented difference between fast and exact decoding, on crops as in training.
#[test]
fn fast_decoding_of_photos_is_close_to_exact() {
    let Some(data) = photos() else { return };
    let crop = Crop::RandomResized { size: 224, scale: (0.08, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0) };
    let settings = ImageSettings::new(crop, 0.5);
    let mut preprocessor = Preprocessor::default();
    let mut found: Vec<f64> = Vec::new();
    for (number, (file, _)) in captions(&data).iter().take(150).enumerate() {
        let bytes = fs::read(data.join("images").join(file)).unwrap();
        let drawn = (0, 0, SampleId { shard: 0, sample: number as u32 });
        let [exact, fast] = [Decoding::Exact, Decoding::Fast].map(|decoding| {
            let mut row = vec![0; 224 * 224 * 3];
            let choose = |width, height| View::choose(&settings, drawn, width, height);
            preprocessor.preprocess(&bytes, decoding, 224, choose, &mut row).unwrap();
            row
        });
        let squares: f64 = exact.iter().zip(&fast).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
        found.push(10.0 * (255.0_f64.powi(2) * exact.len() as f64 / squares.max(1e-9)).log10());
    }
    found.sort_by(f64::total_cmp);
    let (min, median) = (found[0], found[found.len() / 2]);
    println!("PSNR of fast against exact decoding: minimum {min:.1} dB, median {median:.1} dB");
    assert!(min > 25.0 && median > 35.0, "PSNR: minimum {min} dB, median {median} dB");
}
