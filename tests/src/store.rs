//! A small S3 server with one bucket in memory, of whatever name, for tests that run on every machine. Google's stores use nearly
//! the same protocol; their signatures are switched off here. `tests/stores.py` runs the programs against full servers of the
//! protocols.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The bucket, and what was asked of it.
#[derive(Debug, Default)]
pub struct Bucket {
    /// The objects by key.
    pub objects: BTreeMap<String, Vec<u8>>,
    /// Keys in the order in which they were written.
    pub written: Vec<String>,
    /// Method and key of every request, and the bytes of its answer's body.
    pub requests: Vec<(String, String, usize)>,
    /// Number of next requests to answer with 503.
    pub failures: usize,
    /// Refuse to complete uploads, or to take their parts from this number on.
    pub refused: Option<u32>,
    /// Hold back parts of objects that end before their ends do, which readers of tables ask for after their footers; counts those
    /// that wait.
    pub held: Option<usize>,
    /// Number of changes of objects after which none is answered any more, by the folder that they are in.
    pub limits: BTreeMap<String, usize>,
    /// The folders where that has happened.
    pub stalled: Vec<String>,
    /// Completed multipart uploads: key and number of parts.
    pub assembled: Vec<(String, usize)>,
    /// Parts of incomplete uploads, by key and number.
    pub parts: BTreeMap<(String, u32), Vec<u8>>,
    /// The number of the last write of each object, which is its version.
    versions: BTreeMap<String, usize>,
}

/// The condition of a write: that an object has this version, or that there is none.
type Condition = Option<Option<usize>>;

/// The server. It ends with the process.
#[derive(Debug)]
pub struct Store {
    port: u16,
    bucket: Arc<Mutex<Bucket>>,
    /// Google's account file, the only place where its endpoint can be set.
    account: tempfile::NamedTempFile,
}

impl Store {
    /// Starts it on a free port of this machine.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bucket: Arc<Mutex<Bucket>> = Arc::default();
        let shared = Arc::clone(&bucket);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || while answer(&stream, &shared).is_some() {});
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

    /// Its address, where it also answers plain HTTP requests.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The bucket, for looks and changes between requests.
    pub fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts all files of a folder, with its subfolders, below `prefix`.
    pub fn put(&self, folder: &Path, prefix: &str) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let key = format!("{prefix}/{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                self.put(&path, &key);
            } else {
                self.bucket().objects.insert(key, fs::read(path).unwrap());
            }
        }
    }

    /// The keys below a prefix.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.bucket().objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Gives a program the address and credentials of the store.
    pub fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", self.address())
            .env("GOOGLE_SERVICE_ACCOUNT", self.account.path())
    }
}

/// Answers one request on a connection that stays open.
fn answer(stream: &TcpStream, shared: &Mutex<Bucket>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut range, mut condition): (usize, Option<String>, Condition) = (0, None, None);
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "range" => range = value.strip_prefix("bytes=").map(str::to_owned),
            // "None" stands for an object that does not exist, for Google's store 0.
            "if-none-match" | "if-match" | "x-goog-if-generation-match" => {
                condition = Some(value.trim_matches(['"', '*']).parse().ok().filter(|&version| version > 0));
            }
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let path = decoded(path);
    let (_bucket, key) = path[1..].split_once('/').unwrap_or_default();
    let key = key.to_owned();
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bucket = lock();
    // A part is refused when the first one is there.
    let number = argument(query, "partNumber").and_then(|number| number.parse().ok());
    while bucket.refuses(number) && !bucket.parts.contains_key(&(key.clone(), 1)) {
        drop(bucket);
        std::thread::sleep(Duration::from_millis(5));
        bucket = lock();
    }
    if bucket.is_inside(&key, range.as_deref()) && bucket.held.is_some() {
        bucket.held = bucket.held.map(|waiting| waiting + 1);
        while bucket.held.is_some() {
            drop(bucket);
            std::thread::sleep(Duration::from_millis(5));
            bucket = lock();
        }
    }
    if method != "GET" && method != "HEAD" && bucket.stalls(&key, query, &body) {
        return None;
    }
    let (status, headers, content) = if bucket.failures > 0 {
        bucket.failures -= 1;
        ("503 Slow Down", Vec::new(), Vec::new())
    } else {
        bucket.answer(&method, &key, query, range.as_deref(), condition, body)
    };
    let sent = if method == "HEAD" { 0 } else { content.len() };
    bucket.requests.push((method.clone(), key, sent));
    drop(bucket);
    let headers: String = headers.iter().map(|header: &String| format!("{header}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", content.len());
    let mut to = stream;
    to.write_all(head.as_bytes()).and_then(|()| to.write_all(&content[..sent])).ok()
}

type Answer = (&'static str, Vec<String>, Vec<u8>);

/// An argument of a request.
fn argument(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).map(decoded)
}

impl Bucket {
    /// Whether a range ends before the object does.
    fn is_inside(&self, key: &str, range: Option<&str>) -> bool {
        let last = range.and_then(|range| range.split_once('-')?.1.parse::<usize>().ok());
        let length = self.objects.get(key).map(Vec::len);
        last.zip(length).is_some_and(|(last, length)| last + 1 < length)
    }

    /// Whether a part of an upload is to be refused.
    fn refuses(&self, part: Option<u32>) -> bool {
        self.refused.zip(part).is_some_and(|(from, part)| part >= from)
    }

