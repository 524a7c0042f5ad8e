//! Gives the complete files of a shard their names, the statistics last. Several files cannot be renamed at once, so the files
//! of a shard that replaces a finished one are first complete under other names, `.tmp-new-NNNNN.tar` and so on, the
//! statistics last. From that moment on the shard is decided: whoever comes next completes the switch ([`recover`]).
//! Before it, the earlier files are untouched. So a finished shard never becomes less, and statistics always describe the
//! files next to them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use disk::files::{TEMPORARY, clear_leftovers, sync_parent};
use loader::shards;
use loader::shards::set_index::SetIndex;
use program::interrupted;
use storage::Location;

use crate::dataset::claim::Claims;
use crate::dataset::staging::Staging;
use crate::error::Error;

const STATS: &str = "_stats.json";
/// How often to look whether another process has completed its switch, in a folder and in an object store.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Endings of the files that the statistics describe: the tar, the checksums, and the table, the sidecar and the signals.
const DESCRIBED: [&str; 6] = [".tar", ".tar.zst", ".tar.gz", ".tgz", ".parquet", ".sha256"];

/// The path of a shard's new file before the switch.
pub(crate) fn new_path(path: &Location) -> Location {
    path.with_file_name(new_name(&path.file_name()))
}

/// The name of a new file before the switch.
fn new_name(name: &str) -> String {
    format!("{TEMPORARY}new-{name}")
}

/// The final name of a new file; None if the name is not that of one.
pub(crate) fn final_name(name: &str) -> Option<&str> {
    name.strip_prefix(TEMPORARY)?.strip_prefix("new-")
}

/// The name of the shard to which the file of this name belongs: what comes before the first dot, so that no name of a shard that
/// is replaced may have one. None if it is no file of a shard.
fn stem_of(name: &str) -> Option<&str> {
    let described = || DESCRIBED.iter().any(|ending| name.ends_with(ending));
    name.strip_suffix(STATS).or_else(|| name.split('.').next().filter(|_| described()))
}

/// The files of one shard, which are complete.
pub(crate) struct Files {
    /// The final place of the tar, which is written already.
    pub(crate) tar: Location,
    /// The others in the order in which they are written: signals, sidecar, table, checksums. What an earlier shard has besides them
    /// stays, and is refused by who reads it, because it was made from that shard.
    pub(crate) described: Vec<(Location, Bytes)>,
    pub(crate) stats: (Location, Bytes),
}

impl Files {
    /// All but the tar, in the order in which they are written.
    fn others(&self) -> impl Iterator<Item = &(Location, Bytes)> {
        self.described.iter().chain([&self.stats])
    }

    /// The names of the files that the statistics describe.
    fn described_names(&self) -> Vec<String> {
        let all = [&self.tar].into_iter().chain(self.described.iter().map(|(path, _)| path));
        all.map(|path| path.file_name().into_owned()).collect()
    }
}

/// Where to write the tar of a shard in a folder of this machine that is then published.
pub(crate) fn place_of_tar(tar: &Location, replaces: bool) -> Location {
    if replaces && !tar.is_remote() { new_path(tar) } else { tar.clone() }
}

/// Publishes a shard, whose tar is the file `made`: in a folder of this machine at [`place_of_tar`], otherwise anywhere.
/// `replaces`: whether there is a complete shard of the same name.
pub(crate) fn publish(folder: &Location, files: &Files, made: &Path, replaces: bool) -> Result<(), Error> {
    if replaces {
        SetIndex::forget(folder)?;
    }
    match folder {
        Location::Local(folder) => publish_local(folder, files, replaces)?,
        Location::Remote(_) => publish_remote(files, made, replaces)?,
    }
    // An index that another process has written meanwhile may lack this shard.
    Ok(SetIndex::forget(folder)?)
}

fn publish_local(folder: &Path, files: &Files, replaces: bool) -> Result<(), Error> {
    let mut others = files.others();
    if !replaces {
        return Ok(others.try_for_each(|(path, bytes)| storage::write(path, bytes.clone()))?);
    }
    let staged = others.try_for_each(|(path, bytes)| storage::write(new_path(path), bytes.clone()));
    if let Err(error) = staged {
        // The statistics first: even if writing them failed, they may be there, and would decide that the others are
        // complete.
        let described = files.described.iter().rev().map(|(path, _)| path);
        for path in [&files.stats.0].into_iter().chain(described).chain([&files.tar]) {
            if storage::remove(new_path(path)).is_err() {
                break;
            }
        }
        return Err(error.into());
    }
    let stats = files.stats.0.file_name();
    switch(folder, stem_of(&stats).unwrap_or_default(), &files.described_names())
}

