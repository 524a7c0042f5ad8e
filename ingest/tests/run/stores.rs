//! Remote inputs and outputs: a small S3 server with one bucket in memory, on a port of this machine. Google's stores use
//! nearly the same protocol; their signatures are switched off here.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::common::{Server, code, command, contents, errors, jpeg, respond, summary};

/// Objects by key, and the order in which they were written.
#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Vec<u8>>,
    written: Vec<String>,
    /// Parts of incomplete uploads, by key and number.
    parts: BTreeMap<(String, u32), Vec<u8>>,
    /// Completed multipart uploads: key and number of parts.
    assembled: Vec<(String, usize)>,
    /// Number of next requests to answer with 503.
    failures: usize,
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
        command(arguments)
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port))
            .env("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port))
            .env("AWS_ALLOW_HTTP", "true")
            .env("GOOGLE_SERVICE_ACCOUNT", self.account.path())
            .output()
            .unwrap()
    }
}

/// Answers one request on a connection that stays open.
fn answer(stream: &TcpStream, bucket: &Mutex<Bucket>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut range) = (0, None);
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "range" => range = value.strip_prefix("bytes=").map(str::to_owned),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;

    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = decoded(path).trim_start_matches("/b").trim_start_matches('/').to_owned();
    let mut bucket = bucket.lock().unwrap();
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
                bucket.objects.remove(key);
                page.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
            }
            page.push_str("</DeleteResult>");
            return send(stream, "200 OK", &[], page.as_bytes(), page.len());
        }
        ("POST", _) => {
            let (parts, rest) =
                std::mem::take(&mut bucket.parts).into_iter().partition(|((of, _), _)| *of == key);
            bucket.parts = rest;
            let parts: BTreeMap<(String, u32), Vec<u8>> = parts;
            bucket.assembled.push((key.clone(), parts.len()));
            bucket.objects.insert(key.clone(), parts.into_values().flatten().collect());
            bucket.written.push(key);
            let page = "<CompleteMultipartUploadResult><ETag>\"1\"</ETag></CompleteMultipartUploadResult>";
            return send(stream, "200 OK", &[], page.as_bytes(), page.len());
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
            bucket.objects.insert(key.clone(), body);
            bucket.written.push(key);
            send(stream, "200 OK", &["ETag: \"1\""], b"", 0)
        }
        ("DELETE", _) => {
            bucket.objects.remove(&key);
            send(stream, "204 No Content", &[], b"", 0)
        }
        (_, None) => send(stream, "404 Not Found", &[], b"", 0),
        ("HEAD", Some(bytes)) => send(stream, "200 OK", &HEAD, b"", bytes.len()),
        (_, Some(bytes)) => match range.as_deref().and_then(|range| range.split_once('-')) {
            Some((from, to)) => {
                let from: usize = from.parse().ok()?;
                let to = to.parse().map_or(bytes.len(), |to: usize| to + 1).min(bytes.len());
                let part = &bytes[from..to];
                let head = format!("Content-Range: bytes {from}-{}/{}", to - 1, bytes.len());
                send(stream, "206 Partial Content", &[&HEAD[..], &[&head]].concat(), part, part.len())
            }
            None => send(stream, "200 OK", &HEAD, bytes, bytes.len()),
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

const HEAD: [&str; 2] = ["Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT", "ETag: \"1\""];

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
    assert_eq!(written, ["sets/one/00001.tar", "sets/one/00001.parquet", "sets/one/00001_stats.json"]);
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
    let refused = store.ingest(&["verify", "s3://b/set"]);
    assert_eq!(code(&refused), 2);
    assert!(errors(&refused).contains("copy the shards to a disk"), "{}", errors(&refused));
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
