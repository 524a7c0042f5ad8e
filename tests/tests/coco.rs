//! End-to-end test on 390 real photographs of COCO with 1,951 captions, from files to a segmented image.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use serde_json::Value;
use tests::{real_data, summary, text};

#[test]
fn from_photographs_to_a_segmented_image() {
    let Some(data) = real_data() else { return };
    let (table, images) = (data.join("coco/captions.jsonl"), data.join("coco/images"));
    let captions: Vec<String> = fs::read_to_string(&table)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .flat_map(|row| row["captions"].as_array().unwrap().clone())
        .map(|caption| caption.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(captions.len(), 1951);

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (shards, tower, run) = (at("shards"), at("tower.safetensors"), at("run"));
    let sharded = summary(
        "ingest",
        &[
            "shard",
            text(&table),
            "--images",
            text(&images),
            "--out",
            text(&shards),
            "--shard-size",
            "500",
            "--resize-mode",
            "center_crop",
            "--image-size",
            "128",
        ],
    );
    assert_eq!(sharded["successes"], 1951, "one sample per caption: {sharded}");
    let tagged = summary("ingest", &["tag", text(&shards)]);
    assert_eq!(tagged["captions"], 1951);
    let statistics = summary("tools", &["stats", text(&shards), "--out", text(&at("statistics"))]);
    assert_eq!(statistics["samples"], 1951);
    assert_eq!(statistics["mentions"], tagged["mentions"], "the statistics have the mentions of the tagger");
    assert!(
        tagged["mentions"].as_u64().unwrap() > 3 * 1951,
        "captions have more than three mentions on average: {tagged}"
    );

    summary("trainer", &["pretrain", "--shards", text(&shards), "--out", text(&tower), "--steps", "0"]);
    let config = at("run.toml");
    let settings = format!(
        "out = '{}'\nsteps = 20\nlog_every = 1\n[data]\nshards = ['{}']\nbatch_size = 64\nsize = 112\n\
         [vision]\nweights = '{}'\n[text]\nwidth = 64\ndepth = 2\nheads = 2\n[optimizer]\nlr = 2e-3\n",
        run.display(),
        shards.display(),
        tower.display()
    );
    fs::write(&config, settings).unwrap();
    let trained = summary("trainer", &["train", "--config", text(&config)]);
    assert_eq!(trained["captions"], 20 * 64);
    assert_eq!(trained["replaced"], 0);
    let losses: Vec<f64> = fs::read_to_string(run.join("log.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64().unwrap())
        .collect();
    assert_eq!(losses.len(), 20);
    assert!(losses.iter().all(|loss| loss.is_finite()));
    let mean = |some: &[f64]| some.iter().sum::<f64>() / some.len() as f64;
    assert!(mean(&losses[15..]) < mean(&losses[..5]) - 0.1, "{losses:?}");

    let overlay = at("overlay.png");
    let photo = images.join("000000000285.jpg");
    let arguments = [
        "segment",
        text(&photo),
        "--classes",
        "bear, grass",
        "--out",
        text(&overlay),
        "--checkpoint",
        text(&run),
        "--templates",
        "simple",
    ];
    summary("trainer", &arguments);
    assert!(fs::metadata(&overlay).unwrap().len() > 10_000);
}
