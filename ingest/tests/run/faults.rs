//! Faults of servers, each over a real socket: the cause that the sample gets, and that nothing hangs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use crate::common::{
    Server, code, error_line, errors, ingest, jpeg, members, respond, summary, table, trickle,
};

/// Short enough for tests, long enough for a busy machine.
const QUICK: [&str; 10] =
    ["--timeout", "1", "--deadline", "3", "--backoff", "0.05", "--retries", "1", "--max-redirects", "4"];

fn server() -> Server {
    let (image, zeros) = (jpeg(64, 48, 1), zeros());
    Server::start(move |path, before, stream| match path {
        "/gzip-bomb" => respond(stream, "200 OK", &["Content-Encoding: gzip"], &zeros),
        "/gzip-body" => respond(stream, "200 OK", &[], &zeros),
        _ => answer(path, before, stream, &image),
    })
}

fn answer(path: &str, before: usize, stream: &mut TcpStream, image: &[u8]) {
    match path {
        "/endless" => trickle(stream, &[7; 4096], Duration::from_millis(1)),
        "/byte-a-second" => trickle(stream, b"x", Duration::from_millis(500)),
        "/silent" => std::thread::sleep(Duration::from_secs(20)),
        "/reset" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nstart");
        }
        "/short" => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", image.len() + 10);
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(image));
        }
        "/loop" => respond(stream, "302 Found", &["Location: /pool"], b""),
        "/pool" => respond(stream, "302 Found", &["Location: /loop"], b""),
        "/private" => respond(stream, "302 Found", &["Location: http://127.0.0.2:9/x"], b""),
        "/metadata" => respond(stream, "302 Found", &["Location: http://169.254.169.254/latest"], b""),
        "/local-name" => respond(stream, "302 Found", &["Location: http://localhost:9/"], b""),
        "/file" => respond(stream, "302 Found", &["Location: file:///etc/passwd"], b""),
        "/moved" => respond(stream, "301 Moved Permanently", &["Location: moved-here"], b""),
        "/busy" if before == 0 => respond(stream, "429 Too Many Requests", &["Retry-After: 1"], b""),
        "/busy-until" => {
            // A date has no fractions of a second.
            static UNTIL: OnceLock<SystemTime> = OnceLock::new();
            let until = *UNTIL.get_or_init(|| SystemTime::now() + Duration::from_secs(2));
            let date = httpdate::fmt_http_date(until);
            if httpdate::parse_http_date(&date).unwrap() > SystemTime::now() {
                let header = format!("Retry-After: {date}");
                respond(stream, "503 Service Unavailable", &[&header], b"");
            } else {
                respond(stream, "200 OK", &[], image);
            }
        }
        "/very-busy" => respond(stream, "429 Too Many Requests", &["Retry-After: 86400"], b""),
        "/flaky" if before == 0 => respond(stream, "500 Internal Server Error", &[], b"oops"),
        "/good" | "/busy" | "/flaky" | "/moved-here" => respond(stream, "200 OK", &[], image),
        "/page" => respond(stream, "200 OK", &["Content-Type: image/jpeg"], b"<!doctype html><html></html>"),
        "/truncated" => respond(stream, "200 OK", &[], &image[..image.len() / 2]),
        "/bomb" => respond(stream, "200 OK", &[], &bomb()),
        "/empty" => respond(stream, "200 OK", &[], b""),
        "/noai" => respond(stream, "200 OK", &["X-Robots-Tag: noimageai"], image),
        "/noai-other" => respond(stream, "200 OK", &["X-Robots-Tag: otherbot: noai"], image),
        "/gzip" => respond(stream, "200 OK", &["Content-Encoding: gzip"], image),
        "/large" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n");
        }
        "/garbage" => {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n");
        }
        path if path.starts_with("/hop") => {
            let next: u32 = path[4..].parse::<u32>().unwrap() + 1;
            respond(stream, "302 Found", &[&format!("Location: /hop{next}")], b"");
        }
        _ => respond(stream, "404 Not Found", &[], b"no"),
    }
}

/// A hundred megabytes of zeros, compressed to a hundred kilobytes.
fn zeros() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..100 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

