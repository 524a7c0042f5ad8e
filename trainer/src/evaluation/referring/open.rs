//! Opens a set of expressions by its name.

use std::path::{Path, PathBuf};

use super::set::ReferringSet;
use super::{coco, folder, phrasecut};
use crate::error::{Error, Result};

/// Where a set is, and which part of it.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Its folder.
    pub data: PathBuf,
    /// The folder of the images of a published set.
    pub images: Option<PathBuf>,
    /// The split of a published set; `None` = its first one.
    pub split: Option<String>,
    /// Who split a published set that was split twice; `None` = the usual one.
    pub split_by: Option<String>,
}

/// Opens `folder`, `refcoco`, `refcoco+`, `refcocog`, `grefcoco` or `phrasecut`.
///
/// # Errors
/// Wrong use for an unknown name or split; a file that is damaged, or an expression about something that is not there.
pub fn open(name: &str, place: &Place) -> Result<ReferringSet> {
    let refuse = |name: &str, problem: String| Err(Error::Setting { name: name.to_owned(), problem });
    if name == "folder" {
        let given = [
            (place.images.is_some(), "--images"),
            (place.split.is_some(), "--split"),
            (place.split_by.is_some(), "--split-by"),
        ];
        if let Some((_, option)) = given.into_iter().find(|(given, _)| *given) {
            return refuse(option, "has an effect only with a published set; leave it out".to_owned());
        }
        return folder::open(&place.data);
    }
    let of_coco = coco::PUBLISHED.iter().find(|set| set.name == name);
    if of_coco.is_none() && name != "phrasecut" {
        return refuse(
            "--dataset",
            format!("is {name}; it must be one of folder, refcoco, refcoco+, refcocog, grefcoco, phrasecut"),
        );
    }
    let (by, splits) = match (of_coco, &place.split_by) {
        (None, None) => ("", &phrasecut::SPLITS[..]),
        (None, Some(_)) => return refuse("--split-by", format!("has no effect with {name}; leave it out")),
        (Some(set), None) => set.splits[0],
        (Some(set), Some(by)) => {
            let Some(found) = set.splits.iter().find(|(known, _)| known == by) else {
                let known: Vec<&str> = set.splits.iter().map(|(by, _)| *by).collect();
                return refuse(
                    "--split-by",
                    format!("is {by}; {name} was split by {}", known.join(" and by ")),
                );
            };
            *found
        }
    };
    let split = place.split.as_deref().unwrap_or(splits[0]);
    if !splits.contains(&split) {
        return refuse("--split", format!("is {split}; {name} has the splits {}", splits.join(", ")));
    }
    let Some(photos) = &place.images else {
        let which = if of_coco.is_some() { "COCO's train2014" } else { "Visual Genome" };
        return Err(Error::Usage(format!(
            "missing --images: the folder with the images of {name} ({which})"
        )));
    };
    let missing = |folder: &Path| Error::Missing { path: folder.to_owned() };
    if !storage::is_folder(photos)? {
        return Err(missing(photos));
    }
    match of_coco {
        Some(set) => coco::open(set, by, split, &place.data, photos),
        None => phrasecut::open(split, &place.data, photos),
    }
}
