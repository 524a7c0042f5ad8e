//! The start of a run: the index of a set, and the vocabulary from statistics, change nothing but the time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use loader::shards::set_index::{INDEX, SetIndex};
use tests::inject::{EVENTS, each};
use tests::store::Store;
use tests::trainings::{Place, done, ranks, told};
use tests::{program, refused, scene_shards, summary, text};

fn index(folder: &Path) -> Option<SetIndex> {
    SetIndex::open(&folder.into()).unwrap()
}

#[test]
fn index_and_statistics_do_not_change_a_run() {
    let place = Place::new();
    let statistics = place.at("counted");
    // Those of `ingest`.
    assert_eq!(
        index(&place.shards).unwrap().shards.len(),
        fs::read_dir(&place.shards).unwrap().filter(is_tar).count()
    );
    fs::remove_file(place.shards.join(INDEX)).unwrap();
    let least = ["--set", "bank.min_mentions=4"];
    let plain = done(&place.train("plain", &least).output().unwrap());
    let run = |out: &str, more: &[&str]| {
        let output = place.train(out, &[&least, more].concat()).output().unwrap();
        assert_eq!(done(&output)["bank"], plain["bank"], "{out}");
        assert!(place.weights(out) == place.weights("plain"), "{out}");
    };
    summary("tools", &["stats", text(&place.shards), "--out", text(&statistics)]);
    assert!(place.shards.join(INDEX).exists());
    let setting = format!("bank.statistics={}", statistics.display());
    run("indexed", &[]);
    run("statistics", &["--set", &setting]);
    fs::remove_file(place.shards.join(INDEX)).unwrap();
    run("statistics-alone", &["--set", &setting]);

    let together = |out: &str, more: &[&str]| {
        let outputs = ranks(&place, out, 2, &[&least, more].concat());
        for output in &outputs {
            assert!(output.status.success(), "{}", told(output));
        }
        place.weights(out)
    };
    let counted = together("two", &[]);
    summary("tools", &["index", text(&place.shards)]);
    assert!(together("two-statistics", &["--set", &setting]) == counted);

    // A run continues with and without them.
    fs::remove_file(place.shards.join(INDEX)).unwrap();
    let output =
        place.train("indexed", &[&least[..], &["--set", &setting, "--resume"]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));

    // Those of other shards are refused, as are both ways at once.
    let other = tempfile::tempdir().unwrap();
    let (shards, others) = (scene_shards(other.path(), 40), other.path().join("statistics"));
    summary("tools", &["stats", text(&shards), "--out", text(&others)]);
    let error = |settings: &[&str]| {
        let output = place.train("refused", settings).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        told(&output)
    };
    let found = error(&["--set", &format!("bank.statistics={}", others.display())]);
    assert!(found.contains("bank.statistics") && found.contains("other shards"), "{found}");
    let found = error(&["--set", &setting, "--set", "bank.names=names.txt"]);
    assert!(found.contains("bank.statistics"), "{found}");
    // A rank that cannot make the vocabulary ends them all.
    let broken = format!("bank.statistics={}", place.at("nowhere").display());
    let outputs = ranks(&place, "broken", 2, &["--set", &broken]);
    assert!(outputs.iter().all(|output| !output.status.success() && !told(output).is_empty()));
    assert!(told(&outputs[0]).contains("nowhere"), "{}", told(&outputs[0]));
}

fn is_tar(entry: &std::io::Result<fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "tar"))
}

