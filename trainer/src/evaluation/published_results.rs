//! Published results from the tables of the paper, for comparison.

/// A row of the segmentation table: mIoU in percent, without background, in the order of [`COLUMNS`].
#[derive(Debug)]
pub struct Row {
    /// The method.
    pub system: &'static str,
    /// Backbone and training data, if the paper gives them.
    pub trained: &'static str,
    /// One score per column; `None` if the paper has none.
    pub miou: [Option<f64>; 5],
}

/// The columns of the table: name for `--dataset`, and title.
pub const COLUMNS: [(&str, &str); 5] = [
    ("voc20", "VOC20"),
    ("context59", "Context59"),
    ("coco-stuff171", "COCO-Stuff"),
    ("cityscapes19", "Cityscapes"),
    ("ade150", "ADE20K"),
];

/// The protocol of the published segmentation results.
pub const PROTOCOL: &str = "as published in the SimZSS paper (ICLR 2025): short side 448, window 448, stride 224, \
    80 templates, background left out, no refinement; rows of other systems as that paper reports them";

const fn row(system: &'static str, trained: &'static str, miou: [f64; 5]) -> Row {
    let [voc, context, stuff, city, ade] = miou;
    let miou = [Some(voc), Some(context), Some(stuff), Some(city), Some(ade)];
    Row { system, trained, miou }
}

/// The published rows.
pub const ROWS: &[Row] = &[
    row("CLIP", "ViT-B, LAION-400M", [35.1, 7.7, 4.2, 1.8, 2.0]),
    row("MaskCLIP", "", [74.9, 26.4, 16.4, 12.6, 9.8]),
    row("ReCo", "", [57.7, 22.3, 14.8, 21.1, 11.2]),
    row("GroupViT", "", [79.7, 23.4, 15.3, 11.1, 9.2]),
    row("TCL", "", [77.5, 30.3, 19.6, 23.1, 14.9]),
    Row { system: "OVDiff", trained: "", miou: [Some(81.7), Some(33.7), None, None, Some(14.9)] },
    row("CLIP-DINOiser", "", [80.9, 35.9, 24.6, 31.7, 20.0]),
    row("LiT", "ViT-B, LAION-400M", [80.5, 31.8, 23.3, 24.7, 18.7]),
    row("SimZSS", "ViT-B, LAION-400M", [85.1, 34.2, 24.9, 27.8, 19.6]),
    row("LiT", "ViT-B, COCO Captions", [86.1, 35.5, 25.6, 25.8, 18.1]),
    row("SimZSS", "ViT-S, COCO Captions", [87.2, 37.3, 23.8, 29.2, 17.9]),
    row("SimZSS", "ViT-B, COCO Captions", [90.3, 43.1, 29.0, 33.0, 21.8]),
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
