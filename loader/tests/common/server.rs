//! A file server on 127.0.0.1 that counts the bytes it sends and can be made to fail.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What the server does with a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// The file, or the requested range of it.
    Normal,
    /// This status, without a file.
    Status(u16),
    /// Closes the connection after this many bytes of the response.
    Drop(usize),
    /// Sends chunks of this many bytes, with a pause after each.
    Slow(usize, Duration),
    /// The whole file, whatever range was requested.
    Whole,
}

/// What the server says about the version of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validator {
    /// Always the same date, and in the folder `b`, which stands for an object store, always the same entity tag.
    Constant,
    /// An entity tag of its bytes, which requests with `If-Match` must have.
    Tag,
    /// The same, but the server does not know `If-Match`.
    IgnoredTag,
    /// A weak entity tag, which no `If-Match` matches.
    WeakTag,
    /// A date that follows from its bytes.
    Date,
    /// Nothing.
    None,
}

impl Validator {
    fn header(self, path: &str, file: &[u8]) -> String {
        let sum = file.iter().fold(7_u32, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let constant = "last-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
        match self {
            // Object stores always send an entity tag; plain servers need not.
            Self::Constant if path.starts_with("/b/") => format!("{constant}etag: \"1\"\r\n"),
            Self::Constant => constant.to_owned(),
            Self::Tag | Self::IgnoredTag => format!("{constant}etag: \"{sum}\"\r\n"),
            Self::WeakTag => format!("{constant}etag: W/\"{sum}\"\r\n"),
            Self::Date => {
                let (minute, second) = (sum / 60 % 60, sum % 60);
                format!("last-modified: Thu, 01 Jan 2026 00:{minute:02}:{second:02} GMT\r\n")
            }
            Self::None => String::new(),
        }
    }

    /// Whether a request with this `If-Match` is answered.
    fn allows(self, condition: Option<&String>, header: &str) -> bool {
        match self {
            Self::Tag => condition.is_none_or(|tag| header.contains(tag.as_str())),
            Self::WeakTag => condition.is_none(),
            _ => true,
        }
    }
}

/// Decides the answer, from the number of the request and its path.
type Plan = dyn Fn(usize, &str) -> Answer + Send + Sync;

#[derive(Default)]
struct State {
    requests: usize,
    /// Bytes of responses sent, by path.
    sent: HashMap<String, u64>,
    put: HashMap<String, Vec<u8>>,
}

pub(crate) struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn new(folder: &Path, plan: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(Validator::Constant, folder, plan)
    }

    pub(crate) fn with(
        validator: Validator,
        folder: &Path,
        plan: impl Fn(usize, &str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, stop) = (Arc::<Mutex<State>>::default(), Arc::<AtomicBool>::default());
        let plan: Arc<Plan> = Arc::new(plan);
        let (folder, shared, stopped) = (folder.to_owned(), Arc::clone(&state), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (folder, state, plan) = (folder.clone(), Arc::clone(&shared), Arc::clone(&plan));
                thread::spawn(move || {
                    // Ends with the connection, whoever closes it.
                    let _ = serve(&stream.unwrap(), &folder, validator, &state, &*plan);
                });
            }
        });
        Self { port, state, stop }
    }

    pub(crate) fn url(&self, name: &str) -> PathBuf {
        format!("http://127.0.0.1:{}/{name}", self.port).into()
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.lock().unwrap().requests
    }

    /// Bytes of responses sent for files whose name has this suffix.
    pub(crate) fn sent(&self, suffix: &str) -> u64 {
        let state = self.state.lock().unwrap();
        state.sent.iter().filter(|(path, _)| path.ends_with(suffix)).map(|(_, sent)| sent).sum()
    }

    pub(crate) fn was_put(&self, path: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().put.get(path).cloned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    stream: &TcpStream,
    folder: &Path,
    validator: Validator,
    state: &Mutex<State>,
    plan: &Plan,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut words = first.split_whitespace();
        // Google's protocol escapes the slashes in an object's name.
        let (method, path) = (
            words.next().unwrap_or("").to_owned(),
            words.next().unwrap_or("/").replace("%2F", "/").replace("%2E", "."),
        );
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        if method == "PUT" {
            let length = headers["content-length"].parse().unwrap();
            let mut body = vec![0; length];
            std::io::Read::read_exact(&mut reader, &mut body)?;
            state.lock().unwrap().put.insert(path, body);
            (&*stream).write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        }
        let number = {
            let mut state = state.lock().unwrap();
            state.requests += 1;
            state.requests - 1
        };
        let answer = plan(number, &path);
        let Ok(file) = fs::read(folder.join(path.trim_start_matches('/'))) else {
            (&*stream).write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        };
        if let Answer::Status(code) = answer {
            write!(&*stream, "HTTP/1.1 {code} No\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        }
        let about = validator.header(&path, &file);
        if !validator.allows(headers.get("if-match"), &about) {
            write!(&*stream, "HTTP/1.1 412 Precondition Failed\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        }
        let range = headers.get("range").filter(|_| !matches!(answer, Answer::Whole)).map(|range| {
            let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            let from: usize = from.parse().unwrap();
            from..to.parse::<usize>().map_or(file.len(), |to| (to + 1).min(file.len()))
        });
        if range.as_ref().is_some_and(|range| range.start >= range.end) {
            write!(&*stream, "HTTP/1.1 416 Range Not Satisfiable\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        }
        let body = &file[range.clone().unwrap_or(0..file.len())];
        let status = match &range {
            Some(range) => format!(
                "206 Partial Content\r\ncontent-range: bytes {}-{}/{}",
                range.start,
                range.end - 1,
                file.len()
            ),
            None => "200 OK".to_owned(),
        };
        write!(&*stream, "HTTP/1.1 {status}\r\n{about}content-length: {}\r\n\r\n", body.len())?;
        if method == "HEAD" {
            continue;
        }
        let (end, piece, pause) = match answer {
            Answer::Drop(bytes) => (bytes.min(body.len()), body.len(), Duration::ZERO),
            Answer::Slow(piece, pause) => (body.len(), piece, pause),
            _ => (body.len(), body.len(), Duration::ZERO),
        };
        for piece in body[..end].chunks(piece.max(1)) {
            (&*stream).write_all(piece)?;
            thread::sleep(pause);
        }
        *state.lock().unwrap().sent.entry(path).or_default() += end as u64;
        if end < body.len() {
            return stream.shutdown(std::net::Shutdown::Both);
        }
    }
}
