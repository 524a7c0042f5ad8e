//! `ingest refresh`: what has become of images, by conditional requests.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::common::{code, contents, errors, ingest, jpeg, summary, table};

/// The headers of a request, names in lower case.
type Headers = HashMap<String, String>;

/// A server that sees the headers of requests; what it answers changes once.
struct Server {
    port: u16,
    later: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<(String, Headers)>>>,
}

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (later, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default());
        let server = Self { port, later: Arc::clone(&later), seen: Arc::clone(&seen) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (later, seen) = (Arc::clone(&later), Arc::clone(&seen));
                thread::spawn(move || serve(stream, later.load(Ordering::Relaxed), &seen));
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The headers of the requests for each path since the last time.
    fn seen(&self) -> BTreeMap<String, Headers> {
        std::mem::take(&mut *self.seen.lock().unwrap()).into_iter().collect()
    }
}

fn serve(stream: TcpStream, later: bool, seen: &Mutex<Vec<(String, Headers)>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let mut headers = Headers::new();
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    seen.lock().unwrap().push((path.clone(), headers.clone()));
    let asked = |name: &str, value: &str| headers.get(name).is_some_and(|asked| asked == value);
    let same = jpeg(40, 30, path.len() as u32);
    let other = || jpeg(50, 30, 9);
    let date = format!("Last-Modified: {DATE}");
    // Status, headers, body.
    let ok = |headers: &[&str], body: Vec<u8>| ("200 OK", headers.join("\r\n"), body);
    let unchanged = |headers: &[&str]| ("304 Not Modified", headers.join("\r\n"), Vec::new());
    let (status, more, body) = match (path.as_str(), later) {
        ("/tagged", _) if asked("if-none-match", "\"a\"") => unchanged(&["ETag: \"a\""]),
        ("/tagged", _) => ok(&["ETag: \"a\""], same),
        ("/dated", _) if asked("if-modified-since", DATE) => unchanged(&[]),
        ("/dated", _) => ok(&[&date], same),
        ("/plain", _) | ("/gone" | "/withdrawn" | "/refused" | "/down", false) => ok(&[], same),
        ("/edited", false) => ok(&["ETag: \"old\"", &date], same),
        ("/edited", true) => ok(&["ETag: \"new\""], other()),
        ("/withdrawn", true) => ("410 Gone", String::new(), Vec::new()),
        ("/refused", true) => ok(&["X-Robots-Tag: noai"], same),
        ("/reserved", false) => ok(&["ETag: \"r\""], same),
        ("/reserved", true) => unchanged(&["tdm-reservation: 1"]),
        ("/down", true) => ("503 Service Unavailable", String::new(), Vec::new()),
        ("/moved", _) => ("302 Found", "Location: /there\r\nETag: \"of-redirect\"".to_owned(), Vec::new()),
        ("/there", _) if asked("if-none-match", "\"t\"") => unchanged(&[]),
        ("/there", _) => ok(&["ETag: \"t\""], same),
        _ => ("404 Not Found", String::new(), Vec::new()),
    };
    let more = if more.is_empty() { more } else { more + "\r\n" };
    let head =
        format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let mut stream = stream;
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

const PATHS: [&str; 12] = [
    "/tagged",
    "/dated",
    "/plain",
    "/edited",
    "/gone",
    "/withdrawn",
    "/refused",
    "/reserved",
    "/down",
    "/moved",
    "/removed",
    "/missing",
];

#[test]
fn images_are_unchanged_changed_gone_or_opted_out_and_the_set_stays_as_it_is() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let (list, deny) = (folder.path().join("list.csv"), folder.path().join("deny.txt"));
    let rows: String = PATHS.iter().map(|path| format!("{},a dog\n", server.url(path))).collect();
    fs::write(&list, format!("url,caption\n{rows}")).unwrap();
    fs::write(&deny, server.url("/removed")).unwrap();
    for hash in ["sha256", "none"] {
        server.later.store(false, Ordering::Relaxed);
        let set = folder.path().join(hash);
        let path = set.to_str().unwrap();
        let mut arguments =
            vec!["download", list.to_str().unwrap(), "--out", path, "--allow-private", "--json"];
        arguments.extend(["--shard-size", "5", "--compute-hash", hash, "--deny", deny.to_str().unwrap()]);
        let output = ingest(&arguments);
        assert_eq!(
            [&summary(&output)["successes"], &summary(&output)["removed"]],
            [10, 1],
            "{}",
            errors(&output)
        );
        let before = contents(&set);
        server.seen();
        server.later.store(true, Ordering::Relaxed);
        let refreshed = folder.path().join(format!("refreshed-{hash}"));
        let refresh = |more: &[&str]| refresh(&set, &refreshed, more);
        let (counts, rows) = refresh(&[]);
        assert!(contents(&set) == before, "nothing is changed");
        let same = if hash == "none" { "unknown" } else { "unchanged" };
        let edited = if hash == "none" { "unknown" } else { "changed" };
        let expected = [
            "unchanged",
            "unchanged",
            same,
            edited,
            "gone",
            "gone",
            "opted_out",
            "opted_out",
            "failed",
            "unchanged",
        ];
        let found: Vec<&str> = rows.iter().map(|row| row["status"].as_str()).collect();
        assert_eq!(found, expected);
        assert_eq!([&counts["gone"], &counts["opted_out"], &counts["failed"]], [2, 2, 1], "{counts}");
        assert_eq!([&counts["shards"], &counts["shards_asked"]], [3, 3], "{counts}");
        let of: Vec<(&str, &str)> =
            rows.iter().map(|row| (row["shard"].as_str(), row["key"].as_str())).collect();
        assert_eq!((of[0], of[9]), (("00000.tar", "000000"), ("00001.tar", "000014")));
        assert_eq!(rows[4]["error_message"], "HTTP Error 404: Not Found");
        assert_eq!(rows[7]["opt_outs"], "tdm-reservation");
        assert_eq!(
            (rows[3].get("etag"), rows[8]["error_message"].as_str()),
            (Some(&"\"new\"".to_owned()), "HTTP Error 503: Service Unavailable")
        );
        assert!(rows[0].contains_key("fetched") && rows[9]["final_url"].ends_with("/there"));
        // What was sent: validators to the URL that had sent them, and to no other. Removed and failed rows are not asked for.
        let seen = server.seen();
        let asked = |path: &str, name: &str| seen[path].get(name).map(String::as_str);
        assert_eq!(
            (asked("/tagged", "if-none-match"), asked("/dated", "if-modified-since")),
            (Some("\"a\""), Some(DATE))
        );
        assert_eq!(
            (asked("/edited", "if-none-match"), asked("/edited", "if-modified-since")),
            (Some("\"old\""), Some(DATE))
        );
        assert_eq!(
            (asked("/moved", "if-none-match"), asked("/there", "if-none-match")),
            (None, Some("\"t\""))
        );
        assert_eq!(asked("/plain", "if-none-match"), None);
        assert!(!seen.contains_key("/removed") && !seen.contains_key("/missing"));
        // A run that was stopped goes on with the shards that have no table; --force asks for all.
        fs::remove_file(refreshed.join("00001.parquet")).unwrap();
        let (again, same_rows) = refresh(&[]);
        assert_eq!([&again["shards_asked"], &again["gone"], &again["failed"]], [1, 2, 1], "{again}");
        let of = |rows: &[BTreeMap<String, String>]| -> Vec<(String, String)> {
            rows.iter().map(|row| (row["key"].clone(), row["status"].clone())).collect()
        };
        assert_eq!(of(&same_rows), of(&rows));
        let seen = server.seen();
        let asked: Vec<&str> = seen.keys().map(String::as_str).collect();
        assert_eq!(asked, ["/down", "/moved", "/refused", "/reserved", "/there", "/withdrawn"]);
        // An opt-out that is ignored is no reason.
        let (_, ignoring) = refresh(&["--force", "--ignore-opt-out", "noai"]);
        assert_eq!(ignoring[6]["status"], same);
        // The tables are a list of what to remove.
        refresh(&["--force"]);
        let list = refreshed.to_str().unwrap();
        let output = ingest(&["prune", path, "--keys", list, "--status", "gone,opted_out", "--json"]);
        assert_eq!(summary(&output)["removed"], 4, "{}", errors(&output));
        assert_eq!(code(&ingest(&["verify", path])), 0);
        server.seen();
        // The shards with removed samples have changed, so they are asked for again.
        let (counts, rows) = refresh(&[]);
        assert_eq!((rows.len(), &counts["shards_asked"]), (6, &2.into()));
        assert!(!server.seen().contains_key("/gone"));
        // Jobs share the folder.
        fs::remove_dir_all(&refreshed).unwrap();
        let parts = ["0", "1"].map(|index| refresh(&["--index", index, "--count", "2"]).1.len());
        assert_eq!(parts, [4, 6]);
    }
}

