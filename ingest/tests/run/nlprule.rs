//! `ingest tag --tagger nlprule` with its data, without data, and with a wrong file.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const INGEST: &str = env!("CARGO_BIN_EXE_ingest");

fn tag(ingest: &Path, folder: &Path, data: &Path) -> Output {
    fs::write(folder.join("captions.txt"), "A man’s dog riding two Surfboards\n").unwrap();
    Command::new(ingest)
        .args(["tag", "--tagger", "nlprule", "--text", "captions.txt"])
        .current_dir(folder)
        .env("NLPRULE_DATA", data)
        .output()
        .unwrap()
}

/// The error of a failed run, which must be one line.
fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn captions_are_tagged() {
    let folder = tempfile::tempdir().unwrap();
    let output = tag(Path::new(INGEST), folder.path(), Path::new(""));
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("is missing") && std::env::var_os("CI").is_none() {
        println!("skipped: {errors}");
        return;
    }
    assert!(output.status.success(), "{errors}");
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    let concepts: Vec<_> =
        line["mentions"].as_array().unwrap().iter().map(|mention| mention["concept"].clone()).collect();
    assert_eq!(concepts, ["dog", "surfboard"], "{line}");
}

#[test]
fn errors_for_missing_or_wrong_data_name_the_command_that_downloads_it() {
    let folder = tempfile::tempdir().unwrap();
    // A copy of the program outside the checkout does not find the data.
    let ingest = folder.path().join("ingest");
    fs::copy(INGEST, &ingest).unwrap();
    let missing = refusal(&tag(&ingest, folder.path(), Path::new("")));
    assert!(missing.contains("is missing") && missing.contains("tools/nlprule-data.sh"), "{missing}");

    let wrong = folder.path().join("other.bin");
    let unreadable = refusal(&tag(&ingest, folder.path(), &wrong));
    assert!(unreadable.contains("other.bin") && unreadable.contains("tools/nlprule-data.sh"), "{unreadable}");
    fs::write(&wrong, "other data").unwrap();
    let refused = refusal(&tag(&ingest, folder.path(), &wrong));
    assert!(refused.contains("other.bin") && refused.contains("SHA-256"), "{refused}");
}
