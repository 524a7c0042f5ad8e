//! The output folder of a command.

use anyhow::{Result, bail};
use program::UsageError;
use storage::{Location, NewFolder};

/// A new folder that will be `out`, on a local disk or in a store.
///
/// # Errors
/// `out` is not empty, so that two datasets would mix in one folder, or it cannot be the name of a folder.
pub(crate) fn create(out: &Location) -> Result<NewFolder> {
    if out.local().is_some_and(|path| path.file_name().is_none()) {
        let line = format!("--out {out} is not the name of a folder that can be created");
        return Err(UsageError(line).into());
    }
    let exists = out.is_remote() || out.is_local_entry();
    if exists && !storage::entries(out)?.is_empty() {
        bail!("{out} exists and is not empty; remove it or choose another --out");
    }
    Ok(NewFolder::create(out)?)
}
