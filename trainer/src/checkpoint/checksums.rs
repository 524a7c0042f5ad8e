//! The checksums of the files of a run: a damaged file is found when it is read.

use std::path::Path;

use concepts::checksums::Checksums;

use crate::error::{Error, Result, writing};
use crate::weights;

/// Writes the checksums of files in a folder.
pub(super) fn write_checksums(path: &Path, folder: &Path, names: &[&str]) -> Result<()> {
    let mut sums = Checksums::default();
    for name in names {
        sums.set(name, weights::sha256(&folder.join(name))?);
    }
    disk::files::write_atomic(path, sums.text().as_bytes()).map_err(writing(path))
}

/// An error if a file has another checksum than `path` says. Without checksums (earlier versions) there is nothing to compare.
pub(super) fn refuse_damaged(path: &Path, file: &Path) -> Result<()> {
    let text = match storage::read_text(path) {
        Ok(text) => text,
        Err(error) if storage::is_missing(&error) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let invalid = |path: &Path, problem: String| Error::Invalid { path: path.to_owned(), problem };
    let sums = Checksums::parse(&text).map_err(|problem| invalid(path, format!("is damaged: {problem}")))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if sums.get(&name) == Some(weights::sha256(file)?.as_str()) {
        return Ok(());
    }
    let problem = format!(
        "is damaged: its SHA-256 is not the one in {}; use another checkpoint, or a copy of this one",
        path.display()
    );
    Err(invalid(file, problem))
}
