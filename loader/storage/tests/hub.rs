//! Bearer tokens, the Hugging Face Hub, and servers that cannot be reached. Tokens and the hub's address come from the
//! environment, so each test runs in a separate process: this program again, with the arguments to run one test.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use storage::{Location, Source};

/// Environment variable: what the other process does.
const WORK: &str = "LOADER_TEST_HUB";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Requests that a server got: method and path, and the value of the header `Authorization`.
type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// Status line, headers, body.
type Reply = (String, Vec<String>, Vec<u8>);

/// A server that answers each request with what `reply` returns for its method, path and range.
fn serve(reply: impl Fn(&str, &str, Option<&str>) -> Reply + Send + Sync + 'static) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let (shared, reply) = (Arc::clone(&seen), Arc::new(reply));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (seen, reply) = (Arc::clone(&shared), Arc::clone(&reply));
            thread::spawn(move || while answer(&stream, &seen, &*reply).is_some() {});
        }
    });
    (port, seen)
}

fn answer(
    mut stream: &TcpStream,
    seen: &Seen,
    reply: &dyn Fn(&str, &str, Option<&str>) -> Reply,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    seen.lock().unwrap().push((format!("{method} {path}"), headers.get("authorization").cloned()));
    let range = headers.get("range").map(String::as_str);
    let (status, more, body) = reply(&method, &path, range);
    let more: String = more.iter().map(|header| format!("{header}\r\n")).collect();
    write!(stream, "HTTP/1.1 {status}\r\n{more}content-length: {}\r\n\r\n", body.len()).ok()?;
    if method == "HEAD" { Some(()) } else { stream.write_all(&body).ok() }
}

fn part(body: &[u8], range: Option<&str>) -> Reply {
    let date = "last-modified: Thu, 01 Jan 2026 00:00:00 GMT".to_owned();
    let Some(range) = range else { return ("200 OK".into(), vec![date], body.to_vec()) };
    let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
    let about = format!("content-range: bytes {from}-{to}/{}", body.len());
    ("206 Partial Content".into(), vec![date, about], body[from..=to].to_vec())
}

/// Runs one kind of [`work`] in another process.
fn other(work: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "hub::child", "--nocapture"]).env(WORK, work);
    for name in ["HF_TOKEN", "HF_ENDPOINT", "LOADER_HTTP_TOKENS", "LOADER_RETRY_SECONDS"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).output().unwrap()
}

/// The work of the other process.
#[test]
fn child() {
    let Ok(work) = env::var(WORK) else {
        println!("skipped: runs only as a part of the other tests");
        return;
    };
    let (what, address) = work.split_once(' ').unwrap();
    storage::report_to(|message| eprintln!("{message}"));
    let place = Location::from(address);
    match what {
        "read" => match storage::read(place) {
            Ok(bytes) => println!("got {:?}", String::from_utf8_lossy(&bytes)),
            Err(error) => println!("failed: {error}"),
        },
        "list" => println!("failed: {}", storage::list(place).unwrap_err()),
        "hub" => {
            let file = |name: &str| place.join(name);
            let large = Source::open(file("a/large.tar")).unwrap();
            assert_eq!(large.len(), 3000);
            assert_eq!(&*large.read(1000, 3).unwrap(), b"xyz");
            assert_eq!(storage::read_text(file("small.txt")).unwrap(), "small");
            assert!(!storage::exists(file("missing.txt")).unwrap());
            let names = |files: Vec<Location>| -> Vec<String> {
                files.iter().map(|file| file.relative_to(&place).unwrap().display().to_string()).collect()
            };
            assert_eq!(names(storage::list(&place).unwrap()), ["small.txt"]);
            assert_eq!(names(storage::list_all(&place).unwrap()), ["a/b/1.txt", "a/large.tar", "small.txt"]);
            assert!(storage::is_folder(file("a")).unwrap());
            let refused = storage::write(file("new.txt"), "x").unwrap_err().to_string();
            assert!(refused.contains("hf:// can be read only"), "{refused}");
            println!("done");
        }
        _ => unreachable!(),
    }
}

/// A dataset on a hub that wants a token, with its large file on another host.
#[test]
fn the_hub_is_read_with_its_token_and_the_token_goes_nowhere_else() {
    let large: Vec<u8> =
        (0..3000).map(|i| if (1000..1003).contains(&i) { b"xyz"[i - 1000] } else { b'-' }).collect();
    let (contents, of_contents) = serve(move |_, _, range| part(&large, range));
    let (hub, of_hub) = serve(move |_, path, range| {
        let found = |body: &str| ("200 OK".to_owned(), Vec::new(), body.as_bytes().to_vec());
        let at = format!("/datasets/o/n/resolve/{COMMIT}/");
        let tree = format!("/api/datasets/o/n/tree/{COMMIT}");
        let file = |path: &str| format!("{{\"type\": \"file\", \"path\": \"{path}\", \"size\": 1}}");
        let folder = |path: &str| format!("{{\"type\": \"directory\", \"path\": \"{path}\", \"size\": 0}}");
        match path.strip_prefix(&at) {
            Some("small.txt") => return part(b"small", range),
            Some("a/large.tar") => {
                let place = format!("location: http://localhost:{contents}/large?signature=1");
                return ("302 Found".to_owned(), vec![place], Vec::new());
            }
            _ => {}
        }
        if path == "/api/datasets/o/n/revision/v%2F1" {
            return found(&format!("{{\"sha\": \"{COMMIT}\"}}"));
        }
        if path == tree {
            return found(&format!("[{}, {}]", folder("a"), file("small.txt")));
        }
        if path == format!("{tree}?recursive=true") {
            // The list comes in pages.
            let next = format!("link: <{tree}?recursive=true&cursor=2>; rel=\"next\"");
            let page = format!("[{}, {}, {}]", folder("a"), folder("a/b"), file("a/b/1.txt"));
            return ("200 OK".to_owned(), vec![next], page.into_bytes());
        }
        if path == format!("{tree}?recursive=true&cursor=2") {
            return found(&format!("[{}, {}]", file("a/large.tar"), file("small.txt")));
        }
        if path == format!("{tree}/a") {
            return found(&format!("[{}]", file("a/large.tar")));
        }
        ("404 Not Found".to_owned(), Vec::new(), Vec::new())
    });
    let endpoint = format!("http://127.0.0.1:{hub}");
    let variables = [("HF_ENDPOINT", endpoint.as_str()), ("HF_TOKEN", "hf_secret")];
    let output = other("hub hf://datasets/o/n@v%2F1", &variables);
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("done"), "{said}");
    assert!(!said.contains("hf_secret"), "{said}");
    let of_hub = of_hub.lock().unwrap();
    assert!(of_hub.iter().all(|(_, token)| token.as_deref() == Some("Bearer hf_secret")), "{of_hub:?}");
    let revisions = of_hub.iter().filter(|(request, _)| request.contains("/revision/")).count();
    assert_eq!(revisions, 1, "the revision is looked up once");
    let of_contents = of_contents.lock().unwrap();
    assert!(
        !of_contents.is_empty() && of_contents.iter().all(|(_, token)| token.is_none()),
        "{of_contents:?}"
    );
}

