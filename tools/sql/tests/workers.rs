//! `tools sql --workers` with real worker processes: the rows of one process, or an error that names the worker and no row at all.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dataset;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dataset::{queries, small_set, widen};
use tests::store::Store;
use tests::{program, text};

/// A worker process.
struct Worker {
    process: Child,
    address: String,
    /// What else it prints; it could not go on without a reader.
    _lines: BufReader<ChildStderr>,
}

impl Worker {
    fn start() -> Self {
        Self::start_as(&mut Command::new(program("tools")), &["sql"])
    }

    fn start_as(command: &mut Command, before: &[&str]) -> Self {
        let command = command.args(before).args(["--worker", "--listen", "127.0.0.1:0"]);
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let address = line.strip_prefix("worker: listening on ").expect(&line).split(' ').next().unwrap();
        Self { address: address.to_owned(), process, _lines: lines }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The addresses for `--workers`.
fn addresses(workers: &[Worker]) -> String {
    workers.iter().map(|worker| worker.address.as_str()).collect::<Vec<_>>().join(",")
}

fn ask(query: &str, set: &str, more: &[&str], with: impl Fn(&mut Command)) -> Output {
    let mut command = Command::new(program("tools"));
    with(&mut command);
    command.args(["sql", query, set, "--format", "json"]).args(more).output().unwrap()
}

/// The rows, in an order of their own.
fn rows(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut rows: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    rows.sort_unstable();
    rows
}

/// The error of a query that must fail without printing a row.
fn failed(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{told}");
    let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{told}");
    errors[0].to_owned()
}

/// The queries of `queries.sql`, and more about what plans have to bring to workers.
fn all_queries() -> Vec<(&'static str, &'static str)> {
    let mut all = queries();
    all.extend([
        ("samples", "SELECT * FROM samples ORDER BY key"),
        ("mentions", "SELECT * FROM mentions ORDER BY key, phrase_start"),
        ("unordered", "SELECT shard, key, phrase FROM mentions"),
        ("shards", "SELECT * FROM shards ORDER BY shard"),
        ("concepts", "SELECT * FROM concepts ORDER BY concept"),
        ("pairs", "SELECT * FROM pairs ORDER BY a, b"),
        ("hash", "SELECT shard, key, phash FROM hash ORDER BY key"),
        ("no table", "SELECT sum(value) AS n FROM generate_series(1, 1000)"),
        ("series", "SELECT sum(s.value) AS n FROM generate_series(1, 100) AS s CROSS JOIN mentions"),
        ("shard of each", "SELECT s.shard, s.bytes, count(*) AS n FROM shards AS s JOIN mentions AS m USING (shard) \
                           GROUP BY s.shard, s.bytes ORDER BY s.shard"),
        ("none", "SELECT s.key FROM samples AS s LEFT JOIN mentions AS m ON m.key = s.key WHERE m.key IS NULL ORDER BY 1"),
        ("full", "SELECT s.key, m.phrase FROM samples AS s FULL JOIN mentions AS m ON m.key = s.key AND m.head = 'dog' ORDER BY 1, 2"),
        ("in", "SELECT key FROM samples WHERE key NOT IN (SELECT key FROM mentions) ORDER BY key"),
        ("scalar", "SELECT count(*) AS n FROM mentions WHERE phrase_start < (SELECT avg(phrase_start) FROM mentions)"),
        ("window", "SELECT key, phrase, row_number() OVER (PARTITION BY key ORDER BY phrase_start) AS n FROM mentions ORDER BY 1, 3"),
        ("union", "SELECT key FROM samples UNION ALL SELECT key FROM mentions UNION ALL SELECT shard FROM shards"),
        ("distinct", "SELECT count(DISTINCT head) AS heads, max(length(phrase)) AS longest FROM mentions"),
        ("regular", "SELECT DISTINCT regexp_replace(caption, '[aeiou]', '') AS c FROM samples WHERE caption ~ 'dog' ORDER BY 1"),
        ("tables", "SELECT table_name FROM information_schema.tables ORDER BY 1"),
        ("empty", "SELECT key FROM mentions WHERE head = 'nothing'"),
    ]);
    all
}

#[test]
fn two_workers_give_the_rows_of_one_process() {
    let place = tempfile::tempdir().unwrap();
    let set = small_set(place.path());
    let workers = [Worker::start(), Worker::start()];
    let by = addresses(&workers);
    for (name, query) in all_queries() {
        let alone = ask(query, text(&set), &[], |_| {});
        let together = ask(query, text(&set), &["--workers", &by], |_| {});
        if query.contains("ORDER BY") {
            assert_eq!(
                together.stdout,
                alone.stdout,
                "{name}: {}",
                String::from_utf8_lossy(&together.stderr)
            );
        }
        assert_eq!(rows(&together), rows(&alone), "{name}");
    }
    let plan = ask(
        "EXPLAIN ANALYZE SELECT head, count(*) FROM mentions GROUP BY head",
        text(&set),
        &["--workers", &by],
        |_| {},
    );
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("DistributedExec") && plan.contains("tasks=2"), "{plan}");

    // Both end when they are asked to.
    for (mut worker, signal) in workers.into_iter().zip(["-TERM", "-INT"]) {
        worker.signal(signal);
        assert_eq!(worker.process.wait().unwrap().code(), Some(0), "{signal}");
    }
}

#[test]
fn workers_read_a_store_by_themselves() {
    let place = tempfile::tempdir().unwrap();
    let set = small_set(place.path());
    let store = Store::start();
    store.put(&set, "set");
    let start = || Worker::start_as(store.environment(&mut Command::new(program("tools"))), &["sql"]);
    let workers = [start(), start()];
    let by = addresses(&workers);
    for (name, query) in queries() {
        let alone = ask(query, text(&set), &[], |_| {});
        let with = |command: &mut Command| {
            store.environment(command);
        };
        let together = ask(query, "s3://bucket/set", &["--workers", &by], with);
        assert_eq!(rows(&together), rows(&alone), "{name}");
    }
}

/// A query in whose middle everything stands still: every part of a table is held back, so that no task can end.
struct Held {
    place: tempfile::TempDir,
    store: Store,
    workers: [Worker; 2],
    query: Child,
}

impl Held {
    fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let set = small_set(place.path());
        for shard in 0..3 {
            widen(&set.join(format!("0000{shard}.parquet")));
        }
        let store = Store::start();
        store.put(&set, "set");
        let workers = [Self::worker(&store), Self::worker(&store)];
        store.bucket().held = Some(0);
        let mut command = Command::new(program("tools"));
        let words =
            ["sql", "SELECT key, noise FROM samples", "s3://bucket/set", "--format", "csv", "--workers"];
        store.environment(&mut command).args(words).arg(addresses(&workers));
        let query = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        while store.bucket().held == Some(0) {
            assert!(started.elapsed() < Duration::from_mins(1), "no worker reads");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { place, store, workers, query }
    }

