//! The shards of a run, which a checkpoint remembers, so that a run is not resumed with other data.
//!
//! Names, counts and captions (by the sidecars' footers) are compared when a run is resumed. What only the index of a shard
//! says is noted when a shard is first used, and compared when it is used again: nothing more is read than training needs.

use loader::{Expected, Identity, Loader};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::observer::Observer;

/// A shard of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunShard {
    /// File name.
    pub name: String,
    /// Number of samples.
    pub samples: u32,
    /// SHA-256 of the checks of its captions; absent if no sidecar was read, or if it was of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captions: Option<String>,
    /// What its index says; absent before its first use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Identity>,
}

/// The shards of a loader, in order, as far as they are known before the first batch.
pub fn shards(loader: &Loader) -> Vec<RunShard> {
    let sidecars = loader.sidecars();
    let shards = loader.settings().shards.iter().zip(loader.shard_samples()).enumerate();
    shards
        .map(|(number, (shard, &samples))| RunShard {
            name: shard.file_name().into_owned(),
            samples,
            captions: sidecars.get(number).and_then(|footer| Some(footer.captions.as_ref()?.sha256.clone())),
            content: None,
        })
        .collect()
}

/// The check of the loader's selection, as a checkpoint has it.
pub fn selection(loader: &Loader) -> Option<String> {
    loader.selection().map(|check| format!("{check:016x}"))
}

/// An error if the run in which `saved` was noted had another selection than the loader has.
pub fn compare_selection(saved: Option<&str>, loader: &Loader) -> Result<()> {
    let now = selection(loader);
    let problem = match (saved, now.as_deref()) {
        (saved, now) if saved == now => return Ok(()),
        (None, _) => "is set, but the run was started without a selection; resume the run without it",
        (Some(_), None) => "is not set, but the run was started with a selection; resume the run with it",
        (Some(_), Some(_)) => {
            "is not the selection that the run was started with; resume the run with that one"
        }
    };
    Err(Error::Setting {
        name: "data.selection".to_owned(),
        problem: format!("{problem}, or start a new run"),
    })
}

/// An error if the run in which `saved` was noted had other data than the loader has. Makes the loader compare what only its
/// use of the shards will tell. `now` are the loader's shards; they take over what was noted.
pub fn compare(
    saved: &[RunShard],
    now: &mut [RunShard],
    loader: &Loader,
    observer: &dyn Observer,
) -> Result<()> {
    if saved.is_empty() {
        observer.message(
            "warning: the checkpoint was saved by an earlier version, which did not note the data of the run: make sure that \
             the shards have not changed",
        );
        return Ok(());
    }
    if saved.len() != now.len() {
        return Err(other_data(&format!("has {} shards, but was started with {}", now.len(), saved.len())));
    }
    for (saved, now) in saved.iter().zip(&mut *now) {
        let recaptioned =
            saved.captions.as_ref().zip(now.captions.as_ref()).is_some_and(|(saved, now)| saved != now);
        if saved.name != now.name {
            return Err(other_data(&format!("has the shard {} where it had {}", now.name, saved.name)));
        }
        if saved.samples != now.samples {
            let (name, before, samples) = (&now.name, saved.samples, now.samples);
            return Err(other_data(&format!("had {before} samples in {name}, which now has {samples}")));
        }
        if recaptioned {
            return Err(other_data(&format!("had other captions in {} than it has now", now.name)));
        }
        now.content = saved.content;
    }
    let since = "the run used it before; resume the run with its own data, or start a new run".to_owned();
    let shards = saved.iter().map(|shard| shard.content).collect();
    Ok(loader.expect(Expected { shards, captions: true, since })?)
}

fn other_data(what: &str) -> Error {
    Error::Setting {
        name: "data.shards".to_owned(),
        problem: format!(
            "is not the data of the run: it {what}; resume the run with its own data, or start a new run"
        ),
    }
}

/// Numbers that say to another process which shards this one has opened ([`Loader::opened`]).
pub fn encode(opened: &[(u32, Identity)]) -> Vec<i64> {
    let option = |number: Option<u64>| [i64::from(number.is_some()), number.unwrap_or_default() as i64];
    let each = |&(shard, content): &(u32, Identity)| {
        let numbers = [i64::from(shard), content.places as i64];
        numbers.into_iter().chain(option(content.images)).chain(option(content.captions))
    };
    opened.iter().flat_map(each).collect()
}

/// Notes what [`encode`] made.
pub fn note(shards: &mut [RunShard], numbers: &[i64]) {
    for numbers in numbers.as_chunks::<6>().0 {
        let option = |at: usize| (numbers[at] != 0).then_some(numbers[at + 1] as u64);
        let content = Identity { places: numbers[1] as u64, images: option(2), captions: option(4) };
        if let Some(shard) = usize::try_from(numbers[0]).ok().and_then(|shard| shards.get_mut(shard)) {
            shard.content = Some(content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_tells_is_noted() {
        let shard =
            |name: &str| RunShard { name: name.to_owned(), samples: 1, captions: None, content: None };
        let mut shards = vec![shard("a"), shard("b"), shard("c")];
        let known = |images, captions| Identity { places: u64::MAX, images, captions };
        let opened = [(2, known(Some(7), None)), (0, known(None, Some(0)))];
        note(&mut shards, &encode(&opened));
        let contents: Vec<_> = shards.iter().map(|shard| shard.content).collect();
        assert_eq!(contents, [Some(opened[1].1), None, Some(opened[0].1)]);
        // A shard that does not exist changes nothing.
        note(&mut shards, &encode(&[(3, known(None, None))]));
        assert_eq!(contents, shards.iter().map(|shard| shard.content).collect::<Vec<_>>());
    }
}
