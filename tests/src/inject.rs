//! Runs that are killed, or fail, at each of their changes of the file system. `tests/inject.c` is preloaded into the
//! program.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// What can happen at a change of the file system: SIGKILL, a full disk, an I/O error.
pub const EVENTS: [&str; 3] = ["kill", "ENOSPC", "EIO"];

/// The preloaded library; None if it cannot be compiled here.
fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let compiled = LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("inject.c");
        let target = folder.path().join("inject.so");
        let options = ["-shared", "-fPIC", "-O1", "-o"];
        let run = Command::new("cc").args(options).arg(&target).arg(source).arg("-ldl").status();
        run.is_ok_and(|status| status.success()).then_some((folder, target))
    });
    let library = compiled.as_ref().map(|(_, library)| library.as_path());
    if library.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "cc cannot compile tests/inject.c");
        println!("skipped: cc cannot compile tests/inject.c");
    }
    library
}

/// Copies a folder with everything in it.
///
/// # Panics
/// If that fails.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

/// Runs a command on a folder again and again, each time with `event` at the next change of the file system. `before`, if
/// given, is copied to this folder first. `after` is given what is left, and a text for messages. Returns the number of
/// changes.
///
/// # Panics
/// If the command ends otherwise than the event demands: killed; or with exit code 1 and a line that says why; or with
/// exit code 0, because not every failure matters (a file that could not be removed is left to the next run).
pub fn each(
    event: &str,
    before: Option<&Path>,
    command: &dyn Fn(&Path) -> Command,
    after: &dyn Fn(&Path, &str),
) -> usize {
    at(1.., event, before, command, after)
}

/// The same for some of the changes, by number, for commands that take long to start.
///
/// # Panics
/// As [`each`].
pub fn at(
    numbers: impl Iterator<Item = usize>,
    event: &str,
    before: Option<&Path>,
    command: &dyn Fn(&Path) -> Command,
    after: &dyn Fn(&Path, &str),
) -> usize {
    let Some(library) = library() else { return 0 };
    for (done, number) in numbers.enumerate() {
        let place = tempfile::tempdir().unwrap();
        let (folder, fired) = (place.path().join("out"), place.path().join("fired"));
        if let Some(before) = before {
            copy(before, &folder);
        }
        let about = format!("{event} {number}");
        let output = command(&folder)
            .env("LD_PRELOAD", library)
            .env("INJECT", format!("{event}:{number}"))
            .env("INJECT_FIRED", &fired)
            .output()
            .unwrap();
        if !fired.exists() {
            assert!(output.status.success(), "{about}: {}", errors(&output));
            return done;
        }
        check(event, &output, &about);
        after(&folder, &about);
    }
    unreachable!()
}

/// Runs a command whose output folder cannot be written, and then with few file descriptors. Either it can do without, or it
/// ends with exit code 1 and a line that says why. `command` is given the folder, a copy of `before` if there is one.
///
/// # Panics
/// If it ends otherwise, or writes to the read-only folder.
pub fn without_rights_or_descriptors(
    name: &str,
    before: Option<&Path>,
    limits: &[u32],
    command: &dyn Fn(&Path) -> Command,
) {
    let prepared = || {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("out");
        if let Some(before) = before {
            copy(before, &folder);
        }
        (place, folder)
    };
    if let Some(library) = library() {
        let (place, folder) = prepared();
        let listed = || tree(place.path());
        let were = listed();
        let mut command = command(&folder);
        command.env("LD_PRELOAD", library).env("INJECT", "read-only").env("INJECT_FOLDER", place.path());
        let output = command.output().unwrap();
        refused(&output, "Read-only file system", &format!("{name}, read-only"));
        assert_eq!(listed(), were, "{name}, read-only");
    }
    for limit in limits {
        let (_place, folder) = prepared();
        let plain = command(&folder);
        let mut limited = Command::new("sh");
        limited.arg("-c").arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\"")).arg(plain.get_program());
        limited.args(plain.get_args());
        if let Some(current) = plain.get_current_dir() {
            limited.current_dir(current);
        }
        for (variable, value) in plain.get_envs() {
            match value {
                Some(value) => limited.env(variable, value),
                None => limited.env_remove(variable),
            };
        }
        let output = limited.output().unwrap();
        if !output.status.success() {
            refused(&output, "Too many open files", &format!("{name}, {limit} descriptors"));
        }
    }
}

/// All paths below a folder.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

fn refused(output: &Output, reason: &str, about: &str) {
    let told = errors(output);
    assert_eq!(output.status.code(), Some(1), "{about}: {told}");
    assert!(told.lines().any(|line| line.starts_with("error: ") && line.contains(reason)), "{about}: {told}");
}

fn check(event: &str, output: &Output, about: &str) {
    if event == "kill" {
        assert_eq!(output.status.signal(), Some(9), "{about}: {}", errors(output));
        return;
    }
    let code = output.status.code();
    assert!([Some(0), Some(1)].contains(&code), "{about}: {code:?} {}", errors(output));
    if code == Some(1) {
        refused(
            output,
            if event == "ENOSPC" { "No space left on device" } else { "Input/output error" },
            about,
        );
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
