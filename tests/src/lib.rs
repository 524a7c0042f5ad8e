//! Helpers for the end-to-end tests: find and run the programs, find real data, serve files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod browser;
pub mod inject;
pub mod store;
pub mod trainings;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// One of the programs, built from the sources as they are now.
///
/// # Panics
/// When the programs do not compile.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(build).join(name)
}

/// Builds the programs into the target folder and with the profile that this test was built with; returns the folder
/// they are in. Cargo builds a package's own programs before its tests, but not those of other packages: without this a
/// test could run yesterday's program.
fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/release/deps/test-1234
    let folder = test.parent().and_then(Path::parent).unwrap();
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo tells this test about its package. Some build scripts look at these variables: with them cargo would
    // take their crates, and whatever depends on those, for changed.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    let status = cargo
        .args(["build", "--quiet", "--locked", "--bins", "--profile", profile])
        .arg("--target-dir")
        .arg(folder.parent().unwrap())
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .unwrap();
    assert!(status.success(), "the programs do not compile");
    folder.to_owned()
}

/// The folder of real data next to the checkout; `None` if it is missing, with a message.
///
/// # Panics
/// If it is missing in continuous integration.
pub fn real_data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if folder.exists() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", folder.display());
    eprintln!("skipped: {} is missing", folder.display());
    None
}

/// Runs a program and returns its output.
///
/// # Panics
/// If it cannot be started.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    match Command::new(program(name)).args(arguments).output() {
        Ok(output) => output,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// Runs a program that must succeed, with `--json`, and returns its summary.
///
/// # Panics
/// If it fails, or if its last line is not JSON.
pub fn summary(name: &str, arguments: &[&str]) -> Value {
    let output = run(name, &[arguments, &["--json"]].concat());
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {arguments:?}: {}\n{stdout}\n{stderr}", output.status);
    match stdout.lines().last().map(serde_json::from_str) {
        Some(Ok(value)) => value,
        _ => panic!("{name} {arguments:?}: the last line is not JSON\n{stdout}\n{stderr}"),
    }
}

/// Runs a program that must fail with exit code `code`, and returns its error message, which must be one line.
///
/// # Panics
/// If it ends with another exit code, or prints not exactly one line of error.
pub fn refused(name: &str, arguments: &[&str], code: i32) -> String {
    let output = run(name, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{name} {arguments:?}: {stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error")).collect();
    assert_eq!(errors.len(), 1, "{name} {arguments:?}: expected one line of error, not\n{stderr}");
    errors[0].to_owned()
}

/// A path as a command-line argument.
///
/// # Panics
/// If it is not UTF-8.
pub fn text(path: &Path) -> &str {
    match path.to_str() {
        Some(text) => text,
        None => panic!("{} is not UTF-8", path.display()),
    }
}

/// Serves the files of a folder over HTTP on a free port of this machine until the process ends. Returns the URL, with
/// a slash at its end.
///
/// # Panics
/// If no port is available.
pub fn serve(folder: &Path) -> String {
    let listener = match TcpListener::bind("127.0.0.1:0") {
        Ok(listener) => listener,
        Err(error) => panic!("no port: {error}"),
    };
    let Ok(address) = listener.local_addr() else { panic!("no address") };
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || answer(stream, &folder));
        }
    });
    format!("http://{address}/")
}

/// Answers one request and closes the connection.
fn answer(mut stream: TcpStream, folder: &Path) -> Option<()> {
    let mut request = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    request.read_line(&mut first).ok()?;
    let mut line = String::new();
    while request.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1)?.trim_start_matches('/');
    let (status, body) = match std::fs::read(folder.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&body).ok()
}

/// Renders scenes in `folder`, downloads them into shards of 40 samples and tags them. Returns the folder of the
/// shards.
///
/// # Panics
/// If a program fails or a scene is missing.
pub fn scene_shards(folder: &Path, count: u64) -> PathBuf {
    let url = serve(folder);
    let scenes = folder.join("scenes");
    let prefix = format!("{url}scenes/");
    summary(
        "tools",
        &["scenes", "--out", text(&scenes), "--count", &count.to_string(), "--url-prefix", &prefix],
    );
    let (shards, table) = (folder.join("shards"), scenes.join("captions.parquet"));
    let options = ["--resize-mode", "no", "--shard-size", "40", "--allow-private"];
    let downloaded =
        summary("ingest", &[&["download", text(&table), "--out", text(&shards)], &options[..]].concat());
    assert_eq!(downloaded["successes"], count, "{downloaded}");
    let tagged = summary("ingest", &["tag", text(&shards)]);
    assert_eq!(tagged["captions"], count, "{tagged}");
    shards
}