/// A PNG whose header declares 50,000 x 50,000 pixels, which would take 7.5 GB.
fn bomb() -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend(50_000u32.to_be_bytes());
    header.extend(50_000u32.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    for (name, data) in [(b"IHDR", header), (b"IDAT", vec![0; 64])] {
        let chunk = [name.as_slice(), &data].concat();
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(&chunk);
        png.extend(crc32(&chunk).to_be_bytes());
    }
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

#[test]
fn every_fault_has_its_cause_and_no_fault_takes_long() {
    let server = server();
    // Path, status, cause, number of requests.
    let expected = [
        ("/good", "success", "", 1),
        ("/endless", "failed_to_download", "larger than --max-bytes", 1),
        ("/byte-a-second", "failed_to_download", "timed out: response slower than --min-speed", 2),
        ("/silent", "failed_to_download", "timed out: no response", 2),
        ("/reset", "failed_to_download", "connection broken", 2),
        ("/short", "failed_to_download", "connection broken", 2),
        ("/loop", "failed_to_download", "redirect loop", 1),
        ("/hop0", "failed_to_download", "too many redirects", 1),
        ("/private", "failed_to_download", "address is not public (allow it with --allow-private)", 1),
        ("/metadata", "failed_to_download", "address is not public (allow it with --allow-private)", 1),
        ("/local-name", "failed_to_download", "address is not public (allow it with --allow-private)", 1),
        ("/file", "failed_to_download", "redirect target is not an http or https URL", 1),
        ("/moved", "success", "", 1),
        ("/busy", "success", "", 2),
        ("/busy-until", "success", "", 2),
        ("/very-busy", "failed_to_download", "HTTP Error 429: Too Many Requests", 1),
        ("/flaky", "success", "", 2),
        ("/page", "failed_to_resize", "Image decoding error: a web page, not an image", 1),
        ("/truncated", "failed_to_resize", "Image decoding error: the file is truncated", 1),
        ("/bomb", "failed_to_resize", "image header declares more pixels than --max-pixels", 1),
        ("/empty", "failed_to_download", "empty response", 1),
        ("/noai", "failed_to_download", "Use of image disallowed by X-Robots-Tag directive", 1),
        ("/noai-other", "success", "", 1),
        // Only claimed; the image is as it is.
        ("/gzip", "success", "", 1),
        ("/gzip-bomb", "failed_to_download", "unexpected content encoding", 1),
        ("/gzip-body", "failed_to_resize", "Image decoding error: not an image", 1),
        ("/large", "failed_to_download", "larger than --max-bytes", 1),
        ("/garbage", "failed_to_download", "not a valid HTTP response", 1),
        ("/missing", "failed_to_download", "HTTP Error 404: Not Found", 1),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut list = String::from("url,caption\n");
    for (path, ..) in &expected {
        list.push_str(&format!("{},caption of {path}\n", server.url(path)));
    }
    list.push_str("not a url,a\nftp://example.org/x.jpg,b\nhttp://10.0.0.1/x.jpg,c\n,d\n");
    // A port that was free a moment ago: no server listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    list.push_str(&format!("http://127.0.0.1:{closed}/x.jpg,e\nhttp://does-not-exist.invalid/x.jpg,f\n"));
    let input = folder.path().join("list.csv");
    fs::write(&input, list).unwrap();
    let out = folder.path().join("out");

    let started = Instant::now();
    let (input, out_text) = (input.to_str().unwrap(), out.to_str().unwrap());
    let mut arguments = vec!["download", input, "--out", out_text, "--json", "--max-bytes", "2000000"];
    arguments.extend(["--allow-private=127.0.0.1", "--image-size", "32"]);
    arguments.extend(QUICK);
    let output = ingest(&arguments);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());

    let rows = table(&out.join("00000.parquet"));
    assert_eq!(rows.len(), expected.len() + 6, "every row is accounted for");
    let value = |row: &BTreeMap<String, String>, column: &str| row.get(column).cloned().unwrap_or_default();
    for (row, (path, status, cause, requests)) in rows.iter().zip(&expected) {
        assert_eq!(
            (value(row, "status").as_str(), value(row, "error_message").as_str()),
            (*status, *cause),
            "{path}"
        );
        assert_eq!(server.count(path), *requests, "requests for {path}");
        assert_eq!(value(row, "caption"), format!("caption of {path}"));
    }
    let causes: Vec<String> = rows[expected.len()..].iter().map(|row| value(row, "error_message")).collect();
    assert_eq!(
        causes[..4],
        [
            "not an http or https URL",
            "not an http or https URL",
            "address is not public (allow it with --allow-private)",
            "no URL or file name",
        ]
    );
    assert_eq!(causes[4], "connection refused");
    // A machine without a name server cannot distinguish "no such name" from "no answer".
    assert!(["host name not found", "DNS lookup failed"].contains(&causes[5].as_str()), "{causes:?}");

    let summary = summary(&output);
    let successes = expected.iter().filter(|(_, status, ..)| *status == "success").count();
    assert_eq!(summary["successes"], successes);
    assert_eq!(summary["samples"], expected.len() + 6);
    assert_eq!(members(&out.join("00000.tar")).len(), successes * 3);
    let stats: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("00000_stats.json")).unwrap()).unwrap();
    assert_eq!(stats["count"], expected.len() + 6);
    assert_eq!(stats["status_dict"]["redirect loop"], 1);
}

