//! Sets of images with labels or captions: class folders as ImageNet's, WebDataset sets as the CLIP benchmark
//! publishes them, and captions in COCO's JSON or one a line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, at};

/// Endings of images in class folders.
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
/// ImageNet's class names in the order of its synsets.
const IMAGENET: &str = include_str!("../../data/classes/imagenet1000.txt");

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// The index of its class.
    Class(usize),
    /// Its captions.
    Captions(Vec<String>),
}

/// Images with what is known of them.
#[derive(Debug)]
pub struct ImageSet {
    /// The folder's name, or the published set's.
    pub name: String,
    /// Class names; empty for captions.
    pub classes: Vec<String>,
    /// The set's own templates, `{}` for the name; none where it has none.
    pub templates: Option<Vec<String>>,
    pub(super) source: Source,
}

#[derive(Debug)]
pub(super) enum Source {
    Files(Vec<(PathBuf, Known)>),
    Shards { paths: Vec<PathBuf>, captions: bool },
}

pub(super) fn invalid(path: &Path, problem: impl Into<String>) -> Error {
    Error::Invalid { path: path.to_owned(), problem: problem.into() }
}

/// Lines without the empty ones at the end; one in between would shift every class after it, so it stays.
fn lines(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    Ok(text.trim_end().lines().map(|line| line.trim().to_owned()).collect())
}

impl ImageSet {
    /// A set with classes: WebDataset shards with `classnames.txt`, or a folder a class.
    pub fn classification(folder: &Path, split: &str) -> Result<Self> {
        let names = folder.join("classnames.txt");
        let kind = fs::read_to_string(folder.join("dataset_type.txt")).unwrap_or_default();
        match kind.trim() {
            "" | "classification" => {}
            other => return Err(invalid(folder, format!("is a {other} set, not one for classification"))),
        }
        match shards(folder, split)? {
            Some(paths) => {
                let templates = folder.join("zeroshot_classification_templates.txt");
                let own = |line: String| line.replace("{c}", "{}");
                let templates = if templates.exists() {
                    Some(lines(&templates)?.into_iter().map(own).collect())
                } else {
                    None
                };
                Ok(Self {
                    name: name(folder),
                    classes: lines(&names)?,
                    templates,
                    source: Source::Shards { paths, captions: false },
                })
            }
            None => Self::class_folders(folder, split, &names),
        }
    }

    /// `val/n01440764/IMAGE.JPEG` and the like; the classes are the folders in order of name.
    fn class_folders(folder: &Path, split: &str, names: &Path) -> Result<Self> {
        let root = [folder.join(split), folder.join("val"), folder.to_owned()];
        let root = root.iter().find(|root| root.is_dir()).ok_or_else(|| invalid(folder, "is no folder"))?;
        let mut folders: Vec<PathBuf> = entries(root)?.into_iter().filter(|path| path.is_dir()).collect();
        folders.sort();
        if folders.is_empty() {
            return Err(invalid(root, "holds no folder a class, and there are no shards either"));
        }
        let synsets = folders.len() == 1000 && folders.iter().all(|folder| name(folder).starts_with('n'));
        let classes: Vec<String> = if names.exists() {
            lines(names)?
        } else if synsets {
            IMAGENET.lines().map(str::to_owned).collect()
        } else {
            folders.iter().map(|folder| name(folder).replace('_', " ")).collect()
        };
        if classes.len() != folders.len() {
            let problem = format!(
                "names {} classes, and {} has {} folders",
                classes.len(),
                root.display(),
                folders.len()
            );
            return Err(invalid(names, problem));
        }
        let mut files = Vec::new();
        for (class, folder) in folders.iter().enumerate() {
            let mut images: Vec<PathBuf> =
                entries(folder)?.into_iter().filter(|path| is_image(path)).collect();
            images.sort();
            files.extend(images.into_iter().map(|path| (path, Known::Class(class))));
        }
        Ok(Self { name: name(folder), classes, templates: None, source: Source::Files(files) })
    }

