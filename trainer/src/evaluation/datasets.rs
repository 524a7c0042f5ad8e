//! The segmentation sets of the papers, in the folder layouts they are published in, and any folder of images with
//! index masks.

use std::fs;
use std::path::{Path, PathBuf};

use super::classes::{self, Class};
use super::masks::{Conversion, Table, without_background};
use crate::error::{Error, Result, at};

/// What becomes of a set's background class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Background {
    /// It is left out and its pixels do not count ("foreground").
    Ignored,
    /// A pixel belongs to it where no class is likely enough.
    Threshold,
    /// It is a class like the others, asked for by its own words.
    Words,
}

/// A published set.
#[derive(Debug)]
pub struct Published {
    /// As `--dataset` takes it.
    pub name: &'static str,
    /// As people call it.
    pub title: &'static str,
    /// Images of each split, as published.
    pub images: &'static [(&'static str, usize)],
    classes: &'static str,
    /// What the papers do with class 0; none where a set has no background class.
    background: Option<Background>,
    /// Folders that may hold the layout, below the one that is named.
    roots: &'static [&'static str],
    layouts: &'static [Layout],
}

impl Published {
    /// Its classes, as results name and count them.
    pub fn class_list(&self) -> Vec<Class> {
        let classes = classes::parse(self.classes);
        classes.into_iter().skip(usize::from(self.background == Some(Background::Ignored))).collect()
    }
}

/// One way a set lies on disk; `{}` stands for the key of an image.
#[derive(Debug)]
struct Layout {
    split: &'static str,
    /// File with the keys, one a line; without it the images' folder is listed.
    list: Option<&'static str>,
    /// `.*` stands for any image extension.
    image: &'static str,
    mask: &'static str,
    conversion: Conversion,
}

const VOC: &[Layout] = &[Layout {
    split: "val",
    list: Some("ImageSets/Segmentation/val.txt"),
    image: "JPEGImages/{}.jpg",
    mask: "SegmentationClass/{}.png",
    conversion: Conversion::Indices,
}];
const VOC_ROOTS: &[&str] = &["", "VOC2012", "VOCdevkit/VOC2012"];

const CONTEXT: &[Layout] = &[Layout {
    split: "val",
    list: Some("ImageSets/SegmentationContext/val.txt"),
    image: "JPEGImages/{}.jpg",
    mask: "SegmentationClassContext/{}.png",
    conversion: Conversion::Indices,
}];
const CONTEXT_ROOTS: &[&str] = &["", "VOC2010", "VOCdevkit/VOC2010"];

/// COCO's images and masks lie in one of these; prepared masks come before raw ones.
macro_rules! coco {
    ($prepared:literal, $raw:expr) => {
        &[
            coco!("images/val2017", concat!("annotations/val2017/{}", $prepared), Conversion::Indices),
            coco!("images/val2017", "annotations/val2017/{}.png", $raw),
            coco!("val2017", "stuffthingmaps_trainval2017/val2017/{}.png", $raw),
            coco!("images/val2017", "stuffthingmaps_trainval2017/val2017/{}.png", $raw),
            coco!("val2017", "stuffthingmaps/val2017/{}.png", $raw),
        ]
    };
    ($images:literal, $mask:expr, $conversion:expr) => {
        Layout {
            split: "val",
            list: None,
            image: concat!($images, "/{}.jpg"),
            mask: $mask,
            conversion: $conversion,
        }
    };
}
const COCO_ROOTS: &[&str] = &["", "coco_stuff164k", "coco"];