/// Uploads a shard to an object store, which cannot rename. Only a shard that replaces another is first uploaded under
/// other names.
fn publish_remote(files: &Files, tar: &Path, replaces: bool) -> Result<(), Error> {
    if replaces {
        storage::upload(tar, new_path(&files.tar))?;
        for (path, bytes) in files.others() {
            storage::write(new_path(path), bytes.clone())?;
        }
    }
    storage::remove(&files.stats.0)?;
    storage::upload(tar, &files.tar)?;
    for (path, bytes) in files.others() {
        storage::write(path, bytes.clone())?;
    }
    if replaces {
        // The statistics first: without them, the others are leftovers.
        let described = files.described.iter().map(|(path, _)| path);
        for path in [&files.stats.0, &files.tar].into_iter().chain(described) {
            storage::remove(new_path(path))?;
        }
    }
    Ok(())
}

/// Brings a folder into order after processes that were killed: completes their switches, and removes what they left.
/// Does not touch the files of processes that live.
pub(crate) fn recover(folder: &Location) -> Result<(), Error> {
    let mut stems = BTreeSet::new();
    for file in storage::list(folder)? {
        let name = file.file_name();
        stems.extend(final_name(&name).and_then(stem_of).map(str::to_owned));
    }
    let mut claims = Claims::new(folder);
    for stem in stems {
        loop {
            if let Some(_claim) = claims.take(&stem)? {
                if !recover_shard(folder, &stem)? {
                    for name in new_files(folder, &stem)? {
                        storage::remove(new_path(&folder.join(name)))?;
                    }
                }
                break;
            }
            // Another process has written new files: it completes them soon, or it was killed. Until then the shard would
            // be missing in this run.
            if new_files(folder, &stem)?.is_empty() && !has_begun(folder, &stem)? {
                break;
            }
            if interrupted() {
                return Err(Error::interrupted());
            }
            std::thread::sleep(LOOK_EVERY[usize::from(folder.is_remote())]);
        }
    }
    match folder {
        Location::Local(path) => clear_leftovers(path, is_ours).map_err(Error::file("read", path)),
        Location::Remote(_) => {
            Staging::clear_leftovers();
            Ok(())
        }
    }
}

/// The same in the folders of shards: `input` is a folder, a file or a brace list.
pub(crate) fn recover_all(input: &Location) -> Result<(), Error> {
    if input.is_local_folder() || (input.is_remote() && shards::stem(input).is_none()) {
        return recover(input);
    }
    let shards = shards::list(std::slice::from_ref(input))?;
    let mut folders: Vec<&Path> = shards.iter().filter_map(|shard| shard.local()?.parent()).collect();
    folders.dedup();
    for folder in folders {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        recover(&folder.into())?;
    }
    Ok(())
}

/// Whether a temporary file may be removed if nobody writes it: not the new files of a shard, nor those of other programs.
fn is_ours(name: &str) -> bool {
    let endings = [".tar", ".tar.zst", ".tar.gz", ".tgz", ".parquet", ".sha256", ".json", ".spool"];
    Claims::is_claim(name) || (final_name(name).is_none() && endings.iter().any(|end| name.ends_with(end)))
}

/// Completes the switch of one shard, if one was begun; returns whether it was. The caller has claimed the shard.
pub(crate) fn recover_shard(folder: &Location, stem: &str) -> Result<bool, Error> {
    if !has_begun(folder, stem)? {
        return Ok(false);
    }
    let names = new_files(folder, stem)?;
    SetIndex::forget(folder)?;
    match folder {
        Location::Local(path) => switch(path, stem, &names)?,
        Location::Remote(_) => switch_remote(folder, stem, &names)?,
    }
    Ok(true)
}

/// Whether all new files of a shard are complete.
fn has_begun(folder: &Location, stem: &str) -> Result<bool, Error> {
    Ok(storage::exists(new_path(&folder.join(format!("{stem}{STATS}"))))?)
}

