//! Runs that start with the weights of others, whose parameters have learning rates of their own or are frozen.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tests::trainings::{Place, done, losses, ranks, told};
use tests::{summary, text};

/// The bytes of each tensor of a safetensors file.
fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = &bytes[8 + length..];
    let part = |entry: &Value| {
        let at = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
        data[at(0)..at(1)].to_vec()
    };
    header
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, it)| (name.clone(), part(it)))
        .collect()
}

/// Options from settings.
fn set(settings: &[String]) -> Vec<String> {
    settings.iter().flat_map(|setting| ["--set".to_owned(), setting.clone()]).collect()
}

/// Stops a run after its fourth step, as if it had been killed then.
fn back_to_step_4(run: &Path) {
    fs::remove_dir_all(run.join("step-00000008")).unwrap();
    fs::write(run.join("latest"), "step-00000004").unwrap();
}

#[test]
fn a_run_starts_with_what_another_has_trained() {
    let place = Place::new();
    let train = |out: &str, settings: &[&str], more: &[&str]| {
        let head = ["vision.head.blocks=1", "vision.embedding=class+mean", "objective.caption=sigmoid"];
        let all: Vec<String> = head.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
        let all = [set(&all), more.iter().map(|&word| word.to_owned()).collect()].concat();
        place.train(out, &all.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    let first = place.at("first");
    done(&train("first", &[], &[]));
    // Without steps in any direction, the weights are those that it started with: text tower, logits, and head.
    for from in [first.clone(), first.join("step-00000008")] {
        let from = format!("text.weights={}", from.display());
        let output = train("still", &[&from, "optimizer.lr=0.0"], &[]);
        done(&output);
        assert!(
            told(&output).contains("starts with the text tower and the vision head of step 8"),
            "{}",
            told(&output)
        );
        assert!(place.weights("still") == place.weights("first"));
        fs::remove_dir_all(place.at("still")).unwrap();
    }
    // The optimizer starts anew, and the schedule too.
    let from = format!("text.weights={}", first.display());
    let (seed, every) = ("seed=5", "checkpoint.every=4");
    done(&train("second", &[&from, seed, every], &[]));
    assert!(place.weights("second") != place.weights("first"));

    // A checkpoint holds everything: the run continues where the weights that it started with are gone.
    done(&train("cut", &[&from, seed, every], &[]));
    back_to_step_4(&place.at("cut"));
    fs::rename(&first, place.at("away")).unwrap();
    done(&train("cut", &[&from, seed, every], &["--resume"]));
    assert!(place.weights("cut") == place.weights("second"));
    let gone = train("gone", &[&from], &[]);
    assert!(told(&gone).contains("first does not exist"), "{}", told(&gone));
    assert!(!place.at("gone").exists());
    fs::rename(place.at("away"), &first).unwrap();

    // In micro-batches, on two ranks, and on cached features: the same but for rounding.
    let features = place.at("features");
    let arguments =
        ["cache", "--shards", text(&place.shards), "--vision", text(&place.tower), "--size", "112"];
    summary("trainer", &[&arguments[..], &["--out", text(&features)]].concat());
    let cached = format!("data.features={}", features.display());
    done(&train("cached", &[&from, seed, &cached, "micro_batch=3"], &[]));
    let words =
        ["vision.head.blocks=1", "vision.embedding=class+mean", "objective.caption=sigmoid", &from, seed];
    let words = set(&words.map(str::to_owned));
    for output in ranks(&place, "two", 2, &words.iter().map(String::as_str).collect::<Vec<_>>()) {
        done(&output);
    }
    for run in ["cached", "two"] {
        for (ours, theirs) in losses(&place.at(run)).iter().zip(losses(&place.at("second"))) {
            assert!((ours - theirs).abs() < 0.02 * theirs.abs(), "{run}: {ours} {theirs}");
        }
    }
}

#[test]
fn groups_have_their_own_rates_and_what_is_frozen_stays() {
    let place = Place::new();
    let train = |out: &str, more: &[&str]| done(&place.train(out, more).output().unwrap());
    train("initial", &["--set", "optimizer.lr=0.0"]);
    let options = [
        "--set",
        "optimizer.frozen=['token_embedding.*', 'transformer.resblocks.0.*']",
        "--set",
        "optimizer.factor.projection=0.0",
        "--set",
        "checkpoint.every=4",
    ];
    train("run", &options);
    let model = |run: &str| tensors(&place.at(run).join("step-00000008/model.safetensors"));
    let (before, after) = (model("initial"), model("run"));
    let is_frozen =
        |name: &str| name.starts_with("token_embedding.") || name.starts_with("transformer.resblocks.0.");
    let (mut same, mut changed) = (0, 0);
    for (name, bytes) in &after {
        let stays = is_frozen(name) || name == "text_projection";
        assert_eq!(*bytes == before[name], stays, "{name}");
        if stays {
            same += 1;
        } else {
            changed += 1;
        }
    }
    assert!(same >= 14 && changed >= 26, "{same} {changed}");
    let moments = tensors(&place.at("run/step-00000008/optimizer.safetensors"));
    assert!(moments.keys().all(|name| !is_frozen(name)) && moments.contains_key("text_projection.exp_avg"));

    back_to_step_4(&place.at("run"));
    let other = place.train("run", &["--resume", "--set", "checkpoint.every=4"]).output().unwrap();
    assert!(told(&other).contains("`optimizer.factor.projection`"), "{}", told(&other));
    train("run", &[&options[..], &["--resume"]].concat());
    assert!(model("run") == after);

    // A run without any of this has settings as before there were such.
    let saved = fs::read_to_string(place.at("initial/settings.toml")).unwrap();
    for name in ["factor", "frozen", "new_projection", "quick_gelu"] {
        assert!(!saved.contains(name), "{saved}");
    }
    let state: Value =
        serde_json::from_slice(&fs::read(place.at("initial/step-00000008/state.json")).unwrap()).unwrap();
    let keys: Vec<&String> = state["settings"]["text"].as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 4, "{keys:?}");
}

/// By name, before the run folder is made.
#[test]
fn weights_that_do_not_fit_are_refused() {
    let place = Place::new();
    done(&place.train("first", &[]).output().unwrap());
    let head = ["--set", "vision.head.blocks=1"];
    done(&place.train("headed", &head).output().unwrap());
    let whole = fs::read(place.at("first/step-00000008/model.safetensors")).unwrap();
    fs::write(place.at("half.safetensors"), &whole[..whole.len() / 2]).unwrap();
    fs::write(place.at("half.pt"), b"PK\x03\x04 a zip archive that is cut off").unwrap();
    let weights = |name: &str| format!("text.weights={}", place.at(name).display());
    let first = weights("first");
    let own = |more: &str| vec![first.clone(), more.to_owned()];
    for (settings, code, message) in [
        (vec![weights("tower.safetensors")], 1, "contains no text tower"),
        (vec![weights("gone.pt")], 1, "gone.pt does not exist"),
        (
            vec![weights("half.safetensors")],
            1,
            "is neither a PyTorch nor a safetensors file, or it is damaged",
        ),
        (vec![weights("half.pt")], 1, "is not a complete PyTorch file"),
        (own("text.width=64"), 2, "`text.width` is 64, but in"),
        (own("text.width=64"), 2, "add --set text.width=128 --set text.depth=3 --set text.heads=4"),
        (own("text.heads=2"), 2, "`text.heads` is 2"),
        (own("text.context=77"), 2, "has positions for 32 tokens only; add --set text.context=32"),
        (own("text.quick_gelu=true"), 2, "`text.quick_gelu` is true, but the run in"),
        (own("vision.embedding=class+mean"), 2, "projects texts to 128 numbers, and images have 256"),
        (vec![weights("headed")], 2, "`vision.head.blocks` is 0, but the run in"),
        (vec!["text.new_projection=true".to_owned()], 2, "has an effect only with text.weights"),
        (
            vec!["optimizer.frozen=['*.weigth']".to_owned()],
            2,
            "has the pattern \"*.weigth\", which no parameter",
        ),
        (vec!["optimizer.frozen=['*']".to_owned()], 2, "leaves nothing to train"),
        (
            vec!["optimizer.factor.head=0.5".to_owned()],
            2,
            "`optimizer.factor.head` is 0.5, but this run trains no",
        ),
        (vec!["optimizer.factor.haed=0.5".to_owned()], 2, "did you mean `optimizer.factor.head`"),
    ] {
        let output = place
            .train("run", &set(&settings).iter().map(String::as_str).collect::<Vec<_>>())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{settings:?}: {}", told(&output));
        assert!(told(&output).contains(message), "{settings:?}: {}", told(&output));
        assert!(!place.at("run").exists(), "{settings:?}");
    }
    // A new projection fits any width; a shorter context fits too, and an export of the text tower alone.
    let more = own("vision.embedding=class+mean");
    let more =
        set(&[more, vec!["text.new_projection=true".to_owned(), "text.context=20".to_owned()]].concat());
    done(&place.train("wider", &more.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap());
    let export = place.at("export");
    summary("trainer", &["export", "--checkpoint", text(&place.at("first")), "--out", text(&export)]);
    let more = set(&[weights("export/text.safetensors"), "optimizer.lr=0.0".to_owned()]);
    done(&place.train("text", &more.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap());
    let [mut ours, mut theirs] =
        ["text", "first"].map(|run| tensors(&place.at(run).join("step-00000008/model.safetensors")));
    assert!(ours.remove("logit_scale") != theirs.remove("logit_scale"), "it is not in the file");
    assert!(ours == theirs);
}
