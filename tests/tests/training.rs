//! `trainer train` as a user runs it: stopped, killed and resumed, with several processes, and with errors.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::trainings::{Place, done, free_port, losses, ranks, start_rank, told};
use tests::{summary, text};

/// Waits until the run has a checkpoint of at least this step.
fn wait_for_step(run: &Path, step: u64, child: &mut Child) {
    let started = Instant::now();
    loop {
        let latest = fs::read_to_string(run.join("latest")).unwrap_or_default();
        if latest.strip_prefix("step-").and_then(|n| n.parse::<u64>().ok()).is_some_and(|n| n >= step) {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "ended before step {step}");
        assert!(started.elapsed() < Duration::from_mins(2), "no step {step} in two minutes");
        sleep(Duration::from_millis(5));
    }
}

/// A run that was stopped in any way and resumed ends with the same weights, byte for byte, as an uninterrupted one.
#[test]
fn a_resumed_run_has_the_weights_of_an_uninterrupted_one() {
    let place = Place::new();
    done(&place.train("whole", &[]).output().unwrap());
    let undisturbed = place.weights("whole");

    // Killed twenty times, each time a little later after the start, then resumed until it is done.
    let options = ["--resume", "--set", "checkpoint.every=1", "--set", "checkpoint.keep=2"];
    let mut kills = 0;
    for milliseconds in (0..20).map(|i| 150 + 83 * i) {
        let mut child = place.train("killed", &options).spawn().unwrap();
        sleep(Duration::from_millis(milliseconds));
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            kills += 1;
        }
        child.wait().unwrap();
    }
    assert!(kills > 0, "every run finished before it was killed");
    done(&place.train("killed", &options).output().unwrap());
    assert!(place.weights("killed") == undisturbed, "killed {kills} times");
    let kept = fs::read_dir(place.at("killed"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("step-"));
    assert_eq!(kept.count(), 2, "the two newest checkpoints");

    // Resumed from a copy that `checkpoint.copy_to` made.
    let copy = place.at("copy");
    let copied = format!("checkpoint.copy_to={}", copy.display());
    done(&place.train("copied", &["--set", "checkpoint.every=5", "--set", &copied]).output().unwrap());
    fs::remove_dir_all(copy.join("step-00000008")).unwrap();
    fs::write(copy.join("latest"), "step-00000005").unwrap();
    done(&place.train("copy", &["--resume"]).output().unwrap());
    assert!(place.weights("copy") == undisturbed);

    // Stopped by a signal: schedulers send these signals and expect these exit codes.
    for (signal, code) in [("TERM", 143), ("USR1", 138), ("INT", 130)] {
        let mut child = place.train(signal, &["--set", "checkpoint.every=2"]).spawn().unwrap();
        wait_for_step(&place.at(signal), 2, &mut child);
        Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", told(&output));
        assert!(told(&output).contains("--resume"), "{}", told(&output));
        done(&place.train(signal, &["--resume"]).output().unwrap());
        assert!(place.weights(signal) == undisturbed, "SIG{signal}");
    }
}

/// What `auto` means depends on the processor. A run saves it, says it, and goes on with it wherever it is resumed.
#[test]
fn a_resumed_run_keeps_its_precision() {
    let place = Place::new();
    let half = ["--set", "checkpoint.every=4"];
    for (precision, words) in [
        ("float32", "float32"),
        ("bfloat16-vision", "bfloat16 for the frozen vision tower, float32 for everything else"),
        (
            "float8-vision",
            "float8 for the products in the blocks of the frozen vision tower, bfloat16 for its other parts; everything else in \
             bfloat16 on a GPU, in float32 on a CPU",
        ),
    ] {
        let given = format!("precision={precision}");
        let given = ["--set", given.as_str()];
        done(&place.train(precision, &[&half[..], &given].concat()).output().unwrap());
        let whole = place.weights(precision);
        let run = place.at(precision);
        let saved = fs::read_to_string(run.join("settings.toml")).unwrap();
        assert!(saved.contains(&format!("precision = \"{precision}\"\n")), "{saved}");
        fs::remove_dir_all(run.join("step-00000008")).unwrap();
        fs::write(run.join("latest"), "step-00000004").unwrap();
        let resumed = place.train(precision, &[&half[..], &["--resume"]].concat()).output().unwrap();
        done(&resumed);
        let first = told(&resumed).lines().next().unwrap_or_default().to_owned();
        assert_eq!(first, format!("precision: {words} (as the run began)"));
        assert!(place.weights(precision) == whole, "{precision}");

        let card = place.at("card.md");
        summary("trainer", &["card", "--checkpoint", text(&run), "--out", text(&card)]);
        let card = fs::read_to_string(card).unwrap();
        assert!(card.contains(&format!("Its towers computed in {words}.\n")), "{card}");
    }
    assert_ne!(place.weights("float32"), place.weights("bfloat16-vision"));
    assert_ne!(place.weights("float8-vision"), place.weights("bfloat16-vision"));
    let other = place.train("float32", &["--resume", "--set", "precision=bfloat16-vision"]).output().unwrap();
    assert!(told(&other).contains("--set 'precision=\"float32\"'"), "{}", told(&other));
}

