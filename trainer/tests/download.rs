//! `trainer weights` with a local server that drops connections, sends wrong data and changes its file.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};
use trainer::Silent;
use trainer::weights::download::download;

/// The response to one connection.
#[derive(Clone, Copy)]
enum Answer {
    /// The requested range, truncated to this many bytes.
    Ranges(usize),
    /// The whole file regardless of the request, truncated to this many bytes.
    Whole(usize),
    Status(&'static str),
    /// More bytes than the length in the header.
    TooMany,
    /// Another part of the file than the requested one.
    Elsewhere,
    /// The requested range is beyond the end of the file.
    Beyond,
}

const ALL: usize = usize::MAX;

struct Server {
    address: String,
    /// The headers of the requests, in order.
    asked: Arc<Mutex<Vec<String>>>,
}

/// Responds to the i-th connection with `answers[i]`: the response, and the content of the file.
fn serve(answers: Vec<(Answer, Vec<u8>)>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/models/tower.pth", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&asked);
    thread::spawn(move || {
        for (answer, file) in answers {
            let (stream, _) = listener.accept().unwrap();
            let head = head(&stream);
            heads.lock().unwrap().push(head.clone());
            let _ = respond(stream, answer, &file, &head);
        }
    });
    Server { address, asked }
}

fn head(stream: &TcpStream) -> String {
    let mut head = String::new();
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        if line.is_empty() {
            break;
        }
        head.push_str(&line.to_lowercase());
        head.push('\n');
    }
    head
}

fn respond(mut stream: TcpStream, answer: Answer, file: &[u8], head: &str) -> std::io::Result<()> {
    let tag = format!("\"{:x}\"", Sha256::digest(file)[0]);
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let start: Option<usize> =
        header("range: bytes=").and_then(|range| range.trim_end_matches('-').parse().ok());
    let start = start.filter(|_| header("if-range:").is_none_or(|wanted| wanted == tag));
    let close = format!("etag: {tag}\r\nconnection: close\r\n\r\n");
    match (answer, start) {
        (Answer::Status(status), _) => write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n{close}"),
        (Answer::Ranges(most), Some(start)) => {
            let part = &file[start..];
            let of = format!("bytes {start}-{}/{}", file.len() - 1, file.len());
            let length = part.len();
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\ncontent-range: {of}\r\ncontent-length: {length}\r\n{close}"
            )?;
            stream.write_all(&part[..most.min(length)])
        }
        (Answer::Beyond, _) => {
            let length = file.len();
            write!(
                stream,
                "HTTP/1.1 416 Range Not Satisfiable\r\ncontent-range: bytes */{length}\r\ncontent-length: 0\r\n{close}"
            )
        }
        (Answer::Elsewhere, _) => {
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 1-4/5\r\ncontent-length: 4\r\n{close}"
            )?;
            stream.write_all(b"1234")
        }
        (Answer::TooMany, _) => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{close}", file.len() / 2)?;
            stream.write_all(file)
        }
        (Answer::Ranges(most) | Answer::Whole(most), _) => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{close}", file.len())?;
            stream.write_all(&file[..most.min(file.len())])
        }
    }
}