#[test]
fn private_addresses_are_not_contacted_without_permission() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("urls.txt");
    fs::write(&input, format!("{}\nhttp://localhost:{}/good\n", server.url("/good"), server.port)).unwrap();
    let out = folder.path().join("out");
    let output = ingest(&["download", input.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"]);
    assert_eq!(summary(&output)["causes"]["address is not public (allow it with --allow-private)"], 2);
    assert_eq!(server.count("/good"), 0);
    // A download whose samples all failed is an error that names the causes.
    assert_eq!(code(&output), 1, "{}", errors(&output));
    let line = error_line(&output);
    assert!(
        line.contains("every sample failed (0 of 2 succeeded); most frequent causes: address is not public")
    );
    assert!(line.contains(&format!("run `ingest retry {}`", out.display())), "{line}");
    // With --max-failures the limit alone decides: exit code 3 if it is exceeded, else 0.
    let out = folder.path().join("strict");
    let arguments =
        ["download", input.to_str().unwrap(), "--out", out.to_str().unwrap(), "--max-failures", "50%"];
    let limited = ingest(&arguments);
    assert_eq!(code(&limited), 3);
    assert!(errors(&limited).contains("2 of 2 samples failed, more than --max-failures allows"));
}

#[test]
fn opt_outs_are_obeyed_unless_they_are_ignored_by_name() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("urls.txt");
    fs::write(&input, format!("{}\n{}\n", server.url("/noai"), server.url("/noai-other"))).unwrap();
    let input = input.to_str().unwrap();
    let run = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let mut arguments =
            vec!["download", input, "--out", out.to_str().unwrap(), "--json", "--allow-private"];
        arguments.extend(more);
        ingest(&arguments)
    };
    assert_eq!(summary(&run("obeyed", &[]))["successes"], 1);
    assert_eq!(summary(&run("ignored", &["--ignore-opt-out", "noimageai"]))["successes"], 2);
    assert_eq!(summary(&run("named", &["--user-agent-token", "OtherBot"]))["successes"], 0);
    let wrong = run("wrong", &["--ignore-opt-out", "everything"]);
    assert_eq!(code(&wrong), 2);
    assert!(error_line(&wrong).contains("everything"));
}

#[test]
fn failed_samples_are_retried_in_place() {
    let image = jpeg(64, 48, 3);
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let down = std::sync::Arc::clone(&broken);
    let server = Server::start(move |path, _, stream| match path {
        "/gone" => respond(stream, "404 Not Found", &[], b""),
        "/down" if down.load(std::sync::atomic::Ordering::Relaxed) => respond(stream, "503 Down", &[], b""),
        _ => respond(stream, "200 OK", &[], &image),
    });
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("list.csv");
    let rows = ["/a", "/down", "/gone", "/b"].map(|path| format!("{},of {path},7\n", server.url(path)));
    fs::write(&input, format!("url,caption,id\n{}", rows.concat())).unwrap();
    let run = |out: &str| {
        let out = folder.path().join(out);
        let mut arguments =
            vec!["download", input.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
        arguments.extend(["--allow-private", "--save-additional-columns", "id", "--shard-size", "3"]);
        arguments.extend(QUICK);
        ingest(&arguments)
    };
    assert_eq!(summary(&run("out"))["successes"], 2);
    broken.store(false, std::sync::atomic::Ordering::Relaxed);
    let out = folder.path().join("out");
    let mut arguments = vec!["retry", out.to_str().unwrap(), "--json", "--allow-private"];
    arguments.extend(QUICK);
    let retried = ingest(&arguments);
    assert_eq!(code(&retried), 0, "{}", errors(&retried));
    assert_eq!(summary(&retried)["successes"], 3);
    assert_eq!(
        (server.count("/a"), server.count("/gone"), server.count("/b")),
        (1, 1, 1),
        "only the failed sample is requested again"
    );

    // The result is that of a run without the failure.
    run("reference");
    let reference = crate::common::contents(&folder.path().join("reference"));
    assert_eq!(crate::common::contents(&out), reference);
    // What is left is not temporary, so there is nothing to do.
    let idle = ingest(&["retry", out.to_str().unwrap(), "--allow-private"]);
    assert_eq!(code(&idle), 0, "{}", errors(&idle));
    let text = errors(&idle);
    assert!(text.contains("nothing to do: no failure in 2 complete shards has a temporary cause"), "{text}");
    let verified = ingest(&["verify", out.to_str().unwrap()]);
    assert_eq!(code(&verified), 0, "{}", errors(&verified));
}
