//! A model that is trained in seconds, for tests that do not need good results.

use std::fs;
use std::path::{Path, PathBuf};

use tests::{summary, text};

/// A run of a few steps on a few scenes, in `folder/run`; the scenes are in `folder/scenes/images`.
pub(crate) fn trained(folder: &Path) -> PathBuf {
    let at = |name: &str| folder.join(name);
    summary("tools", &["scenes", "--out", text(&at("scenes")), "--count", "16", "--size", "112"]);
    let rows: String = (0..16).map(|i| format!("{i:06}.jpg,a ball on the grass and a fish\n")).collect();
    fs::write(at("captions.csv"), format!("file,caption\n{rows}")).unwrap();
    let (table, images, shards, tower) =
        (at("captions.csv"), at("scenes/images"), at("shards"), at("tower.safetensors"));
    summary(
        "ingest",
        &["shard", text(&table), "--images", text(&images), "--out", text(&shards), "--resize-mode", "no"],
    );
    summary("ingest", &["tag", text(&shards)]);
    summary("trainer", &["pretrain", "--shards", text(&shards), "--out", text(&tower), "--steps", "0"]);
    let preset = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/presets/demo.toml");
    let settings = [
        format!("out={}", at("run").display()),
        format!("data.shards=['{}']", shards.display()),
        format!("vision.weights={}", tower.display()),
        "data.batch_size=8".to_owned(),
        "steps=2".to_owned(),
    ];
    let mut arguments = vec!["train", "--config", text(&preset)];
    for setting in &settings {
        arguments.extend(["--set", setting]);
    }
    summary("trainer", &arguments);
    at("run")
}
