//! Outputs of a trained model for use elsewhere: export, class embeddings, model card.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tests::{refused, run, summary, text};

mod tiny;

#[test]
fn export_class_embeddings_and_model_card() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let trained = tiny::trained(folder.path());

    let (out, classes) = (at("export"), at("classes.safetensors"));
    let told = summary("trainer", &["export", "--checkpoint", text(&trained), "--out", text(&out)]);
    assert_eq!(told["files"].as_array().unwrap().len(), 4);
    let config: Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    // The sizes of the demo's towers.
    assert_eq!((&config["vision"]["embed_dim"], &config["vision"]["depth"]), (&json!(128), &json!(4)));
    assert_eq!((&config["text"]["width"], &config["text"]["layers"]), (&json!(128), &json!(3)));
    // `trainer pretrain` writes DINOv2's state-dict keys.
    assert_eq!(config["position"], "dinov2");
    let arguments = [
        "classes",
        "--classes",
        "ball|sphere, grass",
        "--checkpoint",
        text(&trained),
        "--out",
        text(&classes),
    ];
    let told = summary("trainer", &arguments);
    assert_eq!((&told["classes"], &told["words"], &told["width"]), (&json!(2), &json!(3), &json!(128)));
    // A safetensors file starts with eight bytes for the header's length, then the header as JSON.
    let bytes = fs::read(&classes).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    assert_eq!(header["weight"]["shape"], json!([3, 128]));
    assert_eq!(header["__metadata__"]["classes"], "[\"ball\",\"grass\"]");

    // Results on the concepts of the training captions, and on other classes.
    let (same, other, card) = (at("same.json"), at("other.json"), at("README.md"));
    let classes =
        |names: &[&str]| names.iter().map(|name| json!({"class": name, "iou": 0.5})).collect::<Vec<_>>();
    let scores = json!({"miou": 0.5425, "pixel_accuracy": 0.75, "images": 6, "classes": classes(&["ball", "grass", "fish"])});
    fs::write(&same, format!("a line before\n{scores}\n")).unwrap();
    let scores = json!({"dataset": "others: \"2\"", "miou": 0.25, "classes": classes(&["ball", "dog"])});
    fs::write(&other, scores.to_string()).unwrap();
    let arguments = [
        "card",
        "--checkpoint",
        text(&trained),
        "--out",
        text(&card),
        "--license",
        "mit",
        "--name",
        "Tiny: one",
    ];
    summary("trainer", &[&arguments[..], &["--results", text(&same), text(&other)]].concat());
    let page = fs::read_to_string(&card).unwrap();
    for part in [
        "---\nlicense: \"mit\"\n",
        "16 image-caption pairs in 1 shards",
        "has 3 concepts: every concept that the training captions mention at least 1 times",
        "- `same`: **the vocabulary is exactly the list of evaluation classes**",
        "- `others: \"2\"`: the vocabulary contains 1 of the 2 evaluation classes, and 3 concepts in total.",
        "| `same` | 6 | mIoU | 54.25 |",
        "The position embedding of the vision tower is resized to other image sizes as in `dinov2`.",
        "batch_size = 8",
        "frozen vision tower | SHA-256 `",
    ] {
        assert!(page.contains(part), "{part:?} is missing in\n{page}");
    }
    assert!(!page.contains(text(folder.path())), "the card contains a path of this machine");
    fs::write(&other, "{}").unwrap();
    let message = refused("trainer", &[&arguments[..], &["--results", text(&other)]].concat(), 1);
    assert!(message.contains("other.json"), "{message}");

    let Ok(python) = std::env::var("TRAINER_PYTHON") else {
        return println!("skipped the rest: set TRAINER_PYTHON to a Python with huggingface_hub");
    };
    let program = r"
import json, sys
from huggingface_hub import ModelCard
data = ModelCard.load(sys.argv[1]).data
print(json.dumps([data.license, data.pipeline_tag, data.tags, [
    [r.task_type, r.dataset_name, r.metric_type, r.metric_name, r.metric_value] for r in data.eval_results]]))";
    let output = Command::new(python).args(["-c", program, text(&card)]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let task = "image-segmentation";
    assert_eq!(
        told,
        json!([
            "mit",
            task,
            ["simzss", "zero-shot", "open-vocabulary", "semantic-segmentation"],
            [
                [task, "same", "mean_iou", "mIoU", 54.25],
                [task, "same", "accuracy", "pixel accuracy", 75.0],
                [task, "others: \"2\"", "mean_iou", "mIoU", 25.0],
            ]
        ])
    );
}

/// A tower in timm's names is used as timm uses it, from training to export.
#[test]
fn the_position_embedding_is_resized_as_the_names_of_the_file_say() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    tiny::trained(folder.path());
    let (dinov2, tower) = (at("tower.safetensors"), at("timm.safetensors"));
    let (shards, out) = (at("shards"), at("of-timm"));
    let convert = ["convert", text(&dinov2), "--to", "timm", "--out", text(&tower)];
    assert_eq!(summary("trainer", &convert)["left_out"], json!(["mask_token"]));
    let preset = concat!(env!("CARGO_MANIFEST_DIR"), "/../trainer/presets/demo.toml");
    let settings = [
        format!("out={}", out.display()),
        format!("data.shards=['{}']", shards.display()),
        format!("vision.weights={}", tower.display()),
        "data.batch_size=8".to_owned(),
        "steps=1".to_owned(),
    ];
    let mut arguments = vec!["train", "--config", preset];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting.as_str()]));
    let said = |arguments: &[&str]| {
        let output = run("trainer", arguments);
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let line = |option: &str| {
        format!(
            "{}: position embedding resized as in timm (because the file has the state-dict keys of timm; {option} chooses \
             another)\n",
            tower.display()
        )
    };
    let printed = said(&arguments);
    assert!(printed.contains(&line("vision.position")), "{printed}");
    let state = fs::read(out.join("step-00000001/state.json")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    assert_eq!(state["settings"]["vision"]["position"], "timm");
    let exported = at("exported");
    summary("trainer", &["export", "--checkpoint", text(&out), "--out", text(&exported)]);
    let config: Value = serde_json::from_slice(&fs::read(exported.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["position"], "timm");

    let features = at("features");
    let cache = ["cache", "--shards", text(&shards), "--vision", text(&tower), "--size", "112", "--out"];
    let printed = said(&[&cache[..], &[text(&features)]].concat());
    assert!(printed.contains(&line("--position")), "{printed}");
    let of = |folder: &std::path::Path| {
        let header: Value = serde_json::from_slice(&fs::read(folder.join("features.json")).unwrap()).unwrap();
        header["normalisation"].as_str().unwrap().to_owned()
    };
    assert!(of(&features).starts_with("Timm "));
    let others = at("others");
    let printed = said(&[&cache[..], &[text(&others), "--position", "dinov2"]].concat());
    assert!(printed.contains("position embedding resized as in dinov2 (by --position)\n"), "{printed}");
    assert!(of(&others).starts_with("Dinov2 "));
}
