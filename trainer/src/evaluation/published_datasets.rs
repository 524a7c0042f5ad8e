//! The segmentation datasets of the papers: their classes and folder layouts.

use super::masks::Conversion;
use crate::inference::classes::{self, Class};

/// How the background class of a dataset is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Background {
    /// Not at all: its pixels do not count (foreground only).
    Ignored,
    /// A pixel is background if the probability of every class is below the threshold.
    Threshold,
    /// As a class like the others, with its own prompts.
    Words,
}

/// A published dataset.
#[derive(Debug)]
pub struct Published {
    /// Name for `--dataset`.
    pub name: &'static str,
    /// Name in texts.
    pub title: &'static str,
    /// Number of images per split.
    pub images: &'static [(&'static str, usize)],
    pub(super) classes: &'static str,
    /// How the papers predict class 0; `None` for datasets without a background class.
    pub(super) background: Option<Background>,
    /// Folders in the one that the user gives that may contain the layout.
    pub(super) roots: &'static [&'static str],
    pub(super) layouts: &'static [Layout],
}

impl Published {
    /// The classes in the results.
    pub fn class_list(&self) -> Vec<Class> {
        let classes = classes::parse(self.classes);
        classes.into_iter().skip(usize::from(self.background == Some(Background::Ignored))).collect()
    }
}

/// A folder layout; `{}` stands for the key of an image.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) split: &'static str,
    /// File with one key per line; without it, the folder of images is listed.
    pub(super) list: Option<&'static str>,
    /// Path of an image; `.*` stands for any image extension.
    pub(super) image: &'static str,
    pub(super) mask: &'static str,
    pub(super) conversion: Conversion,
}

const VOC: &[Layout] =
    &[voc("val", "ImageSets/Segmentation/val.txt"), voc("train", "ImageSets/Segmentation/train.txt")];
const VOC_ROOTS: &[&str] = &["", "VOC2012", "VOCdevkit/VOC2012"];

const CONTEXT: &[Layout] = &[
    Layout { mask: CONTEXT_MASK, ..voc("val", "ImageSets/SegmentationContext/val.txt") },
    Layout { mask: CONTEXT_MASK, ..voc("train", "ImageSets/SegmentationContext/train.txt") },
];
const CONTEXT_MASK: &str = "SegmentationClassContext/{}.png";
const CONTEXT_ROOTS: &[&str] = &["", "VOC2010", "VOCdevkit/VOC2010"];

/// A split of PASCAL VOC.
const fn voc(split: &'static str, list: &'static str) -> Layout {
    Layout {
        split,
        list: Some(list),
        image: "JPEGImages/{}.jpg",
        mask: "SegmentationClass/{}.png",
        conversion: Conversion::Indices,
    }
}

/// A split of Cityscapes.
const fn cityscapes(split: &'static str, image: &'static str, mask: &'static str) -> Layout {
    Layout { split, list: None, image, mask, conversion: Conversion::Indices }
}

/// Layouts of COCO; prepared masks come before raw ones.
macro_rules! coco {
    ($prepared:literal, $raw:expr) => {
        &[
            coco!(of "val", "val2017", $prepared, $raw, 0),
            coco!(of "val", "val2017", $prepared, $raw, 1),
            coco!(of "val", "val2017", $prepared, $raw, 2),
            coco!(of "val", "val2017", $prepared, $raw, 3),
            coco!(of "val", "val2017", $prepared, $raw, 4),
            coco!(of "train", "train2017", $prepared, $raw, 0),
            coco!(of "train", "train2017", $prepared, $raw, 1),
            coco!(of "train", "train2017", $prepared, $raw, 2),
            coco!(of "train", "train2017", $prepared, $raw, 3),
            coco!(of "train", "train2017", $prepared, $raw, 4),
        ]
    };
    (of $split:literal, $part:literal, $prepared:literal, $raw:expr, 0) => {
        coco!(
            $split,
            concat!("images/", $part),
            concat!("annotations/", $part, "/{}", $prepared),
            Conversion::Indices
        )
    };
    (of $split:literal, $part:literal, $prepared:literal, $raw:expr, 1) => {
        coco!($split, concat!("images/", $part), concat!("annotations/", $part, "/{}.png"), $raw)
    };
    (of $split:literal, $part:literal, $prepared:literal, $raw:expr, 2) => {
        coco!($split, $part, concat!("stuffthingmaps_trainval2017/", $part, "/{}.png"), $raw)
    };
    (of $split:literal, $part:literal, $prepared:literal, $raw:expr, 3) => {
        coco!(
            $split,
            concat!("images/", $part),
            concat!("stuffthingmaps_trainval2017/", $part, "/{}.png"),
            $raw
        )
    };
    (of $split:literal, $part:literal, $prepared:literal, $raw:expr, 4) => {
        coco!($split, $part, concat!("stuffthingmaps/", $part, "/{}.png"), $raw)
    };
    ($split:literal, $images:expr, $mask:expr, $conversion:expr) => {
        Layout {
            split: $split,
            list: None,
            image: concat!($images, "/{}.jpg"),
            mask: $mask,
            conversion: $conversion,
        }
    };
}
const COCO_ROOTS: &[&str] = &["", "coco_stuff164k", "coco"];

