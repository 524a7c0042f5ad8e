//! Runs that are killed, or fail, at each of their changes of the file system: what is left, and what the next run makes of
//! it. `tests/inject.c` is preloaded into the program.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::Value;

use crate::common::{Server, code, command, contents, errors, ingest, jpeg, respond};

/// The preloaded library; None if it cannot be compiled here.
fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let compiled = LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = (
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/inject.c"),
            folder.path().join("inject.so"),
        );
        let options = ["-shared", "-fPIC", "-O1", "-o"];
        let run = Command::new("cc").args(options).arg(&target).arg(source).arg("-ldl").status();
        run.is_ok_and(|status| status.success()).then_some((folder, target))
    });
    let library = compiled.as_ref().map(|(_, library)| library.as_path());
    if library.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "cc cannot compile tests/inject.c");
        println!("skipped: cc cannot compile tests/inject.c");
    }
    library
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Runs a command in a copy of `before` again and again, each time with the next change of the file system killed or failed.
/// `after` is given the folder that is left. Returns how often that was.
fn each(
    what: &str,
    before: Option<&Path>,
    arguments: &dyn Fn(&Path) -> Vec<String>,
    after: &dyn Fn(&Path, &str),
) -> usize {
    let Some(library) = library() else { return 0 };
    for number in 1.. {
        let place = tempfile::tempdir().unwrap();
        let (set, fired) = (place.path().join("set"), place.path().join("fired"));
        if let Some(before) = before {
            copy(before, &set);
        }
        let arguments = arguments(&set);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = command(&arguments)
            .env("LD_PRELOAD", library)
            .env("INJECT", format!("{what}:{number}"))
            .env("INJECT_FIRED", &fired)
            .output()
            .unwrap();
        if !fired.exists() {
            assert_eq!(code(&output), 0, "{what} {number}: {}", errors(&output));
            return number - 1;
        }
        if what == "kill" {
            assert_eq!(output.status.signal(), Some(9), "{what} {number}");
        } else {
            // Not every failure matters: a file that could not be removed is left to the next run.
            assert!([0, 1].contains(&code(&output)), "{what} {number}: {}", errors(&output));
        }
        after(&set, &format!("{what} {number}"));
    }
    unreachable!()
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
    for what in ["kill", "ENOSPC", "EIO"] {
        let count = each(what, None, &|set| web.download(set), &|set, about| {
            complete(&web.download(set), about);
            same(set, &expected, about);
        });
        println!("download, {what}: {count} points");
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
    type Case<'a> = (&'a str, Option<&'a Path>, &'a dyn Fn(&Path) -> Vec<String>, &'a Path);
    let cases: [Case<'_>; 3] = [
        ("shard", None, &shard, &packed),
        ("tag", Some(&packed), &tag, &tagged),
        ("tag --table", None, &tables, &captions),
    ];
    for (name, before, arguments, expected) in cases {
        let expected = contents(expected);
        for what in ["kill", "ENOSPC", "EIO"] {
            let count = each(what, before, arguments, &|set, about| {
                complete(&arguments(set), about);
                same(set, &expected, about);
            });
            println!("{name}, {what}: {count} points");
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
    let (expected, good) = (contents(&retried), successes(&before));
    assert_eq!((good, successes(&retried)), (6, 10));
    for what in ["kill", "ENOSPC", "EIO"] {
        web.is(UP);
        let count = each(what, Some(&before), &retry, &|set, about| {
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
            type Next<'a> = (&'a str, &'a dyn Fn(&Path) -> Vec<String>);
            // Any of these commands may come next, also when the images are gone from the web.
            let nexts: [Next<'_>; 2] = [("download", &|set| web.download(set)), ("tag", &tag)];
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
        println!("retry, {what}: {count} points");
        assert!(count == 0 || count > 20, "{count}");
    }
}
