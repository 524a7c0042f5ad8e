//! Runs that are killed, or fail, at each of their changes of the file system: what is left, and what the next run makes of
//! it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::Value;
use tests::inject::{EVENTS, copy};

use crate::common::{Server, code, command, contents, errors, ingest, jpeg, respond};

/// The arguments of a command that writes to a folder.
type Arguments<'a> = &'a dyn Fn(&Path) -> Vec<String>;

fn command_with(arguments: &[String]) -> Command {
    command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// See [`tests::inject::each`].
fn each(event: &str, before: Option<&Path>, arguments: Arguments<'_>, after: &dyn Fn(&Path, &str)) -> usize {
    tests::inject::each(event, before, &|set| command_with(&arguments(set)), after)
}

/// See [`tests::inject::without_rights_or_descriptors`].
fn refuses(name: &str, before: Option<&Path>, limits: &[u32], arguments: Arguments<'_>) {
    let command = |set: &Path| command_with(&arguments(set));
    tests::inject::without_rights_or_descriptors(name, before, limits, &command);
}

/// Runs the command to its end.
fn complete(arguments: &[String], about: &str) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = ingest(&arguments);
    assert_eq!(code(&output), 0, "{about}: {}", errors(&output));
}

fn same(set: &Path, expected: &BTreeMap<String, Vec<u8>>, about: &str) {
    let found = contents(set);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{about}");
    assert!(found == *expected, "{about}");
}

fn verify(set: &Path, about: &str) {
    complete(&["verify".to_owned(), set.to_str().unwrap().to_owned()], about);
}

/// The web as it is at a moment: some images fail for now, all exist, or none exists any more.
const FAILING: u8 = 0;
const UP: u8 = 1;
const GONE: u8 = 2;

struct Web {
    _server: Server,
    state: Arc<AtomicU8>,
    folder: tempfile::TempDir,
}