/// An averaged copy of the text tower is saved, so that a resumed run drops the same negatives; the log has what is asked for.
#[test]
fn a_run_that_drops_doubtful_negatives_is_resumed() {
    let place = Place::new();
    let settings = [
        "objective.doubtful.decay=0.5",
        "objective.doubtful.threshold=0.5",
        "objective.doubtful.start=2",
        "objective.separation_weight=0.1",
        "objective.shortcut_check=true",
    ];
    let options: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    done(&place.train("whole", &options).output().unwrap());
    done(&place.train("run", &[&options[..], &["--set", "checkpoint.every=5"]].concat()).output().unwrap());
    fs::remove_dir_all(place.at("run/step-00000008")).unwrap();
    fs::write(place.at("run/latest"), "step-00000005").unwrap();
    let refused = place.train("run", &["--resume"]).output().unwrap();
    assert!(told(&refused).contains("`objective.doubtful.decay`"), "{}", told(&refused));
    // Only the log depends on the check.
    let options = &options[..8];
    done(&place.train("run", &[options, &["--resume"]].concat()).output().unwrap());
    assert!(place.weights("run") == place.weights("whole"));
    done(&place.train("paper", &[]).output().unwrap());
    assert!(place.weights("paper") != place.weights("whole"));

    let line = |run: &str, number: usize| -> serde_json::Value {
        let log = fs::read_to_string(place.at(run).join("log.jsonl")).unwrap();
        serde_json::from_str(log.lines().nth(number).unwrap()).unwrap()
    };
    let new = ["separation", "concept_on_other_images", "doubtful_negatives"];
    for name in new {
        assert!(line("whole", 3)[name].as_f64().unwrap() > 0.0, "{name}");
        assert!(line("paper", 3)[name].is_null(), "{name}");
    }
    assert_eq!(line("whole", 0)["doubtful_negatives"], 0.0, "not in the first steps");
    let saved = fs::read_to_string(place.at("paper/settings.toml")).unwrap();
    assert!(!saved.contains("doubtful") && !saved.contains("siblings"), "{saved}");
}

