//! Remote inputs and outputs: see [`tests::store`].

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use std::thread;
use std::time::Duration;

use tests::store::Bucket;

use crate::common::{Server, code, command, contents, errors, jpeg, respond, summary, unreliable_server};

/// The store with the bucket "b", and ingest in its environment.
struct Store(tests::store::Store);

impl Store {
    fn start() -> Self {
        Self(tests::store::Store::start())
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.0.bucket()
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        self.bucket().objects.insert(key.to_owned(), bytes.to_vec());
    }

    /// Waits for a change under this folder that is not answered.
    fn wait_for_stall(&self, folder: &str, child: &mut Child) -> bool {
        loop {
            if self.bucket().stalled.iter().any(|stalled| stalled == folder) {
                return true;
            }
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The objects of a folder by name, without the times in the statistics.
    fn folder(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let copy = tempfile::tempdir().unwrap();
        for (key, bytes) in &self.bucket().objects {
            if let Some(name) = key.strip_prefix(&format!("{prefix}/")) {
                fs::write(copy.path().join(name), bytes).unwrap();
            }
        }
        contents(copy.path())
    }

    fn ingest(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        self.0.environment(&mut command);
        command
    }
}

/// A list of 20 images; the one at "/down" arrives only with the second request.
fn list() -> (Server, String) {
    let server = Server::start(|path, before, stream| match path {
        "/down" if before == 0 => respond(stream, "503 Down", &[], b""),
        _ => respond(stream, "200 OK", &[], &jpeg(60, 50, path.len() as u32)),
    });
    let lines: String = (0..20)
        .map(|number| {
            let path = if number == 7 { "/down".to_owned() } else { format!("/{number}") };
            format!("{},caption {number}\n", server.url(&path))
        })
        .collect();
    (server, format!("url,caption\n{lines}"))
}

/// Starts a command whose output is read at its end.
fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

const OPTIONS: [&str; 9] = [
    "--json",
    "--allow-private",
    "--shard-size",
    "8",
    "--image-size",
    "32",
    "--retries",
    "0",
    "--skip-reencode",
];

#[test]
fn a_dataset_in_a_store_equals_the_dataset_on_disk() {
    let (_server, list) = list();
    let store = Store::start();
    store.put("lists/a.csv", list.as_bytes());
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("out");
    let run =
        |input: &str, out: &str| store.ingest(&[&["download", input, "--out", out], &OPTIONS[..]].concat());

    // The first request for /down fails.
    let output = run("s3://b/lists/a.csv", "s3://b/sets/one");
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(summary(&output)["successes"], 19);
    let retried = store.ingest(&["retry", "s3://b/sets/one", "--json", "--allow-private"]);
    assert_eq!(summary(&retried)["successes"], 20, "{}", errors(&retried));

    let input = folder.path().join("a.csv");
    fs::write(&input, &list).unwrap();
    let output = run(input.to_str().unwrap(), local.to_str().unwrap());
    assert_eq!(summary(&output)["successes"], 20, "{}", errors(&output));
    assert_eq!(store.folder("sets/one"), contents(&local));

    // Statistics are written last, so that a partial shard is not complete.
    let bucket = store.bucket();
    let written: Vec<&String> = bucket.written.iter().filter(|key| key.contains("sets/one/00001")).collect();
    let endings = [".tar", ".hash.parquet", ".parquet", ".sha256", "_stats.json"];
    assert_eq!(written, endings.map(|ending| format!("sets/one/00001{ending}")).iter().collect::<Vec<_>>());
    drop(bucket);

    // A second run has nothing to do; without the statistics of one shard it makes that shard; another list is an error.
    assert_eq!(summary(&run("s3://b/lists/a.csv", "s3://b/sets/one"))["shards_written"], 0);
    store.bucket().objects.remove("sets/one/00001_stats.json");
    assert_eq!(summary(&run("s3://b/lists/a.csv", "s3://b/sets/one"))["shards_written"], 1);
    assert_eq!(store.folder("sets/one"), contents(&local));
    store.put("lists/a.csv", format!("{list}http://127.0.0.1:1/x,more\n").as_bytes());
    let refused = run("s3://b/lists/a.csv", "s3://b/sets/one");
    assert_eq!(code(&refused), 1);
    assert!(errors(&refused).contains("already holds another dataset"), "{}", errors(&refused));
}

#[test]
fn a_compressed_dataset_in_a_store_is_retried_and_tagged_there() {
    let (_server, list) = list();
    let store = Store::start();
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.csv");
    fs::write(&input, &list).unwrap();
    let local = folder.path().join("out");
    for out in ["s3://b/set", local.to_str().unwrap()] {
        // The first request for /down fails.
        let command = ["download", input.to_str().unwrap(), "--out", out, "--compress"];
        let output = store.ingest(&[&command, &OPTIONS[..]].concat());
        assert_eq!(code(&output), 0, "{}", errors(&output));
        let retried = store.ingest(&["retry", out, "--json", "--allow-private"]);
        assert_eq!(summary(&retried)["successes"], 20, "{}", errors(&retried));
        let tagged = store.ingest(&["tag", out, "--json"]);
        assert_eq!(summary(&tagged)["tagged"], 3, "{}", errors(&tagged));
        let again = summary(&store.ingest(&["tag", out, "--json"]));
        assert_eq!((&again["tagged"], &again["captions"]), (&0.into(), &20.into()));
    }
    assert_eq!(store.folder("set"), contents(&local));
    let verify = |set: &str| store.ingest(&["verify", set, "--json"]);
    let (remote, disk) = (verify("s3://b/set"), verify(local.to_str().unwrap()));
    assert_eq!(code(&remote), 0, "{}", errors(&remote));
    assert_eq!(summary(&remote), summary(&disk));
    assert_eq!((&summary(&remote)["samples"], &summary(&remote)["sidecars"]), (&20.into(), &3.into()));
}

#[test]
fn shards_in_a_store_are_made_into_others_and_pruned_there() {
    let (server, list) = list();
    let store = Store::start();
    let folder = tempfile::tempdir().unwrap();
    let [input, urls] = ["a.csv", "urls.txt"].map(|name| folder.path().join(name));
    fs::write(&input, &list).unwrap();
    fs::write(&urls, [server.url("/3"), server.url("/down"), server.url("/19")].join("\n")).unwrap();
    let [set, new] = ["set", "new"].map(|name| folder.path().join(name));
    let (here, urls) = (set.to_str().unwrap(), urls.to_str().unwrap());
    let arguments = [&["download", input.to_str().unwrap(), "--out", here], &OPTIONS[..]].concat();
    assert_eq!(summary(&store.ingest(&arguments))["successes"], 19);
    assert_eq!(code(&store.ingest(&["tag", here])), 0);
    for entry in fs::read_dir(&set).unwrap() {
        let path = entry.unwrap().path();
        store.put(&format!("set/{}", path.file_name().unwrap().to_str().unwrap()), &fs::read(&path).unwrap());
    }
    for (set, new) in [(here, new.to_str().unwrap()), ("s3://b/set", "s3://b/new")] {
        let arguments = ["reshard", set, "--out", new, "--samples-per-shard", "6", "--shuffle", "--json"];
        let output = store.ingest(&arguments);
        assert_eq!(summary(&output)["shards_written"], 4, "{}", errors(&output));
        let output = store.ingest(&["prune", set, "--urls", urls, "--json"]);
        assert_eq!(
            [&summary(&output)["removed"], &summary(&output)["samples_removed"]],
            [3, 2],
            "{}",
            errors(&output)
        );
    }
    assert_eq!(store.folder("new"), contents(&new));
    assert_eq!(store.folder("set"), contents(&set));
    for set in ["s3://b/set", "s3://b/new"] {
        let verified = store.ingest(&["verify", set, "--json"]);
        assert_eq!(code(&verified), 0, "{}", errors(&verified));
    }
}

#[test]
fn large_shards_are_uploaded_in_parts_to_both_kinds_of_store() {
    let server =
        Server::start(|path, _, stream| respond(stream, "200 OK", &[], &jpeg(60, 50, path.len() as u32)));
    let store = Store::start();
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.csv");
    // A caption is in the tar twice, as text and in the JSON: 18 MB, with parts of 8 MiB.
    let lines: String = (0..7)
        .map(|number| format!("{},{}\n", server.url("/x"), format!("{number} words ").repeat(160_000)))
        .collect();
    fs::write(&input, format!("url,caption\n{lines}")).unwrap();
    let local = folder.path().join("out");
    for out in [local.to_str().unwrap(), "s3://b/one", "gs://b/two"] {
        let output =
            store.ingest(&[&["download", input.to_str().unwrap(), "--out", out], &OPTIONS[..]].concat());
        assert_eq!(code(&output), 0, "{out}: {}", errors(&output));
        assert_eq!(summary(&output)["successes"], 7, "{}", errors(&output));
    }
    let expected = contents(&local);
    assert_eq!(expected["00000.tar"].len().div_ceil(8 << 20), 3);
    for set in ["one", "two"] {
        assert!(store.folder(set) == expected, "{set}");
    }
    let assembled = store.bucket().assembled.clone();
    assert_eq!(assembled, [("one/00000.tar".to_owned(), 3), ("two/00000.tar".to_owned(), 3)]);
}

#[test]
fn a_failed_upload_leaves_no_parts() {
    let server =
        Server::start(|path, _, stream| respond(stream, "200 OK", &[], &jpeg(60, 50, path.len() as u32)));
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.csv");
    let lines: String = (0..7)
        .map(|number| format!("{},{}\n", server.url("/x"), format!("{number} words ").repeat(160_000)))
        .collect();
    fs::write(&input, format!("url,caption\n{lines}")).unwrap();
    // The second part is refused, or the completion.
    for refused in [2, 100] {
        let store = Store::start();
        store.bucket().refused = Some(refused);
        let command = ["download", input.to_str().unwrap(), "--out", "s3://b/set"];
        let output = store.ingest(&[&command, &OPTIONS[..]].concat());
        assert_eq!(code(&output), 1, "{}", errors(&output));
        assert!(errors(&output).contains("00000.tar"), "{}", errors(&output));
        let bucket = store.bucket();
        assert!(bucket.parts.is_empty(), "{:?}", bucket.parts.keys());
        assert_eq!(bucket.objects.keys().collect::<Vec<_>>(), ["set/ingest.json"], "and no claim");
    }
}

#[test]
fn several_writers_share_a_dataset_in_a_store() {
    let server = unreliable_server();
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.csv");
    let lines: String =
        (0..60).map(|number| format!("{},a dog\n", server.url(&format!("/{number}")))).collect();
    fs::write(&input, format!("url,caption\n{lines}")).unwrap();
    let store = Store::start();
    let rounds = std::env::var("WRITERS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    for round in 0..rounds {
        for (scheme, writers) in [("s3", 2), ("s3", 4), ("gs", 2)] {
            let asked = server.requests();
            let set = format!("set-{round}-{scheme}-{writers}");
            let out = format!("{scheme}://b/{set}");
            let arguments = [&["download", input.to_str().unwrap(), "--out", &out], &OPTIONS[..]].concat();
            let children: Vec<Child> = (0..writers).map(|_| spawn(store.command(&arguments))).collect();
            let mut written = 0;
            for child in children {
                let output = child.wait_with_output().unwrap();
                assert_eq!(code(&output), 0, "{}", errors(&output));
                assert_eq!(summary(&output)["samples"], 60);
                written += summary(&output)["shards_written"].as_u64().unwrap();
            }
            assert_eq!((written, server.requests() - asked), (8, 60), "every shard and image once");
            let copy = folder.path().join(&set);
            fs::create_dir(&copy).unwrap();
            for (key, bytes) in &store.bucket().objects {
                if let Some(name) = key.strip_prefix(&format!("{set}/")) {
                    fs::write(copy.join(name), bytes).unwrap();
                }
            }
            let verified = store.ingest(&["verify", copy.to_str().unwrap(), "--json"]);
            assert_eq!(code(&verified), 0, "{}", errors(&verified));
            assert_eq!(summary(&verified)["notes"], serde_json::json!([]), "no claim is left");
        }
    }
}

/// Kills a run at each of its changes in the store, and lets the next one wait until the claims of the killed ones have
/// expired. All at the same time, because that takes a minute.
#[test]
fn runs_in_a_store_that_are_killed_at_any_change_are_completed() {
    let up = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&up);
    let server = Server::start(move |path, _, stream| {
        if path == "/7" && !now.load(Ordering::Relaxed) {
            respond(stream, "503 Down", &[], b"");
        } else {
            respond(stream, "200 OK", &[], &jpeg(60, 50, path.len() as u32));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("a.csv");
    let lines: String =
        (0..8).map(|number| format!("{},a dog\n", server.url(&format!("/{number}")))).collect();
    fs::write(&input, format!("url,caption\n{lines}")).unwrap();
    let store = Store::start();
    let download = |set: &str| {
        let out = format!("s3://b/{set}");
        store.command(&[&["download", input.to_str().unwrap(), "--out", &out], &OPTIONS[..]].concat())
    };
    let retry = |set: &str| {
        let set = format!("s3://b/{set}");
        store.command(&["retry", &set, "--json", "--allow-private", "--retries", "0"])
    };
    assert_eq!(summary(&download("old").output().unwrap())["successes"], 7);
    up.store(true, Ordering::Relaxed);
    assert_eq!(summary(&download("new").output().unwrap())["successes"], 8);
    let expected = store.folder("new");
    let mut sets = Vec::new();
    type Run<'a> = (&'a str, &'a dyn Fn(&str) -> Command);
    let runs: [Run<'_>; 2] = [("download", &download), ("retry", &retry)];
    for (name, run) in runs {
        for changes in 0.. {
            let set = format!("{name}-{changes}");
            {
                let mut bucket = store.bucket();
                bucket.limits.insert(set.clone(), changes);
                for (key, bytes) in bucket.objects.clone() {
                    if let (Some(file), "retry") = (key.strip_prefix("old/"), name) {
                        bucket.write(&format!("{set}/{file}"), bytes);
                    }
                }
            }
            let mut child = spawn(run(&set));
            let stalled = store.wait_for_stall(&set, &mut child);
            // SIGKILL, unless it has ended.
            let _ = child.kill();
            let output = child.wait_with_output().unwrap();
            store.bucket().limits.remove(&set);
            if !stalled {
                println!("{name}: {changes} changes");
                assert!(code(&output) == 0 && changes > 6, "{changes}: {}", errors(&output));
                break;
            }
            sets.push((set.clone(), spawn(run(&set))));
        }
    }
    for (set, child) in sets {
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{set}: {}", errors(&output));
        let mut found = store.folder(&set);
        // If the run was killed when it would remove its claim, nobody needs that shard any more.
        found.remove(".tmp-claim-00000");
        assert!(found == expected, "{set}: {:?}", found.keys());
    }
}

#[test]
fn folders_of_tables_in_a_store_are_read_in_order_despite_temporary_failures() {
    let (_server, list) = list();
    let store = Store::start();
    store.put("lists/b.csv", list.as_bytes());
    store.put("lists/a.csv", list.as_bytes());
    store.put("lists/notes.md", b"no table");
    store.bucket().failures = 2;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let arguments = [&["download", "s3://b/lists", "--out", out.to_str().unwrap()], &OPTIONS[..]].concat();
    let output = store.ingest(&arguments);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(summary(&output)["samples"], 40);
    let manifest = fs::read_to_string(out.join("ingest.json")).unwrap();
    assert!(manifest.find("a.csv").unwrap() < manifest.find("b.csv").unwrap());
}

#[test]
fn tables_are_read_over_http_also_parquet_and_compressed_ones() {
    let (_server, list) = list();
    let store = Store::start();
    let rows: Vec<(&str, &str)> = list.lines().skip(1).map(|line| line.split_once(',').unwrap()).collect();
    let parquet = parquet(&rows);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let files = [
        ("t.csv", list.clone().into_bytes()),
        ("t.csv.gz", gzip(list.as_bytes())),
        ("t.parquet.gz", gzip(&parquet)),
        ("t.parquet.zst", zstd::encode_all(&parquet[..], 1).unwrap()),
        ("t.parquet", parquet),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut tars = Vec::new();
    for (name, bytes) in files {
        // The S3 server also answers plain HTTP requests.
        store.put(name, &bytes);
        fs::write(folder.path().join(name), bytes).unwrap();
        let local = folder.path().join(name);
        for input in [format!("{}/b/{name}", store.0.address()), local.to_str().unwrap().to_owned()] {
            let out = folder.path().join("out");
            let arguments = [&["download", &input, "--out", out.to_str().unwrap()], &OPTIONS[..]].concat();
            let output = store.ingest(&arguments);
            assert_eq!(code(&output), 0, "{input}: {}", errors(&output));
            tars.push((input, fs::read(out.join("00001.tar")).unwrap()));
            fs::remove_dir_all(out).unwrap();
        }
    }
    for (input, tar) in &tars {
        assert!(*tar == tars[0].1, "{input}");
    }
    let missing = format!("{}/b/nowhere.csv", store.0.address());
    let out = folder.path().join("out");
    let refused = store.ingest(&["download", &missing, "--out", out.to_str().unwrap()]);
    assert_eq!(code(&refused), 1);
    assert!(errors(&refused).contains("nowhere.csv"), "{}", errors(&refused));
    assert!(!Path::new(&out).exists());
}

fn parquet(rows: &[(&str, &str)]) -> Vec<u8> {
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    let urls: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
    let captions: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)));
    let batch = RecordBatch::try_from_iter([("URL", urls), ("TEXT", captions)]).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}