    /// A set with captions: WebDataset shards with one caption a line of `.txt`.
    pub fn captioned_shards(folder: &Path, split: &str) -> Result<Self> {
        let paths =
            shards(folder, split)?.ok_or_else(|| invalid(folder, "holds no shard (0.tar, 00000.tar ..)"))?;
        let source = Source::Shards { paths, captions: true };
        Ok(Self { name: name(folder), classes: Vec::new(), templates: None, source })
    }

    /// Captions from a file: COCO's JSON, or JSON lines of `file` and `captions`; images in a folder. At most
    /// `most` captions an image are taken, the first ones.
    pub fn captions(file: &Path, images: &Path, most: usize) -> Result<Self> {
        let text = fs::read_to_string(file).map_err(at(file))?;
        let wrong = |e: serde_json::Error| invalid(file, format!("no captions: {e}"));
        let mut found: Vec<(String, Vec<String>)> = Vec::new();
        if file.extension().is_some_and(|extension| extension == "jsonl") {
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                let row: Captioned = serde_json::from_str(line).map_err(wrong)?;
                found.push((row.file, row.captions));
            }
        } else {
            let coco: Coco = serde_json::from_str(&text).map_err(wrong)?;
            let mut by_image: BTreeMap<u64, Vec<String>> = BTreeMap::new();
            for caption in coco.annotations {
                by_image.entry(caption.image_id).or_default().push(caption.caption);
            }
            let captions =
                |image: CocoImage| (image.file_name, by_image.remove(&image.id).unwrap_or_default());
            found.extend(coco.images.into_iter().map(captions));
        }
        let mut files = Vec::new();
        for (name, mut captions) in found {
            captions.truncate(most);
            let path = images.join(&name);
            if captions.is_empty() {
                return Err(invalid(file, format!("has no caption of {name}")));
            }
            if !path.exists() {
                return Err(invalid(&path, format!("is missing, and {} has captions of it", file.display())));
            }
            files.push((path, Known::Captions(captions)));
        }
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, classes: Vec::new(), templates: None, source: Source::Files(files) })
    }

    /// Images, where they can be counted without reading shards; 0 otherwise.
    pub fn known_length(&self) -> u64 {
        match &self.source {
            Source::Files(files) => files.len() as u64,
            Source::Shards { .. } => 0,
        }
    }
}

#[derive(serde::Deserialize)]
struct Captioned {
    file: String,
    captions: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Coco {
    images: Vec<CocoImage>,
    annotations: Vec<CocoCaption>,
}

#[derive(serde::Deserialize)]
struct CocoImage {
    id: u64,
    file_name: String,
}

#[derive(serde::Deserialize)]
struct CocoCaption {
    image_id: u64,
    caption: String,
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_image(path: &Path) -> bool {
    path.extension().is_some_and(|e| EXTENSIONS.contains(&e.to_string_lossy().to_ascii_lowercase().as_str()))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(at(folder))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(at(folder))).collect()
}

/// Shards of a split, in the order of their numbers: as many as `nshards.txt` says, or all there are.
fn shards(folder: &Path, split: &str) -> Result<Option<Vec<PathBuf>>> {
    let inside = folder.join(split);
    let root = if inside.is_dir() { inside } else { folder.to_owned() };
    if !root.is_dir() {
        return Err(invalid(folder, "is no folder"));
    }
    let number = |path: &PathBuf| {
        loader::shard::stem(path).map(|stem| (stem.parse::<u64>().unwrap_or(u64::MAX), stem.to_owned()))
    };
    let mut paths: Vec<PathBuf> = entries(&root)?.into_iter().filter(|path| number(path).is_some()).collect();
    paths.sort_by_key(number);
    let counted = root.join("nshards.txt");
    if counted.exists() {
        let text = fs::read_to_string(&counted).map_err(at(&counted))?;
        let count: usize =
            text.trim().parse().map_err(|_| invalid(&counted, format!("{:?} is no number", text.trim())))?;
        if paths.len() < count {
            return Err(invalid(&counted, format!("says {count} shards, and there are {}", paths.len())));
        }
        paths.truncate(count);
    }
    Ok((!paths.is_empty()).then_some(paths))
}
