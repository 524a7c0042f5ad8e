//! Remote inputs and outputs: a small S3 server with one bucket in memory, on a port of this machine. Google's stores use
//! nearly the same protocol; their signatures are switched off here.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::{Server, code, command, contents, errors, jpeg, respond, summary, unreliable_server};

/// Objects by key, and the order in which they were written.
#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Vec<u8>>,
    written: Vec<String>,
    /// The number of the last write of each object, which is its version.
    versions: BTreeMap<String, usize>,
    /// Parts of incomplete uploads, by key and number.
    parts: BTreeMap<(String, u32), Vec<u8>>,
    /// Refuse to complete uploads, or to take their parts from this number on.
    refused: Option<u32>,
    /// Number of changes of objects after which none is answered any more, by the folder that they are in; and the folders
    /// where that has happened.
    limits: BTreeMap<String, usize>,
    stalled: Vec<String>,
    /// Completed multipart uploads: key and number of parts.
    assembled: Vec<(String, usize)>,
    /// Number of next requests to answer with 503.
    failures: usize,
}

impl Bucket {
    fn write(&mut self, key: &str, bytes: Vec<u8>) {
        self.written.push(key.to_owned());
        self.versions.insert(key.to_owned(), self.written.len());
        self.objects.insert(key.to_owned(), bytes);
    }

    /// Headers of an object.
    fn about(&self, key: &str) -> Vec<String> {
        let version = self.versions.get(key).copied().unwrap_or(0);
        vec![
            "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT".to_owned(),
            format!("ETag: \"{version}\""),
            format!("x-goog-generation: {version}"),
        ]
    }
}

/// Path-style S3 with the bucket "b": GET (with ranges), HEAD, PUT, DELETE, ListObjectsV2 and multipart uploads.
struct Store {
    port: u16,
    bucket: Arc<Mutex<Bucket>>,
    /// Google's account file, the only place where its endpoint can be set.
    account: tempfile::NamedTempFile,
}

impl Store {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bucket: Arc<Mutex<Bucket>> = Arc::default();
        let shared = Arc::clone(&bucket);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || while answer(&stream, &shared).is_some() {});
            }
        });
        let account = tempfile::NamedTempFile::new().unwrap();
        let settings = serde_json::json!({
            "gcs_base_url": format!("http://127.0.0.1:{port}"), "disable_oauth": true,
            "client_email": "", "private_key": "", "private_key_id": "",
        });
        fs::write(account.path(), settings.to_string()).unwrap();
        Self { port, bucket, account }
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        self.bucket.lock().unwrap().objects.insert(key.to_owned(), bytes.to_vec());
    }

    /// Waits for a change under this folder that is not answered.
    fn wait_for_stall(&self, folder: &str, child: &mut Child) -> bool {
        loop {
            if self.bucket.lock().unwrap().stalled.iter().any(|stalled| stalled == folder) {
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
        for (key, bytes) in &self.bucket.lock().unwrap().objects {
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
        command
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port))
            .env("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port))
            .env("AWS_ALLOW_HTTP", "true")
            .env("GOOGLE_SERVICE_ACCOUNT", self.account.path());
        command
    }
}

/// Answers one request on a connection that stays open.
fn answer(stream: &TcpStream, shared: &Mutex<Bucket>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut range, mut condition) = (0, None, None);
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "range" => range = value.strip_prefix("bytes=").map(str::to_owned),
            // "None" stands for an object that does not exist, for Google's store 0.
            "if-none-match" | "if-match" | "x-goog-if-generation-match" => {
                condition = Some(value.trim_matches(['"', '*']).parse::<usize>().ok().filter(|&it| it > 0));
            }
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;

    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = decoded(path).trim_start_matches("/b").trim_start_matches('/').to_owned();
    let mut bucket = shared.lock().unwrap();
    if bucket.failures > 0 {
        bucket.failures -= 1;
        return send(stream, "503 Slow Down", &[], b"", 0);
    }
    if query.contains("list-type=2") {
        let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix=")).unwrap_or_default();
        let prefix = prefix.replace("%2F", "/");
        let mut page = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
        for (key, bytes) in bucket.objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
            page.push_str(&format!(
                "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-01-01T00:00:00Z</LastModified>\
                 <ETag>\"{}\"</ETag></Contents>",
                bytes.len(),
                bytes.len()
            ));
        }
        page.push_str("<IsTruncated>false</IsTruncated></ListBucketResult>");
        return send(stream, "200 OK", &[], page.as_bytes(), page.len());
    }
    if method != "GET" && method != "HEAD" {
        // Several objects at once are removed by a list of their keys.
        let listed = String::from_utf8_lossy(&body);
        let listed = listed.split_once("<Key>").and_then(|(_, rest)| rest.split_once("</Key>"));
        let changed = listed.filter(|_| query.starts_with("delete")).map_or(key.as_str(), |(key, _)| key);
        let folder = changed.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        if let Some(left) = bucket.limits.get_mut(&folder) {
            if *left == 0 {
                bucket.stalled.push(folder);
                return None;
            }
            *left -= 1;
        }
    }
    let argument = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    match (method.as_str(), argument("partNumber")) {
        ("POST", _) if query.starts_with("uploads") => {
            let page =
                "<InitiateMultipartUploadResult><UploadId>7</UploadId></InitiateMultipartUploadResult>";
            return send(stream, "200 OK", &[], page.as_bytes(), page.len());
        }
        ("POST", _) if query.starts_with("delete") => {
            let body = String::from_utf8(body).ok()?;
            let mut page = String::from("<DeleteResult>");
            for (key, _) in body.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>")) {
                bucket.versions.remove(key);
                bucket.objects.remove(key);
                page.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
            }
            page.push_str("</DeleteResult>");
            return send(stream, "200 OK", &[], page.as_bytes(), page.len());
        }
        ("POST", _) if bucket.refused.is_some() => {
            return send(stream, "403 Forbidden", &[], b"", 0);
        }
        ("DELETE", _) if query.contains("uploadId") => {
            bucket.parts.retain(|(of, _), _| *of != key);
            return send(stream, "204 No Content", &[], b"", 0);
        }
        ("POST", _) => {
            let (parts, rest) =
                std::mem::take(&mut bucket.parts).into_iter().partition(|((of, _), _)| *of == key);
            bucket.parts = rest;
            let parts: BTreeMap<(String, u32), Vec<u8>> = parts;
            bucket.assembled.push((key.clone(), parts.len()));
            bucket.write(&key, parts.into_values().flatten().collect());
            let page = "<CompleteMultipartUploadResult><ETag>\"1\"</ETag></CompleteMultipartUploadResult>";
            return send(stream, "200 OK", &[], page.as_bytes(), page.len());
        }
        ("PUT", Some(number))
            if bucket.refused.is_some_and(|from| number.parse().is_ok_and(|it: u32| it >= from)) =>
        {
            // Not before the first part is there.
            while !bucket.parts.contains_key(&(key.clone(), 1)) {
                drop(bucket);
                thread::sleep(Duration::from_millis(5));
                bucket = shared.lock().unwrap();
            }
            return send(stream, "403 Forbidden", &[], b"", 0);
        }
        ("PUT", Some(number)) => {
            bucket.parts.insert((key, number.parse().ok()?), body);
            return send(stream, "200 OK", &["ETag: \"1\""], b"", 0);
        }
        _ => {}
    }
    let object = bucket.objects.get(&key).cloned();
    match (method.as_str(), &object) {
        ("PUT", _) => {
            if condition.is_some_and(|version| version != bucket.versions.get(&key).copied()) {
                return send(stream, "412 Precondition Failed", &[], b"", 0);
            }
            bucket.write(&key, body);
            send(stream, "200 OK", &texts(&bucket.about(&key)), b"", 0)
        }
        ("DELETE", _) => {
            bucket.versions.remove(&key);
            bucket.objects.remove(&key);
            send(stream, "204 No Content", &[], b"", 0)
        }
        (_, None) => send(stream, "404 Not Found", &[], b"", 0),
        ("HEAD", Some(bytes)) => send(stream, "200 OK", &texts(&bucket.about(&key)), b"", bytes.len()),
        (_, Some(bytes)) => match range.as_deref().and_then(|range| range.split_once('-')) {
            Some((from, to)) => {
                let from: usize = from.parse().ok()?;
                let to = to.parse().map_or(bytes.len(), |to: usize| to + 1).min(bytes.len());
                let part = &bytes[from..to];
                let mut head = bucket.about(&key);
                head.push(format!("Content-Range: bytes {from}-{}/{}", to - 1, bytes.len()));
                send(stream, "206 Partial Content", &texts(&head), part, part.len())
            }
            None => send(stream, "200 OK", &texts(&bucket.about(&key)), bytes, bytes.len()),
        },
    }
}

