//! Segmentation datasets on disk: the published ones, whose folder layout is detected, and folders of images with index masks.

use std::path::{Path, PathBuf};

use disk::foreign_files::is_apple_double;
use loader::images::EXTENSIONS;

use super::masks::{Conversion, Table, without_background};
use super::published_datasets::{Background, Layout, PUBLISHED, Published};
use crate::error::{Error, Result};
use crate::inference::classes::{self, Class};

/// Images with masks, and the meaning of the values in the masks.
#[derive(Debug)]
pub struct SegmentationDataset {
    /// Name for `--dataset`.
    pub name: String,
    /// Name in texts.
    pub title: String,
    /// Split of a published dataset.
    pub split: String,
    /// Number of images in the published dataset; `None` for folders.
    pub published: Option<usize>,
    /// Its classes; the labels of a converted mask are indices into this list.
    pub classes: Vec<Class>,
    /// How class 0 is predicted; `None` if it is not a background class.
    pub background: Option<Background>,
    /// Maps the values of a mask to labels.
    pub table: Table,
    /// Image and mask files, sorted by name.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// Files that should exist but do not.
    pub missing: Vec<PathBuf>,
}

impl SegmentationDataset {
    /// Opens a published dataset by its name, or `folder`. Without `split`, the first split is used.
    pub fn open(name: &str, folder: &Path, split: Option<&str>) -> Result<Self> {
        if name == "folder" {
            return Self::open_folder(folder);
        }
        let setting = |problem: String| Error::Setting { name: "dataset".to_owned(), problem };
        let set = PUBLISHED.iter().find(|set| set.name == name).ok_or_else(|| {
            let names: Vec<&str> = PUBLISHED.iter().map(|set| set.name).collect();
            setting(format!("is {name}; it must be one of folder, {}", names.join(", ")))
        })?;
        let split = split.unwrap_or(set.images[0].0);
        let Some(&(split, images)) = set.images.iter().find(|(name, _)| *name == split) else {
            let splits: Vec<&str> = set.images.iter().map(|(name, _)| *name).collect();
            return Err(setting(format!(
                "{name} has no split {split}; its splits are {}",
                splits.join(", ")
            )));
        };
        let found = locate(set, folder, split)?;
        let classes = classes::parse(set.classes);
        let table = found.layout.conversion.table(classes.len());
        let opened = Self {
            name: set.name.to_owned(),
            title: set.title.to_owned(),
            split: split.to_owned(),
            published: Some(images),
            classes,
            background: None,
            table,
            pairs: found.pairs,
            missing: found.missing,
        };
        Ok(match set.background {
            Some(background) => opened.with_background(background),
            None => opened,
        })
    }

    /// Opens the generic layout: `images/NAME.jpg` (or another of [`EXTENSIONS`]), `masks/NAME.png`, and `classes.txt` with one class per line.
    pub fn open_folder(folder: &Path) -> Result<Self> {
        const FOLDER: Layout = Layout {
            split: "",
            list: None,
            image: "images/{}.*",
            mask: "masks/{}.png",
            conversion: Conversion::Indices,
        };
        let classes = classes::read(&folder.join("classes.txt"))?;
        let (pairs, missing) = list(folder, &FOLDER)?;
        if pairs.is_empty() && missing.is_empty() {
            let problem = "contains no images".to_owned();
            return Err(Error::Invalid { path: folder.join("images"), problem });
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            name: "folder".to_owned(),
            title: name,
            split: String::new(),
            published: None,
            table: FOLDER.conversion.table(classes.len()),
            classes,
            background: None,
            pairs,
            missing,
        })
    }

    /// Changes how class 0 is predicted. A dataset whose background is ignored already stays as it is.
    #[must_use]
    pub fn with_background(mut self, background: Background) -> Self {
        if self.background == Some(Background::Ignored) || self.classes.is_empty() {
            return self;
        }
        if background == Background::Ignored {
            self.table = without_background(&self.table);
            self.classes.remove(0);
        }
        self.background = Some(background);
        self
    }

    /// An error with the first missing file if the dataset is not complete.
    pub fn check_complete(&self) -> Result<()> {
        match self.missing.first() {
            None => Ok(()),
            Some(first) => {
                let others = self.missing.len() - 1;
                let problem =
                    format!("is missing, and {others} more files of {}; --check lists them", self.title);
                Err(Error::Invalid { path: first.clone(), problem })
            }
        }
    }
}