impl Web {
    fn start(rows: usize) -> Self {
        let state = Arc::new(AtomicU8::new(UP));
        let now = Arc::clone(&state);
        let server = Server::start(move |path, _, stream| {
            let number: u32 = path[1..].parse().unwrap();
            match now.load(Ordering::Relaxed) {
                FAILING if number.is_multiple_of(3) => respond(stream, "503 Service Unavailable", &[], b""),
                GONE => respond(stream, "404 Not Found", &[], b""),
                _ => respond(stream, "200 OK", &[], &jpeg(30 + number, 20, number)),
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let line =
            |number| format!("{},two dogs and a red bus {number}\n", server.url(&format!("/{number}")));
        let lines: String = (0..rows).map(line).collect();
        fs::write(folder.path().join("list.csv"), format!("url,caption\n{lines}")).unwrap();
        Self { _server: server, state, folder }
    }

    fn is(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }

    fn download(&self, out: &Path) -> Vec<String> {
        let list = self.folder.path().join("list.csv");
        let mut arguments =
            vec!["download", list.to_str().unwrap(), "--out", out.to_str().unwrap(), "--allow-private"];
        arguments.extend(["--shard-size", "5", "--image-size", "16", "--threads", "2", "--retries", "0"]);
        arguments.into_iter().map(str::to_owned).collect()
    }
}

fn retry(set: &Path) -> Vec<String> {
    ["retry", set.to_str().unwrap(), "--allow-private", "--retries", "0"].map(str::to_owned).to_vec()
}

fn tag(set: &Path) -> Vec<String> {
    ["tag", set.to_str().unwrap(), "--threads", "2"].map(str::to_owned).to_vec()
}

fn hash(set: &Path) -> Vec<String> {
    ["hash", set.to_str().unwrap(), "--threads", "2", "--force"].map(str::to_owned).to_vec()
}

fn successes(set: &Path) -> u64 {
    let stats = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let files = fs::read_dir(set).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.to_string_lossy().ends_with("_stats.json"))
        .map(|path| stats(&path)["successes"].as_u64().unwrap())
        .sum()
}

#[test]
fn a_download_that_is_killed_or_fails_anywhere_resumes_to_the_same_bytes() {
    let web = Web::start(10);
    let whole = web.folder.path().join("whole");
    complete(&web.download(&whole), "undisturbed");
    let expected = contents(&whole);
    // `scale.rs` has downloads with few descriptors.
    refuses("download", None, &[], &|set| web.download(set));
    for event in EVENTS {
        let count = each(event, None, &|set| web.download(set), &|set, about| {
            complete(&web.download(set), about);
            same(set, &expected, about);
        });
        println!("download, {event}: {count} points");
        assert!(count == 0 || count > 15, "{count}");
    }
}

#[test]
fn local_images_and_captions_are_packed_and_tagged_to_the_same_bytes_wherever_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    fs::create_dir(&images).unwrap();
    for number in 0..10 {
        fs::write(images.join(format!("{number}.jpg")), jpeg(30, 20, number)).unwrap();
        fs::write(images.join(format!("{number}.txt")), format!("a dog and {number} red cars")).unwrap();
    }
    let shard = |set: &Path| {
        let mut arguments = vec!["shard", images.to_str().unwrap(), "--out", set.to_str().unwrap()];
        arguments.extend(["--shard-size", "5", "--image-size", "16", "--threads", "2"]);
        arguments.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let table = folder.path().join("captions.csv");
    let lines: String = (0..10).map(|number| format!("two cats and {number} trees\n")).collect();
    fs::write(&table, format!("caption\n{lines}")).unwrap();
    let tables = |set: &Path| {
        let mut arguments = vec!["tag", "--table", table.to_str().unwrap(), "--out", set.to_str().unwrap()];
        arguments.extend(["--part-size", "5", "--threads", "2"]);
        arguments.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let (packed, tagged, captions) =
        (folder.path().join("packed"), folder.path().join("tagged"), folder.path().join("captions"));
    complete(&shard(&packed), "undisturbed");
    copy(&packed, &tagged);
    complete(&tag(&tagged), "undisturbed");
    complete(&tables(&captions), "undisturbed");
    let hashed = folder.path().join("hashed");
    copy(&packed, &hashed);
    complete(&hash(&hashed), "undisturbed");
    type Case<'a> = (&'a str, Option<&'a Path>, Arguments<'a>, &'a Path);
    let cases: [Case<'_>; 4] = [
        ("shard", None, &shard, &packed),
        ("tag", Some(&packed), &tag, &tagged),
        ("hash", Some(&packed), &hash, &hashed),
        ("tag --table", None, &tables, &captions),
    ];
    for (name, before, arguments, expected) in cases {
        let expected = contents(expected);
        refuses(name, before, &[4, 6, 9, 14, 24], arguments);
        for event in EVENTS {
            let count = each(event, before, arguments, &|set, about| {
                complete(&arguments(set), about);
                same(set, &expected, about);
            });
            println!("{name}, {event}: {count} points");
        }
    }
}

#[test]
fn a_retry_that_is_killed_or_fails_anywhere_never_makes_a_shard_less() {
    let web = Web::start(10);
    web.is(FAILING);
    let before = web.folder.path().join("before");
    complete(&web.download(&before), "before");
    web.is(UP);
    let retried = web.folder.path().join("retried");
    copy(&before, &retried);
    complete(&retry(&retried), "undisturbed");
    refuses("retry", Some(&before), &[], &retry);
    let (expected, good) = (contents(&retried), successes(&before));
    assert_eq!((good, successes(&retried)), (6, 10));
    for event in EVENTS {
        web.is(UP);
        let count = each(event, Some(&before), &retry, &|set, about| {
            // Statistics describe the files next to them, if they are there.
            for number in 0..2 {
                if set.join(format!("{number:05}_stats.json")).exists() {
                    let stats: Value = serde_json::from_slice(
                        &fs::read(set.join(format!("{number:05}_stats.json"))).unwrap(),
                    )
                    .unwrap();
                    let rows = crate::common::table(&set.join(format!("{number:05}.parquet")));
                    let rows = rows.iter().filter(|row| row["status"] == "success").count();
                    let images = crate::common::members(&set.join(format!("{number:05}.tar"))).len() / 3;
                    assert_eq!(
                        (stats["successes"].as_u64().unwrap() as usize, rows),
                        (images, images),
                        "{about}"
                    );
                }
            }
            // Any of these commands may come next, also when the images are gone from the web.
            let nexts: [(&str, Arguments<'_>); 2] = [("download", &|set| web.download(set)), ("tag", &tag)];
            for (name, next) in nexts {
                let copied = set.with_file_name(name);
                copy(set, &copied);
                web.is(GONE);
                complete(&next(&copied), about);
                verify(&copied, about);
                assert!(successes(&copied) >= good, "{about}, then {name}");
                web.is(UP);
            }
            complete(&retry(set), about);
            same(set, &expected, about);
        });
        println!("retry, {event}: {count} points");
        assert!(count == 0 || count > 20, "{count}");
    }
}