/// What is trained behind the frozen tower: resumed byte for byte, on cached features, and used by the commands for a model.
#[test]
fn a_run_with_a_head_is_resumed_and_used() {
    let place = Place::new();
    let head = |blocks: &str| {
        let mut options = Vec::new();
        for setting in ["vision.embedding=class+mean", "objective.caption=sigmoid", blocks] {
            options.extend(["--set".to_owned(), setting.to_owned()]);
        }
        options
    };
    let with = |blocks: &str, more: &[&str]| -> Vec<String> {
        head(blocks).into_iter().chain(more.iter().map(|&word| word.to_owned())).collect()
    };
    let train = |out: &str, blocks: &str, more: &[&str]| {
        let options = with(blocks, more);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        place.train(out, &options).output().unwrap()
    };
    let two = "vision.head.blocks=2";
    let features = place.at("features");
    let arguments =
        ["cache", "--shards", text(&place.shards), "--vision", text(&place.tower), "--size", "112"];
    summary("trainer", &[&arguments[..], &["--out", text(&features)]].concat());
    let cached = format!("data.features={}", features.display());
    done(&train("whole", two, &["--set", &cached]));
    done(&train("run", two, &["--set", &cached, "--set", "checkpoint.every=5"]));
    fs::remove_dir_all(place.at("run/step-00000008")).unwrap();
    fs::write(place.at("run/latest"), "step-00000005").unwrap();
    let refused = train("run", "vision.head.blocks=1", &["--set", &cached, "--resume"]);
    assert!(told(&refused).contains("`vision.head.blocks` is 1, but the run in"), "{}", told(&refused));
    done(&train("run", two, &["--set", &cached, "--resume"]));
    assert!(place.weights("run") == place.weights("whole"));
    // In micro-batches, without a cache: the same but for rounding.
    let pieces = done(&train("pieces", two, &["--set", "micro_batch=3"]));
    let [first, other] = [&place.at("whole"), &place.at("pieces")].map(|run| losses(run));
    assert_eq!((first.len(), other.len()), (4, 4));
    for (a, b) in first.iter().zip(&other) {
        assert!((a - b).abs() < 0.02 * a.abs(), "{first:?} {other:?}");
    }
    assert_eq!(pieces["steps"], 8);

    let run = place.at("run");
    let (export, card, vectors) = (place.at("export"), place.at("card.md"), place.at("vectors.safetensors"));
    let told = summary("trainer", &["export", "--checkpoint", text(&run), "--out", text(&export)]);
    assert_eq!(told["files"].as_array().unwrap().len(), 5);
    let config: Value = serde_json::from_slice(&fs::read(export.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["embedding"], &config["head"]["blocks"]), (&"class+mean".into(), &2.into()));
    assert_eq!(config["text"]["output_dim"], 256);
    summary("trainer", &["card", "--checkpoint", text(&run), "--name", "x", "--out", text(&card)]);
    assert!(fs::read_to_string(card).unwrap().contains("2 transformer blocks were trained on its tokens"));
    let told = summary(
        "trainer",
        &["classes", "--classes", "ball, grass", "--checkpoint", text(&run), "--out", text(&vectors)],
    );
    assert_eq!(told["width"], 128, "of patches");
}

