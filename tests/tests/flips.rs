//! One flipped bit at a time, in every kind of file: no program panics, hangs or takes memory without end, and the damage is
//! found where it counts.
//!
//! The positions follow from a seed. `FLIPS=1000 cargo test --release -p tests --test flips` flips that many bits; without it,
//! an ordinary test flips fewer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tests::{program, summary, text};

/// Bits to flip without the environment variable.
const FEW: usize = 100;
/// Address space of a program, kB. Most of it is libtorch's.
const MEMORY: u64 = 3 << 20;
/// A program that takes longer hangs.
const SECONDS: &str = "120";
const SEED: u64 = 19;

/// The kinds of files, and how many of a thousand bits are flipped in each.
const KINDS: [(Kind, usize); 6] = [
    (Kind::Tar, 250),
    (Kind::Table, 200),
    (Kind::Sidecar, 250),
    (Kind::Statistics, 150),
    (Kind::Checkpoint, 50),
    (Kind::Cache, 100),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tar,
    Table,
    Sidecar,
    Statistics,
    Checkpoint,
    Cache,
}

impl Kind {
    fn files(self, place: &Path) -> Vec<PathBuf> {
        let in_folder = |folder: &str, names: &[&str]| -> Vec<PathBuf> {
            names.iter().map(|name| place.join(folder).join(name)).collect()
        };
        match self {
            Self::Tar => in_folder("set", &["00000.tar", "00001.tar"]),
            Self::Table => in_folder("set", &["00000.parquet", "00001.parquet", "00000.sha256"]),
            Self::Sidecar => in_folder("set", &["00000.concepts.parquet", "00001.concepts.parquet"]),
            Self::Statistics => [
                in_folder("stats", &["concepts.parquet", "pairs.parquet", "stats.json", "statistics.sha256"]),
                in_folder("set", &["00000_stats.json"]),
            ]
            .concat(),
            Self::Checkpoint => in_folder(
                "run/step-00000001",
                &["model.safetensors", "optimizer.safetensors", "state.json", "checkpoint.sha256"],
            ),
            Self::Cache => {
                in_folder("cache", &["features.bf16", "features.json", "features.checks", "features.sha256"])
            }
        }
    }
}

/// Splitmix64: a well-known generator of a few lines.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// A set of two shards, its statistics, a run with one checkpoint, and a feature cache.
fn make(place: &Path) {
    let at = |name: &str| place.join(name);
    summary("tools", &["scenes", "--out", text(&at("scenes")), "--count", "8", "--size", "48"]);
    let rows: String = (0..8).map(|i| format!("{i:06}.jpg,a ball on the grass and {i} fish\n")).collect();
    fs::write(at("captions.csv"), format!("file,caption\n{rows}")).unwrap();
    let shard =
        ["shard", text(&at("captions.csv")), "--images", text(&at("scenes/images"))].map(str::to_owned);
    let shard: Vec<&str> = shard.iter().map(String::as_str).collect();
    let (set, tower) = (at("set"), at("tower.safetensors"));
    let options = ["--out", text(&set), "--resize-mode", "no", "--shard-size", "4"];
    summary("ingest", &[&shard[..], &options].concat());
    summary("ingest", &["tag", text(&set)]);
    summary("tools", &["stats", text(&set), "--out", text(&at("stats"))]);
    let small = ["--steps", "0", "--size", "48", "--width", "64", "--depth", "1"];
    summary("trainer", &[&["pretrain", "--shards", text(&set), "--out", text(&tower)], &small[..]].concat());
    let cache = at("cache");
    let cached =
        ["cache", "--shards", text(&set), "--vision", text(&tower), "--size", "48", "--out", text(&cache)];
    summary("trainer", &cached);
    let output = train(place, 1, false);
    assert!(output.status.success(), "{}", told(&output));
}

