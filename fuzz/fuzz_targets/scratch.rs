//! A file for bytes that the code under test wants to read by name.

use std::fs;
use std::path::PathBuf;

/// Writes `bytes` to a file of this name, in memory where the system has such a place.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let folder = folder.join(format!("fuzz-{}", std::process::id()));
    // Without a place for its inputs the fuzzer can only stop.
    fs::create_dir_all(&folder).expect("a folder for the input");
    let path = folder.join(name);
    // Likewise.
    fs::write(&path, bytes).expect("a file for the input");
    path
}
