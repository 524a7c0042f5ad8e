//! Mistakes of users: the error is one line that names the mistake, the exit code is right, no partial output is left.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::{program, refused, run, summary, text};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn picture(path: &Path) {
    // A small scene, rendered by `tools`.
    let scenes = path.with_extension("scenes");
    assert!(
        run("tools", &["scenes", "--out", text(&scenes), "--count", "1", "--size", "32"]).status.success()
    );
    fs::rename(scenes.join("images/000000.jpg"), path).unwrap();
    fs::remove_dir_all(scenes).unwrap();
}

#[test]
fn tables_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let out = at("out");
    let shard = |input: &str, code| {
        let input = at(input);
        let message = refused(
            "ingest",
            &["shard", text(&input), "--images", text(folder.path()), "--out", text(&out)],
            code,
        );
        assert!(!out.exists() || names(&out).iter().all(|name| !name.contains(".tar")), "{message}");
        let _ = fs::remove_dir_all(&out);
        message
    };
    assert!(shard("missing.csv", 1).contains("missing.csv"));
    fs::write(at("empty.csv"), "").unwrap();
    assert!(shard("empty.csv", 1).contains("empty.csv"));
    fs::write(at("header.csv"), "file,caption\n").unwrap();
    assert!(shard("header.csv", 1).contains("header.csv"));
    fs::write(at("columns.csv"), "picture,words\na.jpg,a cat\n").unwrap();
    let message = shard("columns.csv", 2);
    assert!(
        message.contains("columns.csv") && message.contains("words"),
        "the error lists the columns that exist: {message}"
    );

    // Wrong use has another exit code than a failure.
    refused("ingest", &["shard"], 2);
    refused("trainer", &["segment", "x.jpg", "--classes", ",", "--out", "y.png", "--checkpoint", "z"], 2);

    // Folders without shards.
    fs::create_dir(at("nothing")).unwrap();
    let nothing = at("nothing");
    assert!(refused("ingest", &["tag", text(&nothing)], 1).contains("nothing"));
    assert!(refused("tools", &["stats", text(&nothing), "--out", text(&out)], 1).contains("nothing"));
    let message = refused("trainer", &["pretrain", "--shards", text(&nothing), "--out", text(&at("t"))], 1);
    assert!(message.contains("nothing"), "{message}");
    assert!(!out.exists() && !at("t").exists());
}

#[test]
fn damaged_samples_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    picture(&at("good.jpg"));
    fs::write(at("broken.jpg"), b"not an image").unwrap();
    let mut table = b"file,caption\ngood.jpg,a cat\nbroken.jpg,a dog\ngone.jpg,a bird\ngood.jpg,".to_vec();
    table.extend(b"caf\xe9\n");
    fs::write(at("table.csv"), table).unwrap();
    let (out, input) = (at("out"), at("table.csv"));
    let arguments = ["shard", text(&input), "--images", text(folder.path()), "--out", text(&out)];
    let done = summary("ingest", &arguments);
    assert_eq!((done["samples"].clone(), done["successes"].clone()), (4.into(), 1.into()), "{done}");
    // The same with a limit on failed samples: exit code 3, and the shards are written as before.
    let again = at("again");
    let arguments = ["shard", text(&input), "--images", text(folder.path()), "--out", text(&again)];
    let output = run("ingest", &[arguments.as_slice(), &["--max-failures", "1"]].concat());
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(fs::read(out.join("00000.tar")).unwrap(), fs::read(again.join("00000.tar")).unwrap());

    // Another dataset is not written into the same folder.
    fs::write(at("other.csv"), "file,caption\ngood.jpg,a horse\n").unwrap();
    let other = at("other.csv");
    let before = fs::read(out.join("00000.tar")).unwrap();
    let message =
        refused("ingest", &["shard", text(&other), "--images", text(folder.path()), "--out", text(&out)], 1);
    assert!(message.contains("out"), "{message}");
    assert_eq!(fs::read(out.join("00000.tar")).unwrap(), before);
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    picture(&at("good.jpg"));
    fs::write(at("good.txt"), "a cat").unwrap();
    fs::write(at("file"), "not a folder").unwrap();
    let (below, inside) = (at("file"), at("file/below"));
    for out in [&below, &inside] {
        let message = refused("ingest", &["shard", text(folder.path()), "--out", text(out)], 1);
        assert!(message.contains("file"), "{message}");
        refused("tools", &["scenes", "--out", text(out), "--count", "1"], 1);
    }
    assert_eq!(fs::read(at("file")).unwrap(), b"not a folder");
}

