//! The names of shards in a selection.

use std::collections::HashMap;
use std::path::Path;

use storage::Location;

use crate::shards::stem;

/// Finds shards by their names in a selection.
#[derive(Debug)]
pub struct Names<'a> {
    shards: &'a [Location],
    /// By file name, with and without its suffix.
    by_file_name: HashMap<String, Vec<usize>>,
}

impl<'a> Names<'a> {
    /// Of these shards.
    pub fn new(shards: &'a [Location]) -> Self {
        let mut by_file_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (number, shard) in shards.iter().enumerate() {
            by_file_name.entry(shard.file_name().into_owned()).or_default().push(number);
            if let Some(stem) = stem(shard) {
                by_file_name.entry(stem.to_owned()).or_default().push(number);
            }
        }
        Self { shards, by_file_name }
    }

    /// The number of the shard whose path, with or without the suffix, ends with `name`.
    ///
    /// # Errors
    /// There is none, or more than one: the end of a sentence.
    pub fn number(&self, name: &str) -> Result<usize, String> {
        let (folder, file_name) = name.rsplit_once('/').unwrap_or(("", name));
        let fits = |number: &&usize| {
            let path = self.shards[**number].as_name();
            folder.is_empty() || path.parent().is_some_and(|parent| parent.ends_with(Path::new(folder)))
        };
        let found = self.by_file_name.get(file_name).map_or(&[][..], Vec::as_slice);
        let mut found = found.iter().filter(fits);
        match (found.next(), found.next()) {
            (Some(&number), None) => Ok(number),
            (None, _) => Err(format!("it is of the shard {name}, which is not among the shards")),
            (Some(&one), Some(&other)) => Err(format!(
                "{name} may be {} or {}: give the shards in the selection with as much of their path as tells them apart",
                self.shards[one], self.shards[other]
            )),
        }
    }
}

/// Names for shards in a selection: the file names if they differ, otherwise with as many folders as are needed.
pub fn names(shards: &[Location]) -> Vec<String> {
    let paths: Vec<Vec<String>> = shards
        .iter()
        .map(|shard| shard.as_name().to_string_lossy().split('/').map(str::to_owned).collect())
        .collect();
    let longest = paths.iter().map(Vec::len).max().unwrap_or_default();
    for parts in 1..=longest {
        let names: Vec<String> =
            paths.iter().map(|path| path[path.len().saturating_sub(parts)..].join("/")).collect();
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        if sorted.array_windows().all(|[a, b]| a != b) {
            return names;
        }
    }
    paths.iter().map(|path| path.join("/")).collect()
}
