//! Writes the input to a file, for code that reads files by path.

use std::fs;
use std::path::PathBuf;

/// Writes `bytes` to a file with this name; in memory if the system has /dev/shm.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let folder = folder.join(format!("fuzz-{}", std::process::id()));
    // Without the input file the fuzzer cannot continue.
    fs::create_dir_all(&folder).expect("a folder for the input");
    let path = folder.join(name);
    // Likewise.
    fs::write(&path, bytes).expect("a file for the input");
    path
}