/// The final names of a shard's new files that the statistics describe.
fn new_files(folder: &Location, stem: &str) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for file in storage::list(folder)? {
        let name = file.file_name();
        let name = final_name(&name).filter(|name| stem_of(name) == Some(stem) && !name.ends_with(STATS));
        names.extend(name.map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Renames the new files, of which some may have their names already. It can be interrupted anywhere and started again.
fn switch(folder: &Path, stem: &str, described: &[String]) -> Result<(), Error> {
    let stats = folder.join(format!("{stem}{STATS}"));
    // The order is that on the disk too, even if the power fails: each step is synced before the next one.
    if stats.exists() {
        storage::remove(stats.as_path())?;
        sync_parent(&stats).map_err(Error::file("write", folder))?;
    }
    for name in described {
        let path = folder.join(name);
        match fs::rename(folder.join(new_name(name)), &path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("write", &path)(error));
            }
            _ => {}
        }
    }
    sync_parent(&stats).map_err(Error::file("write", folder))?;
    let new_stats = folder.join(new_name(&format!("{stem}{STATS}")));
    fs::rename(new_stats, &stats).map_err(Error::file("write", &stats))?;
    sync_parent(&stats).map_err(Error::file("write", folder))
}

/// The same in an object store, by copies through this machine.
fn switch_remote(folder: &Location, stem: &str, described: &[String]) -> Result<(), Error> {
    let stats = folder.join(format!("{stem}{STATS}"));
    let bytes = storage::read(new_path(&stats))?;
    storage::remove(&stats)?;
    let mut copied = vec![stats.clone()];
    for name in described {
        let path = folder.join(name);
        let staging = Staging::new(folder)?;
        storage::upload(&staging.fetch(&new_path(&path))?, &path)?;
        copied.push(path);
    }
    storage::write(&stats, bytes)?;
    for path in copied {
        storage::remove(new_path(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [&str; 6] = [
        "00000.concepts.parquet",
        "00000.hash.parquet",
        "00000.parquet",
        "00000.sha256",
        "00000.tar",
        "00000_stats.json",
    ];

    /// The steps of a switch, after each of which a process may have been killed.
    fn after(steps: usize, folder: &Path) {
        let at = |name: &str| folder.join(name);
        for name in FILES {
            fs::write(at(name), "old").unwrap();
        }
        let new = FILES.map(|name| (at(&new_name(name)), at(name)));
        let step = |number: usize| match number {
            0..6 => fs::write(&new[number].0, "new").unwrap(),
            6 => fs::remove_file(at("00000_stats.json")).unwrap(),
            _ => fs::rename(&new[number - 7].0, &new[number - 7].1).unwrap(),
        };
        (0..steps).for_each(step);
    }

    #[test]
    fn a_shard_is_the_old_one_or_the_new_one_wherever_a_process_was_killed() {
        for steps in 0..=13 {
            let folder = tempfile::tempdir().unwrap();
            after(steps, folder.path());
            recover(&folder.path().into()).unwrap();
            let expected = if steps < 6 { "old" } else { "new" };
            let mut names = Vec::new();
            for entry in fs::read_dir(folder.path()).unwrap() {
                let path = entry.unwrap().path();
                assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{steps} steps: {}", path.display());
                names.push(path.file_name().unwrap().to_owned());
            }
            names.sort();
            assert_eq!(names, FILES, "{steps} steps");
        }
    }

    #[test]
    fn files_belong_to_the_shard_of_their_name() {
        for name in FILES.into_iter().chain(["00000.tar.zst", "00000.tgz", "00000.my-own.parquet"]) {
            assert_eq!(stem_of(name), Some("00000"), "{name}");
        }
        assert_eq!(stem_of("a_stats_stats.json"), Some("a_stats"));
        assert_eq!((stem_of("ingest.json"), stem_of("00000.txt")), (None, None));
    }

    #[test]
    fn the_files_of_a_process_that_lives_are_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        after(2, folder.path());
        let claim = Claims::new(&folder.path().into()).take("00000").unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| recover(&folder.path().into()).unwrap());
            // The other waits for this process, which completes the shard.
            after(6, folder.path());
            let described: Vec<String> = FILES[..5].iter().map(|&name| name.to_owned()).collect();
            switch(folder.path(), "00000", &described).unwrap();
            drop(claim);
            other.join().unwrap();
        });
        // What others keep in the folder is none of its business.
        fs::create_dir(folder.path().join(".tmp-17-cache")).unwrap();
        recover(&folder.path().into()).unwrap();
        fs::remove_dir(folder.path().join(".tmp-17-cache")).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("00000.tar")).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), FILES.len());
    }
}
