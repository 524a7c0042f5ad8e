//! `trainer segment`: pictures into classes, as overlay, mask and scores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use image::GrayImage;
use loader::program::{Progress, UsageError, interrupted};
use serde_json::{Value, json};
use trainer::picture;
use trainer::segmentation::Segmentation;
use trainer::segmenter::Segmenter;
use trainer::words::WordList;

use super::{classes, write_mask, write_png};
use crate::ModelArgs;

#[derive(Debug, Args)]
pub(crate) struct SegmentArgs {
    /// Pictures (jpg, png, webp), folders of them, or patterns such as "photos/**/*.jpg".
    #[arg(required = true)]
    pictures: Vec<PathBuf>,
    /// Words to look for, separated by commas; `cat|kitten` are two words for one class.
    #[arg(long)]
    classes: Option<String>,
    /// The same, one class a line.
    #[arg(long, conflicts_with = "classes")]
    class_file: Option<PathBuf>,
    /// Least similarity (cosine) of a pixel to its class; pixels below are background, 255 in the mask.
    #[arg(long, allow_negative_numbers = true)]
    threshold: Option<f64>,
    /// A folder, or for one picture NAME.png; beside the overlay go NAME.mask.png (8-bit, class numbers as listed
    /// from 0, of the picture's own size) and NAME.json (scores).
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

pub(crate) fn run(args: &SegmentArgs) -> anyhow::Result<Value> {
    let list = classes(args.classes.as_deref(), args.class_file.as_deref())?;
    let pictures = picture::list(&args.pictures)?;
    let overlays = overlays(&pictures, &args.out)?;
    let segmenter = args.model.segmenter(&list.words)?;
    if let Some(folder) = overlays[0].parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut progress = Progress::new("segmenting", "pictures", pictures.len() as u64);
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (path, overlay) in pictures.iter().zip(&overlays) {
        if interrupted() {
            anyhow::bail!("interrupted after {} of {} pictures", done.len(), pictures.len());
        }
        match one(path, overlay, &list, &segmenter, args.threshold) {
            Ok(summary) => {
                println!("{}", overlay.display());
                done.push(summary);
            }
            // One bad picture of a folder does not cost the others.
            Err(why) => failed.push(format!("{why:#}")),
        }
        progress.advance(1, String::new);
    }
    if pictures.len() > 1 {
        progress.finish("");
    }
    match failed.first() {
        None => Ok(json!({ "pictures": done })),
        Some(why) if pictures.len() == 1 => anyhow::bail!("{why}"),
        Some(_) => {
            anyhow::bail!("{} of {} pictures failed: {}", failed.len(), pictures.len(), failed.join("; "))
        }
    }
}

/// Where the overlay of each picture goes; refuses two pictures with one name.
fn overlays(pictures: &[PathBuf], out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        if pictures.len() > 1 {
            return Err(UsageError(format!("{} pictures need a folder for --out", pictures.len())).into());
        }
        return Ok(vec![out.to_owned()]);
    }
    let mut names: BTreeMap<PathBuf, &Path> = BTreeMap::new();
    let mut overlays = Vec::new();
    for picture in pictures {
        let stem = picture.file_stem().unwrap_or_default().to_string_lossy();
        let overlay = out.join(format!("{stem}.png"));
        if let Some(other) = names.insert(overlay.clone(), picture) {
            return Err(UsageError(format!(
                "{} and {} would both become {}; segment them into two folders",
                other.display(),
                picture.display(),
                overlay.display()
            ))
            .into());
        }
        if std::path::absolute(&overlay).ok() == std::path::absolute(picture).ok() {
            return Err(UsageError(format!(
                "{} would be written over; choose another --out",
                picture.display()
            ))
            .into());
        }
        overlays.push(overlay);
    }
    Ok(overlays)
}

fn one(
    path: &Path,
    overlay: &Path,
    list: &WordList,
    segmenter: &Segmenter,
    threshold: Option<f64>,
) -> anyhow::Result<Value> {
    let photo = picture::read(path)?;
    let scores = list.best(&segmenter.scores(&photo));
    let least = threshold.map(|least| least as f32);
    let found = Segmentation::new(&scores, &list.names, photo.height(), photo.width(), least);
    let shown = picture::shown(&photo);
    let labels = if shown.height() < photo.height() {
        found.labels_at(shown.height(), shown.width())
    } else {
        // Enlarged pictures have smoother segments than their masks.
        Segmentation::new(&scores, &list.names, shown.height(), shown.width(), least).labels
    };
    write_png(&picture::overlay(&shown, &labels, &list.names)?, overlay)?;
    let mask_path = overlay.with_extension("mask.png");
    let mask = GrayImage::from_raw(found.width, found.height, found.labels.clone()).unwrap_or_default();
    write_mask(&mask, &mask_path)?;
    let scores_path = overlay.with_extension("json");
    let summary = json!({
        "picture": path,
        "width": photo.width(),
        "height": photo.height(),
        "overlay": overlay,
        "mask": mask_path,
        "threshold": threshold,
        "background": found.background,
        "classes": found.classes,
    });
    let text = serde_json::to_string_pretty(&summary)? + "\n";
    concepts::files::write_atomic(&scores_path, text.as_bytes())
        .with_context(|| scores_path.display().to_string())?;
    Ok(summary)
}
