//! The output folder of a command.

use std::path::Path;

use anyhow::{Result, bail};
use loader::program::UsageError;
use loader::source::{self, NewFolder};

/// A new folder that will be `out`, on a local disk or in a store.
///
/// # Errors
/// `out` is not empty, so that two datasets would mix in one folder, or it cannot be the name of a folder.
pub(crate) fn create(out: &Path) -> Result<NewFolder> {
    if out.file_name().is_none() {
        let line = format!("--out {} is not the name of a folder that can be created", out.display());
        return Err(UsageError(line).into());
    }
    let exists = source::is_remote(out) || out.exists();
    if exists && !source::entries(out)?.is_empty() {
        bail!("{} exists and is not empty; remove it or choose another --out", out.display());
    }
    Ok(NewFolder::create(out)?)
}