/// Every published set.
pub const PUBLISHED: &[Published] = &[
    Published {
        name: "voc20",
        title: "PASCAL VOC 2012, 20 classes",
        images: &[("val", 1449)],
        classes: include_str!("../../data/classes/voc21.txt"),
        background: Some(Background::Ignored),
        roots: VOC_ROOTS,
        layouts: VOC,
    },
    Published {
        name: "voc21",
        title: "PASCAL VOC 2012, 20 classes and background",
        images: &[("val", 1449)],
        classes: include_str!("../../data/classes/voc21.txt"),
        background: Some(Background::Threshold),
        roots: VOC_ROOTS,
        layouts: VOC,
    },
    Published {
        name: "context59",
        title: "PASCAL Context, 59 classes",
        images: &[("val", 5104)],
        classes: include_str!("../../data/classes/context60.txt"),
        background: Some(Background::Ignored),
        roots: CONTEXT_ROOTS,
        layouts: CONTEXT,
    },
    Published {
        name: "context60",
        title: "PASCAL Context, 59 classes and background",
        images: &[("val", 5104)],
        classes: include_str!("../../data/classes/context60.txt"),
        background: Some(Background::Threshold),
        roots: CONTEXT_ROOTS,
        layouts: CONTEXT,
    },
    Published {
        name: "coco-stuff171",
        title: "COCO-Stuff, 171 classes",
        images: &[("val", 5000)],
        classes: include_str!("../../data/classes/coco_stuff171.txt"),
        background: None,
        roots: COCO_ROOTS,
        layouts: coco!("_labelTrainIds.png", Conversion::CocoStuff),
    },
    Published {
        name: "coco-object81",
        title: "COCO-Object, 80 classes and background",
        images: &[("val", 5000)],
        classes: include_str!("../../data/classes/coco_object81.txt"),
        background: Some(Background::Threshold),
        roots: COCO_ROOTS,
        layouts: coco!("_instanceTrainIds.png", Conversion::CocoObject),
    },
    Published {
        name: "cityscapes19",
        title: "Cityscapes, 19 classes",
        images: &[("val", 500)],
        classes: include_str!("../../data/classes/cityscapes19.txt"),
        background: None,
        roots: &["", "cityscapes"],
        layouts: &[
            Layout {
                split: "val",
                list: None,
                image: "leftImg8bit/val/*/{}_leftImg8bit.png",
                mask: "gtFine/val/*/{}_gtFine_labelTrainIds.png",
                conversion: Conversion::Indices,
            },
            Layout {
                split: "val",
                list: None,
                image: "leftImg8bit/val/*/{}_leftImg8bit.png",
                mask: "gtFine/val/*/{}_gtFine_labelIds.png",
                conversion: Conversion::Cityscapes,
            },
        ],
    },
    Published {
        name: "ade150",
        title: "ADE20K, 150 classes",
        images: &[("val", 2000)],
        classes: include_str!("../../data/classes/ade150.txt"),
        background: None,
        roots: &["", "ADEChallengeData2016", "ade/ADEChallengeData2016"],
        layouts: &[Layout {
            split: "val",
            list: None,
            image: "images/validation/{}.jpg",
            mask: "annotations/validation/{}.png",
            conversion: Conversion::FromOne,
        }],
    },
    Published {
        name: "camvid11",
        title: "CamVid, 11 classes",
        images: &[("test", 233), ("val", 101)],
        classes: include_str!("../../data/classes/camvid11.txt"),
        background: None,
        roots: &["", "CamVid"],
        layouts: &[
            Layout {
                split: "test",
                list: None,
                image: "test/{}.*",
                mask: "testannot/{}.png",
                conversion: Conversion::LastUnlabelled,
            },
            Layout {
                split: "val",
                list: None,
                image: "val/{}.*",
                mask: "valannot/{}.png",
                conversion: Conversion::LastUnlabelled,
            },
        ],
    },
];

/// Extensions that `.*` stands for.
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Images with masks, and what the masks' values mean.
#[derive(Debug)]
pub struct SegmentationSet {
    /// As `--dataset` takes it.
    pub name: String,
    /// As people call it.
    pub title: String,
    /// The split of a published set.
    pub split: String,
    /// Images the set has as published; none for folders.
    pub published: Option<usize>,
    /// Its classes; a converted mask's labels are indices into them.
    pub classes: Vec<Class>,
    /// What becomes of class 0; none where it is a class like the others.
    pub background: Option<Background>,
    /// From a mask's values to labels.
    pub table: Table,
    /// Image and mask files, in order of name.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// Files of the layout that are not there.
    pub missing: Vec<PathBuf>,
}

