//! What requests taught: columns of the table, also of samples that failed; opt-outs in headers and in `robots.txt`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};

use crate::common::{Server, code, errors, ingest, jpeg, members, respond, summary, table};

fn download(folder: &Path, urls: &[String], more: &[&str]) -> Output {
    let lines: String = urls.iter().map(|url| format!("{url},a photo of it\n")).collect();
    let (input, out) = (folder.join("list.csv"), folder.join("out"));
    fs::write(&input, format!("url,caption\n{lines}")).unwrap();
    let _ = fs::remove_dir_all(&out);
    let mut arguments = vec!["download", input.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
    arguments.extend(["--image-size", "32", "--retries", "0", "--max-failures", "100%"]);
    arguments.extend(more);
    ingest(&arguments)
}

fn batch(folder: &Path) -> RecordBatch {
    let file = fs::File::open(folder.join("out/00000.parquet")).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    reader.build().unwrap().next().unwrap().unwrap()
}

/// The times of fetching, in milliseconds since 1970.
fn fetched(folder: &Path) -> Vec<Option<i64>> {
    let batch = batch(folder);
    let column = &batch["fetched"];
    assert_eq!(*column.data_type(), DataType::Timestamp(TimeUnit::Millisecond, None));
    column.as_primitive::<TimestampMillisecondType>().iter().collect()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[test]
fn the_table_says_who_answered_when_and_with_what() {
    let long = format!("ETag: \"{}\"", "x".repeat(2000));
    let server = Server::start(move |path, _, stream| {
        let image = jpeg(40, 30, 1);
        match path {
            "/moved" => {
                let headers = ["Location: /there?x=1#part", "ETag: \"of-redirect\""];
                respond(stream, "302 Found", &headers, b"");
            }
            "/there?x=1" => {
                let headers = ["ETag: W/\"a b\"", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"];
                respond(stream, "200 OK", &headers, &image);
            }
            "/long" => respond(stream, "200 OK", &[&long, "X-Robots-Tag: other: noai"], &image),
            "/gone" => respond(stream, "410 Gone", &["ETag: \"gone\"", "X-Robots-Tag: noml"], b""),
            "/broken" => respond(stream, "200 OK", &["tdm-reservation: 0"], b"no image"),
            "/lost" => respond(stream, "302 Found", &["Location: http://127.0.0.1:1/"], b""),
            _ => {}
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let mut urls: Vec<String> =
        ["/long", "/gone", "/broken", "/lost", "/silent"].map(|path| server.url(path)).to_vec();
    urls.insert(0, server.url("/moved").replace("://", "://me:secret@"));
    urls.extend(["not a url".to_owned(), "http://127.0.0.1:1/refused".to_owned()]);
    let before = now();
    let output = download(folder.path(), &urls, &["--allow-private"]);
    assert_eq!(summary(&output)["successes"], 2, "{}", errors(&output));
    let rows = table(&folder.path().join("out/00000.parquet"));
    let texts = ["final_url", "etag", "last_modified", "opt_outs"];
    let row = |at: usize| texts.map(|name| rows[at].get(name).cloned().unwrap_or_default());
    let plain = |path: &str, etag: &str, opt_outs: &str| {
        [server.url(path), etag.to_owned(), String::new(), opt_outs.to_owned()]
    };
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(row(0), [&server.url("/there?x=1#part"), "W/\"a b\"", date, ""]);
    assert_eq!(row(1), plain("/long", "", ""));
    assert_eq!(row(2), plain("/gone", "\"gone\"", "noml"));
    assert_eq!(row(3), plain("/broken", "", ""));
    for (silent, all) in rows.iter().enumerate().skip(4) {
        assert_eq!(row(silent), [""; 4], "{all:?}");
    }
    let times = fetched(folder.path());
    assert!(
        times[..4].iter().all(|time| time.is_some_and(|time| (before..=now()).contains(&time))),
        "{times:?}"
    );
    assert_eq!(times[4..], [None; 4]);
    // The columns come after img2dataset's, and are not in the tar, whose bytes are the same in every run.
    let schema = batch(folder.path()).schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names[names.len() - 5..], ["final_url", "fetched", "etag", "last_modified", "opt_outs"]);
    let json = String::from_utf8(members(&folder.path().join("out/00000.tar"))[1].1.clone()).unwrap();
    assert!(!json.contains("fetched") && !json.contains("etag") && !json.contains("secret"), "{json}");
}

#[test]
fn owners_opt_out_by_any_of_three_headers_unless_they_are_ignored() {
    let server = Server::start(|path, _, stream| {
        let headers: &[&str] = match path {
            "/robots" => &["X-Robots-Tag: noai"],
            "/reserved" => &["tdm-reservation: 1", "tdm-policy: https://a.example/policy"],
            "/training" => &["Content-Usage: search=y, train-ai=n"],
            "/all" => &["X-Robots-Tag: noindex", "TDM-Reservation: 1", "content-usage: train-ai=n"],
            _ => &["tdm-reservation: 0", "Content-Usage: train-ai=y"],
        };
        respond(stream, "200 OK", headers, &jpeg(40, 30, 1));
    });
    let folder = tempfile::tempdir().unwrap();
    let urls = ["/robots", "/reserved", "/training", "/all", "/free"].map(|path| server.url(path));
    let seen = ["noai", "tdm-reservation", "train-ai", "noindex, tdm-reservation, train-ai", ""];
    let tag = "Use of image disallowed by X-Robots-Tag directive";
    let reserved = "Use of image disallowed by tdm-reservation header";
    let training = "Use of image disallowed by Content-Usage";
    for (ignored, expected) in [
        ("", [tag, reserved, training, tag, ""]),
        ("noai,noindex", ["", reserved, training, reserved, ""]),
        ("noindex,tdm-reservation", [tag, "", training, training, ""]),
        ("noai,noindex,tdm-reservation,train-ai", [""; 5]),
    ] {
        let more: &[&str] = if ignored.is_empty() { &[] } else { &["--ignore-opt-out", ignored] };
        let output = download(folder.path(), &urls, &[&["--allow-private"], more].concat());
        assert_eq!(code(&output), 0, "{}", errors(&output));
        let rows = table(&folder.path().join("out/00000.parquet"));
        for (at, row) in rows.iter().enumerate() {
            let text = |name: &str| row.get(name).map(String::as_str).unwrap_or_default();
            assert_eq!(
                (text("error_message"), text("opt_outs")),
                (expected[at], seen[at]),
                "{ignored}: {row:?}"
            );
            assert_eq!(text("final_url"), urls[at]);
        }
    }
    let wrong = download(folder.path(), &urls, &["--allow-private", "--ignore-opt-out", "train-ia"]);
    assert_eq!(code(&wrong), 2);
    assert!(
        errors(&wrong)
            .contains("known are noai, noimageai, noindex, noimageindex, noml, tdm-reservation, train-ai")
    );
}

#[test]
fn a_retry_keeps_what_was_learnt_and_adds_what_is_new() {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let server = Server::start(move |path, _, stream| match path {
        "/later" if !is_up.load(Ordering::Relaxed) => respond(stream, "503 Down", &["ETag: \"down\""], b""),
        "/refused" => respond(stream, "200 OK", &["X-Robots-Tag: noai"], &jpeg(40, 30, 2)),
        path => respond(stream, "200 OK", &[&format!("ETag: \"{path}\"")], &jpeg(40, 30, path.len() as u32)),
    });
    let folder = tempfile::tempdir().unwrap();
    let urls = ["/first", "/later", "/refused"].map(|path| server.url(path));
    download(folder.path(), &urls, &["--allow-private"]);
    let out = folder.path().join("out");
    let (before, times) = (table(&out.join("00000.parquet")), fetched(folder.path()));
    assert_eq!(before[1]["etag"], "\"down\"");
    up.store(true, Ordering::Relaxed);
    let output = ingest(&["retry", out.to_str().unwrap(), "--allow-private", "--json"]);
    assert_eq!(summary(&output)["successes"], 2, "{}", errors(&output));
    let (after, later) = (table(&out.join("00000.parquet")), fetched(folder.path()));
    assert_eq!((&after[2], later[2]), (&before[2], times[2]));
    assert_eq!(
        (&after[0]["etag"], &after[0]["final_url"], later[0]),
        (&before[0]["etag"], &urls[0], times[0])
    );
    assert_eq!(after[1]["etag"], "\"/later\"");
    assert!(later[1] >= times[1], "{later:?}");
}

#[test]
fn robots_txt_is_asked_for_once_and_obeyed_if_the_user_wants_it() {
    let rules = "User-agent: *\nDisallow: /\nAllow: /open\n\nUser-agent: simzss-ingest\nDisallow: /private/\n\n\
                 User-agent: ourbot\nDisallow: /open\n";
    let server = Server::start(move |path, _, stream| match path {
        "/robots.txt" => respond(stream, "301 Moved", &["Location: /rules"], b""),
        "/rules" => respond(stream, "200 OK", &[], rules.as_bytes()),
        _ => respond(stream, "200 OK", &[], &jpeg(40, 30, 1)),
    });
    let folder = tempfile::tempdir().unwrap();
    let mut urls: Vec<String> = (0..20).map(|number| server.url(&format!("/open/{number}"))).collect();
    urls.push(server.url("/private/1"));
    let output = download(folder.path(), &urls, &["--allow-private"]);
    assert_eq!((&summary(&output)["successes"], server.count("/robots.txt")), (&21.into(), 0));
    let output = download(folder.path(), &urls, &["--allow-private", "--robots-txt"]);
    assert_eq!(summary(&output)["successes"], 20, "{}", errors(&output));
    assert_eq!((server.count("/rules"), server.count("/private/1")), (1, 1), "only in the run before");
    let last = &table(&folder.path().join("out/00000.parquet"))[20];
    assert_eq!(
        (last["error_message"].as_str(), last["opt_outs"].as_str()),
        ("URL disallowed by robots.txt", "robots.txt")
    );
    assert!(!last.contains_key("fetched") && !last.contains_key("final_url"), "{last:?}");
    let ours = ["--allow-private", "--robots-txt", "--user-agent-token", "OurBot"];
    let output = download(folder.path(), &urls, &ours);
    assert_eq!(summary(&output)["causes"]["URL disallowed by robots.txt"], 20, "{}", errors(&output));
}

/// Preferences of AIPREF in `robots.txt`: an image that must not be used is not asked for, unless the user ignores them.
#[test]
fn robots_txt_may_forbid_training() {
    let rules = "User-agent: *\nContent-Usage: train-ai=n\nContent-Usage: /free/ train-ai=y\n";
    let server = Server::start(move |path, _, stream| match path {
        "/robots.txt" => respond(stream, "200 OK", &[], rules.as_bytes()),
        "/free/refused" => respond(stream, "200 OK", &["Content-Usage: train-ai=n"], &jpeg(40, 30, 1)),
        "/both" => respond(stream, "200 OK", &["X-Robots-Tag: noai"], &jpeg(40, 30, 1)),
        "/free/moved" => respond(stream, "302 Found", &["Location: /there"], b""),
        _ => respond(stream, "200 OK", &[], &jpeg(40, 30, 1)),
    });
    let urls = ["/free/a", "/b", "/free/refused", "/free/moved", "/both"].map(|path| server.url(path));
    let folder = tempfile::tempdir().unwrap();
    let rows = |more: &[&str]| {
        let output = download(folder.path(), &urls, &[&["--allow-private", "--robots-txt"], more].concat());
        let rows = table(&folder.path().join("out/00000.parquet"));
        (summary(&output)["successes"].as_u64(), rows)
    };
    let opt_outs = |rows: &[BTreeMap<String, String>]| -> Vec<String> {
        rows.iter().map(|row| row.get("opt_outs").cloned().unwrap_or_default()).collect()
    };
    let (successes, obeyed) = rows(&[]);
    assert_eq!((successes, server.count("/b"), server.count("/there")), (Some(1), 0, 0));
    assert_eq!(opt_outs(&obeyed), ["", "train-ai", "train-ai", "train-ai", "train-ai"]);
    assert_eq!(obeyed[1]["error_message"], "Use of image disallowed by Content-Usage");
    assert!(!obeyed[1].contains_key("fetched") && obeyed[2].contains_key("fetched"));
    let (successes, ignored) = rows(&["--ignore-opt-out", "train-ai"]);
    assert_eq!(successes, Some(4));
    assert_eq!(opt_outs(&ignored), ["", "train-ai", "train-ai", "train-ai", "noai, train-ai"]);
    assert!(ignored[3]["final_url"].ends_with("/there"));
}

#[test]
fn robots_txt_that_is_missing_allows_and_one_that_cannot_be_read_forbids() {
    let elsewhere = Server::start_at("127.0.0.2", |_, _, stream| respond(stream, "200 OK", &[], b""));
    let target = format!("Location: {}", elsewhere.url("/robots.txt"));
    for (status, header, kept) in [
        ("404 Not Found", "X: y", true),
        ("403 Forbidden", "X: y", true),
        ("503 Down", "X: y", false),
        ("429 Too Many Requests", "X: y", false),
        // An address that is not allowed.
        ("302 Found", target.as_str(), false),
    ] {
        let header = header.to_owned();
        let server = Server::start(move |path, _, stream| match path {
            "/robots.txt" => respond(stream, status, &[&header], b"User-agent: *\nDisallow: /"),
            _ => respond(stream, "200 OK", &[], &jpeg(40, 30, 1)),
        });
        let folder = tempfile::tempdir().unwrap();
        let urls = [server.url("/a"), server.url("/b")];
        let output = download(folder.path(), &urls, &["--allow-private=127.0.0.1", "--robots-txt"]);
        let expected = if kept { 2 } else { 0 };
        assert_eq!(summary(&output)["successes"], expected, "{status}: {}", errors(&output));
        assert_eq!((server.count("/robots.txt"), server.count("/a")), (1, usize::from(kept)), "{status}");
        if !kept {
            assert_eq!(summary(&output)["causes"]["robots.txt cannot be read"], 2);
        }
    }
    assert_eq!(elsewhere.requests(), 0);
}
