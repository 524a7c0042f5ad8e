//! Lists shards, and names the files next to them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

use disk::files::TEMPORARY;
use disk::foreign_files::is_apple_double;
use storage::Location;

use crate::Error;
use crate::shards::set_index::SetIndex;

pub use concepts::sidecar::SHARD_SUFFIXES as SUFFIXES;

/// File name without its suffix: the stem of `a/00012.tar.zst` is `00012`. `None` if this is not a shard.
pub fn stem(shard: &Location) -> Option<&str> {
    let Cow::Borrowed(name) = shard.file_name() else { return None };
    SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|stem| !stem.is_empty())
}

/// `NNNNN.parquet`, the table of the shard: one row per attempted sample.
pub fn table_path(shard: &Location) -> Location {
    next_to(shard, ".parquet")
}

/// `NNNNN_stats.json`. It is written last; its presence means that the shard is complete.
pub fn stats_path(shard: &Location) -> Location {
    next_to(shard, "_stats.json")
}

/// `NNNNN.concepts.parquet`, the sidecar: the concept mentions.
pub fn sidecar_path(shard: &Location) -> Location {
    let name = concepts::sidecar::path_for(Path::new(&*shard.file_name()));
    shard.with_file_name(name)
}

/// `NNNNN.sha256`, the checksums of the shard's files, as `sha256sum` writes them.
pub fn sums_path(shard: &Location) -> Location {
    next_to(shard, ".sha256")
}

/// A file next to a shard: the shard's stem and a suffix.
pub(super) fn next_to(shard: &Location, suffix: &str) -> Location {
    let name = shard.file_name();
    shard.with_file_name(format!("{}{suffix}", stem(shard).unwrap_or(&name)))
}

/// Lists the shards for `inputs`, in order. An input is one of these:
/// - a file;
/// - a folder: all its complete shards, sorted by name ([`incomplete`] lists the others);
/// - a path with brace lists as in WebDataset: `{00000..00295}.tar`, `{train,extra}/{0..3}.tar`;
/// - a path with `*`, `?` or `[..]` in its file name: all matching shards, sorted by name;
/// - several of these, joined by `::`.
///
/// Each of them may be remote ([`storage`]). Whether a remote shard exists is checked when it is opened.
///
/// # Errors
/// A path does not exist, a folder has no complete shard, a pattern matches nothing, a shard is listed twice, or a
/// brace is not closed.
pub fn list<L: Into<Location>>(inputs: impl IntoIterator<Item = L>) -> Result<Vec<Location>, Error> {
    let mut shards = Vec::new();
    for input in inputs {
        for location in names(&input.into())? {
            if is_folder(&location) {
                let folder = scan(&location)?;
                if folder.complete.is_empty() {
                    return Err(no_shards(location, folder.incomplete.len()));
                }
                shards.extend(folder.complete);
            } else {
                // Remote shards are checked when they are opened.
                if let Location::Local(path) = &location {
                    fs::metadata(path).map_err(Error::read(&location))?;
                }
                if stem(&location).is_none() {
                    let problem =
                        "not a shard; shards have the suffix .tar, .tar.zst, .tar.gz or .tgz".into();
                    return Err(Error::Input { input: location, problem });
                }
                shards.push(location);
            }
        }
    }
    let mut seen = HashSet::new();
    if let Some(twice) = shards.iter().find(|shard| !seen.insert(*shard)) {
        return Err(Error::Input { input: twice.clone(), problem: "this shard is listed twice".into() });
    }
    if shards.is_empty() {
        return Err(Error::Settings("no shard is given".into()));
    }
    Ok(shards)
}

/// The incomplete shards in the folders among `inputs`, which [`list`] leaves out. A shard is incomplete if it has no
/// `_stats.json` but another shard of its folder has one. If no shard of a folder has one, the shards come from another
/// tool and count as complete.
pub fn incomplete<L: Into<Location>>(inputs: impl IntoIterator<Item = L>) -> Result<Vec<Location>, Error> {
    let mut shards = Vec::new();
    for input in inputs {
        for folder in names(&input.into())?.iter().filter(|location| is_folder(location)) {
            shards.extend(scan(folder)?.incomplete);
        }
    }
    Ok(shards)
}

/// The shards of one folder.
struct Folder {
    complete: Vec<Location>,
    incomplete: Vec<Location>,
}

