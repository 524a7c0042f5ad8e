//! Datasets of images with classes or captions: one folder per class as ImageNet, WebDataset shards as the CLIP benchmark publishes
//! them, and captions as COCO JSON, Karpathy's JSON or JSON lines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use disk::foreign_files::is_hidden_entry;
use loader::images::EXTENSIONS;

use crate::error::{Error, Result};

/// Class names of ImageNet in the order of its synsets.
const IMAGENET: &str = include_str!("../../data/classes/imagenet1000.txt");

/// The ground truth for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    /// The index of its class.
    Class(usize),
    /// Its captions.
    Captions(Vec<String>),
}

/// Images with their labels.
#[derive(Debug)]
pub struct ImageDataset {
    /// Name of the folder or file.
    pub name: String,
    /// Class names; empty for datasets with captions.
    pub classes: Vec<String>,
    /// Prompt templates that come with the dataset, with `{}` for the class name.
    pub templates: Option<Vec<String>>,
    pub(super) source: Source,
}

#[derive(Debug)]
pub(super) enum Source {
    Files(Vec<(PathBuf, Label)>),
    Shards { paths: Vec<PathBuf>, captions: bool },
}

pub(super) fn invalid(path: &Path, problem: impl Into<String>) -> Error {
    Error::Invalid { path: path.to_owned(), problem: problem.into() }
}

/// Lines without empty lines at the end. Empty lines in between are kept, because the line number is the class number.
fn lines(path: &Path) -> Result<Vec<String>> {
    let text = storage::read_text(path)?;
    Ok(text.trim_end().lines().map(|line| line.trim().to_owned()).collect())
}

