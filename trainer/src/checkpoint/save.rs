//! Writes checkpoints, and removes old ones.

use std::fs;
use std::path::{Path, PathBuf};

use tch::Tensor;

use super::checksums::write_checksums;
use super::layout::{AVERAGED, BEST, CHECKSUMS, LATEST, MODEL, OPTIMIZER, STATE, pointed, write_json};
use super::state::State;
use crate::error::{Error, Result, reading, writing};
use crate::method::optimizer::Optimizer;
use crate::towers::TextTower;
use crate::weights;

/// Writes a checkpoint under a temporary name, renames it, and makes `latest` point to it. If `latest` points to a
/// checkpoint of this step already, nothing is written: the run was resumed from it and has taken no step since. `averaged`: the averaged
/// copy of the text tower, of a run that has one.
///
/// # Errors
/// Also if a weight is NaN or infinite: the run could not continue from such a checkpoint, and it would replace a good one.
pub fn save(
    run: &Path,
    state: &State,
    named: &[(String, Tensor)],
    optimizer: &Optimizer,
    averaged: Option<&TextTower>,
) -> Result<PathBuf> {
    let name = format!("step-{:08}", state.step);
    let target = run.join(&name);
    let latest = pointed(run, LATEST);
    if latest == name {
        return Ok(target);
    }
    if let Some((weight, _)) = named.iter().find(|(_, tensor)| tensor.isfinite().all().int64_value(&[]) == 0)
    {
        let last = if latest.is_empty() { "there is none yet".to_owned() } else { format!("it is {latest}") };
        return Err(Error::Failed(format!(
            "step {}: {weight} has values that are NaN or infinite, so no checkpoint is saved; lower optimizer.lr and resume \
             from the last checkpoint ({last})",
            state.step
        )));
    }
    let temporary = disk::files::temporary_path(&target);
    let written = write_parts(&temporary, state, named, optimizer, averaged).and_then(|()| {
        if target.exists() {
            // A run was killed between the renaming and the update of `latest`.
            remove(&target)?;
        }
        fs::rename(&temporary, &target).map_err(writing(&target))?;
        disk::files::sync_parent(&target).map_err(writing(run))?;
        let latest = run.join(LATEST);
        disk::files::write_atomic(&latest, name.as_bytes()).map_err(writing(&latest))
    });
    if written.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    written.map(|()| target)
}

/// Removes a checkpoint. It first loses its name, so that a part of it is never taken for a checkpoint.
pub(super) fn remove(checkpoint: &Path) -> Result<()> {
    let aside = disk::files::temporary_path(&checkpoint.with_extension("old"));
    fs::rename(checkpoint, &aside).map_err(writing(checkpoint))?;
    fs::remove_dir_all(&aside).map_err(writing(&aside))
}

fn write_parts(
    folder: &Path,
    state: &State,
    named: &[(String, Tensor)],
    optimizer: &Optimizer,
    averaged: Option<&TextTower>,
) -> Result<()> {
    fs::create_dir_all(folder).map_err(writing(folder))?;
    weights::write(&folder.join(MODEL), named)?;
    let mut resumed = optimizer.state();
    let copies = averaged.into_iter().flat_map(TextTower::named);
    resumed.extend(copies.map(|(name, tensor)| (format!("{AVERAGED}{name}"), tensor)));
    weights::write(&folder.join(OPTIMIZER), &resumed)?;
    write_json(&folder.join(STATE), state)?;
    write_checksums(&folder.join(CHECKSUMS), folder, &[MODEL, OPTIMIZER, STATE])
}

/// Removes the checkpoints of a run except the `keep` newest, the best, and the one from which the run would resume; 0 keeps
/// all.
pub fn remove_old(run: &Path, keep: usize) -> Result<()> {
    if keep == 0 {
        return Ok(());
    }
    // The newest by name may be one that a killed run wrote before it updated `latest`.
    let named = [BEST, LATEST].map(|pointer| pointed(run, pointer));
    let mut names: Vec<String> = fs::read_dir(run)
        .map_err(reading(run))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.strip_prefix("step-").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())))
        .collect();
    // By number: from step 100,000,000 on, names have more digits.
    names.sort_by_key(|name| (name.len(), name.clone()));
    names.truncate(names.len().saturating_sub(keep));
    for name in names.iter().filter(|name| !named.contains(name)) {
        remove(&run.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn what_is_pointed_at_is_never_removed() {
        let run = tempfile::tempdir().unwrap();
        for step in [2, 4, 6, 8, 10] {
            fs::create_dir(run.path().join(format!("step-{step:08}"))).unwrap();
        }
        fs::write(run.path().join(BEST), "step-00000004").unwrap();
        // 10 was left by a run that was killed.
        fs::write(run.path().join(LATEST), "step-00000008").unwrap();
        remove_old(run.path(), 1).unwrap();
        let left = [2, 4, 6, 8, 10].map(|step| run.path().join(format!("step-{step:08}")).exists());
        assert_eq!(left, [false, true, false, true, true]);
    }

    /// A run folder, and a state, weights and optimizer to save in it.
    fn some_run() -> (tempfile::TempDir, State, Vec<(String, Tensor)>, Optimizer) {
        let state = State::new(&Settings::default(), 3, (0, 3), "", 0);
        let named = vec![("weight".to_owned(), Tensor::from_slice(&[1.0_f32, 2.0]))];
        let optimizer = Optimizer::new(&Settings::default().optimizer, Vec::new());
        (tempfile::tempdir().unwrap(), state, named, optimizer)
    }

    #[test]
    fn a_save_that_changes_nothing_touches_nothing() {
        use std::os::unix::fs::MetadataExt;
        let (run, mut state, named, optimizer) = some_run();
        let first = save(run.path(), &state, &named, &optimizer, None).unwrap();
        let folder = |path: &Path| fs::metadata(path).unwrap().ino();
        let number = folder(&first);
        assert_eq!(save(run.path(), &state, &named, &optimizer, None).unwrap(), first);
        assert_eq!(folder(&first), number, "the checkpoint was replaced");
        // One that `latest` does not name was left by a run that was killed, and is replaced.
        fs::write(run.path().join(LATEST), "step-00000002").unwrap();
        fs::write(first.join(MODEL), "half").unwrap();
        save(run.path(), &state, &named, &optimizer, None).unwrap();
        assert!(fs::metadata(first.join(MODEL)).unwrap().len() > 4);
        state.step = 4;
        assert_ne!(save(run.path(), &state, &named, &optimizer, None).unwrap(), first);
        assert_eq!(pointed(run.path(), LATEST), "step-00000004");
    }

    #[test]
    fn weights_that_are_not_finite_are_not_saved() {
        let (run, mut state, mut named, optimizer) = some_run();
        save(run.path(), &state, &named, &optimizer, None).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            named.push(("bad.weight".to_owned(), Tensor::from_slice(&[1.0, bad])));
            state.step += 1;
            let error = save(run.path(), &state, &named, &optimizer, None).unwrap_err().to_string();
            assert!(error.contains("bad.weight") && error.contains("step-00000003"), "{error}");
            named.pop();
        }
        assert_eq!(pointed(run.path(), LATEST), "step-00000003");
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 2, "the checkpoint and `latest`");
    }
}