/// Decodes a percent-encoded key, as Google's client sends it.
fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push(u8::from_str_radix(&part[..2], 16).unwrap().into());
        text.push_str(&part[2..]);
    }
    text
}

fn texts(headers: &[String]) -> Vec<&str> {
    headers.iter().map(String::as_str).collect()
}

fn send(mut stream: &TcpStream, status: &str, headers: &[&str], body: &[u8], length: usize) -> Option<()> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok()
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
    let bucket = store.bucket.lock().unwrap();
    let written: Vec<&String> = bucket.written.iter().filter(|key| key.contains("sets/one/00001")).collect();
    let endings = [".tar", ".parquet", ".sha256", "_stats.json"];
    assert_eq!(written, endings.map(|ending| format!("sets/one/00001{ending}")).iter().collect::<Vec<_>>());
    drop(bucket);

    // A second run has nothing to do; without the statistics of one shard it makes that shard; another list is an error.
    assert_eq!(summary(&run("s3://b/lists/a.csv", "s3://b/sets/one"))["shards_written"], 0);
    store.bucket.lock().unwrap().objects.remove("sets/one/00001_stats.json");
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
    let assembled = &store.bucket.lock().unwrap().assembled;
    assert_eq!(*assembled, [("one/00000.tar".to_owned(), 3), ("two/00000.tar".to_owned(), 3)]);
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
        store.bucket.lock().unwrap().refused = Some(refused);
        let command = ["download", input.to_str().unwrap(), "--out", "s3://b/set"];
        let output = store.ingest(&[&command, &OPTIONS[..]].concat());
        assert_eq!(code(&output), 1, "{}", errors(&output));
        assert!(errors(&output).contains("00000.tar"), "{}", errors(&output));
        let bucket = store.bucket.lock().unwrap();
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
            for (key, bytes) in &store.bucket.lock().unwrap().objects {
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
                let mut bucket = store.bucket.lock().unwrap();
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
            store.bucket.lock().unwrap().limits.remove(&set);
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
    store.bucket.lock().unwrap().failures = 2;
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
        for input in [format!("http://127.0.0.1:{}/b/{name}", store.port), local.to_str().unwrap().to_owned()]
        {
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
    let missing = format!("http://127.0.0.1:{}/b/nowhere.csv", store.port);
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