/// Names, inode numbers and bytes of everything in a run folder, without the log.
fn files(run: &Path) -> Vec<(PathBuf, u64, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(run).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tensorboard") {
            all.extend(files(&path));
        } else if path.is_file() && !path.ends_with(".lock") && !path.ends_with("log.jsonl") {
            let number = fs::metadata(&path).unwrap().ino();
            all.push((path.clone(), number, fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

/// A scheduler starts a finished run again: there is nothing to do, and nothing is written anew that a kill could tear.
#[test]
fn a_finished_run_that_is_resumed_keeps_its_files() {
    let place = Place::new();
    done(&place.train("run", &[]).output().unwrap());
    let before = files(&place.at("run"));
    let again = done(&place.train("run", &["--resume"]).output().unwrap());
    assert_eq!((&again["steps"], &again["interrupted"]), (&8.into(), &false.into()));
    assert!(files(&place.at("run")) == before, "the same files, not copies of them");
}

/// Two trainings would mix their checkpoints and logs.
#[test]
fn a_run_folder_is_used_by_one_training_at_a_time() {
    let place = Place::new();
    let long = ["--set", "steps=100000", "--set", "checkpoint.every=2", "--set", "checkpoint.keep=1"];
    let mut first = place.train("run", &long).spawn().unwrap();
    wait_for_step(&place.at("run"), 2, &mut first);
    for more in [&["--resume"][..], &[]] {
        let second = place.train("run", &[&long[..], more].concat()).output().unwrap();
        assert_eq!(second.status.code(), Some(1), "{}", told(&second));
        let problem = if more.is_empty() { "is not empty" } else { "in use by another training (process " };
        assert!(told(&second).contains(problem), "{}", told(&second));
    }
    // The lock ends with its holder, even if that is killed.
    first.kill().unwrap();
    first.wait().unwrap();
    let mut third = place.train("run", &[&long[..], &["--resume"]].concat()).spawn().unwrap();
    let step = fs::read_to_string(place.at("run/latest")).unwrap();
    let step: u64 = step.trim_start_matches("step-").parse().unwrap();
    wait_for_step(&place.at("run"), step + 2, &mut third);
    third.kill().unwrap();
    third.wait().unwrap();
}

/// A killed run has logged steps after its last checkpoint. They come again when it is resumed.
#[test]
fn a_resumed_run_logs_every_step_once() {
    let place = Place::new();
    let options = ["--set", "log_every=1", "--set", "checkpoint.every=5"];
    done(&place.train("whole", &options).output().unwrap());
    done(&place.train("run", &options).output().unwrap());
    // As if it had been killed in step 8.
    fs::remove_dir_all(place.at("run/step-00000008")).unwrap();
    fs::write(place.at("run/latest"), "step-00000005").unwrap();
    let mut log = fs::OpenOptions::new().append(true).open(place.at("run/log.jsonl")).unwrap();
    log.write_all(b"{\"step\":9,\"lo").unwrap();
    done(&place.train("run", &[&options[..], &["--resume"]].concat()).output().unwrap());
    assert_eq!(losses(&place.at("run")), losses(&place.at("whole")));
    assert_eq!(losses(&place.at("run")).len(), 8);
}

/// A scheduler that stops a run leaves it seconds: enough to save and copy the checkpoint, not to evaluate it.
#[test]
fn a_stopped_run_saves_and_copies_and_is_evaluated_later() {
    let place = Place::new();
    let held_out = place.at("held-out");
    summary("tools", &["scenes", "--out", text(&held_out), "--count", "4", "--seed", "9"]);
    let set = format!("evaluation.data={}", held_out.display());
    let start = |name: &str, more: &[&str]| {
        let copy = format!("checkpoint.copy_to={}", place.at(&format!("{name}-copy")).display());
        let options = ["--set", &set, "--set", &copy, "--resume"];
        place.train(name, &[&options[..], more].concat())
    };
    let latest = |name: &str| fs::read_to_string(place.at(name).join("latest")).unwrap();
    let stop = |child: Child| {
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(143), "{}", told(&output));
    };

    for (name, every) in [("training", "checkpoint.every=0"), ("evaluating", "checkpoint.every=2")] {
        let mut child = start(name, &["--set", "steps=100000", "--set", every]).spawn().unwrap();
        if name == "training" {
            while fs::metadata(place.at("training/log.jsonl")).map_or(0, |log| log.len()) == 0 {
                assert!(child.try_wait().unwrap().is_none(), "ended before its first line");
                sleep(Duration::from_millis(5));
            }
        } else {
            // `latest` is written before the evaluation starts.
            wait_for_step(&place.at(name), 2, &mut child);
        }
        stop(child);
        assert!(!place.at(name).join(latest(name)).join("evaluation.json").exists());
        assert_eq!(latest(&format!("{name}-copy")), latest(name), "the last checkpoint was copied");
        let copied = place.at(&format!("{name}-copy")).join(latest(name));
        for part in ["model.safetensors", "optimizer.safetensors", "state.json"] {
            assert!(copied.join(part).is_file(), "{part}");
        }
    }

    // The evaluation of the last checkpoint is made up for when the finished run is started again.
    done(&start("run", &[]).output().unwrap());
    fs::remove_file(place.at("run/step-00000008/evaluation.json")).unwrap();
    let mut again = start("run", &[]);
    done(&again.output().unwrap());
    for run in ["run", "run-copy"] {
        assert!(place.at(run).join("step-00000008/evaluation.json").is_file(), "{run}");
        assert!(place.at(run).join("best").is_file(), "{run}");
    }
}

#[test]
fn two_processes_train_as_one_and_stop_when_one_is_lost() {
    let place = Place::new();
    done(&place.train("one", &[]).output().unwrap());
    // The first half on two ranks, the second half on one: resumed with another number of ranks.
    for output in ranks(&place, "two", 2, &["--set", "checkpoint.every=4"]) {
        assert_eq!(done(&output)["ranks"], 2);
    }
    fs::remove_dir_all(place.at("two/step-00000008")).unwrap();
    fs::write(place.at("two/latest"), "step-00000004").unwrap();
    let log = place.at("two/log.jsonl");
    let first_half: Vec<String> =
        fs::read_to_string(&log).unwrap().lines().take(2).map(|line| format!("{line}\n")).collect();
    fs::write(&log, first_half.concat()).unwrap();
    done(&place.train("two", &["--resume"]).output().unwrap());
    let (one, two) = (losses(&place.at("one")), losses(&place.at("two")));
    assert_eq!((one.len(), two.len()), (4, 4));
    for (one, two) in one.iter().zip(&two) {
        // Rounding differences grow a little from step to step.
        assert!((one - two).abs() < 1e-3 * one, "{one} {two}");
    }

    // One rank is killed: the other ends with an error that names it.
    let port = free_port();
    let options = ["--set", "steps=100000", "--set", "checkpoint.every=2", "--set", "checkpoint.keep=2"];
    let mut children: Vec<Child> =
        (0..2).map(|rank| start_rank(&place, "lost", rank, 2, port, &options)).collect();
    wait_for_step(&place.at("lost"), 2, &mut children[0]);
    children[1].kill().unwrap();
    children[1].wait().unwrap();
    let output = children.remove(0).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("rank 1 is gone"), "{}", told(&output));

    // The number of streams is not divisible by 3 ranks.
    for output in ranks(&place, "three", 3, &[]) {
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(told(&output).contains("error:"), "{}", told(&output));
    }
    assert!(!place.at("three").exists(), "the error comes before the run folder is made");
}

#[test]
fn runs_that_cannot_continue_end_with_an_error() {
    let place = Place::new();
    done(&place.train("run", &[]).output().unwrap());
    let again = place.train("run", &[]).output().unwrap();
    assert_eq!(again.status.code(), Some(1), "the folder of a run is not overwritten");
    let other = place.train("run", &["--resume", "--set", "optimizer.lr=0.5"]).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    assert!(told(&other).contains("optimizer.lr"), "{}", told(&other));

    // Half of the dataset is tagged by another tagger.
    let other = place.at("other");
    fs::create_dir(&other).unwrap();
    for entry in fs::read_dir(&place.shards).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("00001") {
            fs::copy(&path, other.join(path.file_name().unwrap())).unwrap();
        }
    }
    summary("ingest", &["tag", text(&other), "--tagger", "brill"]);
    let both =
        format!("data.shards=['{}/00000.tar', '{}/00001.tar']", place.shards.display(), other.display());
    let mixed = place.train("mixed", &["--set", &both]).output().unwrap();
    assert_eq!(mixed.status.code(), Some(1));
    assert!(told(&mixed).contains("perceptron") && told(&mixed).contains("brill"), "{}", told(&mixed));
    assert!(!place.at("mixed").exists());

    // A learning rate that makes the loss NaN: the batch is saved, and no checkpoint is written.
    let options = ["--set", "optimizer.lr=1e30", "--set", "optimizer.warmup=0", "--set", "log_every=4"];
    let blown = place.train("blown", &options).output().unwrap();
    assert_eq!(blown.status.code(), Some(1));
    assert!(
        told(&blown).contains("the loss is NaN") && told(&blown).contains("optimizer.lr"),
        "{}",
        told(&blown)
    );
    let kept = fs::read_dir(place.at("blown")).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        path.file_name().unwrap().to_string_lossy().starts_with("anomaly-step-").then_some(path)
    });
    let samples: Value =
        serde_json::from_slice(&fs::read(kept.unwrap().join("samples.json")).unwrap()).unwrap();
    assert_eq!(samples["keys"].as_array().unwrap().len(), 16);
    assert!(!place.at("blown/latest").exists());

    // Checkpoints between two lines of the log: the last one that is kept has finite weights.
    let often = ["--set", "log_every=8", "--set", "checkpoint.every=1", "--set", "checkpoint.keep=1"];
    let often = place.train("often", &[&options[..4], &often].concat()).output().unwrap();
    assert_eq!(often.status.code(), Some(1));
    assert!(told(&often).contains("NaN") && told(&often).contains("optimizer.lr"), "{}", told(&often));
    if let Ok(latest) = fs::read_to_string(place.at("often/latest")) {
        let model = fs::read(place.at("often").join(latest).join("model.safetensors")).unwrap();
        let header = u64::from_le_bytes(model[..8].try_into().unwrap()) as usize;
        let values = model[8 + header..].as_chunks::<4>().0;
        assert!(values.iter().all(|value| f32::from_le_bytes(*value).is_finite()));
    }

    // A dry run writes an image and nothing else.
    let picture = place.at("first.png");
    let needs = done(&place.train("dry", &["--dry-run", text(&picture)]).output().unwrap());
    assert!(needs["seconds_per_step"].as_f64().unwrap() > 0.0 && needs["memory"].as_u64().unwrap() > 1 << 20);
    assert!(image::open(&picture).unwrap().width() > 200);
    assert!(!place.at("dry").exists());
}