struct Found<'a> {
    layout: &'a Layout,
    pairs: Vec<(PathBuf, PathBuf)>,
    missing: Vec<PathBuf>,
}

/// The layout with which most images and masks are found.
fn locate<'a>(set: &'a Published, folder: &Path, split: &str) -> Result<Found<'a>> {
    let mut best: Option<Found<'a>> = None;
    for root in set.roots {
        for layout in set.layouts.iter().filter(|layout| layout.split == split) {
            let (pairs, missing) = list(&folder.join(root), layout)?;
            let known = best.as_ref().map(|best| (best.pairs.len(), best.missing.len()));
            if (pairs.len(), missing.len()) > known.unwrap_or((0, 0)) {
                best = Some(Found { layout, pairs, missing });
            }
        }
    }
    best.ok_or_else(|| {
        let wanted: Vec<String> = set
            .layouts
            .iter()
            .filter(|layout| layout.split == split)
            .map(|layout| {
                let list = layout.list.map_or(String::new(), |list| format!("{list}, "));
                format!("{list}{} with {}", layout.image, layout.mask).replace("{}", "KEY")
            })
            .collect();
        let below: Vec<&str> = set.roots.iter().copied().filter(|root| !root.is_empty()).collect();
        let problem = format!(
            "contains nothing of {} ({split}); this folder, or {} in it, must contain {}",
            set.title,
            below.join(" or "),
            wanted.join("; or ")
        );
        Error::Invalid { path: folder.to_owned(), problem }
    })
}

type Pairs = Vec<(PathBuf, PathBuf)>;

/// Complete pairs and missing files of a layout in `root`, sorted by name; both are empty if the layout is not there.
fn list(root: &Path, layout: &Layout) -> Result<(Pairs, Vec<PathBuf>)> {
    let images: Vec<(String, String, PathBuf)> = match layout.list {
        Some(list) => {
            let path = root.join(list);
            if !storage::exists(&path)? {
                return Ok((Vec::new(), Vec::new()));
            }
            let text = storage::read_text(&path)?;
            let keys = text.split_whitespace().map(str::to_owned);
            keys.map(|key| (String::new(), key.clone(), root.join(layout.image.replace("{}", &key))))
                .collect()
        }
        None => scan(root, layout.image)?,
    };
    let (mut pairs, mut missing) = (Vec::new(), Vec::new());
    let wanted: Vec<[PathBuf; 2]> = images
        .into_iter()
        .map(|(folder, key, image)| [image, root.join(layout.mask.replace('*', &folder).replace("{}", &key))])
        .collect();
    let found = storage::existing(wanted.concat())?;
    for (files, found) in wanted.into_iter().zip(found.chunks(2)) {
        let absent: Vec<PathBuf> =
            files.iter().zip(found).filter(|(_, exists)| !**exists).map(|(path, _)| path.clone()).collect();
        let [image, mask] = files;
        if absent.is_empty() {
            pairs.push((image, mask));
        }
        missing.extend(absent);
    }
    pairs.sort();
    missing.sort();
    Ok((pairs, missing))
}

/// Files that match a pattern such as `images/val/*/{}_left.png` or `images/{}.*`: (folder for `*`, key, path).
fn scan(root: &Path, pattern: &str) -> Result<Vec<(String, String, PathBuf)>> {
    let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    let suffix = name.trim_start_matches("{}");
    let folders: Vec<(String, PathBuf)> = match folder.strip_suffix("/*") {
        None => vec![(String::new(), root.join(folder))],
        Some(parent) => {
            let inside = entries(&root.join(parent))?.into_iter();
            inside.filter(|(.., is_folder)| *is_folder).map(|(name, path, _)| (name, path)).collect()
        }
    };
    let mut found = Vec::new();
    for (folder, path) in folders {
        for (file, path, _) in entries(&path)? {
            let key = match suffix {
                ".*" => file.rsplit_once('.').and_then(|(key, extension)| {
                    EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()).then_some(key)
                }),
                suffix => file.strip_suffix(suffix),
            };
            // Hidden files come from archive programs and file managers.
            if let Some(key) = key.filter(|key| !key.is_empty() && !key.starts_with('.')) {
                found.push((folder.clone(), key.to_owned(), path));
            }
        }
    }
    Ok(found)
}

