//! Names of files that every worker can open by itself. A name says where the file is, its length, and a hash of its end, which in a
//! Parquet file is the footer: a worker that finds another file there refuses it, instead of giving other rows.

use std::path::absolute;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use datafusion::object_store::path::{Path as ObjectPath, PathPart};
use percent_encoding::percent_decode_str;
use storage::Location;
use twox_hash::XxHash64;

use crate::remote::{Files, OpenFile};

/// The engine's name for a file that workers read.
pub(crate) fn name(path: &Location, file: &OpenFile) -> ObjectPath {
    let place = match path {
        Location::Local(path) => absolute(path).unwrap_or_else(|_| path.clone()).display().to_string(),
        address @ Location::Remote(_) => address.to_string(),
    };
    [PathPart::from(place), PathPart::from(state(file))].into_iter().collect()
}

/// Files that are opened by their names.
pub(crate) fn files() -> Arc<Files> {
    Arc::new(Files::opened_by(open))
}

fn open(name: &ObjectPath) -> Result<OpenFile> {
    let parts: Vec<_> = name.parts().collect();
    let [place, expected] = parts.as_slice() else { anyhow::bail!("{name} is no name of a file") };
    let place = percent_decode_str(place.as_ref()).decode_utf8().context("a name of a file is damaged")?;
    let path = Location::from(place.as_ref());
    let file = OpenFile::open(&path)?;
    ensure!(
        state(&file) == expected.as_ref(),
        "{path} is not the file that the query is about, or has changed since; workers need the same files at the same \
         paths or addresses"
    );
    Ok(file)
}

/// Length and hash of the end.
fn state(file: &OpenFile) -> String {
    format!("{}-{:016x}", file.len(), XxHash64::oneshot(0, file.last()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_opened_by_its_name_as_long_as_it_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b%2F#é.parquet");
        std::fs::write(&path, "one").unwrap();
        let location = Location::Local(path.clone());
        let named = name(&location, &OpenFile::open(&location).unwrap());
        // As it arrives at a worker.
        let received = ObjectPath::parse(named.as_ref()).unwrap();
        assert_eq!(open(&received).unwrap().len(), 3);
        std::fs::write(&path, "two").unwrap();
        let error = open(&received).unwrap_err().to_string();
        assert!(error.contains("é.parquet is not the file"), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(open(&received).unwrap_err().to_string().contains("é.parquet"));
    }
}