/// 300,000 pseudo-random bytes.
fn file(seed: u8) -> Vec<u8> {
    (0..300_000u64).map(|i| ((i.wrapping_mul(6_364_136_223_846_793_005) >> 33) as u8) ^ seed).collect()
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Folder {
    folder: tempfile::TempDir,
    out: PathBuf,
}

fn folder() -> Folder {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tower.pth");
    Folder { folder, out }
}

impl Folder {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn a_dropped_connection_goes_on_where_it_broke_off() {
    let bytes = file(0);
    let here = folder();
    let server = serve(vec![
        (Answer::Ranges(100_000), bytes.clone()),
        (Answer::Status("503 Service Unavailable"), bytes.clone()),
        (Answer::Ranges(50_000), bytes.clone()),
        (Answer::Ranges(ALL), bytes.clone()),
    ]);
    let done = download(&server.address, &here.out, Some(&hash(&bytes)), &Silent).unwrap();
    assert_eq!((done.bytes, done.sha256), (300_000, hash(&bytes)));
    assert!(fs::read(&here.out).unwrap() == bytes);
    assert_eq!(here.names(), ["tower.pth", "tower.pth.sha256"]);
    let asked = server.asked.lock().unwrap();
    let ranges: Vec<bool> = asked.iter().map(|head| head.contains("range: bytes=")).collect();
    assert_eq!(ranges, [false, true, true, true]);
    assert!(asked[3].contains("range: bytes=150000-"), "{}", asked[3]);
}

#[test]
fn a_later_call_goes_on_and_a_third_fetches_nothing() {
    let bytes = file(1);
    let here = folder();
    let refused = serve(vec![
        (Answer::Ranges(120_000), bytes.clone()),
        (Answer::Status("403 Forbidden"), bytes.clone()),
    ]);
    let error = download(&refused.address, &here.out, None, &Silent).unwrap_err().to_string();
    assert!(error.contains("403 Forbidden") && error.contains(&refused.address), "{error}");
    assert_eq!(here.names(), ["tower.pth.part", "tower.pth.part.version"]);

    let server = serve(vec![(Answer::Ranges(ALL), bytes.clone())]);
    let done = download(&server.address, &here.out, None, &Silent).unwrap();
    assert_eq!((done.resumed_from, done.bytes, done.was_there), (120_000, 300_000, false));
    assert!(fs::read(&here.out).unwrap() == bytes);

    // The server accepts no further connection.
    let again = download(&server.address, &here.out, None, &Silent).unwrap();
    assert!(again.was_there);
    fs::write(&here.out, b"edited").unwrap();
    let error = download(&server.address, &here.out, None, &Silent).unwrap_err().to_string();
    assert!(error.contains("exists already and is a different file"), "{error}");
}

#[test]
fn parts_of_two_versions_are_never_joined() {
    let (old, new) = (file(2), file(3));
    let here = folder();
    let server = serve(vec![(Answer::Ranges(90_000), old), (Answer::Ranges(ALL), new.clone())]);
    download(&server.address, &here.out, Some(&hash(&new)), &Silent).unwrap();
    assert!(fs::read(&here.out).unwrap() == new);
}

#[test]
fn a_file_that_was_whole_before_the_end_is_not_fetched_again() {
    let bytes = file(8);
    let here = folder();
    fs::write(here.folder.path().join("tower.pth.part"), &bytes).unwrap();
    fs::write(here.folder.path().join("tower.pth.part.version"), "\"tag\"").unwrap();
    let server = serve(vec![(Answer::Beyond, bytes.clone())]);
    let done = download(&server.address, &here.out, Some(&hash(&bytes)), &Silent).unwrap();
    assert_eq!(done.resumed_from, 300_000);
    assert!(server.asked.lock().unwrap()[0].contains("range: bytes=300000-"));
}

#[test]
fn a_server_without_ranges_is_asked_for_the_whole_again() {
    let bytes = file(4);
    let here = folder();
    let server = serve(vec![(Answer::Whole(200_000), bytes.clone()), (Answer::Whole(ALL), bytes.clone())]);
    download(&server.address, &here.out, Some(&hash(&bytes)), &Silent).unwrap();
    assert!(fs::read(&here.out).unwrap() == bytes);
}

#[test]
fn what_is_not_the_file_leaves_nothing() {
    let bytes = file(5);
    for (answer, reason) in [
        (Answer::Whole(ALL), "the SHA-256 of the downloaded file is"),
        (Answer::Status("404 Not Found"), "404 Not Found"),
        (Answer::Elsewhere, "another part of the file"),
    ] {
        let here = folder();
        let server = serve(vec![(answer, bytes.clone())]);
        let error =
            download(&server.address, &here.out, Some(&hash(b"other")), &Silent).unwrap_err().to_string();
        assert!(error.contains(reason) && !error.contains('\n'), "{error}");
        assert!(here.names().is_empty(), "{reason}: {:?}", here.names());
    }
}

#[test]
fn bytes_beyond_the_length_are_not_taken() {
    let bytes = file(6);
    let here = folder();
    let server = serve(vec![(Answer::TooMany, bytes.clone())]);
    // HTTP ends the body at the given length; the hash shows that half of the file is missing.
    assert!(download(&server.address, &here.out, Some(&hash(&bytes)), &Silent).is_err());
    assert!(!here.out.exists());
}

#[test]
fn the_program_fetches_by_url_and_knows_the_published_names() {
    let trainer = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_trainer")).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let bytes = file(7);
    let here = folder();
    let out = here.out.to_str().unwrap();
    let server = serve(vec![(Answer::Ranges(ALL), bytes.clone())]);
    let (code, printed, _) = trainer(&["weights", "--from-url", &server.address, "--out", out]);
    assert_eq!(code, Some(0));
    assert!(printed.contains(&hash(&bytes)), "{printed}");
    assert_eq!(
        fs::read_to_string(format!("{out}.sha256")).unwrap(),
        format!("{}  tower.pth\n", hash(&bytes))
    );

    let (code, listed, _) = trainer(&["weights"]);
    assert_eq!(code, Some(0));
    assert!(
        listed.contains("dinov2_vitb14_reg") && listed.contains("https://dl.fbaipublicfiles.com/dinov2/")
    );
    let (code, _, error) = trainer(&["weights", "dinov2_vitx14"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("dinov2_vitx14"), "{error}");
}
