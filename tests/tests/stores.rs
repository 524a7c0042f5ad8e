//! The programs on addresses in a store (`tests::store`) do what they do on a disk, and never make a folder of that name.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod tiny;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tests::store::Store;
use tests::{program, scene_shards, text};

/// A store, and the folder in which programs are started.
struct Place {
    store: Store,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { store: Store::start(), folder: tempfile::tempdir().unwrap() }
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        // One thread of libtorch: then the same sums give the same bytes.
        self.store.environment(&mut command).env("OMP_NUM_THREADS", "1");
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        self.command(name, arguments).output().unwrap()
    }

    /// Standard output of a program that must succeed.
    fn output(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.run(name, arguments);
        assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn summary(&self, name: &str, arguments: &[&str]) -> Value {
        let text = self.output(name, &[arguments, &["--json"]].concat());
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }

    fn refused(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.run(name, arguments);
        assert!(!output.status.success(), "{name} {arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Keys below a prefix, in the order in which they were written.
    fn written(&self, prefix: &str) -> Vec<String> {
        let bucket = self.store.bucket();
        bucket.written.iter().filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned).collect()
    }

    fn object(&self, key: &str) -> Vec<u8> {
        self.store.bucket().objects.get(key).unwrap_or_else(|| panic!("{key} is not there")).clone()
    }
}

#[test]
fn tools_read_and_write_addresses() {
    let place = Place::new();
    let shards = scene_shards(place.folder.path(), 60);
    place.store.put(&shards, "set");
    let at = |name: &str| place.folder.path().join(name);

    // Statistics: the same as of the folder, wherever they are written; stats.json is the last file.
    let local = place.summary("tools", &["stats", text(&shards), "--out", text(&at("st"))]);
    assert_eq!(place.summary("tools", &["stats", "s3://bucket/set", "--out", "s3://bucket/st"]), local);
    assert_eq!(place.written("st/").last().unwrap(), "stats.json");
    for name in ["concepts.parquet", "pairs.parquet", "stats.json"] {
        assert!(place.object(&format!("st/{name}")) == fs::read(at("st").join(name)).unwrap(), "{name}");
    }
    let full = place.refused("tools", &["stats", "s3://bucket/set", "--out", "s3://bucket/st"]);
    assert!(full.contains("s3://bucket/st exists and is not empty"), "{full}");
    place.output("tools", &["merge", "s3://bucket/st", text(&at("st")), "--out", "s3://bucket/sum"]);
    let sum: Value = serde_json::from_slice(&place.object("sum/stats.json")).unwrap();
    assert_eq!(sum["samples"], 2 * local["samples"].as_u64().unwrap());
    let twice = place.refused("tools", &["merge", "s3://bucket/st", "s3://bucket/st/", "--out", "x"]);
    assert!(twice.contains("given twice"), "{twice}");

    // Classes from an address.
    place.store.bucket().objects.insert("classes.txt".into(), b"ball\nfish\n".to_vec());
    let classes =
        ["stats", "s3://bucket/set", "--out", "s3://bucket/cl", "--class-file", "s3://bucket/classes.txt"];
    assert_eq!(place.summary("tools", &classes)["coverage"]["classes"][0]["class"], "ball");

    // A report.
    let page = ["report", "s3://bucket/set", "--out", "s3://bucket/r/report.html", "--name", "set"];
    place.output("tools", &[&page[..], &["--statistics", "s3://bucket/st"]].concat());
    place.output("tools", &["report", text(&shards), "--out", text(&at("report.html")), "--name", "set"]);
    assert!(place.object("r/report.html") == fs::read(at("report.html")).unwrap());
    assert_eq!(place.written("r/"), ["croissant.json", "report.html"]);

    // A shard with its mentions; a missing sidecar is not an unreachable store.
    let show = |shard: &str| place.output("tools", &["show", shard, "--limit", "3"]);
    assert_eq!(show("s3://bucket/set/00000.tar"), show(text(&shards.join("00000.tar"))));
    let sidecar = place.store.bucket().objects.remove("set/00000.concepts.parquet").unwrap();
    assert!(show("s3://bucket/set/00000.tar").contains("run `ingest tag s3://bucket/set`"));
    let untagged = place.refused("tools", &["stats", "s3://bucket/set", "--out", "s3://bucket/no"]);
    assert!(
        untagged.contains("has no sidecar s3://bucket/set/00000.concepts.parquet; run `ingest tag"),
        "{untagged}"
    );
    place.store.bucket().objects.insert("set/00000.concepts.parquet".into(), sidecar);
    place.store.bucket().failures = usize::MAX;
    let mut down = place.command("tools", &["show", "s3://bucket/set/00000.tar"]);
    let down = down.env("LOADER_RETRY_SECONDS", "0").output().unwrap();
    let message = String::from_utf8(down.stderr).unwrap();
    assert!(message.contains("503") && !message.contains("ingest tag"), "{message}");
    place.store.bucket().failures = 0;

    let bench = place.output(
        "tools",
        &["bench", "loader", "s3://bucket/set", "--passes", "1", "--size", "32", "--batch-size", "8"],
    );
    assert!(bench.contains("images/s"), "{bench}");
    place.output("tools", &["scenes", "--count", "3", "--size", "32", "--out", "s3://bucket/scenes"]);
    assert_eq!(place.written("scenes/").last().unwrap(), "scenes.json");
    assert_eq!(place.store.keys("scenes/").len(), 3 * 2 + 3);
    assert!(!at("s3:").exists());
}

/// A program that cannot reach the store of its output fails, and makes no folder of the address' name.
#[test]
fn no_address_is_taken_for_a_folder() {
    let place = Place::new();
    let shards = scene_shards(place.folder.path(), 8);
    let images = place.folder.path().join("scenes/images");
    let run = tiny::trained(&place.folder.path().join("tiny"));
    let nowhere = "http://127.0.0.1:9";
    let account = format!(
        r#"{{"gcs_base_url": "{nowhere}", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}}"#
    );
    let outputs: [(&str, Vec<&str>); 8] = [
        ("tools", vec!["stats", text(&shards), "--out"]),
        ("tools", vec!["report", text(&shards), "--out"]),
        ("tools", vec!["scenes", "--count", "1", "--size", "32", "--out"]),
        ("ingest", vec!["shard", text(&images), "--no-captions", "--out"]),
        ("ingest", vec!["tag", "--table", "captions.csv", "--out"]),
        ("trainer", vec!["export", "--checkpoint", text(&run), "--out"]),
        ("trainer", vec!["card", "--checkpoint", text(&run), "--out"]),
        ("trainer", vec!["pretrain", "--shards", text(&shards), "--steps", "0", "--out"]),
    ];
    fs::write(place.folder.path().join("captions.csv"), "caption\na dog\n").unwrap();
    for scheme in ["http", "https", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "hf"] {
        for (name, arguments) in &outputs {
            let host = if scheme.starts_with("http") { "127.0.0.1:9" } else { "datasets" };
            let address = format!("{scheme}://{host}/a/b/out.x");
            let output = place
                .command(name, arguments)
                .arg(&address)
                .env("LOADER_RETRY_SECONDS", "0")
                .env("AWS_ENDPOINT_URL", nowhere)
                .env("GOOGLE_SERVICE_ACCOUNT_KEY", &account)
                .env("AZURE_STORAGE_ENDPOINT", nowhere)
                .env("AZURE_STORAGE_ACCOUNT_NAME", "account")
                .env("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
                .env("HF_ENDPOINT", nowhere)
                .output()
                .unwrap();
            let error = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{name} {arguments:?} {address}: {error}");
            let made = place.folder.path().join(format!("{scheme}:"));
            assert!(!made.exists(), "{name} {arguments:?} {address}: {error}");
        }
    }
}

#[test]
fn captions_and_images_are_packed_and_tagged_at_addresses() {
    let place = Place::new();
    let at = |name: &str| place.folder.path().join(name);
    place.output("tools", &["scenes", "--count", "5", "--size", "32", "--out", text(&at("scenes"))]);
    let images = at("scenes/images");
    for number in 0..5 {
        fs::write(images.join(format!("{number:06}.txt")), format!("a dog and {number} balls")).unwrap();
    }
    let rows: String = (0..5).map(|number| format!("{number:06}.jpg,two cats {number}\n")).collect();
    fs::write(at("table.csv"), format!("file,caption\n{rows}")).unwrap();
    place.store.put(&images, "photos/deep");
    place.store.bucket().objects.insert("table.csv".into(), fs::read(at("table.csv")).unwrap());

    // A folder of images with captions, and a table with its images.
    let pack = |arguments: &[&str], out: &str| {
        let options = ["--resize-mode", "no", "--skip-reencode", "--out", out];
        place.summary("ingest", &[&["shard"], arguments, &options[..]].concat())["successes"].clone()
    };
    assert_eq!(pack(&["s3://bucket/photos"], "s3://bucket/pairs"), 5);
    assert_eq!(pack(&[text(&images)], text(&at("pairs"))), 5);
    assert_eq!(
        pack(&["s3://bucket/table.csv", "--images", "s3://bucket/photos/deep"], "s3://bucket/rows"),
        5
    );
    assert_eq!(pack(&[text(&at("table.csv")), "--images", text(&images)], text(&at("rows"))), 5);
    assert!(place.object("rows/00000.tar") == fs::read(at("rows/00000.tar")).unwrap());
    let captions = |shard: &str| {
        let shown = place.output("tools", &["show", shard]);
        shown.lines().filter(|line| line.contains("balls")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(captions("s3://bucket/pairs/00000.tar"), captions(text(&at("pairs/00000.tar"))));

    // Captions of a table and of a text.
    let tagged =
        place.summary("ingest", &["tag", "--table", "s3://bucket/table.csv", "--out", "s3://bucket/tags"]);
    place.summary("ingest", &["tag", "--table", text(&at("table.csv")), "--out", text(&at("tags"))]);
    assert_eq!(tagged["captions"], 5);
    let written = ["00000.concepts.parquet", "captions.sha256", "captions.json"];
    assert_eq!(place.written("tags/"), written);
    for name in written {
        assert!(place.object(&format!("tags/{name}")) == fs::read(at("tags").join(name)).unwrap(), "{name}");
    }
    let again =
        place.summary("ingest", &["tag", "--table", "s3://bucket/table.csv", "--out", "s3://bucket/tags"]);
    assert_eq!((&again["tagged"], &again["captions"]), (&0.into(), &5.into()));
    let counted = place.summary("tools", &["stats", "s3://bucket/tags", "--out", "s3://bucket/tagstats"]);
    assert_eq!(counted["samples"], 5);
    let text_of = |path: &str| place.output("ingest", &["tag", "--text", path]);
    assert_eq!(text_of("s3://bucket/table.csv"), text_of(text(&at("table.csv"))));
    assert!(!at("s3:").exists());
}

#[test]
fn a_model_in_a_store_is_trained_used_and_resumed() {
    let place = Place::new();
    let at = |name: &str| place.folder.path().join(name);
    let tiny = at("tiny");
    tiny::trained(&tiny);
    place.store.put(&tiny.join("shards"), "shards");
    place.store.put(&tiny.join("scenes"), "scenes");
    let insert = |key: &str, path: &Path| {
        drop(place.store.bucket().objects.insert(key.into(), fs::read(path).unwrap()));
    };
    insert("tower.safetensors", &tiny.join("tower.safetensors"));
    let preset = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/presets/demo.toml");
    insert("demo.toml", &preset);

    // Everything at addresses; the copy is that of the run folder.
    let train = |out: &Path, resume: &[&'static str]| {
        let out = format!("out={}", out.display());
        let settings = [
            &out,
            "data.shards=['s3://bucket/shards']",
            "vision.weights=s3://bucket/tower.safetensors",
            "data.batch_size=8",
            "checkpoint.copy_to=s3://bucket/run",
            "checkpoint.every=2",
            "steps=3",
        ];
        let mut arguments = vec!["train", "--config", "s3://bucket/demo.toml"];
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        arguments.extend(resume);
        place.command("trainer", &arguments).output().unwrap()
    };
    let first = train(&at("one"), &[]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let run = at("one/step-00000002");
    let model = fs::read(run.join("model.safetensors")).unwrap();
    assert!(place.object("run/step-00000002/model.safetensors") == model);
    assert_eq!(place.written("run/").last().unwrap(), "latest");

    // The machine is lost after step 2. A new one, where `out` has no run, fetches the copy and ends with the same weights.
    let last = place.object("run/step-00000003/model.safetensors");
    place.store.bucket().objects.retain(|key, _| !key.starts_with("run/step-00000003/"));
    place.store.bucket().objects.insert("run/latest".into(), b"step-00000002".to_vec());
    let resumed = train(&at("two"), &["--resume"]);
    let said = String::from_utf8(resumed.stderr).unwrap();
    assert!(resumed.status.success(), "{said}");
    assert!(said.contains("fetched the checkpoint step-00000002 from s3://bucket/run"), "{said}");
    assert!(at("two/vision.safetensors").exists() && at("two/step-00000003/state.json").exists());
    assert!(place.object("run/step-00000003/model.safetensors") == last);

    // Every command that takes a checkpoint; results are as those of the folder.
    let same = |arguments: &dyn Fn(&str, &str) -> Vec<String>, output: &str| {
        let local = at("out");
        let both = [("s3://bucket/run/step-00000002", "s3://bucket/out"), (text(&run), text(&local))];
        for (checkpoint, out) in &both {
            let arguments = arguments(checkpoint, out);
            place.output("trainer", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let (there, here) =
            (place.object(&format!("out/{output}")), fs::read(at("out").join(output)).unwrap());
        // The order of metadata in a safetensors file is not fixed; it begins with the length of this part.
        let from = if output == "c.safetensors" { 8 + here[0] as usize + 256 * here[1] as usize } else { 0 };
        assert!(there[from..] == here[from..] && there.len() == here.len(), "{output}");
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let image = "s3://bucket/scenes/images/000001.jpg";
    let classes = "s3://bucket/scenes/classes.txt";
    same(&|run, out| words(&format!("export --checkpoint {run} --out {out}")), "text.safetensors");
    assert_eq!(place.written("out/").last().unwrap(), "config.json");
    fs::create_dir_all(at("out")).unwrap();
    same(
        &|run, out| words(&format!("segment {image} --class-file {classes} --checkpoint {run} --out {out}")),
        "000001.mask.png",
    );
    same(&|run, out| words(&format!("pca {image} --checkpoint {run} --out {out}/pca.png")), "pca.png");
    same(
        &|run, out| words(&format!("similarity {image} --phrase ball --checkpoint {run} --out {out}/s.png")),
        "s.png",
    );
    same(
        &|run, out| {
            words(&format!("attention s3://bucket/shards/00000.tar --checkpoint {run} --out {out}/a.png"))
        },
        "a.png",
    );
    same(
        &|run, out| {
            words(&format!("embed --text ball --image {image} --checkpoint {run} --out {out}/e.safetensors"))
        },
        "e.safetensors",
    );
    same(
        &|run, out| {
            words(&format!("classes --class-file {classes} --checkpoint {run} --out {out}/c.safetensors"))
        },
        "c.safetensors",
    );
    place.output(
        "trainer",
        &["card", "--checkpoint", "s3://bucket/run", "--out", "s3://bucket/out/README.md"],
    );
    assert!(String::from_utf8(place.object("out/README.md")).unwrap().contains("step 3"));
    let scores = |data: &str, run: &str, out: &str| {
        let all = ["eval", "segmentation", "--data", data, "--checkpoint", run, "--limit", "4", "--out", out];
        place.summary("trainer", &all)["scores"]["miou"].clone()
    };
    let expected = scores(text(&tiny.join("scenes")), text(&run), text(&at("scores")));
    assert_eq!(scores("s3://bucket/scenes", "s3://bucket/run/step-00000002", "s3://bucket/scores"), expected);
    place.output("trainer", &["eval", "table", "s3://bucket/scores"]);

    // Only what a local disk is for is refused, before any work.
    let requests = place.store.bucket().requests.len();
    for (arguments, part) in [
        (vec!["train", "--config", text(&preset), "--set", "out=s3://bucket/x"], "checkpoint.copy_to"),
        (
            vec!["cache", "--shards", "s3://bucket/shards", "--vision", "x", "--out", "s3://bucket/x"],
            "checkpoint.copy_to",
        ),
    ] {
        let error = place.refused("trainer", &arguments);
        assert!(error.contains("local disk") && error.contains(part), "{error}");
    }
    assert_eq!(place.store.bucket().requests.len(), requests, "before any work");
    assert!(!at("s3:").exists());
}
