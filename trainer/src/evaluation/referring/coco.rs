//! RefCOCO, RefCOCO+, RefCOCOg (`refs(SPLITBY).p` or `.json`) and gRefCOCO (`grefs(unc).json`), each with the `instances.json` next to
//! it, which has COCO's annotations of the images.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::regions::{Region, Target};
use super::runs;
use super::set::{Images, ReferringSet, Sample};
use crate::error::{Error, Result};
use crate::weights;

/// A published set.
pub(super) struct Published {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Who split it, each with the splits; the first is the default.
    pub(super) splits: &'static [(&'static str, &'static [&'static str])],
}

const UNC: &[&str] = &["val", "testA", "testB", "train"];

/// All of them; the names are those of their folders, too.
pub(super) const PUBLISHED: [Published; 4] = [
    Published {
        name: "refcoco",
        title: "RefCOCO",
        splits: &[("unc", UNC), ("google", &["val", "test", "train"])],
    },
    Published { name: "refcoco+", title: "RefCOCO+", splits: &[("unc", UNC)] },
    Published {
        name: "refcocog",
        title: "RefCOCOg",
        splits: &[("umd", &["val", "test", "train"]), ("google", &["val", "train"])],
    },
    Published { name: "grefcoco", title: "gRefCOCO", splits: &[("unc", UNC)] },
];

#[derive(Deserialize)]
struct Instances {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Image {
    id: i64,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Annotation {
    id: i64,
    image_id: i64,
    segmentation: Segmentation,
    #[serde(default)]
    iscrowd: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Segmentation {
    Polygons(Vec<Vec<f64>>),
    Runs { size: [u32; 2], counts: Counts },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Numbers(Vec<u32>),
    Packed(String),
}

#[derive(Deserialize)]
struct Ref {
    ref_id: i64,
    ann_id: Ids,
    image_id: i64,
    split: String,
    sentences: Vec<Sentence>,
}

/// One annotation, or those of gRefCOCO, where [-1] is none.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(i64),
    Some(Vec<i64>),
}

#[derive(Deserialize)]
struct Sentence {
    #[serde(default)]
    sent_id: Option<i64>,
    #[serde(default)]
    sent: String,
    #[serde(default)]
    raw: String,
}

/// Opens a split of a set in `folder`, or in the folder of its name there.
pub(super) fn open(
    set: &Published,
    by: &str,
    split: &str,
    folder: &Path,
    photos: &Path,
) -> Result<ReferringSet> {
    let general = set.name == "grefcoco";
    let stem = if general { format!("grefs({by})") } else { format!("refs({by})") };
    let path = find(set, &stem, folder)?;
    let refs: Vec<Ref> = read(&path)?;
    let instances = path.with_file_name("instances.json");
    let all: Instances = read(&instances)?;
    let shown: HashMap<i64, &Image> = all.images.iter().map(|image| (image.id, image)).collect();
    let known: HashMap<i64, &Annotation> = all.annotations.iter().map(|one| (one.id, one)).collect();
    let (mut images, mut samples) = (Images::default(), Vec::new());
    for one in refs.iter().filter(|one| one.split == split) {
        let invalid = |problem: String| Error::Invalid {
            path: path.clone(),
            problem: format!("ref {} {problem}", one.ref_id),
        };
        let image = shown.get(&one.image_id).ok_or_else(|| {
            invalid(format!("is about image {}, which is not in {}", one.image_id, instances.display()))
        })?;
        let ids: &[i64] = match &one.ann_id {
            Ids::One(id) => std::slice::from_ref(id),
            Ids::Some(ids) if ids[..] == [-1] => &[],
            Ids::Some(ids) => ids,
        };
        let mut regions = Vec::new();
        for id in ids {
            let annotation =
                known.get(id).filter(|annotation| annotation.image_id == one.image_id).ok_or_else(|| {
                    invalid(format!(
                        "means annotation {id} of image {}, which is not in {}",
                        one.image_id,
                        instances.display()
                    ))
                })?;
            // As in the released code of gRefCOCO.
            if !general || annotation.iscrowd == 0 {
                let region = region(annotation).and_then(|region| {
                    region.check(image.width, image.height)?;
                    Ok(region)
                });
                regions.push(
                    region.map_err(|problem| invalid(format!("means annotation {id}, which {problem}")))?,
                );
            }
        }
        let groups = match (general, regions.len()) {
            (false, _) => Vec::new(),
            (true, 0) => vec!["no target".to_owned()],
            (true, 1) => vec!["one target".to_owned()],
            (true, _) => vec!["several targets".to_owned()],
        };
        let (image, regions) = (images.number(photos.join(&image.file_name)), Arc::new(regions));
        for (number, sentence) in one.sentences.iter().enumerate() {
            let text = if sentence.sent.trim().is_empty() { &sentence.raw } else { &sentence.sent };
            if text.trim().is_empty() {
                return Err(invalid(format!("has an empty sentence, the {}. one", number + 1)));
            }
            samples.push(Sample {
                image,
                id: sentence.sent_id.map_or_else(|| format!("{}/{number}", one.ref_id), |id| id.to_string()),
                text: text.clone(),
                target: Target::Regions(Arc::clone(&regions)),
                groups: groups.clone(),
            });
        }
    }
    ReferringSet::new((set.name, set.title, split), &path, images.paths, samples)
}

/// The file of expressions: a pickle, or JSON with the same content.
fn find(set: &Published, stem: &str, folder: &Path) -> Result<PathBuf> {
    let folders = [folder.to_owned(), folder.join(set.name)];
    let places =
        folders.iter().flat_map(|folder| ["json", "p"].map(|end| folder.join(format!("{stem}.{end}"))));
    let places: Vec<PathBuf> = places.collect();
    let found = storage::existing(places.clone())?;
    let place = places.into_iter().zip(found).find(|(_, exists)| *exists);
    place.map(|(place, _)| place).ok_or_else(|| {
        let problem = format!(
            "contains nothing of {}; this folder, or {} in it, must contain {stem}.json or {stem}.p, and instances.json",
            set.title, set.name
        );
        Error::Invalid { path: folder.to_owned(), problem }
    })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = storage::read(path)?;
    let invalid = |problem: String| Error::Invalid { path: path.to_owned(), problem };
    if path.extension().is_some_and(|extension| extension == "p") {
        return weights::plain_pickle(&bytes).map_err(invalid);
    }
    serde_json::from_slice(&bytes).map_err(|e| invalid(format!("has other content than it should: {e}")))
}

fn region(annotation: &Annotation) -> std::result::Result<Region, String> {
    Ok(match &annotation.segmentation {
        Segmentation::Polygons(polygons) => {
            match polygons.iter().find(|one| one.len() < 6 || one.len() % 2 == 1) {
                None if !polygons.is_empty() => Region::Polygons(polygons.clone()),
                None => return Err("has no polygon".to_owned()),
                Some(polygon) => {
                    return Err(format!(
                        "has a polygon of {} numbers; it must have pairs, at least three",
                        polygon.len()
                    ));
                }
            }
        }
        Segmentation::Runs { size, counts } => {
            let counts = match counts {
                Counts::Numbers(counts) => counts.clone(),
                Counts::Packed(text) => runs::unpacked(text)?,
            };
            Region::Runs { size: *size, counts }
        }
    })
}