#[test]
fn a_token_is_sent_to_its_host_alone() {
    let (other_host, of_other) = serve(|_, _, range| part(b"elsewhere", range));
    let (host, of_host) = serve(move |_, path, range| match path {
        "/away" => {
            ("302 Found".to_owned(), vec![format!("location: http://127.0.0.1:{other_host}/x")], Vec::new())
        }
        "/denied" => ("401 Unauthorized".to_owned(), Vec::new(), b"who are you".to_vec()),
        _ => part(b"here", range),
    });
    let tokens = format!("localhost:{other_host}=wrong, 127.0.0.1:{host}=secret1,broken,x y=secret2");
    let variables = [("LOADER_HTTP_TOKENS", tokens.as_str())];
    for (path, expected) in
        [("file", "got \"here\""), ("away", "got \"elsewhere\""), ("denied", "denies access")]
    {
        let output = other(&format!("read http://127.0.0.1:{host}/{path}"), &variables);
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(said.contains(expected), "{path}: {said}");
        assert!(said.contains("warning: entry 3 of LOADER_HTTP_TOKENS is not used"), "{said}");
        assert!(!said.contains("secret"), "{path}: {said}");
    }
    let requests = of_host.lock().unwrap().clone();
    assert!(requests.iter().all(|(_, token)| token.as_deref() == Some("Bearer secret1")), "{requests:?}");
    let of_other = of_other.lock().unwrap();
    assert!(!of_other.is_empty() && of_other.iter().all(|(_, token)| token.is_none()), "{of_other:?}");
    // Without a token nothing is sent, and the message names the variable.
    let output = other(&format!("read http://127.0.0.1:{host}/denied"), &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("LOADER_HTTP_TOKENS"), "{said}");
}

#[test]
fn a_server_without_lists_is_asked_once() {
    let (port, seen) = serve(|_, _, _| ("501 Not Implemented".to_owned(), Vec::new(), Vec::new()));
    let output = other(&format!("list http://127.0.0.1:{port}/set"), &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("cannot list the files of a folder") && said.contains("{00000..00009}.tar"),
        "{said}"
    );
    assert_eq!(seen.lock().unwrap().len(), 1);
}

/// The first line about a server comes long before the last try.
#[test]
fn a_server_that_cannot_be_reached_is_reported_while_it_is_tried_again() {
    // A port on which nothing listens.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // A server that takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let (busy, _) = serve(|_, _, _| ("503 Slow Down".to_owned(), Vec::new(), Vec::new()));
    for (port, reason, scheme) in [
        (closed, "Connection refused", "http"),
        (busy, "it answers 503", "http"),
        (silent_port, "no answer so far", "http"),
        (closed, "Connection refused", "hf"),
    ] {
        let address = if scheme == "hf" {
            "hf://datasets/o/n/x".to_owned()
        } else {
            format!("http://127.0.0.1:{port}/x")
        };
        let endpoint = format!("http://127.0.0.1:{port}");
        let started = Instant::now();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "hub::child", "--nocapture"])
            .env(WORK, format!("read {address}"))
            .env("LOADER_RETRY_SECONDS", "120")
            .env("HF_ENDPOINT", endpoint)
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        let expected = format!("cannot reach 127.0.0.1:{port}: {reason}");
        assert!(line.starts_with(&expected) && line.contains("trying for up to 2 minutes"), "{line}");
        assert!(running && started.elapsed() < Duration::from_mins(1), "{scheme} {reason}");
    }
    drop(silent);
}

#[test]
fn a_password_in_an_address_is_not_in_errors() {
    for (status, expected) in
        [("403 Forbidden", "denies access"), ("410 Gone", "410"), ("404 Not Found", "does not exist")]
    {
        let (port, seen) = serve(move |_, _, _| (status.to_owned(), Vec::new(), Vec::new()));
        let error =
            storage::read(format!("http://me:se%40cret@127.0.0.1:{port}/x.tar")).unwrap_err().to_string();
        assert!(!seen.lock().unwrap().is_empty());
        assert!(
            error.contains(expected) && error.contains(&format!("http://127.0.0.1:{port}/x.tar")),
            "{error}"
        );
        assert!(!error.contains("cret") && !error.contains("me:"), "{error}");
    }
}
