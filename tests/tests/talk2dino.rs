//! Runs with the objective `talk2dino`, as a user starts them: a map behind the text tower of another run is trained, on pixels and on
//! cached head means, in pieces and on two ranks; stopped and resumed; evaluated; and what cannot be is refused by name.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use serde_json::Value;
use tests::trainings::{Place, done, losses, ranks, told};
use tests::{program, summary, text};

/// Options from settings.
fn set(settings: &[&str]) -> Vec<String> {
    settings.iter().flat_map(|&setting| ["--set".to_owned(), setting.to_owned()]).collect()
}

/// A place with a run `first`, and the settings of a run that maps its text tower.
fn place() -> (Place, [String; 2]) {
    let place = Place::new();
    done(&place.train("first", &["--set", "objective.name=lit"]).output().unwrap());
    let weights = format!("text.weights={}", place.at("first").display());
    (place, [weights, "objective.name=talk2dino".to_owned()])
}

#[test]
fn a_map_is_trained_in_every_way() {
    let (place, own) = place();
    let train = |out: &str, settings: &[&str], more: &[&str]| {
        let all = [&own.each_ref().map(String::as_str)[..], settings].concat();
        let all = [set(&all), more.iter().map(|&word| word.to_owned()).collect()].concat();
        place.train(out, &all.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    let every = "checkpoint.every=4";
    done(&train("run", &[every], &[]));
    let decreasing = losses(&place.at("run"));
    assert!(decreasing.iter().all(|loss| loss.is_finite()) && decreasing.len() == 4, "{decreasing:?}");

    // Resumed, with the same bytes, although the weights that it started with are gone.
    done(&train("cut", &[every], &[]));
    fs::remove_dir_all(place.at("cut/step-00000008")).unwrap();
    fs::write(place.at("cut/latest"), "step-00000004").unwrap();
    fs::rename(place.at("first"), place.at("away")).unwrap();
    done(&train("cut", &[every], &["--resume"]));
    assert!(place.weights("cut") == place.weights("run"));
    fs::rename(place.at("away"), place.at("first")).unwrap();

    // On cached head means, in micro-batches, and on two ranks: the same but for rounding.
    let cache = |out: &str, more: &[&str]| {
        let arguments =
            ["cache", "--shards", text(&place.shards), "--vision", text(&place.tower), "--size", "112"];
        summary("trainer", &[&arguments[..], &["--out", text(&place.at(out))], more].concat())
    };
    let header = cache("means", &["--head-means"]);
    assert_eq!((header["version"].as_u64(), header["heads"].as_u64()), (Some(3), Some(2)));
    assert!(cache("tokens", &[]).get("heads").is_none());
    let features = |name: &str| format!("data.features={}", place.at(name).display());
    done(&train("cached", &[&features("means"), "micro_batch=3"], &[]));
    let words = set(&own.each_ref().map(String::as_str));
    for output in ranks(&place, "two", 2, &words.iter().map(String::as_str).collect::<Vec<_>>()) {
        done(&output);
    }
    for run in ["cached", "two"] {
        for (ours, theirs) in losses(&place.at(run)).iter().zip(&decreasing) {
            assert!((ours - theirs).abs() < 0.02 * theirs.abs(), "{run}: {ours} {theirs}");
        }
    }
    let means = place.at("means");
    let verified = ["cache", "--verify", "--shards", text(&place.shards), "--out", text(&means)];
    assert_eq!(summary("trainer", &verified)["samples"], 64);

    // Caches of the other kind.
    let output = train("wrong", &[&features("tokens")], &[]);
    assert!(told(&output).contains("class and patch tokens, but objective talk2dino needs head means"));
    let lit = set(&["objective.name=lit", &features("means")]);
    let output = place.train("wrong", &lit.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    assert!(told(&output).contains("head means (--head-means), which are for objective talk2dino only"));
    assert!(!place.at("wrong").exists());

    // Another run goes on with the map; segmentation uses it.
    let from = format!("text.weights={}", place.at("run").display());
    let on = set(&["objective.name=talk2dino", &from, "optimizer.lr=0.0"]);
    done(&place.train("on", &on.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap());
    assert!(place.weights("on") == place.weights("run"));
    let run = place.at("run");
    let scenes = place.at("scenes");
    let data = ["eval", "segmentation", "--data", text(&scenes), "--checkpoint", text(&run), "--limit", "4"];
    let scores: Value = summary("trainer", &data);
    assert!(scores["miou"].as_f64().is_some_and(|miou| (0.0..=1.0).contains(&miou)), "{scores}");
}

/// By name, before the run folder is made.
#[test]
fn what_cannot_be_is_refused() {
    let (place, [weights, name]) = place();
    for (settings, message) in [
        (
            vec![name.as_str()],
            "`text.weights` is not set, but objective talk2dino trains a map behind a frozen",
        ),
        (vec![&name, &weights, "optimizer.factor.text=0.1"], "`optimizer.factor.text` is 0.1, but this run"),
        (
            vec![&name, &weights, "optimizer.frozen=['transformer.*']"],
            "has the pattern \"transformer.*\", which no parameter of this run has",
        ),
        (vec![&name, &weights, "vision.head.blocks=2"], "`vision.head.blocks` is for a head"),
    ] {
        let all = set(&settings);
        let output =
            place.train("run", &all.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{settings:?}: {}", told(&output));
        assert!(told(&output).contains(message), "{settings:?}: {}", told(&output));
        assert!(!place.at("run").exists(), "{settings:?}");
    }
    let all = set(&[&name, &weights]);
    done(&place.train("mapped", &all.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap());
    // Others have no map.
    let from = format!("text.weights={}", place.at("mapped").display());
    let lit = set(&["objective.name=lit", &from]);
    let output = place.train("run", &lit.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    assert!(told(&output).contains("has a map behind its text tower, which objective talk2dino has trained"));
    // Commands that could use whole images only, or a model without a map.
    let (run, out) = (place.at("mapped"), place.at("out"));
    for (arguments, message) in [
        (
            vec!["export", "--checkpoint", text(&run), "--out", text(&out)],
            "a map behind its text tower (objective talk2dino)",
        ),
        (
            vec!["export", "--to", "open_clip", "--checkpoint", text(&run), "--out", text(&out)],
            "open_clip has no map behind a text tower",
        ),
        (
            vec!["score", "--checkpoint", text(&run), text(&place.shards)],
            "compares texts with patches, not with whole images",
        ),
    ] {
        let output = std::process::Command::new(program("trainer")).args(&arguments).output().unwrap();
        assert!(!output.status.success() && told(&output).contains(message), "{}", told(&output));
        assert!(!out.exists());
    }
}
