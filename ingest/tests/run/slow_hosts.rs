//! One host that asks for pauses, sends slowly or not at all: rows of other hosts do not wait for it, and a signal ends the
//! run.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::common::{Server, code, command, contents, errors, jpeg, respond, summary, table};

/// Starts a download of a list in which `slow` rows of one host come before `good` rows of another.
fn start(folder: &Path, hosts: [&Server; 2], rows: [usize; 2], more: &[&str]) -> Child {
    let mut list = String::from("url,caption\n");
    for (server, rows) in hosts.into_iter().zip(rows) {
        for number in 0..rows {
            list.push_str(&format!("{},a dog\n", server.url(&format!("/{number}"))));
        }
    }
    let input = folder.join("list.csv");
    fs::write(&input, list).unwrap();
    let out = folder.join("out");
    let mut arguments = vec!["download", input.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
    arguments.extend(["--allow-private", "--image-size", "16"]);
    arguments.extend(more);
    command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the rows of the good host have all been asked for.
fn wait_for(good: &Server, rows: usize, child: &mut Child) {
    while good.requests() < rows {
        assert!(child.try_wait().unwrap().is_none(), "the run has ended after {} rows", good.requests());
        thread::sleep(Duration::from_millis(50));
    }
}

/// SIGTERM; the seconds until the end.
fn terminate(child: Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    // In a process of its own, so that a run that does not end fails the test.
    let mut watch = Command::new("sh");
    watch.args(["-c", &format!("sleep 30; kill -9 {}", child.id())]);
    let mut watch = watch.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(code(&output), 143, "ended by itself: {}", errors(&output));
    assert!(errors(&output).contains("interrupted"), "{}", errors(&output));
}

fn good() -> Server {
    Server::start(|_, _, stream| respond(stream, "200 OK", &[], &jpeg(40, 30, 1)))
}

#[test]
fn a_host_that_asks_for_pauses_does_not_stop_the_others_also_over_many_shards() {
    let slow = Server::start_at("127.0.0.2", |_, _, stream| {
        respond(stream, "429 Too Many Requests", &["Retry-After: 60"], b"");
    });
    let good = good();
    for (shard_size, rows) in [("10000", 2100), ("500", 3000)] {
        let folder = tempfile::tempdir().unwrap();
        let before = good.requests();
        let options = ["--shard-size", shard_size];
        let mut child = start(folder.path(), [&slow, &good], [rows, 500], &options);
        wait_for(&good, before + 500, &mut child);
        terminate(child);
        let left = contents(&folder.path().join("out")).into_keys().filter(|name| name.starts_with(".tmp-"));
        assert_eq!(left.count(), 0, "a run that ends by itself leaves nothing");
    }
    assert!(slow.requests() < 100, "the pause is respected: {} requests", slow.requests());
}

#[test]
fn a_host_that_sends_slowly_or_not_at_all_does_not_stop_the_others() {
    type Answer = fn(&mut TcpStream);
    let slow: [Answer; 3] = [
        |_| thread::sleep(Duration::from_mins(10)),
        |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n");
            while stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(500));
            }
        },
        |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            while stream.write_all(b"X-Y: z\r\n").is_ok() {
                thread::sleep(Duration::from_millis(500));
            }
        },
    ];
    for answer in slow {
        let slow = Server::start_at("127.0.0.2", move |_, _, stream| answer(stream));
        let good = good();
        let folder = tempfile::tempdir().unwrap();
        let mut child = start(folder.path(), [&slow, &good], [2100, 500], &[]);
        wait_for(&good, 500, &mut child);
        terminate(child);
    }
}

#[test]
fn a_host_with_a_limit_gives_all_its_images_in_the_end() {
    // Every tenth request asks for a second's pause.
    let slow = Server::start_at("127.0.0.2", |_, before, stream| {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static REQUESTS: AtomicUsize = AtomicUsize::new(0);
        if REQUESTS.fetch_add(1, Ordering::Relaxed) % 10 == 9 && before < 2 {
            respond(stream, "429 Too Many Requests", &["Retry-After: 1"], b"");
        } else {
            respond(stream, "200 OK", &[], &jpeg(40, 30, 1));
        }
    });
    let good = good();
    let folder = tempfile::tempdir().unwrap();
    let options = ["--shard-size", "30", "--per-host", "2", "--concurrency", "4"];
    let child = start(folder.path(), [&slow, &good], [100, 50], &options);
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(summary(&output)["successes"], 150, "{}", errors(&output));
    assert!(slow.requests() > 100, "some were asked to wait");
    let rows = table(&folder.path().join("out/00000.parquet"));
    assert_eq!(rows.len(), 30);
    assert!(rows.iter().zip(0..).all(|(row, number)| row["url"] == slow.url(&format!("/{number}"))));
}

#[test]
fn a_host_that_only_asks_for_pauses_is_given_up_and_its_rows_can_be_retried() {
    let slow = Server::start_at("127.0.0.2", |_, _, stream| {
        respond(stream, "429 Too Many Requests", &["Retry-After: 1"], b"");
    });
    let good = good();
    let folder = tempfile::tempdir().unwrap();
    let child = start(folder.path(), [&slow, &good], [2100, 50], &[]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let summary = summary(&output);
    assert_eq!((&summary["samples"], &summary["successes"]), (&2150.into(), &50.into()), "{summary}");
    let skipped = summary["causes"]["host skipped after repeated failures"].as_u64().unwrap();
    assert!(skipped > 1900, "{summary}");
    assert!(slow.requests() < 200, "{} requests", slow.requests());
}
