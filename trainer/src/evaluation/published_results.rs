//! Published results from the tables of the paper, for comparison.

/// Published rows that were measured in the same way.
#[derive(Debug)]
pub struct Group {
    /// The protocol of [`super::protocol::PROTOCOLS`], if it is one of these.
    pub protocol: Option<&'static str>,
    /// Where the rows are from, and what is known of how they were measured.
    pub source: &'static str,
    /// The columns of the table: names for `--dataset`.
    pub columns: &'static [&'static str],
    /// The rows.
    pub rows: &'static [Row],
}

/// A row of a segmentation table: mIoU in percent.
#[derive(Debug)]
pub struct Row {
    /// The method.
    pub system: &'static str,
    /// Backbone and training data, as far as the source gives them.
    pub trained: &'static str,
    /// One score per column; `None` if the source has none.
    pub miou: &'static [Option<f64>],
}

/// Short names of datasets, for the heads of columns.
pub const TITLES: [(&str, &str); 8] = [
    ("voc20", "VOC20"),
    ("voc21", "VOC21"),
    ("context59", "Context59"),
    ("context60", "Context60"),
    ("coco-object81", "COCO-Object"),
    ("coco-stuff171", "COCO-Stuff"),
    ("cityscapes19", "Cityscapes"),
    ("ade150", "ADE20K"),
];

macro_rules! rows {
    ($($system:literal, $trained:literal: [$($score:tt)+];)+) => {
        &[$(Row { system: $system, trained: $trained, miou: &scores!($($score)+) }),+]
    };
}
macro_rules! scores {
    ($($score:tt)+) => { [$(score!($score)),+] };
}
macro_rules! score {
    (_) => {
        None
    };
    ($score:literal) => {
        Some($score)
    };
}

/// The columns of methods without training.
const BASELINES: &[&str] =
    &["voc21", "context60", "coco-object81", "voc20", "context59", "coco-stuff171", "cityscapes19", "ade150"];