/// Names and paths in a folder, and which of them are folders; empty if the folder does not exist.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf, bool)>> {
    if !storage::Location::from(folder).is_remote() && !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (path, is_folder) in
        storage::entries(folder)?.into_iter().map(|(at, is_folder)| (PathBuf::from(at), is_folder))
    {
        if !is_apple_double(&path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, path, is_folder));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn touch(root: &Path, paths: &[&str]) {
        for path in paths {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
    }

    #[test]
    fn layouts_are_found_where_they_are_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        touch(root, &["VOCdevkit/VOC2012/JPEGImages/a.jpg", "VOCdevkit/VOC2012/SegmentationClass/a.png"]);
        touch(root, &["VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"]);
        fs::write(root.join("VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"), "a\nb\n").unwrap();
        let set = SegmentationDataset::open("voc20", root, None).unwrap();
        assert_eq!((set.pairs.len(), set.missing.len(), set.classes.len()), (1, 2, 20));
        assert!(set.check_complete().unwrap_err().to_string().contains("1 more files"));

        touch(
            root,
            &["leftImg8bit/val/ulm/ulm_1_leftImg8bit.png", "gtFine/val/ulm/ulm_1_gtFine_labelIds.png"],
        );
        let set = SegmentationDataset::open("cityscapes19", root, None).unwrap();
        assert_eq!((set.pairs.len(), set.missing.len()), (1, 0));
        assert_eq!(set.table[7], Some(0), "label ids, because there are no training ids");
        touch(root, &["gtFine/val/ulm/ulm_1_gtFine_labelTrainIds.png"]);
        assert_eq!(SegmentationDataset::open("cityscapes19", root, None).unwrap().table[7], Some(7));

        touch(root, &["images/val2017/1.jpg", "annotations/val2017/1.png", "images/val2017/2.jpg"]);
        let set = SegmentationDataset::open("coco-stuff171", root, None).unwrap();
        assert_eq!((set.pairs.len(), set.missing.len(), set.table[181]), (1, 1, Some(170)));
        let objects = SegmentationDataset::open("coco-object81", root, None).unwrap();
        assert_eq!(objects.background, Some(Background::Threshold));
        let objects = objects.with_background(Background::Ignored);
        assert_eq!((objects.classes.len(), objects.table[0], objects.table[181]), (80, Some(0), Some(255)));

        // The training splits.
        fs::write(root.join("VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt"), "a\n").unwrap();
        touch(root, &["coco/train2017/3.jpg", "coco/stuffthingmaps/train2017/3.png"]);
        touch(
            root,
            &["leftImg8bit/train/ulm/u_leftImg8bit.png", "gtFine/train/ulm/u_gtFine_labelTrainIds.png"],
        );
        touch(root, &["ade/ADEChallengeData2016/images/training/t.jpg"]);
        touch(root, &["ade/ADEChallengeData2016/annotations/training/t.png"]);
        for (name, images) in
            [("voc20", 1464), ("coco-stuff171", 118_287), ("cityscapes19", 2975), ("ade150", 20_210)]
        {
            let set = SegmentationDataset::open(name, root, Some("train")).unwrap();
            assert_eq!((set.pairs.len(), set.missing.len(), set.published), (1, 0, Some(images)), "{name}");
        }

        touch(root, &["CamVid/val/x.jpg", "CamVid/valannot/x.png"]);
        let set = SegmentationDataset::open("camvid11", root, Some("val")).unwrap();
        assert_eq!((set.pairs.len(), set.table[11]), (1, Some(255)));
        let error = SegmentationDataset::open("camvid11", root, Some("train")).unwrap_err().to_string();
        assert!(error.contains("test, val"), "{error}");
        let error = SegmentationDataset::open("ade150", root, None).unwrap_err().to_string();
        assert!(error.contains("images/validation/KEY.jpg"), "{error}");
        let error = SegmentationDataset::open("voc", root, None).unwrap_err().to_string();
        assert!(error.contains("voc20"), "{error}");
    }
}