/// All published datasets.
pub const PUBLISHED: &[Published] = &[
    Published {
        name: "voc20",
        title: "PASCAL VOC 2012, 20 classes",
        images: &[("val", 1449), ("train", 1464)],
        classes: include_str!("../../data/classes/voc21.txt"),
        background: Some(Background::Ignored),
        roots: VOC_ROOTS,
        layouts: VOC,
    },
    Published {
        name: "voc21",
        title: "PASCAL VOC 2012, 20 classes and background",
        images: &[("val", 1449), ("train", 1464)],
        classes: include_str!("../../data/classes/voc21.txt"),
        background: Some(Background::Threshold),
        roots: VOC_ROOTS,
        layouts: VOC,
    },
    Published {
        name: "context59",
        title: "PASCAL Context, 59 classes",
        images: &[("val", 5104), ("train", 4998)],
        classes: include_str!("../../data/classes/context60.txt"),
        background: Some(Background::Ignored),
        roots: CONTEXT_ROOTS,
        layouts: CONTEXT,
    },
    Published {
        name: "context60",
        title: "PASCAL Context, 59 classes and background",
        images: &[("val", 5104), ("train", 4998)],
        classes: include_str!("../../data/classes/context60.txt"),
        background: Some(Background::Threshold),
        roots: CONTEXT_ROOTS,
        layouts: CONTEXT,
    },
    Published {
        name: "coco-stuff171",
        title: "COCO-Stuff, 171 classes",
        images: &[("val", 5000), ("train", 118_287)],
        classes: include_str!("../../data/classes/coco_stuff171.txt"),
        background: None,
        roots: COCO_ROOTS,
        layouts: coco!("_labelTrainIds.png", Conversion::CocoStuff),
    },
    Published {
        name: "coco-object81",
        title: "COCO-Object, 80 classes and background",
        images: &[("val", 5000), ("train", 118_287)],
        classes: include_str!("../../data/classes/coco_object81.txt"),
        background: Some(Background::Threshold),
        roots: COCO_ROOTS,
        layouts: coco!("_instanceTrainIds.png", Conversion::CocoObject),
    },
    Published {
        name: "cityscapes19",
        title: "Cityscapes, 19 classes",
        images: &[("val", 500), ("train", 2975)],
        classes: include_str!("../../data/classes/cityscapes19.txt"),
        background: None,
        roots: &["", "cityscapes"],
        layouts: &[
            cityscapes(
                "val",
                "leftImg8bit/val/*/{}_leftImg8bit.png",
                "gtFine/val/*/{}_gtFine_labelTrainIds.png",
            ),
            Layout {
                conversion: Conversion::Cityscapes,
                ..cityscapes(
                    "val",
                    "leftImg8bit/val/*/{}_leftImg8bit.png",
                    "gtFine/val/*/{}_gtFine_labelIds.png",
                )
            },
            cityscapes(
                "train",
                "leftImg8bit/train/*/{}_leftImg8bit.png",
                "gtFine/train/*/{}_gtFine_labelTrainIds.png",
            ),
            Layout {
                conversion: Conversion::Cityscapes,
                ..cityscapes(
                    "train",
                    "leftImg8bit/train/*/{}_leftImg8bit.png",
                    "gtFine/train/*/{}_gtFine_labelIds.png",
                )
            },
        ],
    },
    Published {
        name: "ade150",
        title: "ADE20K, 150 classes",
        images: &[("val", 2000), ("train", 20_210)],
        classes: include_str!("../../data/classes/ade150.txt"),
        background: None,
        roots: &["", "ADEChallengeData2016", "ade/ADEChallengeData2016"],
        layouts: &[
            Layout {
                split: "val",
                list: None,
                image: "images/validation/{}.jpg",
                mask: "annotations/validation/{}.png",
                conversion: Conversion::FromOne,
            },
            Layout {
                split: "train",
                list: None,
                image: "images/training/{}.jpg",
                mask: "annotations/training/{}.png",
                conversion: Conversion::FromOne,
            },
        ],
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