fn scan(folder: &Location) -> Result<Folder, Error> {
    let mut shards = Vec::new();
    let mut finished = HashSet::new();
    for file in files(folder)? {
        let name = file.file_name();
        if name.starts_with(TEMPORARY) || is_apple_double(Path::new(&*name)) {
            continue;
        }
        if let Some(stem) = name.strip_suffix("_stats.json") {
            finished.insert(stem.to_owned());
        } else if stem(&file).is_some() {
            shards.push(file);
        }
    }
    let is_finished = |shard: &Location| stem(shard).is_some_and(|stem| finished.contains(stem));
    let from_other_tool = !shards.iter().any(is_finished);
    let (complete, incomplete) = shards.into_iter().partition(|shard| from_other_tool || is_finished(shard));
    Ok(Folder { complete, incomplete })
}

/// The files of a folder. For a remote one with an index, a store is asked for several parts of the list at once, and a web server
/// that cannot list folders need not.
fn files(folder: &Location) -> Result<Vec<Location>, Error> {
    let index = if folder.is_remote() { SetIndex::open(folder)? } else { None };
    let Some(SetIndex { shards }) = index else { return Ok(storage::list(folder)?) };
    let names: Vec<&str> = shards.keys().map(String::as_str).collect();
    let listed = storage::list_near(folder, &names);
    let lists = |listed: &Vec<Location>| !listed.is_empty();
    match folder {
        Location::Remote(address)
            if address.scheme().starts_with("http") && !listed.as_ref().is_ok_and(lists) =>
        {
            Ok(names.into_iter().map(|name| folder.join(name)).collect())
        }
        _ => Ok(listed?),
    }
}

fn no_shards(folder: Location, incomplete: usize) -> Error {
    let problem = if incomplete == 0 {
        "this folder has no shards (.tar, .tar.zst, .tar.gz or .tgz)".to_owned()
    } else {
        format!("none of the {incomplete} shards in this folder is complete (they have no _stats.json)")
    };
    Error::Input { input: folder, problem }
}

/// What an input stands for: split at `::`, braces expanded, patterns matched. A path that exists is not expanded.
fn names(input: &Location) -> Result<Vec<Location>, Error> {
    let Some(text) = input.as_text().filter(|_| !input.is_local_entry()) else {
        return Ok(vec![input.clone()]);
    };
    let mut names = Vec::new();
    for part in text.split("::") {
        let expanded = expand(part).map_err(|problem| Error::Input { input: input.clone(), problem })?;
        for name in expanded.into_iter().map(Location::from) {
            match pattern(&name) {
                Some(pattern) => names.extend(matching(&name, &pattern)?),
                None => names.push(name),
            }
        }
    }
    Ok(names)
}

/// A remote file with the suffix of a shard is a shard; anything else remote is a folder.
fn is_folder(location: &Location) -> bool {
    match location {
        Location::Local(path) => path.is_dir(),
        Location::Remote(_) => stem(location).is_none(),
    }
}

/// The pattern in a file name, if it has one and no file with that name exists.
fn pattern(location: &Location) -> Option<glob::Pattern> {
    let Cow::Borrowed(name) = location.file_name() else { return None };
    let special = name.contains(['*', '?', '[']) && !location.is_local_entry();
    special.then(|| glob::Pattern::new(name).ok()).flatten()
}

/// The shards in a pattern's folder that match it.
fn matching(location: &Location, pattern: &glob::Pattern) -> Result<Vec<Location>, Error> {
    let folder = match location.parent() {
        Some(folder) if folder != Location::default() => folder,
        _ => Location::from("."),
    };
    let fits = |file: &Location| {
        let name = file.file_name();
        stem(file).is_some() && !is_apple_double(Path::new(&*name)) && pattern.matches(&name)
    };
    let files: Vec<_> = storage::list(folder)?.into_iter().filter(fits).collect();
    if files.is_empty() {
        let problem = "no shard matches this pattern".into();
        return Err(Error::Input { input: location.clone(), problem });
    }
    Ok(files)
}

/// Maximum number of paths that one input may expand to; more is probably a mistyped range.
const MAX_NAMES: usize = 10_000_000;

/// Expands the braces of a pattern; the last brace varies fastest.
fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, from_brace)) = rest.split_once('{') {
        let (inside, after) = from_brace.split_once('}').ok_or("the brace { is not closed")?;
        let choices = choices(inside)?;
        if names.len().saturating_mul(choices.len()) > MAX_NAMES {
            return Err(format!("the braces expand to more than {MAX_NAMES} paths"));
        }
        names = names
            .iter()
            .flat_map(|name| choices.iter().map(move |choice| format!("{name}{before}{choice}")))
            .collect();
        rest = after;
    }
    Ok(names.into_iter().map(|name| name + rest).collect())
}

