//! Which samples are to be removed.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{Array, RecordBatch, StringViewArray};
use loader::shards::selection::Names;
use serde_json::Value;
use storage::Location;

use crate::deny::Deny;
use crate::error::Error;
use crate::lists;
use crate::problem::Status;
use crate::rewrite::tables::texts;

/// What a user wants to be removed.
#[derive(Debug)]
pub enum Wanted {
    /// Samples by key.
    Keys(Keys),
    /// Samples whose URL, URL after redirects, or hash of the original image is on a list.
    Listed(Deny),
}

/// Keys of samples, with the names of their shards where the list has them.
#[derive(Debug, Default)]
pub struct Keys {
    path: Location,
    by_shard: BTreeMap<String, BTreeSet<String>>,
    anywhere: BTreeSet<String>,
}

impl Keys {
    /// Reads a list: a key per line; or a table, or a folder of tables, with the column `key` and, if keys come in several shards,
    /// `shard`. Of a table with the column `status`, only rows with one of `statuses`, unless that is empty.
    ///
    /// # Errors
    /// The list cannot be read, has no key, or no column `status` although `statuses` are given.
    pub fn read(path: &Location, statuses: &[String]) -> Result<Self, Error> {
        let mut keys = Self { path: path.clone(), ..Self::default() };
        if lists::is_plain(path)? {
            if !statuses.is_empty() {
                return Err(Error::Usage(format!(
                    "{}: --status needs a table with the column status",
                    path.display()
                )));
            }
            lists::visit(path, "key", &[], |row| {
                keys.anywhere.insert(row.url);
                Ok(())
            })?;
        } else if let Err(error) = keys.add_rows(path, true, statuses) {
            match error {
                Error::Column { wanted, .. } if wanted.contains("shard") => {
                    keys.add_rows(path, false, statuses)?;
                }
                error => return Err(error),
            }
        }
        if keys.anywhere.is_empty() && keys.by_shard.is_empty() {
            let of = if statuses.is_empty() {
                String::new()
            } else {
                format!(" with the status {}", statuses.join(" or "))
            };
            return Err(Error::input(path, format!("it has no key{of}")));
        }
        Ok(keys)
    }

    /// Adds the rows of a table, with the names of the shards or without.
    fn add_rows(&mut self, path: &Location, with_shard: bool, statuses: &[String]) -> Result<(), Error> {
        let mut more = Vec::new();
        more.extend(with_shard.then_some("shard"));
        more.extend((!statuses.is_empty()).then_some("status"));
        lists::visit(path, "key", &more, |row| {
            let value = |place: usize| row.extra.get(place).and_then(Value::as_str).unwrap_or_default();
            let (shard, status) = if with_shard { (value(0), value(1)) } else { ("", value(0)) };
            if !statuses.is_empty() && !statuses.iter().any(|wanted| wanted == status) {
                return Ok(());
            }
            if row.url.is_empty() {
                return Err(Error::input(path, "a row has no key"));
            }
            if shard.is_empty() {
                self.anywhere.insert(row.url);
            } else {
                self.by_shard.entry(shard.to_owned()).or_default().insert(row.url);
            }
            Ok(())
        })
    }
}

/// The same by the place of the shard in the list of shards.
pub(super) enum Resolved<'a> {
    Keys {
        path: &'a Location,
        by_place: BTreeMap<usize, &'a BTreeSet<String>>,
        anywhere: &'a BTreeSet<String>,
    },
    Listed(&'a Deny),
}

impl<'a> Resolved<'a> {
    pub(super) fn new(wanted: &'a Wanted, shards: &[Location]) -> Result<Self, Error> {
        let keys = match wanted {
            Wanted::Listed(deny) => return Ok(Self::Listed(deny)),
            Wanted::Keys(keys) => keys,
        };
        let names = Names::new(shards);
        let mut by_place = BTreeMap::new();
        for (name, of_shard) in &keys.by_shard {
            let place = names.number(name).map_err(|problem| Error::input(&keys.path, problem))?;
            if by_place.insert(place, of_shard).is_some() {
                let problem = format!("it names {} in two ways: name it once", shards[place]);
                return Err(Error::input(&keys.path, problem));
            }
        }
        Ok(Self::Keys { path: &keys.path, by_place, anywhere: &keys.anywhere })
    }

    /// Columns of a table by which [`Resolved::find`] finds rows.
    pub(super) const COLUMNS: [&'static str; 6] =
        ["url", "key", "status", "final_url", "sha256", "url_sha256"];

    /// The rows of a table to remove, of those that are not removed yet.
    pub(super) fn find(&self, place: usize, rows: &RecordBatch) -> Found {
        let [urls, keys, statuses, finals, hashes, url_hashes] = Self::COLUMNS.map(|name| texts(rows, name));
        let mut found = Found::default();
        for row in 0..rows.num_rows() {
            let text = |column: Option<&StringViewArray>| {
                column.filter(|column| column.is_valid(row)).map(|column| column.value(row).to_owned())
            };
            let key = text(keys).unwrap_or_default();
            let is_wanted = match self {
                Self::Keys { by_place, anywhere, .. } => {
                    let listed = by_place.get(&place).is_some_and(|keys| keys.contains(&key));
                    let listed = listed || anywhere.contains(&key);
                    if listed {
                        found.keys.push(key);
                    }
                    listed
                }
                Self::Listed(deny) => {
                    let by_url =
                        [text(urls), text(finals)].into_iter().flatten().any(|url| deny.has_url(&url));
                    let hashes = [text(hashes), text(url_hashes)];
                    by_url || hashes.into_iter().flatten().any(|hash| deny.has_hash(&hash))
                }
            };
            if !is_wanted {
                continue;
            }
            if text(statuses).as_deref() == Some(Status::Removed.name()) {
                found.before += 1;
            } else {
                found.rows.push(row as u32);
            }
        }
        found
    }

    /// Refuses keys that no shard has, or that several have although the list does not say which. `found`: the keys that were found in
    /// each shard.
    pub(super) fn refuse_unknown(&self, shards: &[Location], found: &[Found]) -> Result<(), Error> {
        let Self::Keys { path, by_place, anywhere } = self else { return Ok(()) };
        let refuse = |problem: String| Err(Error::input(*path, problem));
        for (&place, keys) in by_place {
            let known: BTreeSet<&String> = found[place].keys.iter().collect();
            if let Some(key) = keys.iter().find(|key| !known.contains(key)) {
                return refuse(format!(
                    "it has the key {key}, which {} does not have; nothing was removed",
                    shards[place]
                ));
            }
        }
        let mut places: BTreeMap<&String, usize> = BTreeMap::new();
        for (place, found) in found.iter().enumerate() {
            for key in found.keys.iter().filter(|key| anywhere.contains(*key)) {
                let first = *places.entry(key).or_insert(place);
                if first != place {
                    return refuse(format!(
                        "it has the key {key}, which {} and {} have: give a table with the columns shard and key; nothing was removed",
                        shards[first], shards[place]
                    ));
                }
            }
        }
        match anywhere.iter().find(|key| !places.contains_key(key)) {
            Some(key) => refuse(format!("it has the key {key}, which no shard has; nothing was removed")),
            None => Ok(()),
        }
    }
}

/// What was found in the table of a shard.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The rows to remove.
    pub(super) rows: Vec<u32>,
    /// Rows that were removed before.
    pub(super) before: u64,
    /// The keys of all these rows, if rows are found by key.
    pub(super) keys: Vec<String>,
}