    fn worker(store: &Store) -> Worker {
        Worker::start_as(store.environment(&mut Command::new(program("tools"))), &["sql"])
    }

    /// Lets the parts go, and checks that the workers do other queries.
    fn others_are_answered(store: &Store, place: &Path, workers: &[Worker; 2]) {
        store.bucket().held = None;
        let with = |command: &mut Command| {
            store.environment(command);
        };
        let query = "SELECT key FROM samples";
        let alone = ask(query, text(&place.join("set")), &[], |_| {});
        let together = ask(query, "s3://bucket/set", &["--workers", &addresses(workers)], with);
        assert_eq!(rows(&together), rows(&alone));
    }
}

#[test]
fn a_killed_worker_is_an_error_without_a_row() {
    let Held { place, store, mut workers, query } = Held::start();
    workers[0].signal("-KILL");
    assert_eq!(workers[0].process.wait().unwrap().signal(), Some(9));
    let error = failed(&query.wait_with_output().unwrap());
    assert!(error.contains(&format!("worker {} was lost", workers[0].address)), "{error}");
    workers[0] = Held::worker(&store);
    Held::others_are_answered(&store, place.path(), &workers);
}

#[test]
fn an_interrupted_query_ends_without_a_row_and_leaves_its_workers_for_others() {
    let Held { place, store, workers, query } = Held::start();
    Command::new("kill").args(["-INT", &query.id().to_string()]).status().unwrap();
    let output = query.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
    Held::others_are_answered(&store, place.path(), &workers);
}

/// What is wrong with a worker, or with its files, is told with its name before any row.
#[test]
fn a_worker_that_cannot_do_its_part_is_named() {
    let place = tempfile::tempdir().unwrap();
    let set = small_set(place.path());
    let query = "SELECT key FROM samples ORDER BY key";
    let worker = Worker::start();
    let refuse = |workers: &str, set: &Path| failed(&ask(query, text(set), &["--workers", workers], |_| {}));

    // Nobody listens, or somebody else.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = refuse(&format!("{},{nobody}", worker.address), &set);
    assert!(
        error.contains(&format!("worker {nobody} cannot be reached")) && error.contains("refused"),
        "{error}"
    );
    let web = tests::serve(&set);
    let web = web.trim_start_matches("http://").trim_end_matches('/');
    let error = refuse(&format!("{},{web}", worker.address), &set);
    assert!(error.contains(web), "{error}");

    // Another build: the same program with a byte more.
    let other = place.path().join("tools-sql");
    fs::copy(program("tools-sql"), &other).unwrap();
    OpenOptions::new().append(true).open(&other).unwrap().write_all(&[0]).unwrap();
    let other = Worker::start_as(&mut Command::new(other), &[]);
    let error = refuse(&format!("{},{}", worker.address, other.address), &set);
    assert!(error.contains(&format!("worker {} is another build", other.address)), "{error}");

    // No file at this path, as on a machine that lacks the file system: the worker has another root.
    let namespace = Command::new("unshare").args(["--map-root-user", "--mount", "true"]).status();
    if namespace.is_ok_and(|status| status.success()) {
        let hide = format!("mount -t tmpfs none {} && exec \"$0\" \"$@\"", text(&set));
        let engine = program("tools-sql");
        let arguments = ["--map-root-user", "--mount", "sh", "-c", &hide, text(&engine)];
        let elsewhere = Worker::start_as(&mut Command::new("unshare"), &arguments);
        let error = refuse(&format!("{},{}", worker.address, elsewhere.address), &set);
        assert!(
            error.contains(&format!("worker {}: {}", elsewhere.address, text(&set)))
                && error.contains("does not exist"),
            "{error}"
        );
    } else {
        eprintln!("skipped: a worker without the files: no name spaces here");
    }
}