/// The objective `clip` trains its own vision tower; it is evaluated at every checkpoint, and its checkpoint can be
/// opened.
#[test]
fn clip_trains_its_own_vision_tower() {
    let place = Place::new();
    let held_out = place.at("held-out");
    summary("tools", &["scenes", "--out", text(&held_out), "--count", "4", "--seed", "9"]);
    let set = format!("evaluation.data={}", held_out.display());
    let mut options = vec!["--set", "objective.name=clip", "--set", "checkpoint.every=4", "--set", &set];
    for setting in ["clip.width=64", "clip.depth=2", "clip.patch=8", "clip.output=64"] {
        options.extend(["--set", setting]);
    }
    done(&place.train("clip", &options).output().unwrap());
    let best = fs::read_to_string(place.at("clip/best")).unwrap();
    let scores = fs::read(place.at("clip").join(best.trim()).join("evaluation.json")).unwrap();
    let scores: Value = serde_json::from_slice(&scores).unwrap();
    let run = place.at("clip");
    let again = summary(
        "trainer",
        &["eval", "segmentation", "--checkpoint", text(&run.join(best.trim())), "--data", text(&held_out)],
    );
    assert_eq!(again["miou"], scores["miou"], "the score differs from that during training");
    let out = place.at("export");
    let refused = tests::refused("trainer", &["export", "--checkpoint", text(&run), "--out", text(&out)], 1);
    assert!(refused.contains("no frozen vision tower"), "{refused}");
}