impl ImageDataset {
    /// A dataset with classes: WebDataset shards with `classnames.txt`, or one folder per class.
    pub fn classification(folder: &Path, split: &str) -> Result<Self> {
        let names = folder.join("classnames.txt");
        let kind = text_if_there(&folder.join("dataset_type.txt"))?.unwrap_or_default();
        match kind.trim() {
            "" | "classification" => {}
            other => {
                return Err(invalid(folder, format!("is a {other} dataset, not one for classification")));
            }
        }
        match shards(folder, split)? {
            Some(paths) => {
                let templates = folder.join("zeroshot_classification_templates.txt");
                let own = |line: String| line.replace("{c}", "{}");
                let templates = if storage::exists(&templates)? {
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

    /// Folders such as `val/n01440764/IMAGE.JPEG`; the classes are the folders, sorted by name.
    fn class_folders(folder: &Path, split: &str, names: &Path) -> Result<Self> {
        let root = [folder.join(split), folder.join("val"), folder.to_owned()];
        let mut found = None;
        for root in &root {
            if found.is_none() && storage::is_folder(root)? {
                found = Some(root);
            }
        }
        let root = found.ok_or_else(|| invalid(folder, "is not a folder"))?;
        let folders = entries(root)?.into_iter().filter(|(_, is_folder)| *is_folder);
        let mut folders: Vec<PathBuf> = folders.map(|(path, _)| path).collect();
        folders.sort();
        if folders.is_empty() {
            return Err(invalid(root, "contains neither shards nor one folder per class"));
        }
        let synsets = folders.len() == 1000 && folders.iter().all(|folder| name(folder).starts_with('n'));
        let classes: Vec<String> = if storage::exists(names)? {
            lines(names)?
        } else if synsets {
            IMAGENET.lines().map(str::to_owned).collect()
        } else {
            folders.iter().map(|folder| name(folder).replace('_', " ")).collect()
        };
        if classes.len() != folders.len() {
            let problem = format!(
                "has {} class names, but {} has {} folders",
                classes.len(),
                root.display(),
                folders.len()
            );
            return Err(invalid(names, problem));
        }
        let mut files = Vec::new();
        for (class, folder) in folders.iter().enumerate() {
            let mut images: Vec<PathBuf> =
                entries(folder)?.into_iter().map(|(path, _)| path).filter(|path| is_image(path)).collect();
            images.sort();
            files.extend(images.into_iter().map(|path| (path, Label::Class(class))));
        }
        Ok(Self { name: name(folder), classes, templates: None, source: Source::Files(files) })
    }

    /// A dataset with captions: WebDataset shards whose `.txt` has one caption per line.
    pub fn captioned_shards(folder: &Path, split: &str) -> Result<Self> {
        let paths = shards(folder, split)?
            .ok_or_else(|| invalid(folder, "contains no shard (0.tar, 00000.tar, ..)"))?;
        let source = Source::Shards { paths, captions: true };
        Ok(Self { name: name(folder), classes: Vec::new(), templates: None, source })
    }

    /// Captions from a file, COCO JSON, Karpathy's splits of COCO and Flickr30k, or JSON lines with `file` and `captions`, and
    /// images in a folder. Only the first `most` captions of an image are used. `split` is for Karpathy's file; without it, the
    /// test split is read.
    pub fn captions(file: &Path, images: &Path, most: usize, split: Option<&str>) -> Result<Self> {
        let no_splits = || {
            let problem = "--split is for Karpathy's file and for folders of shards";
            Err(Error::Usage(format!("{}: {problem}", file.display())))
        };
        let text = storage::read_text(file)?;
        let wrong = |e: serde_json::Error| invalid(file, format!("is not a file of captions: {e}"));
        let mut found: Vec<(String, Vec<String>)> = Vec::new();
        if file.extension().is_some_and(|extension| extension == "jsonl") {
            if split.is_some() {
                return no_splits();
            }
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                let row: Captioned = loader::json::parse(line.as_bytes()).map_err(wrong)?;
                found.push((row.file, row.captions));
            }
        } else {
            let coco = match loader::json::parse::<Karpathy>(text.as_bytes()) {
                Ok(karpathy) => {
                    found = karpathy.split(file, split.unwrap_or("test"))?;
                    Coco { images: Vec::new(), annotations: Vec::new() }
                }
                Err(_) if split.is_some() => return no_splits(),
                Err(_) => loader::json::parse(text.as_bytes()).map_err(wrong)?,
            };
            let mut by_image: BTreeMap<u64, Vec<String>> = BTreeMap::new();
            for caption in coco.annotations {
                by_image.entry(caption.image_id).or_default().push(caption.caption);
            }
            let captions =
                |image: CocoImage| (image.file_name, by_image.remove(&image.id).unwrap_or_default());
            found.extend(coco.images.into_iter().map(captions));
        }
        let mut files = Vec::new();
        let paths: Vec<PathBuf> = found.iter().map(|(name, _)| images.join(name)).collect();
        let exist = storage::existing(&paths)?;
        for (((name, mut captions), path), exists) in found.into_iter().zip(paths).zip(exist) {
            captions.truncate(most);
            if captions.is_empty() {
                return Err(invalid(file, format!("has no caption for {name}")));
            }
            if !exists {
                return Err(invalid(
                    &path,
                    format!("is missing, but {} has captions for it", file.display()),
                ));
            }
            files.push((path, Label::Captions(captions)));
        }
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, classes: Vec::new(), templates: None, source: Source::Files(files) })
    }

    /// Number of images if it is known without reading the shards, otherwise 0.
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

/// Karpathy's file of splits, `dataset_coco.json` or `dataset_flickr30k.json`.
#[derive(serde::Deserialize)]
struct Karpathy {
    images: Vec<KarpathyImage>,
}

#[derive(serde::Deserialize)]
struct KarpathyImage {
    /// The folder of COCO's file.
    #[serde(default)]
    filepath: Option<String>,
    filename: String,
    split: String,
    sentences: Vec<Sentence>,
}

#[derive(serde::Deserialize)]
struct Sentence {
    raw: String,
}

impl Karpathy {
    /// The files and captions of a split.
    fn split(self, file: &Path, split: &str) -> Result<Vec<(String, Vec<String>)>> {
        let splits: BTreeSet<String> = self.images.iter().map(|image| image.split.clone()).collect();
        if !splits.contains(split) {
            let splits: Vec<String> = splits.into_iter().collect();
            let problem =
                format!("{} has no split {split}; its splits are {}", file.display(), splits.join(", "));
            return Err(Error::Usage(problem));
        }
        let captions = |image: KarpathyImage| {
            let name = match image.filepath {
                Some(folder) if !folder.is_empty() => format!("{folder}/{}", image.filename),
                _ => image.filename,
            };
            (name, image.sentences.into_iter().map(|sentence| sentence.raw).collect())
        };
        Ok(self.images.into_iter().filter(|image| image.split == split).map(captions).collect())
    }
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

/// Paths in a folder, and which of them are folders.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, bool)>> {
    let entries = storage::entries(folder)?.into_iter().map(|(at, is_folder)| (PathBuf::from(at), is_folder));
    Ok(entries.filter(|(path, _)| !is_hidden_entry(path)).collect())
}

fn text_if_there(path: &Path) -> Result<Option<String>> {
    match storage::read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if storage::is_missing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Shards of a split, sorted by number: as many as `nshards.txt` says, or all.
fn shards(folder: &Path, split: &str) -> Result<Option<Vec<PathBuf>>> {
    let inside = folder.join(split);
    let root = if storage::is_folder(&inside)? { inside } else { folder.to_owned() };
    if !storage::is_folder(&root)? {
        return Err(invalid(folder, "is not a folder"));
    }
    let number = |path: &PathBuf| {
        loader::shards::stem(&path.into())
            .map(|stem| (stem.parse::<u64>().unwrap_or(u64::MAX), stem.to_owned()))
    };
    let inside = entries(&root)?.into_iter().map(|(path, _)| path);
    let mut paths: Vec<PathBuf> = inside.filter(|path| number(path).is_some()).collect();
    paths.sort_by_key(number);
    let counted = root.join("nshards.txt");
    if let Some(text) = text_if_there(&counted)? {
        let count: usize = text
            .trim()
            .parse()
            .map_err(|_| invalid(&counted, format!("{:?} is not a number", text.trim())))?;
        if paths.len() < count {
            return Err(invalid(&counted, format!("says {count} shards, but there are {}", paths.len())));
        }
        paths.truncate(count);
    }
    Ok((!paths.is_empty()).then_some(paths))
}
