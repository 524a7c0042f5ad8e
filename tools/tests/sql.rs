//! `tools sql` starts the program `tools-sql`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of the program in a folder that holds nothing else.
fn alone(folder: &Path) -> PathBuf {
    let tools = folder.join("tools");
    fs::copy(env!("CARGO_BIN_EXE_tools"), &tools).unwrap();
    tools
}

/// A stand-in for the engine: prints its arguments, one per line, and ends with 7.
fn write_engine(path: &Path) {
    fs::write(path, "#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 7\n").unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

const QUERY: [&str; 5] = ["sql", "SELECT 'a  b'", "--format", "json", "shards"];

fn assert_handed_over(command: &mut Command) {
    let output = command.args(QUERY).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "SELECT 'a  b'\n--format\njson\nshards\n");
}

#[test]
fn the_engine_next_to_the_program_gets_the_arguments() {
    let place = tempfile::tempdir().unwrap();
    let tools = alone(place.path());
    write_engine(&place.path().join("tools-sql"));
    assert_handed_over(&mut Command::new(&tools));
    let help = Command::new(&tools).args(["sql", "--help"]).output().unwrap();
    assert_eq!(String::from_utf8(help.stdout).unwrap(), "--help\n", "the engine explains its options itself");
}

#[test]
fn an_engine_on_the_path_is_found() {
    let (place, path) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_engine(&path.path().join("tools-sql"));
    assert_handed_over(
        Command::new(alone(place.path())).env("PATH", format!("{}:/bin", path.path().display())),
    );
}

#[test]
fn without_the_engine_the_command_that_builds_it_is_named() {
    let place = tempfile::tempdir().unwrap();
    let output = Command::new(alone(place.path())).args(QUERY).env("PATH", place.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("cargo build --release -p simzss-tools-sql"), "{error}");
}