/// Trains to this step.
fn train(place: &Path, steps: u64, resume: bool) -> Output {
    let preset = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/presets/demo.toml");
    let mut arguments = vec!["train".to_owned(), "--config".to_owned(), text(&preset).to_owned()];
    for setting in [
        format!("out={}", place.join("run").display()),
        format!("data.shards=['{}']", place.join("set").display()),
        format!("vision.weights={}", place.join("tower.safetensors").display()),
        "data.size=48".to_owned(),
        "data.batch_size=4".to_owned(),
        "text.width=64".to_owned(),
        "text.heads=1".to_owned(),
        "text.depth=1".to_owned(),
        "threads=1".to_owned(),
        format!("steps={steps}"),
    ] {
        arguments.extend(["--set".to_owned(), setting]);
    }
    if resume {
        arguments.push("--resume".to_owned());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    bounded("trainer", &arguments)
}

/// Runs a program with little memory and time; it must end by itself, and not with a panic.
fn bounded(name: &str, arguments: &[&str]) -> Output {
    let limit = format!("ulimit -v {MEMORY}; exec timeout {SECONDS} \"$@\"");
    let program = program(name);
    let output =
        Command::new("bash").args(["-c", &limit, "bash", text(&program)]).args(arguments).output().unwrap();
    let told = told(&output);
    let ended = matches!(output.status.code(), Some(0..=2));
    assert!(ended && !told.contains("panicked"), "{name} {arguments:?}: {}\n{told}", output.status);
    output
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether the damage in a file of this kind is reported.
fn is_found(kind: Kind, file: &Path, place: &Path, number: usize) -> bool {
    let set = place.join("set");
    let failed = |name: &str, arguments: &[&str]| !bounded(name, arguments).status.success();
    match kind {
        Kind::Statistics if file.starts_with(place.join("stats")) => {
            let merged = place.join("merged");
            let found = failed("tools", &["merge", text(&place.join("stats")), "--out", text(&merged)]);
            let _ = fs::remove_dir_all(merged);
            found
        }
        Kind::Tar | Kind::Table | Kind::Sidecar | Kind::Statistics => {
            // Whatever else reads these files must end, too.
            let out = place.join("out");
            match number % 4 {
                0 => drop(bounded("tools", &["stats", text(&set), "--out", text(&out)])),
                1 => drop(bounded("tools", &["show", text(&set.join("00000.tar"))])),
                2 => drop(bounded("tools", &["report", text(&set), "--out", text(&place.join("out.html"))])),
                _ => drop(bounded(
                    "trainer",
                    &["cache", "--verify", "--shards", text(&set), "--out", text(&place.join("cache"))],
                )),
            }
            let _ = fs::remove_dir_all(out);
            failed("ingest", &["verify", text(&set), "--threads", "1"])
        }
        Kind::Checkpoint => !train(place, 1, true).status.success(),
        Kind::Cache => failed(
            "trainer",
            &["cache", "--verify", "--shards", text(&set), "--out", text(&place.join("cache"))],
        ),
    }
}

/// Whether a changed `_stats.json` says the same: times and white space say nothing about the data.
fn says_the_same(file: &Path, before: &[u8]) -> bool {
    let read = |bytes: &[u8]| -> Option<Value> {
        let mut value: Value = serde_json::from_slice(bytes).ok()?;
        for time in ["duration", "start_time", "end_time"] {
            value.as_object_mut()?.remove(time);
        }
        // A count of 0 says the same under any name: `failed_to_read` may be absent, as in files of img2dataset.
        value.as_object_mut()?.retain(|_, value| *value != 0);
        Some(value)
    };
    let name = file.file_name().unwrap().to_string_lossy();
    name.ends_with("_stats.json")
        && read(&fs::read(file).unwrap()).is_some_and(|now| Some(now) == read(before))
}

#[test]
fn a_flipped_bit_is_found_wherever_it_counts() {
    let count = std::env::var("FLIPS").map_or(FEW, |flips| flips.parse().unwrap());
    let first = tempfile::tempdir().unwrap();
    make(first.path());
    let mut flips = Vec::new();
    let mut state = SEED;
    for (kind, share) in KINDS {
        let files = kind.files(first.path());
        for number in 0..(count * share).div_ceil(1000) {
            let length = fs::metadata(&files[number % files.len()]).unwrap().len();
            flips.push((kind, number, random(&mut state) % (8 * length)));
        }
    }
    // Two places, because a flip may not be seen by another one.
    let second = tempfile::tempdir().unwrap();
    let copied =
        Command::new("cp").args(["-a", &format!("{}/.", text(first.path()))]).arg(second.path()).status();
    assert!(copied.unwrap().success());
    // The run folder remembers its paths, but only those of the settings count.
    let (next, missed) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
    let work = |place: &Path| {
        while let Some(&(kind, number, bit)) = flips.get(next.fetch_add(1, Ordering::Relaxed)) {
            let files = kind.files(place);
            let file = &files[number % files.len()];
            let before = if fs::metadata(file).unwrap().len() < 1 << 20 {
                fs::read(file).unwrap()
            } else {
                Vec::new()
            };
            let open = File::options().read(true).write(true).open(file).unwrap();
            let mut byte = [0];
            open.read_exact_at(&mut byte, bit / 8).unwrap();
            open.write_all_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8).unwrap();
            if !is_found(kind, file, place, number) && !says_the_same(file, &before) {
                missed.lock().unwrap().push(format!("{}: bit {bit}", file.display()));
            }
            open.write_all_at(&byte, bit / 8).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work(second.path()));
        work(first.path());
    });
    let missed = missed.into_inner().unwrap();
    println!("{} bits flipped, {} not found", flips.len(), missed.len());
    assert!(missed.is_empty(), "{missed:#?}");
    let verified = bounded("ingest", &["verify", text(&first.path().join("set"))]);
    assert!(verified.status.success(), "every bit was restored");
}
