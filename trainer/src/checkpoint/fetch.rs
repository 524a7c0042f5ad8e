//! Fetches a run from the place that its checkpoints were copied to, to continue it on another machine.

use std::fs;
use std::path::Path;

use super::layout::{
    BEST, CHECKSUMS, EVALUATION, LATEST, LOCK, MODEL, OPTIMIZER, SETTINGS, STATE, VISION, VISION_CHECKSUM,
};
use super::lock::RunLock;
use super::save::remove;
use crate::error::{Error, Result, reading, writing};
use crate::observer::Observer;

/// Fetches the newest checkpoint of the copy, the best one if that is another, and the other files of the run into the run
/// folder, which must not hold a run. Returns the name of the newest checkpoint; `None` if there is no copy.
///
/// As in a new run, the settings come last: a folder without them is no run, and is fetched again.
pub fn fetch(copy: &Path, run: &Path, observer: &dyn Observer) -> Result<Option<String>> {
    let name = |file: &str| -> Result<Option<String>> {
        match storage::read_text(copy.join(file)) {
            Ok(name) => Ok(Some(name.trim().to_owned())),
            Err(error) if storage::is_missing(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let Some(latest) = name(LATEST)? else { return Ok(None) };
    let best = name(BEST)?;
    for name in [Some(&latest), best.as_ref()].into_iter().flatten() {
        // The name becomes a part of a path here.
        if !name.strip_prefix("step-").is_some_and(|step| step.bytes().all(|byte| byte.is_ascii_digit())) {
            let problem = format!("names {name:?}, which is not a checkpoint");
            return Err(Error::Invalid { path: copy.to_owned(), problem });
        }
    }
    check_empty(run)?;
    fs::create_dir_all(run).map_err(writing(run))?;
    let _lock = RunLock::take(run, observer)?;
    let once = |file: &str| -> Result<()> {
        let from = copy.join(file);
        if storage::exists(&from)? {
            storage::download(&from, &run.join(file))?;
        }
        Ok(())
    };
    once(VISION)?;
    once(VISION_CHECKSUM)?;
    for name in best.iter().filter(|&best| *best != latest).chain([&latest]) {
        checkpoint(&copy.join(name), &run.join(name))?;
    }
    once(BEST)?;
    once(LATEST)?;
    once(SETTINGS)?;
    Ok(Some(latest))
}

/// Fetches one checkpoint, which gets its name when it is complete.
fn checkpoint(from: &Path, target: &Path) -> Result<()> {
    let temporary = disk::files::temporary_path(target);
    let fetched = || -> Result<()> {
        fs::create_dir_all(&temporary).map_err(writing(&temporary))?;
        for part in [MODEL, OPTIMIZER, STATE] {
            storage::download(from.join(part), &temporary.join(part))?;
        }
        for part in [CHECKSUMS, EVALUATION] {
            if storage::exists(from.join(part))? {
                storage::download(from.join(part), &temporary.join(part))?;
            }
        }
        if target.exists() {
            remove(target)?;
        }
        fs::rename(&temporary, target).map_err(writing(target))
    };
    let fetched = fetched();
    if fetched.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    fetched
}

/// The folder may hold what an earlier fetch that was stopped has left, and nothing else.
fn check_empty(run: &Path) -> Result<()> {
    if !run.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(run).map_err(reading(run))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = [VISION, VISION_CHECKSUM, LOCK, BEST, LATEST].contains(&name.as_str())
            || name.starts_with("step-")
            || name.starts_with(disk::files::TEMPORARY);
        if !ours {
            let problem =
                format!("has no run but {name}, so no run is fetched into it; choose another `out`");
            return Err(Error::Invalid { path: run.to_owned(), problem });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Silent;

    /// A run of two checkpoints, of which the first is the best.
    fn copy(folder: &Path) {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for step in ["step-00000002", "step-00000004", "step-00000006"] {
            for part in [MODEL, OPTIMIZER, STATE] {
                write(&format!("{step}/{part}"), &format!("{part} of {step}"));
            }
        }
        write("step-00000002/evaluation.json", "{}");
        for (name, text) in
            [(LATEST, "step-00000006"), (BEST, "step-00000002\n"), (VISION, "tower"), (SETTINGS, "s")]
        {
            write(name, text);
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let files =
            storage::list_all(folder).unwrap().into_iter().map(std::path::PathBuf::from).collect::<Vec<_>>();
        files.iter().map(|file| file.strip_prefix(folder).unwrap().display().to_string()).collect()
    }

    #[test]
    fn the_newest_and_the_best_checkpoint_are_fetched() {
        let place = tempfile::tempdir().unwrap();
        let (from, run) = (place.path().join("copy"), place.path().join("run"));
        assert_eq!(fetch(&from, &run, &Silent).unwrap(), None, "no copy");
        assert!(!run.exists());
        copy(&from);
        // What a fetch that was killed has left.
        fs::create_dir_all(run.join("step-00000006")).unwrap();
        fs::create_dir_all(run.join(".tmp-1-step-00000006")).unwrap();
        assert_eq!(fetch(&from, &run, &Silent).unwrap().as_deref(), Some("step-00000006"));
        let mut expected = names(&from);
        expected.retain(|name| !name.starts_with("step-00000004"));
        expected.insert(0, LOCK.to_owned());
        assert_eq!(names(&run), expected);
        for name in &expected[1..] {
            assert_eq!(fs::read(run.join(name)).unwrap(), fs::read(from.join(name)).unwrap(), "{name}");
        }
    }

    #[test]
    fn nothing_else_is_overwritten_and_no_name_leads_elsewhere() {
        let place = tempfile::tempdir().unwrap();
        let (from, run) = (place.path().join("copy"), place.path().join("run"));
        copy(&from);
        fs::create_dir(&run).unwrap();
        fs::write(run.join("notes.txt"), "mine").unwrap();
        let refused = fetch(&from, &run, &Silent).unwrap_err().to_string();
        assert!(refused.contains("notes.txt"), "{refused}");
        fs::remove_file(run.join("notes.txt")).unwrap();
        for name in ["../other", "step-1/../../x", "/etc", ""] {
            fs::write(from.join(LATEST), name).unwrap();
            assert!(
                fetch(&from, &run, &Silent).unwrap_err().to_string().contains("not a checkpoint"),
                "{name}"
            );
        }
        assert_eq!(names(&run), Vec::<String>::new());
    }
}