/// Expands `a,b,c` or `first..last`. If either number has leading zeros, all are padded to the wider of the two.
fn choices(inside: &str) -> Result<Vec<String>, String> {
    if inside.is_empty() {
        return Err("the braces {} are empty".to_owned());
    }
    let Some((first, last)) = inside.split_once("..") else {
        return Ok(inside.split(',').map(str::to_owned).collect());
    };
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("{{{inside}}} is not a range of numbers, as in {{00000..00295}}"))
    };
    let (from, to) = (number(first)?, number(last)?);
    let padded = [first, last].iter().any(|text| text.len() > 1 && text.starts_with('0'));
    let width = if padded { first.len().max(last.len()) } else { 0 };
    if from.abs_diff(to) >= MAX_NAMES as u64 {
        return Err(format!("{{{inside}}} expands to more than {MAX_NAMES} paths"));
    }
    let text = |n: u64| format!("{n:0width$}");
    Ok(if from <= to { (from..=to).map(text).collect() } else { (to..=from).rev().map(text).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_multiply_and_keep_zeros() {
        let expanded = |pattern: &str| expand(pattern).unwrap();
        assert_eq!(expanded("{08..11}.tar"), ["08.tar", "09.tar", "10.tar", "11.tar"]);
        assert_eq!(expanded("{9..11}"), ["9", "10", "11"]);
        assert_eq!(expanded("{2..1}"), ["2", "1"]);
        assert_eq!(expanded("{a,b}/{0..1}.tar"), ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]);
        assert_eq!(expanded("plain.tar"), ["plain.tar"]);
        assert!(expand("{0..3.tar").is_err());
        assert!(expand("{a..c}").is_err());
        assert!(expand("{}.tar").unwrap_err().contains("are empty"));
        assert!(expand("{0..99999999999}").is_err());
    }

    #[test]
    fn stems_and_paths_next_to_a_shard() {
        let shard = &Location::from("a/00012.tar.zst");
        assert_eq!(stem(shard), Some("00012"));
        assert_eq!(stem(&"x.tar.gz".into()), Some("x"));
        assert_eq!(stem(&"x.tar.bz2".into()), None);
        assert_eq!(stem(&"a/.tar".into()), None);
        assert_eq!(table_path(shard), "a/00012.parquet".into());
        assert_eq!(stats_path(&"00012.tar".into()), "00012_stats.json".into());
        assert_eq!(sidecar_path(shard), "a/00012.concepts.parquet".into());
        assert_eq!(sums_path(&"s3://b/00012.tar".into()), "s3://b/00012.sha256".into());
    }

    #[test]
    fn a_folder_gives_its_complete_shards_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(folder.path().join(name), b"").unwrap();
        for name in ["00001.tar", "00000.tar", ".tmp-1-00002.tar", "._00001.tar", "notes.txt"] {
            write(name);
        }
        let input = [folder.path().to_owned()];
        let names = |files: Vec<Location>| -> Vec<String> {
            files.iter().map(|file| file.file_name().into_owned()).collect()
        };
        assert_eq!(names(list(&input).unwrap()), ["00000.tar", "00001.tar"], "shards of another tool");
        write("00001_stats.json");
        assert_eq!(names(list(&input).unwrap()), ["00001.tar"]);
        assert_eq!(names(incomplete(&input).unwrap()), ["00000.tar"]);

        let braces = folder.path().join("{00000..00001}.tar");
        assert_eq!(names(list(std::slice::from_ref(&braces)).unwrap()), ["00000.tar", "00001.tar"]);
        assert_eq!(names(list(&[folder.path().join("*1.tar")]).unwrap()), ["00001.tar"]);
        assert!(list(&[folder.path().join("*7.tar")]).unwrap_err().to_string().contains("*7.tar"));
        let joined = format!("{0}/00000.tar::{0}/00001.tar", folder.path().display());
        assert_eq!(list(&[Location::from(joined)]).unwrap().len(), 2);
        assert!(list(&[braces, folder.path().join("00001.tar")]).unwrap_err().to_string().contains("twice"));
        let missing = list(&[folder.path().join("00007.tar")]).unwrap_err().to_string();
        assert!(missing.ends_with("00007.tar does not exist"), "{missing}");
        assert!(list(&[folder.path().join("notes.txt")]).is_err());
        assert!(list::<&Location>(&[]).is_err());
    }
}