#[test]
fn the_trainer_fails_before_it_writes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pack = |count: usize, shards: &Path| {
        let pictures = at(&format!("pictures-{count}"));
        fs::create_dir(&pictures).unwrap();
        for i in 0..count {
            picture(&pictures.join(format!("{i}.jpg")));
            fs::write(pictures.join(format!("{i}.txt")), format!("a cat number {i} on a sofa")).unwrap();
        }
        summary("ingest", &["shard", text(&pictures), "--out", text(shards), "--resize-mode", "no"]);
    };
    let (shards, tower, config, out) = (at("shards"), at("tower.safetensors"), at("run.toml"), at("run"));
    let (more, real) = (at("more-shards"), at("real.safetensors"));
    pack(4, &shards);
    pack(8, &more);
    let pretrain = |shards, tower| {
        ["pretrain", "--shards", text(shards), "--out", text(tower), "--steps", "0", "--size", "32"]
    };
    summary("trainer", &pretrain(&more, &real));

    let train = |change: &str| {
        fs::write(&config, format!("out = '{}'\n{change}", out.display())).unwrap();
        // Without shards, or with a value of the wrong type, this is wrong use.
        let code = if change.contains("data.shards") { 1 } else { 2 };
        let message = refused("trainer", &["train", "--config", text(&config)], code);
        assert!(!out.exists(), "nothing is written: {message}");
        message
    };
    let settings = |shards: &Path, tower: &Path, more: &str| {
        format!(
            "data.shards = ['{}']\nvision.weights = '{}'\ndata.size = 32\ndata.batch_size = 2\n{more}",
            shards.display(),
            tower.display()
        )
    };
    assert!(train("").contains("data.shards"));
    assert!(train("steps = 'many'").contains("run.toml"));
    let message = train(&settings(&shards, &real, ""));
    assert!(message.contains("00000.concepts.parquet"), "untagged shards: {message}");
    summary("ingest", &["tag", text(&shards)]);
    let message = train(&settings(&shards, &tower, ""));
    assert!(message.contains("tower.safetensors"), "missing vision tower: {message}");
    let message = refused("trainer", &pretrain(&shards, &tower), 1);
    assert!(
        message.contains("batch") || message.contains("samples"),
        "4 images are fewer than a batch of 8: {message}"
    );

    fs::write(&tower, b"no weights").unwrap();
    assert!(train(&settings(&shards, &tower, "")).contains("tower.safetensors"));
    fs::write(at("bank.txt"), "zebra\n").unwrap();
    let bank = format!("bank.names = '{}'", at("bank.txt").display());
    assert!(
        train(&settings(&shards, &real, &bank)).contains("bank"),
        "no caption mentions the concept of the bank"
    );

    // A sidecar of another shard is rejected; the error names it.
    let sidecar = shards.join("00000.concepts.parquet");
    let tar = shards.join("00000.tar");
    let mut longer = fs::read(&tar).unwrap();
    longer.extend([0; 512]);
    fs::write(&tar, longer).unwrap();
    let message = train(&settings(&shards, &real, ""));
    assert!(
        message.contains(sidecar.file_name().unwrap().to_str().unwrap()) || message.contains("00000.tar"),
        "{message}"
    );
}

/// Standard error or output that nobody reads any more: `2>&1 | head`, a terminal that was closed.
#[test]
fn a_lost_terminal_changes_no_exit_code() {
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let missing = text(&missing);
    for (name, arguments, code) in [
        ("ingest", &["shard", missing, "--out", "out"][..], 1),
        ("tools", &["stats", missing, "--out", "out"], 1),
        ("trainer", &["segment", missing, "--classes", ",", "--out", "y.png", "--checkpoint", "z"], 2),
    ] {
        let status = Command::new(program(name)).args(arguments).stderr(closed()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{name} {arguments:?}");
    }
    // Progress and notes of work that succeeds.
    let scenes = folder.path().join("scenes");
    let render = ["scenes", "--out", text(&scenes), "--count", "2", "--size", "32"];
    assert!(Command::new(program("tools")).args(render).stderr(closed()).status().unwrap().success());
    assert_eq!(names(&scenes.join("images")).len(), 2);
    // Results: a reader that has seen enough is no failure, a full disk is one.
    let list = || {
        let mut command = Command::new(program("trainer"));
        command.arg("weights");
        command
    };
    assert!(list().stdout(closed()).status().unwrap().success());
    let full = list().stdout(fs::File::create("/dev/full").unwrap()).output().unwrap();
    assert_eq!(full.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&full.stderr).starts_with("error: cannot write to standard output"));
}