#[test]
fn what_changes_shards_renews_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let shards = scene_shards(folder.path(), 40);
    let made = index(&shards).unwrap();
    assert!(made.shards.values().all(|shard| shard.sidecar.is_some()));
    summary("tools", &["index", text(&shards)]);
    assert_eq!(index(&shards), Some(made.clone()));
    fs::remove_file(shards.join(INDEX)).unwrap();
    summary("tools", &["stats", text(&shards), "--out", text(&folder.path().join("statistics"))]);
    assert_eq!(index(&shards), Some(made.clone()));

    // Another tagger: the same samples, other sidecars.
    summary("ingest", &["tag", text(&shards), "--tagger", "brill"]);
    let tagged = index(&shards).unwrap();
    assert!(tagged != made);
    assert!(tagged.shards.values().zip(made.shards.values()).all(|(a, b)| a.content == b.content));
    // Fewer samples.
    let key = |index: &SetIndex| index.shards.values().map(|shard| shard.samples).sum::<u32>();
    let list = folder.path().join("keys.txt");
    let first = first_key(&shards);
    fs::write(&list, format!("{first}\n")).unwrap();
    summary("ingest", &["prune", text(&shards), "--keys", text(&list)]);
    let pruned = index(&shards).unwrap();
    assert_eq!(key(&pruned) + 1, key(&tagged));
    let out = folder.path().join("new");
    summary("ingest", &["reshard", text(&shards), "--out", text(&out), "--samples-per-shard", "7"]);
    assert_eq!(key(&index(&out).unwrap()), key(&pruned));

    let error = refused("tools", &["index", text(&shards.join("00000.tar"))], 1);
    assert!(error.contains("is no folder"), "{error}");
}

fn first_key(shards: &Path) -> String {
    let archive = loader::shards::Archive::open(shards.join("00000.tar")).unwrap();
    archive.samples().unwrap()[0].key.clone()
}

#[test]
fn the_index_is_complete_or_not_there_wherever_the_command_stops() {
    let folder = tempfile::tempdir().unwrap();
    let shards = scene_shards(folder.path(), 12);
    let made = index(&shards);
    fs::remove_file(shards.join(INDEX)).unwrap();
    let command = |shards: &Path| {
        let mut command = Command::new(program("tools"));
        command.args(["index", text(shards), "--threads", "1"]);
        command
    };
    for event in EVENTS {
        let count = each(event, Some(&shards), &command, &|shards, about| {
            assert!(index(shards).is_none_or(|found| Some(found) == made), "{about}");
            assert!(command(shards).output().unwrap().status.success(), "{about}");
            assert_eq!(index(shards), made, "{about}");
        });
        println!("{event}: {count} points");
    }
    // Two at the same time, and a run of another command meanwhile.
    let mut both = [command(&shards), command(&shards)].map(|mut command| command.spawn().unwrap());
    for child in &mut both {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(index(&shards), made);
}

#[test]
fn long_lists_of_a_store_are_asked_for_in_parts() {
    let (store, folder) = (Store::start(), tempfile::tempdir().unwrap());
    let shards = scene_shards(folder.path(), 4);
    let of_first = |suffix: &str| fs::read(shards.join(format!("00000{suffix}"))).unwrap();
    let files = [".tar", ".parquet", "_stats.json"].map(|suffix| (suffix, of_first(suffix)));
    for shard in 0..1010 {
        for (suffix, bytes) in &files {
            store.bucket().objects.insert(format!("set/{shard:05}{suffix}"), bytes.clone());
        }
    }
    let count = || {
        let mut command = Command::new(program("tools"));
        let output = store
            .environment(&mut command)
            .args(["index", "s3://bucket/set", "--threads", "64", "--json"])
            .output()
            .unwrap();
        done(&output)["shards"].as_u64().unwrap()
    };
    let lists = || {
        store.bucket().requests.iter().filter(|(method, key, _)| method == "GET" && key.is_empty()).count()
    };
    assert_eq!(count(), 1010);
    let before = lists();
    assert_eq!(count(), 1010);
    assert!(lists() - before >= 16, "{} and {before}", lists());
    // What was added or removed at a border between two parts, before the first and after the last.
    {
        let mut bucket = store.bucket();
        for name in ["00000", "00064", "00065", "01009"] {
            for (suffix, _) in &files {
                bucket.objects.remove(&format!("set/{name}{suffix}"));
            }
        }
        for name in ["00128a", "0", "1", "00150.tar.tar", "deep/00000"] {
            for (suffix, bytes) in &files {
                bucket.objects.insert(format!("set/{name}{suffix}"), bytes.clone());
            }
        }
    }
    let with_index = count();
    store.bucket().objects.remove(&format!("set/{INDEX}"));
    assert_eq!(with_index, count());
}