impl SegmentationSet {
    /// A published set by its name, or `folder`; `split` where a set has several, its first otherwise.
    pub fn open(name: &str, folder: &Path, split: Option<&str>) -> Result<Self> {
        if name == "folder" {
            return Self::open_folder(folder);
        }
        let setting = |problem: String| Error::Setting { name: "dataset".to_owned(), problem };
        let set = PUBLISHED.iter().find(|set| set.name == name).ok_or_else(|| {
            let names: Vec<&str> = PUBLISHED.iter().map(|set| set.name).collect();
            setting(format!("{name} is none of folder, {}", names.join(", ")))
        })?;
        let split = split.unwrap_or(set.images[0].0);
        let Some(&(split, images)) = set.images.iter().find(|(name, _)| *name == split) else {
            let splits: Vec<&str> = set.images.iter().map(|(name, _)| *name).collect();
            return Err(setting(format!("{name} has no split {split}, only {}", splits.join(", "))));
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

    /// Reads the plain layout: `images/NAME.jpg|png|webp`, `masks/NAME.png`, `classes.txt` with a class a line.
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
            let problem = "holds no jpg, png or webp".to_owned();
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

    /// Treats class 0 as asked. A set that was opened without its background cannot get it back.
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

    /// Refuses a set with files missing, naming the first.
    pub fn refuse_if_incomplete(&self) -> Result<()> {
        match self.missing.first() {
            None => Ok(()),
            Some(first) => {
                let others = self.missing.len() - 1;
                let problem =
                    format!("is missing, and {others} more files of {}; --check names them", self.title);
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

/// The layout that most images and masks are found by.
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
            "holds nothing of {} ({split}); it, or {} below it, must hold {}",
            set.title,
            below.join(" or "),
            wanted.join("; or ")
        );
        Error::Invalid { path: folder.to_owned(), problem }
    })
}

type Pairs = Vec<(PathBuf, PathBuf)>;

/// Complete pairs and missing files of a layout below `root`, in order of name; nothing where it is not there.
fn list(root: &Path, layout: &Layout) -> Result<(Pairs, Vec<PathBuf>)> {
    let images: Vec<(String, String, PathBuf)> = match layout.list {
        Some(list) => {
            let path = root.join(list);
            if !path.exists() {
                return Ok((Vec::new(), Vec::new()));
            }
            let text = fs::read_to_string(&path).map_err(at(&path))?;
            let keys = text.split_whitespace().map(str::to_owned);
            keys.map(|key| (String::new(), key.clone(), root.join(layout.image.replace("{}", &key))))
                .collect()
        }
        None => scan(root, layout.image)?,
    };
    let (mut pairs, mut missing) = (Vec::new(), Vec::new());
    for (folder, key, image) in images {
        let mask = root.join(layout.mask.replace('*', &folder).replace("{}", &key));
        let absent: Vec<PathBuf> =
            [&image, &mask].into_iter().filter(|path| !path.exists()).cloned().collect();
        if absent.is_empty() {
            pairs.push((image, mask));
        }
        missing.extend(absent);
    }
    pairs.sort();
    missing.sort();
    Ok((pairs, missing))
}

/// Files that a pattern such as `images/val/*/{}_left.png` or `images/{}.*` finds: (what `*` stands for, key, path).
fn scan(root: &Path, pattern: &str) -> Result<Vec<(String, String, PathBuf)>> {
    let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    let suffix = name.trim_start_matches("{}");
    let folders: Vec<(String, PathBuf)> = match folder.strip_suffix("/*") {
        None => vec![(String::new(), root.join(folder))],
        Some(parent) => entries(&root.join(parent))?,
    };
    let mut found = Vec::new();
    for (folder, path) in folders.into_iter().filter(|(_, path)| path.is_dir()) {
        for (file, path) in entries(&path)? {
            let key = match suffix {
                ".*" => file.rsplit_once('.').and_then(|(key, extension)| {
                    EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()).then_some(key)
                }),
                suffix => file.strip_suffix(suffix),
            };
            // Hidden files are leftovers of archives and file managers.
            if let Some(key) = key.filter(|key| !key.is_empty() && !key.starts_with('.')) {
                found.push((folder.clone(), key.to_owned(), path));
            }
        }
    }
    Ok(found)
}

/// Names and paths in a folder; nothing where there is none.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).map_err(at(folder))?;
    entries
        .map(|entry| {
            let entry = entry.map_err(at(folder))?;
            Ok((entry.file_name().to_string_lossy().into_owned(), entry.path()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, paths: &[&str]) {
        for path in paths {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
    }

    #[test]
    fn class_counts_are_the_names() {
        for set in PUBLISHED {
            let count: usize = set.name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
            let classes = classes::parse(set.classes);
            let ignored = usize::from(set.background == Some(Background::Ignored));
            assert_eq!(classes.len() - ignored, count, "{}", set.name);
            assert_eq!(set.background.is_some(), classes[0].name == "background", "{}", set.name);
        }
    }

    #[test]
    fn layouts_are_found_where_they_are_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        touch(root, &["VOCdevkit/VOC2012/JPEGImages/a.jpg", "VOCdevkit/VOC2012/SegmentationClass/a.png"]);
        touch(root, &["VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"]);
        fs::write(root.join("VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"), "a\nb\n").unwrap();
        let set = SegmentationSet::open("voc20", root, None).unwrap();
        assert_eq!((set.pairs.len(), set.missing.len(), set.classes.len()), (1, 2, 20));
        assert!(set.refuse_if_incomplete().unwrap_err().to_string().contains("1 more files"));

        touch(
            root,
            &["leftImg8bit/val/ulm/ulm_1_leftImg8bit.png", "gtFine/val/ulm/ulm_1_gtFine_labelIds.png"],
        );
        let set = SegmentationSet::open("cityscapes19", root, None).unwrap();
        assert_eq!((set.pairs.len(), set.missing.len()), (1, 0));
        assert_eq!(set.table[7], Some(0), "label ids, as no training ids are there");
        touch(root, &["gtFine/val/ulm/ulm_1_gtFine_labelTrainIds.png"]);
        assert_eq!(SegmentationSet::open("cityscapes19", root, None).unwrap().table[7], Some(7));

        touch(root, &["images/val2017/1.jpg", "annotations/val2017/1.png", "images/val2017/2.jpg"]);
        let set = SegmentationSet::open("coco-stuff171", root, None).unwrap();
        assert_eq!((set.pairs.len(), set.missing.len(), set.table[181]), (1, 1, Some(170)));
        let objects = SegmentationSet::open("coco-object81", root, None).unwrap();
        assert_eq!(objects.background, Some(Background::Threshold));
        let objects = objects.with_background(Background::Ignored);
        assert_eq!((objects.classes.len(), objects.table[0], objects.table[181]), (80, Some(0), Some(255)));

        touch(root, &["CamVid/val/x.jpg", "CamVid/valannot/x.png"]);
        let set = SegmentationSet::open("camvid11", root, Some("val")).unwrap();
        assert_eq!((set.pairs.len(), set.table[11]), (1, Some(255)));
        let error = SegmentationSet::open("camvid11", root, Some("train")).unwrap_err().to_string();
        assert!(error.contains("test, val"), "{error}");
        let error = SegmentationSet::open("ade150", root, None).unwrap_err().to_string();
        assert!(error.contains("images/validation/KEY.jpg"), "{error}");
        let error = SegmentationSet::open("voc", root, None).unwrap_err().to_string();
        assert!(error.contains("voc20"), "{error}");
    }
}