/// The summary and the rows of all tables.
fn refresh(set: &Path, out: &Path, more: &[&str]) -> (Value, Vec<BTreeMap<String, String>>) {
    let [set, folder] = [set, out].map(|path| path.to_str().unwrap());
    let arguments = ["refresh", set, "--out", folder, "--allow-private", "--retries", "0", "--json"];
    let output = ingest(&[&arguments[..], more].concat());
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let mut parts: Vec<_> = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path()).collect();
    parts.sort();
    (summary(&output), parts.iter().flat_map(|part| table(part)).collect())
}

/// A table of the dataset itself must not be replaced by one of `refresh`.
#[test]
fn other_files_are_not_replaced() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let (list, set) = (folder.path().join("list.txt"), folder.path().join("set"));
    fs::write(&list, server.url("/plain")).unwrap();
    let path = set.to_str().unwrap();
    let arguments = ["download", list.to_str().unwrap(), "--out", path, "--allow-private", "--no-captions"];
    assert_eq!(code(&ingest(&arguments)), 0);
    let before = contents(&set);
    server.seen();
    let output = ingest(&["refresh", path, "--out", path, "--force", "--allow-private"]);
    let error = crate::common::error_line(&output);
    assert!(
        error.contains("00000.parquet: is not a table of `ingest refresh`") && error.contains("--out"),
        "{error}"
    );
    assert!(contents(&set) == before && server.seen().is_empty());
}

#[test]
fn shards_without_a_table_are_refused_before_anything_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set");
    fs::create_dir(&set).unwrap();
    fs::write(set.join("00000.tar"), [0; 1024]).unwrap();
    let out = folder.path().join("out.parquet");
    let output = ingest(&["refresh", set.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(crate::common::error_line(&output).contains("00000.tar: has no table"), "{}", errors(&output));
    assert!(!out.exists());
}
