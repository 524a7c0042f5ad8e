//! End-to-end test on rendered scenes: the steps of `./demo` on fewer scenes: render, serve, download, tag, count,
//! pretrain, cache, train, evaluate, segment.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use serde_json::Value;
use tests::{scene_shards, summary, text};

const SCENES: u64 = 96;

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_else(|| panic!("{name} in {value}"))
}

#[test]
fn from_urls_to_a_segmented_image() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let shards = scene_shards(folder.path(), SCENES);
    assert!(shards.join("00002.tar").exists() && !shards.join("00003.tar").exists(), "40 + 40 + 16 samples");

    let statistics = summary("tools", &["stats", text(&shards), "--out", text(&at("statistics"))]);
    assert_eq!(number(&statistics, "samples"), SCENES as f64, "{statistics}");

    let (tower, features) = (at("tower.safetensors"), at("features"));
    let pretrained =
        summary("trainer", &["pretrain", "--shards", text(&shards), "--out", text(&tower), "--steps", "4"]);
    assert!(number(&pretrained, "agreement").is_finite());
    let arguments = [
        "cache",
        "--shards",
        text(&shards),
        "--vision",
        text(&tower),
        "--size",
        "112",
        "--out",
        text(&features),
    ];
    let cached = summary("trainer", &arguments);
    assert_eq!(number(&cached, "samples"), SCENES as f64);

    let held_out = at("held-out");
    summary("tools", &["scenes", "--out", text(&held_out), "--count", "6", "--seed", "9"]);
    for (objective, cached) in [("lit", true), ("simzss", true), ("simzss", false)] {
        let run_folder = at(&format!("{objective}-{cached}"));
        let mut settings = vec![
            format!("out={}", run_folder.display()),
            format!("objective.name={objective}"),
            format!("data.shards=['{}']", shards.display()),
            format!("vision.weights={}", tower.display()),
            "steps=6".to_owned(),
            "data.batch_size=32".to_owned(),
        ];
        if cached {
            settings.push(format!("data.features={}", features.display()));
        }
        let preset = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/presets/demo.toml");
        let mut arguments = vec!["train", "--config", text(&preset)];
        for setting in &settings {
            arguments.extend(["--set", setting]);
        }
        let trained = summary("trainer", &arguments);
        assert_eq!(number(&trained, "steps"), 6.0);
        assert_eq!(number(&trained, "captions"), 6.0 * 32.0);
        assert!(number(&trained, "last_loss").is_finite());
        // LiT does not need mentions and does not load them.
        assert_eq!(number(&trained, "mentions") > 0.0, objective == "simzss", "{trained}");

        let data = ["eval", "segmentation", "--data", text(&held_out), "--checkpoint", text(&run_folder)];
        let scores = summary("trainer", &[data.as_slice(), &["--templates", "simple"]].concat());
        let (miou, accuracy) = (number(&scores, "miou"), number(&scores, "pixel_accuracy"));
        assert!((0.0..=1.0).contains(&miou) && (0.0..=1.0).contains(&accuracy));
        assert_eq!(number(&scores, "images"), 6.0);
    }

    // The cache has the tower's features in bfloat16, so the same run without the cache has nearly the same loss.
    let loss = |name: &str| -> f64 {
        let log = fs::read_to_string(at(name).join("log.jsonl")).unwrap();
        let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        number(&last, "loss")
    };
    let (cached, live) = (loss("simzss-true"), loss("simzss-false"));
    assert!((cached - live).abs() < 0.02 * live, "cached {cached}, live {live}");

    let overlay = at("overlay.png");
    let image = held_out.join("images/000000.jpg");
    let model = at("simzss-true");
    let arguments = [
        "segment",
        text(&image),
        "--classes",
        "grass, ball",
        "--out",
        text(&overlay),
        "--checkpoint",
        text(&model),
    ];
    let segmented = summary("trainer", &arguments);
    let classes = segmented["pictures"][0]["classes"].as_array().unwrap().clone();
    assert_eq!(classes.iter().map(|class| class["class"].clone()).collect::<Vec<_>>(), ["grass", "ball"]);
    assert!((classes.iter().map(|class| number(class, "share")).sum::<f64>() - 1.0).abs() < 1e-9);
    assert_eq!(&fs::read(&overlay).unwrap()[..8], b"\x89PNG\r\n\x1a\n");

    // The other visualisations: similarity and PCA of several images, attention of training samples.
    let (pattern, shard) = (held_out.join("images/00000[0-2].jpg"), shards.join("00001.tar"));
    let sheet = |name: &str, arguments: &[&str]| {
        let out = at(name);
        let told =
            summary("trainer", &[arguments, &["--checkpoint", text(&model), "--out", text(&out)]].concat());
        assert_eq!(&fs::read(&out).unwrap()[..8], b"\x89PNG\r\n\x1a\n");
        told
    };
    let told =
        sheet("similarity.png", &["similarity", text(&pattern), "--phrase", "a ball", "--phrase", "grass"]);
    assert_eq!((number(&told, "pictures"), told["phrases"].as_array().unwrap().len()), (3.0, 2));
    assert!(number(&told["phrases"][0], "lowest") < number(&told["phrases"][0], "highest"));
    assert_eq!(number(&sheet("pca.png", &["pca", text(&pattern)]), "pictures"), 3.0);
    let told = sheet("attention.png", &["attention", text(&shard), "--samples", "0,3"]);
    let concepts = told["samples"][0]["concepts"].as_array().unwrap();
    // A mention attends to between one and all of the 14 x 14 patches.
    assert!(
        !concepts.is_empty() && concepts.iter().all(|c| (1.0..=196.001).contains(&number(c, "patches"))),
        "{told}"
    );
}
