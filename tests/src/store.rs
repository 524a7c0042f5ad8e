//! A small S3 server with one bucket, `bucket`, in memory, for tests that run on every machine. `tests/stores.py` runs the
//! programs against full servers of the protocols.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    parts: BTreeMap<(String, u32), Vec<u8>>,
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
        Self { port, bucket }
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
            .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port))
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
            "if-none-match" | "if-match" => condition = Some(value.trim_matches(['"', '*']).parse().ok()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = decoded(path).trim_start_matches("/bucket").trim_start_matches('/').to_owned();
    let mut bucket = shared.lock().unwrap_or_else(PoisonError::into_inner);
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

impl Bucket {
    fn answer(
        &mut self,
        method: &str,
        key: &str,
        query: &str,
        range: Option<&str>,
        condition: Condition,
        body: Vec<u8>,
    ) -> Answer {
        let argument = |name: &str| {
            let value = query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            value.map(decoded)
        };
        if query.contains("list-type=2") {
            let prefix = argument("prefix").unwrap_or_default();
            return ("200 OK", Vec::new(), self.list(&prefix, argument("delimiter").is_some()).into_bytes());
        }
        let done = ("200 OK", vec!["ETag: \"1\"".to_owned()], Vec::new());
        match (method, argument("partNumber")) {
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
            ("POST", _) => {
                let parts: Vec<_> = self.parts.keys().filter(|(of, _)| of == key).cloned().collect();
                let whole = parts.iter().filter_map(|part| self.parts.remove(part)).flatten().collect();
                self.write(key, whole);
                let page =
                    "<CompleteMultipartUploadResult><ETag>\"1\"</ETag></CompleteMultipartUploadResult>";
                ("200 OK", Vec::new(), page.into())
            }
            ("PUT", Some(number)) => {
                self.parts.insert((key.to_owned(), number.parse().unwrap_or(0)), body);
                done
            }
            ("PUT", None) if condition.is_some_and(|version| version != self.versions.get(key).copied()) => {
                ("412 Precondition Failed", Vec::new(), Vec::new())
            }
            ("PUT", None) => {
                self.write(key, body);
                ("200 OK", vec![self.tag(key)], Vec::new())
            }
            ("DELETE", _) => {
                self.remove(key);
                ("204 No Content", Vec::new(), Vec::new())
            }
            _ => self.read(key, range),
        }
    }

    fn write(&mut self, key: &str, bytes: Vec<u8>) {
        self.written.push(key.to_owned());
        self.versions.insert(key.to_owned(), self.written.len());
        self.objects.insert(key.to_owned(), bytes);
    }

    fn remove(&mut self, key: &str) {
        self.objects.remove(key);
        self.versions.remove(key);
    }

    fn tag(&self, key: &str) -> String {
        format!("ETag: \"{}\"", self.versions.get(key).copied().unwrap_or(0))
    }

    fn read(&self, key: &str, range: Option<&str>) -> Answer {
        let Some(bytes) = self.objects.get(key) else { return ("404 Not Found", Vec::new(), Vec::new()) };
        let mut headers = vec!["Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT".to_owned(), self.tag(key)];
        let Some((from, to)) = range.and_then(|range| range.split_once('-')) else {
            return ("200 OK", headers, bytes.clone());
        };
        let from = from.parse().unwrap_or(0);
        let to = to.parse().map_or(bytes.len(), |to: usize| to + 1).min(bytes.len());
        headers.push(format!("Content-Range: bytes {from}-{}/{}", to - 1, bytes.len()));
        ("206 Partial Content", headers, bytes[from..to].to_vec())
    }

    fn list(&self, prefix: &str, by_folder: bool) -> String {
        let mut page = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
        let mut folders = Vec::new();
        for (key, bytes) in self.objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
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