/// The speed of each objective, on synthetic data and on the data of a run.
#[test]
fn bench_measures_every_objective() {
    let options = ["--model", "s", "--batch", "2", "--steps", "1", "--warm-up", "0", "--threads", "1"];
    let size = ["--size", "112", "--objectives", "clip,lit,simzss"];
    let table = summary("trainer", &[&["bench"], &options[..], &size].concat());
    let rows = table["measured"].as_array().unwrap();
    assert_eq!(
        rows.iter().map(|row| row["objective"].as_str().unwrap()).collect::<Vec<_>>(),
        ["clip", "lit", "simzss"]
    );
    for row in rows {
        let number = |name: &str| row[name].as_f64().unwrap();
        assert!(number("milliseconds") > number("vision_milliseconds"), "{row}");
        assert!((number("images_per_second") * number("milliseconds") / 2000.0 - 1.0).abs() < 1e-6, "{row}");
        // At least the text tower's weights, gradients and two moments: 4 times about 40 million numbers of 4 bytes.
        assert!(number("memory") > 4.0 * 4.0 * 38e6, "{row}");
    }

    let place = Place::new();
    let preset = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/presets/demo.toml");
    let settings = [
        format!("data.shards=['{}']", place.shards.display()),
        format!("vision.weights={}", place.tower.display()),
        format!("out={}", place.at("bench").display()),
        "data.batch_size=16".to_owned(),
    ];
    let traces = place.at("traces");
    let mut arguments = vec!["bench", "--config", text(&preset), "--objectives", "simzss", "--steps", "2"];
    arguments.extend(["--trace", text(&traces)]);
    for setting in &settings {
        arguments.extend(["--set", setting]);
    }
    let table = summary("trainer", &arguments);
    assert_eq!(table["measured"][0]["batch"], 16);
    assert!(table["measured"][0]["data_wait"].as_f64().unwrap() < 1.0, "{table}");
    assert!(!place.at("bench").exists(), "bench wrote a run folder");
    let trace: Value = serde_json::from_slice(&fs::read(traces.join("simzss.json")).unwrap()).unwrap();
    let operators = trace["traceEvents"].as_array().unwrap().iter();
    assert!(operators.filter(|event| event["name"] == "aten::linear").count() > 10);
}
