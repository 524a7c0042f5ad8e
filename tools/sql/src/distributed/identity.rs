//! What a worker says about itself: which build of this program it is, and its number of threads.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Read};
use std::thread;

use datafusion::error::DataFusionError;
use twox_hash::XxHash64;

/// This build: version, and hash of the program file. Plans have no format of their own that two versions, or two builds with other
/// features, would agree on.
pub(super) fn this_program() -> Result<String, DataFusionError> {
    let hash = hash().map_err(|error| {
        let error = format!("cannot read this program's own file, by which workers know it: {error}");
        DataFusionError::External(error.into())
    })?;
    Ok(format!("{}-{hash:016x}", env!("CARGO_PKG_VERSION")))
}

fn hash() -> io::Result<u64> {
    // On Linux this is the file that was started, even if another one has its name now.
    let mut file = File::open("/proc/self/exe").or_else(|_| File::open(std::env::current_exe()?))?;
    let mut hasher = XxHash64::with_seed(0);
    let mut bytes = vec![0; 1 << 20];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(hasher.finish()),
            read => hasher.write(&bytes[..read]),
        }
    }
}

/// The text in which a worker tells both.
pub(super) fn of_worker() -> Result<String, DataFusionError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    Ok(format!("{} {threads}", this_program()?))
}

/// Build and number of threads in a worker's text; `None` in any other.
pub(super) fn parse(text: &str) -> Option<(&str, usize)> {
    let (build, threads) = text.split_once(' ')?;
    Some((build, threads.parse().ok()?))
}
