//! `trainer score`: its similarities against embeddings of the same images and captions; what is scored again, and what is
//! selected by it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use loader::shards::signals::Signals;
use loader::shards::{Archive, Index};
use serde_json::json;
use tests::{run, summary, text};

mod tiny;

/// A float32 tensor of a safetensors file, and its shape.
fn tensor(file: &Path, name: &str) -> (Vec<f32>, Vec<usize>) {
    let bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let about = &header[name];
    let at = |i: usize| about["data_offsets"][i].as_u64().unwrap() as usize + 8 + length;
    let values =
        bytes[at(0)..at(1)].as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let shape = about["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    (values, shape)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()) as f32
}

#[test]
fn captions_are_scored_by_their_images() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let trained = tiny::trained(folder.path());
    let (shards, shard) = (at("shards"), at("shards/00000.tar"));
    let score = |more: &[&str]| {
        summary("trainer", &[&["score", text(&shards), "--checkpoint", text(&trained)], more].concat())
    };
    let told = score(&[]);
    assert_eq!(
        (&told["shards"], &told["samples"], &told["without_score"]),
        (&json!(1), &json!(16), &json!(0))
    );

    let read = || Signals::open(&shard, "score", Some(16), None).unwrap();
    let signals = read();
    let column = |name: &str| signals.columns().column_by_name(name).unwrap().clone();
    let similarity = column("similarity").as_primitive::<Float32Type>().clone();
    // The images as they are in the shard, embedded by another command.
    let archive = Archive::open(&shard).unwrap();
    let index = Index::load(&archive).unwrap();
    let mut arguments =
        vec!["embed".to_owned(), "--checkpoint".to_owned(), text(&trained).to_owned(), "--image".to_owned()];
    for sample in 0..16 {
        let (offset, length) = index.image(sample).unwrap();
        let file = at(&format!("{sample}.jpg"));
        fs::write(&file, archive.read(offset, length).unwrap()).unwrap();
        arguments.push(text(&file).to_owned());
    }
    let out = at("embedded.safetensors");
    arguments.extend(
        ["--text", "a ball on the grass and a fish", "--size", "112", "--out", text(&out)].map(str::to_owned),
    );
    arguments.extend(["--precision", "float32"].map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    summary("trainer", &arguments);
    let ((class, _), (caption, shape)) = (tensor(&out, "class"), tensor(&out, "captions"));
    let width = shape[1];
    for (sample, image) in class.chunks(width).enumerate() {
        let (expected, found) = (cosine(image, &caption), similarity.value(sample));
        assert!((expected - found).abs() < 1e-4, "sample {sample}: {found}, expected {expected}");
    }
    // One value for each row of the sidecar. (`method/pooling.rs` is compared with an independent computation in the trainer's tests.)
    let mentions = column("mention_similarity").as_list::<i32>().clone();
    for sample in 0..16 {
        let of_sample = mentions.value(sample);
        let of_sample = of_sample.as_primitive::<Float32Type>();
        assert_eq!((of_sample.len(), of_sample.null_count()), (3, 0));
        assert!(of_sample.values().iter().all(|value| value.abs() <= 1.0 + 1e-5), "{of_sample:?}");
    }

    // Nothing to do; then all again, with the same scores.
    let before = fs::read(at("shards/00000.score.parquet")).unwrap();
    assert_eq!((&score(&[])["shards"], &score(&[])["unchanged"]), (&json!(0), &json!(1)));
    assert_eq!(score(&["--force"])["shards"], json!(1));
    assert_eq!(fs::read(at("shards/00000.score.parquet")).unwrap(), before);
    // Scores that are damaged, or of another model, are made again.
    fs::write(at("shards/00000.score.parquet"), &before[..before.len() / 2]).unwrap();
    assert_eq!(score(&[])["shards"], json!(1));
    assert_eq!(fs::read(at("shards/00000.score.parquet")).unwrap(), before);
    assert_eq!(score(&["--index", "1", "--count", "2"])["shards"], json!(0));
    let wrong = run(
        "trainer",
        &["score", text(&shards), "--checkpoint", text(&trained), "--index", "2", "--count", "2"],
    );
    assert_eq!(wrong.status.code(), Some(2));

    let selection = at("selection.parquet");
    let arguments =
        ["select", text(&shards), "--best", "0.25", "--by", "score.similarity", "--out", text(&selection)];
    assert_eq!(summary("tools", &arguments)["samples"], json!(4));
    let mut selected = Vec::new();
    let file = loader::shards::selection::SelectionFile::open(&selection.into(), 16).unwrap();
    file.visit(|run| {
        selected.extend_from_slice(run.samples);
        Ok(())
    })
    .unwrap();
    let least = selected.iter().map(|&sample| similarity.value(sample as usize)).fold(f32::MAX, f32::min);
    let above = similarity.values().iter().filter(|value| **value > least).count();
    assert_eq!((selected.len(), above), (4, 3));
}
