//! The protocols in which the authors of methods without training evaluated them: SCLIP (b56bd30), NACLIP (0cac3a6), ClearCLIP (ad68a40),
//! ProxyCLIP (e7b767f), MaskCLIP (245d31f) and CLIP-DINOiser (a954aae), read in their code at these commits. The first four share a
//! frame; what they have for each dataset differs.

use super::protocol_parts::{Decision, Parts, tcl};
use crate::inference::classes::ClassNames;
use crate::inference::fusion::Fusion;
use crate::inference::window::{Edges, Window};
use crate::towers::Dense;

/// The frame that the first four share, with these sizes, scale, and thresholds for voc21, context60 and coco-object81.
fn frame(set: &str, dense: Dense, window: Window, scale: f64, thresholds: [f64; 3]) -> Parts {
    let threshold = match set {
        "voc21" => thresholds[0],
        "context60" => thresholds[1],
        "coco-object81" => thresholds[2],
        _ => 0.0,
    };
    Parts {
        window,
        names: ClassNames::Synonyms,
        dense,
        threshold,
        scale: Some(scale),
        decision: Decision::Names { least_area: None },
        ..tcl(set)
    }
}

fn window(short: i64, side: i64, stride: i64, edges: Edges) -> Window {
    Window { short, side, stride, edges, ..Window::PUBLISHED }
}

pub(super) fn sclip(set: &str) -> Parts {
    let short = match set {
        "cityscapes19" => 560,
        "coco-stuff171" => 448,
        _ => 336,
    };
    let scale = match set {
        "voc21" => 65.0,
        "context60" | "coco-object81" => 50.0,
        _ => 40.0,
    };
    let parts = frame(set, Dense::Sclip, window(short, 224, 112, Edges::Cropped), scale, [0.1; 3]);
    Parts { decision: Decision::Names { least_area: (set == "voc21").then_some(0.1) }, ..parts }
}

pub(super) fn naclip(set: &str) -> Parts {
    let short = if set == "cityscapes19" { 560 } else { 336 };
    // 0: the whole image.
    let (side, stride) = if matches!(set, "voc20" | "voc21") { (0, 0) } else { (224, 112) };
    let window = window(short, side, stride, Edges::Cropped);
    Parts { pamr: 10, ..frame(set, Dense::Naclip, window, 40.0, [0.1; 3]) }
}

pub(super) fn clearclip(set: &str) -> Parts {
    let side = if set == "cityscapes19" { 224 } else { 448 };
    frame(set, Dense::Clearclip, window(448, side, 224, Edges::Centred(16)), 50.0, [0.5, 0.15, 0.4])
}

pub(super) fn proxyclip(set: &str) -> Parts {
    let short = if matches!(set, "cityscapes19" | "ade150") { 448 } else { 336 };
    let side = if set == "cityscapes19" { 224 } else { 336 };
    frame(set, Dense::Proxyclip, window(short, side, 112, Edges::Centred(56)), 40.0, [0.2, 0.15, 0.25])
}

pub(super) fn maskclip(set: &str) -> Parts {
    let (short, long) = match set {
        "context59" => (520, 520),
        "cityscapes19" => (512, 1024),
        _ => (512, 2048),
    };
    Parts {
        window: Window { long, ..window(short, 0, 0, Edges::Corner(16)) },
        templates: "maskclip85".to_owned(),
        dense: Dense::Maskclip,
        ..tcl(set)
    }
}

pub(super) fn clip_dinoiser(set: &str) -> Parts {
    Parts {
        window: Window { edges: Edges::BlackCorner(16), ..Window::PUBLISHED },
        dense: Dense::ClipDinoiser,
        fusion: Fusion::PatchSoftmax,
        sure: matches!(set, "voc21" | "coco-object81").then_some(0.99),
        ..tcl(set)
    }
}