    /// Counts a change; whether it is one too many for its folder, and must not be answered.
    fn stalls(&mut self, key: &str, query: &str, body: &[u8]) -> bool {
        // Several objects at once are removed by a list of their keys.
        let listed = String::from_utf8_lossy(body);
        let listed = listed.split_once("<Key>").and_then(|(_, rest)| rest.split_once("</Key>"));
        let changed = listed.filter(|_| query.starts_with("delete")).map_or(key, |(key, _)| key);
        let folder = changed.rsplit_once('/').map_or("", |(folder, _)| folder);
        let Some(left) = self.limits.get_mut(folder) else { return false };
        if *left == 0 {
            self.stalled.push(folder.to_owned());
            return true;
        }
        *left -= 1;
        false
    }

    fn answer(
        &mut self,
        method: &str,
        key: &str,
        query: &str,
        range: Option<&str>,
        condition: Condition,
        body: Vec<u8>,
    ) -> Answer {
        if query.contains("list-type=2") {
            let prefix = argument(query, "prefix").unwrap_or_default();
            let after = argument(query, "start-after").unwrap_or_default();
            let page = self.list(&prefix, &after, argument(query, "delimiter").is_some());
            return ("200 OK", Vec::new(), page.into_bytes());
        }
        let refused = ("403 Forbidden", Vec::new(), Vec::new());
        let part = argument(query, "partNumber").and_then(|number| number.parse().ok());
        match (method, part) {
            ("POST", _) if query.starts_with("uploads") => {
                let page =
                    "<InitiateMultipartUploadResult><UploadId>7</UploadId></InitiateMultipartUploadResult>";
                ("200 OK", Vec::new(), page.into())
            }
            ("POST", _) if query.starts_with("delete") => {
                let body = String::from_utf8_lossy(&body).into_owned();
                let keys = body.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
                let mut page = String::from("<DeleteResult>");
                for (key, _) in keys {
                    self.remove(key);
                    page.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
                }
                ("200 OK", Vec::new(), (page + "</DeleteResult>").into_bytes())
            }
            ("POST", _) if self.refused.is_some() => refused,
            ("POST", _) => {
                let parts: Vec<_> = self.parts.keys().filter(|(of, _)| of == key).cloned().collect();
                self.assembled.push((key.to_owned(), parts.len()));
                let whole = parts.iter().filter_map(|part| self.parts.remove(part)).flatten().collect();
                self.write(key, whole);
                let page =
                    "<CompleteMultipartUploadResult><ETag>\"1\"</ETag></CompleteMultipartUploadResult>";
                ("200 OK", Vec::new(), page.into())
            }
            ("PUT", Some(_)) if self.refuses(part) => refused,
            ("PUT", Some(number)) => {
                self.parts.insert((key.to_owned(), number), body);
                ("200 OK", vec!["ETag: \"1\"".to_owned()], Vec::new())
            }
            ("PUT", None) if condition.is_some_and(|version| version != self.versions.get(key).copied()) => {
                ("412 Precondition Failed", Vec::new(), Vec::new())
            }
            ("PUT", None) => {
                self.write(key, body);
                ("200 OK", self.about(key), Vec::new())
            }
            ("DELETE", _) if query.contains("uploadId") => {
                self.parts.retain(|(of, _), _| of != key);
                ("204 No Content", Vec::new(), Vec::new())
            }
            ("DELETE", _) => {
                self.remove(key);
                ("204 No Content", Vec::new(), Vec::new())
            }
            _ => self.read(key, range),
        }
    }

    /// Writes an object.
    pub fn write(&mut self, key: &str, bytes: Vec<u8>) {
        self.written.push(key.to_owned());
        self.versions.insert(key.to_owned(), self.written.len());
        self.objects.insert(key.to_owned(), bytes);
    }

    fn remove(&mut self, key: &str) {
        self.objects.remove(key);
        self.versions.remove(key);
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

    fn read(&self, key: &str, range: Option<&str>) -> Answer {
        let Some(bytes) = self.objects.get(key) else { return ("404 Not Found", Vec::new(), Vec::new()) };
        let mut headers = self.about(key);
        let Some((from, to)) = range.and_then(|range| range.split_once('-')) else {
            return ("200 OK", headers, bytes.clone());
        };
        let from = from.parse().unwrap_or(0);
        let to = to.parse().map_or(bytes.len(), |to: usize| to + 1).min(bytes.len());
        headers.push(format!("Content-Range: bytes {from}-{}/{}", to - 1, bytes.len()));
        ("206 Partial Content", headers, bytes[from..to].to_vec())
    }

    fn list(&self, prefix: &str, after: &str, by_folder: bool) -> String {
        let mut page = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
        let mut folders = Vec::new();
        for (key, bytes) in
            self.objects.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after)
        {
            match key[prefix.len()..].split_once('/').filter(|_| by_folder) {
                Some((folder, _)) => folders.push(format!("{prefix}{folder}/")),
                None => page.push_str(&format!(
                    "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-01-01T00:00:00Z</LastModified>\
                     <ETag>\"1\"</ETag></Contents>",
                    bytes.len()
                )),
            }
        }
        folders.dedup();
        for folder in folders {
            page.push_str(&format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"));
        }
        page + "<IsTruncated>false</IsTruncated></ListBucketResult>"
    }
}

/// Decodes a percent-encoded key.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = std::str::from_utf8(after.get(..2).unwrap_or_default()).unwrap_or_default();
        match u8::from_str_radix(code, 16) {
            Ok(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
