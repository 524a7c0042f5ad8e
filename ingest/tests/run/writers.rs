//! Several processes that write one dataset: started twice by mistake, started as workers, killed, in containers, in a folder
//! where others can write.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::{
    Server, code, command, contents, error_line, errors, ingest, jpeg, respond, summary, unreliable_server,
};

/// How often the tests with chance in them are repeated.
fn rounds() -> usize {
    std::env::var("WRITERS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

fn list(folder: &Path, server: &Server, rows: usize) -> PathBuf {
    let line = |number| format!("{},a dog {number}\n", server.url(&format!("/{number}")));
    let lines: String = (0..rows).map(line).collect();
    let path = folder.join("list.csv");
    fs::write(&path, format!("url,caption\n{lines}")).unwrap();
    path
}

fn download(input: &Path, out: &Path) -> Command {
    let mut arguments = vec!["download", input.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
    arguments.extend(["--allow-private", "--shard-size", "8", "--image-size", "32", "--threads", "1"]);
    arguments.extend(["--retries", "0"]);
    command(&arguments)
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn verify(set: &Path) {
    let output = ingest(&["verify", set.to_str().unwrap(), "--json"]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(summary(&output)["notes"], serde_json::json!([]), "nothing is left");
}

#[test]
fn a_job_that_was_submitted_several_times_makes_one_dataset() {
    let server = unreliable_server();
    let folder = tempfile::tempdir().unwrap();
    let input = list(folder.path(), &server, 100);
    for round in 0..rounds() {
        for writers in [2, 4] {
            let asked = server.requests();
            let out = folder.path().join(format!("{round}-{writers}"));
            let children: Vec<Child> = (0..writers).map(|_| spawn(download(&input, &out))).collect();
            let outputs: Vec<Output> =
                children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
            let mut written = 0;
            for output in &outputs {
                assert_eq!(code(output), 0, "{}", errors(output));
                let summary = summary(output);
                assert_eq!((&summary["shards"], &summary["samples"]), (&13.into(), &100.into()), "{summary}");
                written += summary["shards_written"].as_u64().unwrap();
            }
            assert_eq!(written, 13, "every shard is made once");
            assert_eq!(server.requests() - asked, 100, "every image is asked for once");
            verify(&out);
        }
    }
}

#[test]
fn workers_come_and_go_and_the_result_is_that_of_one() {
    let server = Server::start(|path, _, stream| {
        let number: u32 = path[1..].parse().unwrap();
        thread::sleep(Duration::from_millis(u64::from(number * 7 % 20)));
        if number % 10 == 9 {
            respond(stream, "404 Not Found", &[], b"");
        } else {
            respond(stream, "200 OK", &[], &jpeg(80 + number, 60, number));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let input = list(folder.path(), &server, 100);
    let whole = folder.path().join("whole");
    assert_eq!(code(&download(&input, &whole).output().unwrap()), 0);
    let expected = contents(&whole);
    for round in 0..rounds() as u32 {
        let out = folder.path().join(format!("{round}"));
        let slow = || {
            let mut slow = download(&input, &out);
            slow.args(["--per-host", "2"]);
            slow
        };
        let mut workers: Vec<Child> = (0..3).map(|_| spawn(slow())).collect();
        for (number, worker) in workers.iter_mut().take(2).enumerate() {
            thread::sleep(Duration::from_millis(u64::from(40 + 60 * round) + 50 * number as u64));
            // SIGKILL.
            worker.kill().unwrap();
        }
        workers.push(spawn(slow()));
        let outputs: Vec<Output> =
            workers.into_iter().map(|worker| worker.wait_with_output().unwrap()).collect();
        // The third and the fourth take over what the others leave.
        for output in &outputs[2..] {
            assert_eq!(code(output), 0, "{}", errors(output));
            assert_eq!(summary(output)["shards"], 13, "{}", errors(output));
        }
        // A killed process may have left an empty file; the next run removes it.
        let last = summary(&download(&input, &out).output().unwrap());
        assert_eq!(last["shards_written"], 0);
        assert!(contents(&out) == expected, "round {round}");
    }
}

#[test]
fn two_retries_share_the_shards() {
    let up = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&up);
    let server = Server::start(move |path, _, stream| {
        let number: u32 = path[1..].parse().unwrap();
        thread::sleep(Duration::from_millis(u64::from(number * 7 % 20)));
        if number.is_multiple_of(3) && !now.load(Ordering::Relaxed) {
            respond(stream, "503 Service Unavailable", &[], b"");
        } else {
            respond(stream, "200 OK", &[], &jpeg(80 + number, 60, number));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let input = list(folder.path(), &server, 100);
    let out = folder.path().join("out");
    assert_eq!(summary(&download(&input, &out).output().unwrap())["successes"], 66);
    up.store(true, Ordering::Relaxed);
    let whole = folder.path().join("whole");
    assert_eq!(summary(&download(&input, &whole).output().unwrap())["successes"], 100);
    let asked = server.requests();
    let retry = || {
        let arguments = ["retry", out.to_str().unwrap(), "--json", "--allow-private", "--threads", "1"];
        spawn(command(&arguments))
    };
    for retry in [retry(), retry()] {
        let output = retry.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{}", errors(&output));
        assert_eq!(summary(&output)["successes"], 100, "{}", errors(&output));
    }
    assert_eq!(server.requests() - asked, 34, "every failed image is asked for once more");
    assert!(contents(&out) == contents(&whole));
}

#[test]
fn another_dataset_that_starts_at_the_same_moment_is_refused() {
    let server = Server::start(|_, _, stream| respond(stream, "200 OK", &[], &jpeg(40, 30, 1)));
    let folder = tempfile::tempdir().unwrap();
    let input = list(folder.path(), &server, 20);
    for round in 0..2 * rounds() {
        let out = folder.path().join(format!("{round}"));
        let children = [None, Some("--compress")].map(|option| {
            let mut command = download(&input, &out);
            command.args(option);
            spawn(command)
        });
        let mut codes = Vec::new();
        for child in children {
            let output = child.wait_with_output().unwrap();
            if code(&output) != 0 {
                assert!(error_line(&output).contains("already holds another dataset (compressed was"));
            }
            codes.push(code(&output));
        }
        codes.sort_unstable();
        assert_eq!(codes, [0, 1]);
        verify(&out);
    }
}

#[test]
fn pods_of_one_dataset_all_start() {
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc"]).args(arguments);
        command
    };
    if !unshare(&["true"]).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: unshare --pid is not permitted here");
        return;
    }
    let server = Server::start(|path, _, stream| {
        respond(stream, "200 OK", &[], &jpeg(40 + path.len() as u32, 30, 1));
    });
    let folder = tempfile::tempdir().unwrap();
    let input = list(folder.path(), &server, 80);
    for round in 0..rounds() {
        let out = folder.path().join(format!("{round}"));
        // Each has the process id 1.
        let pods: Vec<Child> = (0..4)
            .map(|index| {
                let mut arguments = vec![env!("CARGO_BIN_EXE_ingest"), "download", input.to_str().unwrap()];
                let index = format!("{index}");
                arguments.extend(["--out", out.to_str().unwrap(), "--allow-private", "--shard-size", "8"]);
                arguments.extend(["--image-size", "16", "--index", &index, "--count", "4"]);
                spawn(unshare(&arguments))
            })
            .collect();
        for pod in pods {
            let output = pod.wait_with_output().unwrap();
            assert_eq!(code(&output), 0, "{}", errors(&output));
        }
        verify(&out);
    }
}

#[test]
fn links_with_the_names_of_temporary_files_lead_nowhere() {
    let server = Server::start(|_, _, stream| respond(stream, "200 OK", &[], &jpeg(40, 30, 1)));
    let folder = tempfile::tempdir().unwrap();
    let input = list(folder.path(), &server, 8);
    let (victim, created) = (folder.path().join("victim"), folder.path().join("created"));
    fs::write(&victim, "precious").unwrap();
    let run = |out: &Path, names: &[String]| {
        fs::create_dir(out).unwrap();
        for name in names {
            symlink(&victim, out.join(name)).unwrap();
        }
        let output = download(&input, out).output().unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        output
    };
    // The names of earlier versions for the next processes, and the files of a shard before they get their names.
    let last = fs::read_to_string("/proc/sys/kernel/ns_last_pid").unwrap_or_default();
    let last: u32 = last.trim().parse().unwrap_or_else(|_| std::process::id());
    let mut names: Vec<String> = (1..200).map(|more| format!(".tmp-{}-ingest.json", last + more)).collect();
    names.extend(
        [".tar", ".hash.parquet", ".parquet", "_stats.json"].map(|end| format!(".tmp-new-00000{end}")),
    );
    let out = folder.path().join("out");
    let output = run(&out, &names[..199]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let out = folder.path().join("new");
    let output = run(&out, &names[199..202]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    verify(&out);
    assert!(fs::symlink_metadata(out.join("00000.tar")).unwrap().is_file());
    // A claim is the one file with a name that is known before. A link there is an error.
    let out = folder.path().join("claim");
    fs::create_dir(&out).unwrap();
    symlink(&created, out.join(".tmp-claim-00000")).unwrap();
    let output = download(&input, &out).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(error_line(&output).contains(".tmp-claim-00000"), "{}", errors(&output));
    assert!(!created.exists());
}

#[test]
fn a_new_run_removes_leftovers_but_nothing_of_a_process_that_lives() {
    let held = Arc::new(AtomicBool::new(true));
    let wait = Arc::clone(&held);
    let server = Server::start(move |path, _, stream| {
        // The first shard's last image comes when the test says so.
        while path == "/7" && wait.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(10));
        }
        respond(stream, "200 OK", &[], &jpeg(40, 30, 1));
    });
    let folder = tempfile::tempdir().unwrap();
    let input = list(folder.path(), &server, 16);
    let out = folder.path().join("out");
    let living = spawn(download(&input, &out));
    // It has made the second shard and waits for the first.
    while !out.join("00001_stats.json").exists() {
        thread::sleep(Duration::from_millis(10));
    }
    for name in [".tmp-4711-00000.tar", ".tmp-4711-00001.concepts.parquet", ".tmp-4711-ingest.json"] {
        fs::write(out.join(name), "half").unwrap();
    }
    let second = spawn(download(&input, &out));
    let left = |out: &Path| {
        let names = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".tmp-")).collect::<Vec<_>>()
    };
    while left(&out).iter().any(|name| name.contains("4711")) {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(left(&out), [".tmp-claim-00000"], "the claim of the living process");
    held.store(false, Ordering::Relaxed);
    for (child, written) in [(living, 2), (second, 0)] {
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{}", errors(&output));
        assert_eq!(summary(&output)["shards_written"], written);
    }
    verify(&out);
}
