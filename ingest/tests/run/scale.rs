//! Thousands of URLs of which a third fail in different ways: the run ends, and every row is accounted for.
//! (`tools/bench/ingest_failing.py` does the same with 100,000 URLs, and measures memory.) Also hundreds of hosts with a low
//! limit of open files.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Server, code, error_line, errors, ingest, jpeg, respond, summary, table};

const URLS: u32 = 3000;

#[test]
fn many_urls_on_many_failing_hosts_are_all_accounted_for() {
    let image = jpeg(40, 30, 1);
    let server = Server::start(move |path, _, stream| match path {
        "/gone" => respond(stream, "404 Not Found", &[], b""),
        "/down" => respond(stream, "503 Service Unavailable", &[], b""),
        _ => respond(stream, "200 OK", &[], &image),
    });
    // The system accepts connections for it, but it never answers.
    let silent = TcpListener::bind("0.0.0.0:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let url = |number: u32| match number % 30 {
        // All addresses 127.x.y.z are this machine, and each counts as a separate host.
        0 | 1 => format!("http://127.0.1.{}:{silent_port}/x", number % 5),
        2..=4 => format!("http://127.0.2.{}:9/x", number % 90),
        5 | 6 => format!("http://host{}.invalid/x", number % 40),
        7 => server.url("/gone"),
        8 => server.url("/down"),
        _ => server.url(&format!("/{number}")),
    };
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("list.csv"), folder.path().join("out"));
    let lines: String = (0..URLS).map(|number| format!("{},{number}\n", url(number))).collect();
    fs::write(&input, format!("url,caption\n{lines}")).unwrap();
    let mut arguments = vec!["download", input.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
    arguments.extend(["--allow-private", "--shard-size", "500", "--image-size", "16"]);
    arguments.extend(["--timeout", "0.5", "--retries", "1", "--backoff", "0.1"]);
    let started = Instant::now();
    let output = ingest(&arguments);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    // Without a circuit breaker, the 200 URLs of silent hosts alone would take longer.
    assert!(started.elapsed() < Duration::from_mins(2), "{:?}", started.elapsed());
    let done = summary(&output);
    assert_eq!(done["samples"], URLS);
    assert_eq!(done["successes"], URLS * 21 / 30, "{done}");

    let mut seen = BTreeSet::new();
    for shard in 0..URLS / 500 {
        for row in table(&out.join(format!("{shard:05}.parquet"))) {
            let number: u32 = row["caption"].parse().unwrap();
            assert_eq!(row["url"], url(number));
            let expected = if number % 30 < 9 { "failed_to_download" } else { "success" };
            assert_eq!(row["status"], expected, "{row:?}");
            assert_eq!(row.contains_key("error_message"), number % 30 < 9, "{row:?}");
            seen.insert(number);
        }
    }
    assert_eq!(seen.len(), URLS as usize, "every row is there once");
}

/// Answers every request on a connection, until the client asks to close it or closes it.
fn keep_answering(mut stream: &TcpStream, image: &[u8]) -> Option<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", image.len());
    let mut reader = BufReader::new(stream);
    let mut close = false;
    while !close {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            close |= line.eq_ignore_ascii_case("connection: close\r\n");
        }
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(image)).ok()?;
    }
    Some(())
}

#[test]
fn idle_connections_do_not_use_up_the_open_files() {
    const HOSTS: usize = 500;
    let image = jpeg(40, 30, 1);
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let image = image.clone();
            thread::spawn(move || keep_answering(&stream, &image));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("list.txt"), folder.path().join("out"));
    let lines: String =
        (0..HOSTS).map(|host| format!("http://127.9.{}.{}:{port}/x\n", host / 250, host % 250)).collect();
    fs::write(&input, lines).unwrap();
    let run = |files: usize| -> Output {
        let limited = format!("ulimit -n {files}; exec \"$@\"");
        Command::new("bash")
            .args(["-c", &limited, "bash", env!("CARGO_BIN_EXE_ingest"), "download"])
            .args([&input, &"--out".into(), &out])
            .args([
                "--json",
                "--allow-private",
                "--image-size",
                "16",
                "--concurrency",
                "32",
                "--retries",
                "0",
            ])
            .output()
            .unwrap()
    };
    let refused = run(250);
    assert_eq!(code(&refused), 2);
    assert!(error_line(&refused).contains("--concurrency 32 needs 264 open files"), "{}", errors(&refused));
    let output = run(300);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(summary(&output)["successes"], HOSTS, "{}", errors(&output));
}
