//! PhraseCut: `refer_SPLIT.json` and `image_data_split3000.json` (Visual Genome), images as `IMAGE_ID.jpg`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::regions::{Region, Target};
use super::set::{Images, ReferringSet, Sample};
use crate::error::{Error, Result};

/// Its splits; the first is the default.
pub(super) const SPLITS: [&str; 4] = ["val", "test", "miniv", "train"];

const IMAGES: &str = "image_data_split3000.json";

#[derive(Deserialize)]
struct ImageData {
    image_id: i64,
    split: String,
}

#[derive(Deserialize)]
struct Task {
    task_id: Value,
    image_id: i64,
    /// Instances, their polygons, corners.
    #[serde(rename = "Polygons")]
    polygons: Vec<Vec<Vec<[f64; 2]>>>,
    phrase: String,
    #[serde(default)]
    phrase_structure: Structure,
}

#[derive(Default, Deserialize)]
struct Structure {
    #[serde(default)]
    attributes: Vec<Value>,
    #[serde(default)]
    relation_descriptions: Vec<Value>,
}

pub(super) fn open(split: &str, folder: &Path, photos: &Path) -> Result<ReferringSet> {
    let path = folder.join(format!("refer_{split}.json"));
    let tasks: Vec<Task> = read(&path)?;
    let data: Vec<ImageData> = read(&folder.join(IMAGES))?;
    let splits: HashMap<i64, &str> =
        data.iter().map(|image| (image.image_id, image.split.as_str())).collect();
    let (mut images, mut samples) = (Images::default(), Vec::new());
    for task in tasks {
        let id = task.task_id.as_str().map_or_else(|| task.task_id.to_string(), str::to_owned);
        let invalid =
            |problem: String| Error::Invalid { path: path.clone(), problem: format!("task {id} {problem}") };
        match splits.get(&task.image_id) {
            Some(&of) if of == split => {}
            Some(of) => {
                return Err(invalid(format!(
                    "is about image {}, which {IMAGES} has in split {of}",
                    task.image_id
                )));
            }
            None => {
                return Err(invalid(format!("is about image {}, which is not in {IMAGES}", task.image_id)));
            }
        }
        if task.phrase.trim().is_empty() || task.polygons.iter().all(Vec::is_empty) {
            return Err(invalid("has no phrase or no polygon".to_owned()));
        }
        // Corners are cut to whole numbers before they are drawn.
        let drawn = |instance: &Vec<Vec<[f64; 2]>>| {
            Region::Drawn(
                instance
                    .iter()
                    .map(|polygon| polygon.iter().map(|at| at.map(|v| v as i64)).collect())
                    .collect(),
            )
        };
        samples.push(Sample {
            image: images.number(photos.join(format!("{}.jpg", task.image_id))),
            groups: groups(&task),
            target: Target::Regions(Arc::new(task.polygons.iter().map(drawn).collect())),
            text: task.phrase,
            id,
        });
    }
    ReferringSet::new(("phrasecut", "PhraseCut", split), &path, images.paths, samples)
}

/// Of the slices of its evaluator those that follow from a task alone.
fn groups(task: &Task) -> Vec<String> {
    let (attributes, relations) =
        (task.phrase_structure.attributes.len(), task.phrase_structure.relation_descriptions.len());
    let instances = task.polygons.len();
    let all = [
        (attributes + relations == 0, "name only"),
        (attributes > 0, "with attribute"),
        (relations > 0, "with relation"),
        (instances == 1, "one instance"),
        (instances > 1, "more than one instance"),
        (instances > 4, "more than four instances"),
    ];
    all.into_iter().filter(|(applies, _)| *applies).map(|(_, name)| name.to_owned()).collect()
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&storage::read(path)?).map_err(|e| Error::Invalid {
        path: path.to_owned(),
        problem: format!("has other content than it should: {e}"),
    })
}
