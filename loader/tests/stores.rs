//! Shards in the object stores of S3, Google and Azure: a small server implements as much of each protocol as reading
//! needs.
//!
//! The stores take endpoint and credentials from the environment, so each test runs in a separate process: this program
//! again, with the arguments to run one test.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, fs};

use crate::common::server::{Answer, Server, Validator};
use crate::common::{content, settings, with, write_shards};
use loader::{Batch, Cache, Loader, Position};

/// Environment variables: the shards that the process reads, and the file that it writes its result to.
const SHARDS: &str = "LOADER_TEST_SHARDS";
const FOUND: &str = "LOADER_TEST_FOUND";
/// The file of an object that the process replaces between two reads.
const REPLACED: &str = "LOADER_TEST_REPLACED";
/// The folder of the cache, if there is one.
const CACHE: &str = "LOADER_TEST_CACHE";

fn found(shards: &Path) -> String {
    let shards = loader::shards::list(&[shards.to_owned()]).unwrap();
    let cache = env::var_os(CACHE).map(|folder| Cache { folder: folder.into(), limit: 1 << 20 });
    let loader = Loader::open(with(settings(shards, 6), |s| s.options.cache = cache)).unwrap();
    let batches: Vec<Batch> = loader.batches(Position::default()).take(12).map(Result::unwrap).collect();
    assert!(batches.iter().all(|batch| batch.counters.skipped.is_empty()));
    batches.iter().map(|batch| format!("{:?} {:?}\n", content(batch), &*batch.images)).collect()
}

/// The work of the other process.
#[test]
fn child() {
    let Some(shards) = env::var_os(SHARDS) else {
        println!("skipped: runs only as a part of the other tests");
        return;
    };
    if let Some(file) = env::var_os(REPLACED) {
        let opened = storage::Source::open(Path::new(&shards)).unwrap();
        assert_eq!(&*opened.read(100, 10).unwrap(), [1; 10]);
        fs::write(file, [2; 5000]).unwrap();
        let error = opened.read(110, 10).unwrap_err().to_string();
        return fs::write(env::var_os(FOUND).unwrap(), error).unwrap();
    }
    fs::write(env::var_os(FOUND).unwrap(), found(Path::new(&shards))).unwrap();
}

/// Batches from a store that answers 503 now and then and breaks off in the middle of ranges.
fn batches_from_a_store_equal_those_from_a_disk(
    scheme: &str,
    environment: impl Fn(&str) -> Vec<(&'static str, String)>,
) {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("b/set");
    fs::create_dir_all(&set).unwrap();
    write_shards(&set, &[25, 31], |_, _| None);
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&failures);
    let server = Server::new(folder.path(), move |number, _| {
        let answer = match number % 9 {
            2 => Answer::Status(503),
            6 => Answer::Drop(50),
            _ => Answer::Normal,
        };
        counted.fetch_add(usize::from(!matches!(answer, Answer::Normal)), Ordering::Relaxed);
        answer
    });
    let endpoint = server.url("").to_str().unwrap().trim_end_matches('/').to_owned();
    let result = folder.path().join("found");
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "stores::child", "--nocapture"])
        .env(SHARDS, format!("{scheme}://b/set/{{00000..00001}}.tar"))
        .env(FOUND, &result)
        .envs(environment(&endpoint))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let local: PathBuf = set.join("{00000..00001}.tar");
    assert!(fs::read_to_string(result).unwrap() == found(&local));
    assert!(server.sent(".tar") > 0 && failures.load(Ordering::Relaxed) > 5);
}

/// An object that is written again between two reads is noticed.
fn a_replaced_object_is_noticed(scheme: &str, environment: impl Fn(&str) -> Vec<(&'static str, String)>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("b/set/00000.tar");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, [1; 5000]).unwrap();
    let server = Server::with(Validator::Tag, folder.path(), |_, _| Answer::Normal);
    let endpoint = server.url("").to_str().unwrap().trim_end_matches('/').to_owned();
    let (url, result) = (format!("{scheme}://b/set/00000.tar"), folder.path().join("found"));
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "stores::child", "--nocapture"])
        .env(SHARDS, &url)
        .env(FOUND, &result)
        .env(REPLACED, &file)
        .envs(environment(&endpoint))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = fs::read_to_string(result).unwrap();
    assert!(found.starts_with(&format!("{url} was replaced while it was read")), "{found}");
}

/// Processes that start at the same moment together download every shard once.
#[test]
fn processes_share_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[25, 31], |_, _| None);
    let stored: u64 = shards.iter().map(|shard| fs::metadata(shard).unwrap().len()).sum();
    let server = Server::new(folder.path(), |_, _| Answer::Slow(20_000, Duration::from_millis(5)));
    let children: Vec<_> = (0..3)
        .map(|number| {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", "stores::child", "--nocapture"])
                .env(SHARDS, server.url("{00000..00001}.tar"))
                .env(FOUND, folder.path().join(format!("found{number}")))
                .env(CACHE, folder.path().join("cache"))
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let expected = found(&folder.path().join("{00000..00001}.tar"));
    for number in 0..3 {
        assert!(fs::read_to_string(folder.path().join(format!("found{number}"))).unwrap() == expected);
    }
    assert_eq!(server.sent(".tar"), stored);
}

#[test]
fn s3() {
    let environment = |endpoint: &str| {
        vec![
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ]
    };
    batches_from_a_store_equal_those_from_a_disk("s3", environment);
    a_replaced_object_is_noticed("s3", environment);
}

#[test]
fn google() {
    let environment = |endpoint: &str| {
        let account = serde_json::json!({
            "gcs_base_url": endpoint, "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": "",
        });
        vec![("GOOGLE_SERVICE_ACCOUNT_KEY", account.to_string())]
    };
    batches_from_a_store_equal_those_from_a_disk("gs", environment);
    a_replaced_object_is_noticed("gs", environment);
}

#[test]
fn azure() {
    let environment = |endpoint: &str| {
        vec![
            ("AZURE_STORAGE_ACCOUNT_NAME", "account".to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5".to_owned()),
            ("AZURE_STORAGE_ENDPOINT", endpoint.to_owned()),
        ]
    };
    batches_from_a_store_equal_those_from_a_disk("az", environment);
    a_replaced_object_is_noticed("az", environment);
}
