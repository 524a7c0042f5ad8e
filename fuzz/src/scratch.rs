//! Writes the input to a file, for code that reads files by path.

use std::env::temp_dir;
use std::io::Write;
use std::path::PathBuf;

use tempfile::{Builder, NamedTempFile};

/// Writes `bytes` to a file whose name ends in `name`, and which is removed with what this returns; in memory if the system
/// has /dev/shm.
pub(crate) fn file(name: &str, bytes: &[u8]) -> NamedTempFile {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { temp_dir() };
    // Without the input file the fuzzer cannot continue.
    let mut file =
        Builder::new().prefix("fuzz-").suffix(name).tempfile_in(folder).expect("a file for the input");
    file.write_all(bytes).expect("room for the input");
    file
}
