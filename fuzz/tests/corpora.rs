//! Every target on every stored input, of which `examples/seeds.rs` makes the ones with a name; the fuzzer found the others.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// The most memory that one input may take, bytes: what a program has room for many times over. (The inputs are some kB each.)
const MEMORY: u64 = 512 << 20;

/// The most that all inputs may take in the repository, bytes.
const STORED: u64 = 300_000;

/// A line of /proc/self/status, bytes: `VmRSS` is the memory that this process has now, `VmHWM` the most that it had.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    line.trim_matches([':', '\t', ' ', 'k', 'B']).parse::<u64>().unwrap() << 10
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    inputs
}

/// One test for all, because it measures the memory of the whole process.
#[test]
fn no_stored_input_breaks_its_target() {
    let (mut failed, mut count, mut stored) = (Vec::new(), 0, 0);
    for (target, run) in fuzz::TARGETS {
        let inputs = inputs(target);
        assert!(inputs.len() > 9, "{target} has {} inputs", inputs.len());
        for path in inputs {
            let bytes = fs::read(&path).unwrap();
            (count, stored) = (count + 1, stored + bytes.len() as u64);
            // The peak becomes what there is now.
            fs::write("/proc/self/clear_refs", "5").unwrap();
            let before = memory("VmRSS");
            let ran = std::panic::catch_unwind(|| run(&bytes));
            let taken = memory("VmHWM").saturating_sub(before);
            if ran.is_err() {
                failed.push(format!("{}: panicked", path.display()));
            } else if taken > MEMORY {
                failed.push(format!("{}: took {taken} bytes of memory", path.display()));
            }
        }
    }
    println!("{count} inputs of {stored} bytes");
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(stored <= STORED, "the corpora have {stored} bytes; shrink them as README.md says");
}