/// The published rows. Those of different groups cannot be compared: the protocol is worth several points.
pub const GROUPS: [Group; 12] = [
    Group {
        protocol: Some("tcl"),
        source: "as published in the SimZSS paper (ICLR 2025): short side 448, window 448, stride 224, 80 templates, background left \
            out, no refinement; rows of other systems as that paper reports them",
        columns: &["voc20", "context59", "coco-stuff171", "cityscapes19", "ade150"],
        rows: rows! {
            "CLIP", "ViT-B, LAION-400M": [35.1 7.7 4.2 1.8 2.0];
            "MaskCLIP", "": [74.9 26.4 16.4 12.6 9.8];
            "ReCo", "": [57.7 22.3 14.8 21.1 11.2];
            "GroupViT", "": [79.7 23.4 15.3 11.1 9.2];
            "TCL", "": [77.5 30.3 19.6 23.1 14.9];
            "OVDiff", "": [81.7 33.7 _ _ 14.9];
            "CLIP-DINOiser", "": [80.9 35.9 24.6 31.7 20.0];
            "LiT", "ViT-B, LAION-400M": [80.5 31.8 23.3 24.7 18.7];
            "SimZSS", "ViT-B, LAION-400M": [85.1 34.2 24.9 27.8 19.6];
            "LiT", "ViT-B, COCO Captions": [86.1 35.5 25.6 25.8 18.1];
            "SimZSS", "ViT-S, COCO Captions": [87.2 37.3 23.8 29.2 17.9];
            "SimZSS", "ViT-B, COCO Captions": [90.3 43.1 29.0 33.0 21.8];
        },
    },
    Group {
        protocol: Some("dinotxt"),
        source: "as published in the DINOv3 paper (2025, table 16)",
        columns: &["cityscapes19", "ade150"],
        rows: rows! { "dino.txt", "DINOv3 ViT-L, private data": [36.9 24.7]; },
    },
    Group {
        protocol: Some("tips"),
        source: "as published with TIPSv2 (CVPR 2026)",
        columns: &["ade150"],
        rows: rows! {
            "TIPSv2", "B/14": [17.4];
            "TIPSv2", "L/14": [24.7];
            "TIPSv2", "SO/14": [23.3];
            "TIPSv2", "g/14": [17.8];
        },
    },
    Group {
        protocol: Some("talk2dino"),
        source: "as published in the Talk2DINO paper (ICCV 2025); that these figures are those with PAMR follows from the configurations \
            that its authors name for the paper's results",
        columns: &["voc21", "context59", "coco-stuff171", "cityscapes19"],
        rows: rows! { "Talk2DINO", "ViT-B, COCO Captions": [65.8 42.4 30.2 38.1]; },
    },
    Group {
        protocol: Some("sclip"),
        source: "as SCLIP's repository (b56bd30) gives them for its code",
        columns: BASELINES,
        rows: rows! { "SCLIP", "OpenAI's ViT-B/16": [59.63 31.74 33.52 81.54 34.46 22.77 32.34 16.45]; },
    },
    Group {
        protocol: Some("naclip"),
        source: "as NACLIP's repository (0cac3a6) gives them, with PAMR",
        columns: BASELINES,
        rows: rows! { "NACLIP", "OpenAI's ViT-B/16": [64.07 34.99 36.19 83.03 38.35 25.69 38.27 19.05]; },
    },
    Group {
        protocol: Some("clearclip"),
        source: "as a picture in ClearCLIP's repository (ad68a40) gives the last five, and other papers the first three",
        columns: BASELINES,
        rows: rows! { "ClearCLIP", "OpenAI's ViT-B/16": [51.8 32.6 33.0 80.9 35.9 23.9 30.0 16.7]; },
    },
    Group {
        protocol: Some("proxyclip"),
        source: "as the Trident paper's table has them",
        columns: BASELINES,
        rows: rows! { "ProxyCLIP", "OpenAI's ViT-B/16, DINO ViT-B/8": [61.3 35.3 37.5 80.3 39.1 26.5 38.1 20.2]; },
    },
    Group {
        protocol: Some("maskclip"),
        source: "as MaskCLIP's repository (245d31f) gives them, whose code departs from the training of its CLIP",
        columns: &["voc20", "context59", "coco-stuff171"],
        rows: rows! { "MaskCLIP", "OpenAI's ViT-B/16": [49.5 21.7 12.5]; },
    },
    Group {
        protocol: Some("clip-dinoiser"),
        source: "as the Trident paper's table has them",
        columns: BASELINES,
        rows: rows! { "CLIP-DINOiser", "ViT-B/16, LAION-2B": [62.1 32.4 34.8 80.9 35.9 24.6 31.7 20.0]; },
    },
    Group {
        protocol: None,
        source: "as table 2 of GPUA quotes them; its prompts and refinement are not known here",
        columns: &["voc20", "context59", "ade150"],
        rows: rows! {
            "Talk2DINO", "ViT-B": [87.1 39.8 21.1];
            "ProxyCLIP", "": [83.0 37.2 19.7];
            "LPOSS+", "": [82.5 39.3 22.7];
            "SC-CLIP + GPUA", "DINOv3": [87.6 41.0 21.3];
        },
    },
    Group {
        protocol: None,
        source: "as published in the dino.txt paper, in its setting of high resolution, whose windows are not known here",
        columns: &["context59", "coco-stuff171", "cityscapes19", "ade150"],
        rows: rows! { "dino.txt", "DINOv2 ViT-L": [36.7 24.1 41.0 25.1]; },
    },
];

/// A row of the classification table, in percent.
#[derive(Debug)]
pub struct ClassificationRow {
    /// The method.
    pub system: &'static str,
    /// Its training data.
    pub trained: &'static str,
    /// Zero-shot top-1 accuracy on ImageNet-1k.
    pub imagenet: f64,
    /// Mean over the paper's classification datasets.
    pub mean: f64,
}

/// The published classification rows.
pub const CLASSIFICATION: &[ClassificationRow] = &[
    ClassificationRow { system: "LiT", trained: "COCO Captions", imagenet: 22.6, mean: 24.4 },
    ClassificationRow { system: "SimZSS", trained: "COCO Captions", imagenet: 24.3, mean: 26.1 },
    ClassificationRow { system: "CLIP", trained: "LAION-400M", imagenet: 67.0, mean: 47.2 },
    ClassificationRow { system: "LiT", trained: "LAION-400M", imagenet: 63.6, mean: 37.5 },
    ClassificationRow { system: "SimZSS", trained: "LAION-400M", imagenet: 64.1, mean: 38.9 },
    ClassificationRow { system: "SimZSS", trained: "LAION-400M, 1.6 B samples", imagenet: 69.3, mean: 41.3 },
];
