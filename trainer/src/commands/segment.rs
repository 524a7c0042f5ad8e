//! `trainer segment`: segments images into classes, or into what expressions mean; writes overlay, mask and scores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use disk::files::{clear_leftovers, target_name};
use image::GrayImage;
use program::{Progress, UsageError, interrupted};
use serde_json::{Value, json};
use trainer::inference::class_list::ClassList;
use trainer::inference::referring::referrer::{self, Referrer};
use trainer::inference::segmentation::{NO_CLASS, Segmentation};
use trainer::inference::segmenter::Segmenter;
use trainer::pictures;

use super::options::{ClassListArgs, PrecisionArgs, PromptArgs, ReferArgs, RunArgs, WindowArgs};
use super::{write_mask, write_png};

#[derive(Debug, Args)]
pub(crate) struct SegmentArgs {
    /// Images (jpg, png, webp), folders of images, or patterns such as "photos/**/*.jpg".
    #[arg(required = true, value_name = "IMAGES")]
    pictures: Vec<PathBuf>,
    #[command(flatten)]
    list: ClassListArgs,
    /// Instead of classes: what this expression means, such as "the red car on the left"; may be given several times. In the mask,
    /// everything else is 255.
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "ClassListArgs")]
    refer: Vec<String>,
    /// With classes: minimum similarity (cosine, -1 to 1) between a pixel and its class. Pixels below it are background: 255 in the mask.
    /// [default: none, so that every pixel gets a class]
    #[arg(long, allow_negative_numbers = true, value_name = "COSINE", conflicts_with = "refer")]
    threshold: Option<f64>,
    /// Folder to write, or NAME.png for a single image. Per image: the overlay NAME.png; NAME.mask.png, 8-bit, in the size of the
    /// image, with the index of the class or expression in the list, from 0; and NAME.json with the area and similarity of each.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    window: WindowArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    prompts: PromptArgs,
    #[command(flatten)]
    following: ReferArgs,
}

/// What is looked for, and with what.
enum Finder {
    Classes { list: ClassList, segmenter: Box<Segmenter>, threshold: Option<f64> },
    Expressions { texts: Vec<String>, referrer: Box<Referrer> },
}

pub(crate) fn run(args: &SegmentArgs) -> anyhow::Result<Value> {
    let list = if args.refer.is_empty() {
        if !args.list.is_given() {
            return Err(UsageError("missing --classes, --class-file or --refer".to_owned()).into());
        }
        Some(args.list.read()?)
    } else {
        check_expressions(&args.refer)?;
        None
    };
    let following = args.following.settings()?;
    if list.is_some() && args.following.is_given() {
        let problem = "options --expression-weight, --cut and --absent-below have an effect only with --refer; leave them out";
        return Err(UsageError(problem.to_owned()).into());
    }
    let pictures = pictures::list(&args.pictures)?;
    let overlays = overlays(&pictures, &args.out)?;
    let settings = args.run.settings(Some((&args.window, &args.precision)), Some(&args.prompts));
    let finder = match list {
        Some(list) => {
            let segmenter = Box::new(Segmenter::open(&args.run.open()?, &list.words, &settings)?);
            Finder::Classes { list, segmenter, threshold: args.threshold }
        }
        None => Finder::Expressions {
            texts: args.refer.clone(),
            referrer: Box::new(Referrer::open(&args.run.open()?, &settings, following)?),
        },
    };
    if let Some(folder) = overlays[0].parent().filter(|folder| !folder.as_os_str().is_empty()) {
        storage::create_folder(folder)?;
        if !storage::Location::from(folder).is_remote() {
            // What killed processes left of files like those that are written below.
            clear_leftovers(folder, is_png_or_json)
                .with_context(|| format!("cannot write {}", folder.display()))?;
        }
    }
    let mut progress = Progress::new("segmenting", "images", pictures.len() as u64);
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (path, overlay) in pictures.iter().zip(&overlays) {
        if interrupted() {
            anyhow::bail!(storage::Interrupted::new(format!(
                "{} of {} images are done",
                done.len(),
                pictures.len()
            )));
        }
        match one(path, overlay, &finder) {
            Ok(summary) => {
                println!("{}", overlay.display());
                done.push(summary);
            }
            // An image that fails does not stop the others.
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
            anyhow::bail!("{} of {} images failed: {}", failed.len(), pictures.len(), failed.join("; "))
        }
    }
}

/// Whether the file under this temporary name would have been an image or scores.
fn is_png_or_json(temporary: &str) -> bool {
    let extension = target_name(temporary).and_then(|name| Path::new(name).extension());
    extension.is_some_and(|extension| extension == "png" || extension == "json")
}

/// The path of the overlay of each image; an error if two images would have the same.
fn overlays(pictures: &[PathBuf], out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        if pictures.len() > 1 {
            let problem =
                format!("option --out must be a folder for {} images, not one PNG file", pictures.len());
            return Err(UsageError(problem).into());
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
                "{} and {} would both be written to {}; use one --out folder for each",
                other.display(),
                picture.display(),
                overlay.display()
            ))
            .into());
        }
        if std::path::absolute(&overlay).ok() == std::path::absolute(picture).ok() {
            return Err(UsageError(format!(
                "{} would be overwritten; choose another --out",
                picture.display()
            ))
            .into());
        }
        overlays.push(overlay);
    }
    Ok(overlays)
}

/// Refuses expressions that name nothing, too many, and the same twice.
fn check_expressions(texts: &[String]) -> anyhow::Result<()> {
    let refuse = |problem: String| Err(UsageError(format!("option --refer {problem}")).into());
    if texts.len() > usize::from(NO_CLASS) {
        return refuse(format!("is given {} times; at most {NO_CLASS} are possible", texts.len()));
    }
    for (at, text) in texts.iter().enumerate() {
        referrer::check(text)?;
        if texts[..at].contains(text) {
            return refuse(format!("is {text:?} twice; leave one out"));
        }
    }
    Ok(())
}

fn one(path: &Path, overlay: &Path, finder: &Finder) -> anyhow::Result<Value> {
    let photo = pictures::read(path)?;
    let shown = pictures::shown(&photo);
    let reduced = shown.height() < photo.height();
    let (found, labels, names, about) = match finder {
        Finder::Classes { list, segmenter, threshold } => {
            let scores = list.best(&segmenter.scores(&photo));
            let least = threshold.map(|least| least as f32);
            let found = Segmentation::new(&scores, &list.names, photo.height(), photo.width(), least);
            // Enlarged images are segmented again at their new size, so that the borders are smooth.
            let labels = (!reduced).then(|| {
                Segmentation::new(&scores, &list.names, shown.height(), shown.width(), least).labels
            });
            let about = json!({ "threshold": threshold, "classes": found.classes });
            (found, labels, &list.names, about)
        }
        Finder::Expressions { texts, referrer } => {
            let (found, about) = referrer.segmentation(&photo, texts);
            (found, None, texts, json!({ "expressions": about }))
        }
    };
    let labels = labels.unwrap_or_else(|| found.labels_at(shown.height(), shown.width()));
    write_png(&pictures::overlay(&shown, &labels, names)?, overlay)?;
    let mask_path = overlay.with_extension("mask.png");
    let mask = GrayImage::from_raw(found.width, found.height, found.labels.clone()).unwrap_or_default();
    write_mask(&mask, &mask_path)?;
    let scores_path = overlay.with_extension("json");
    let mut summary = json!({
        "picture": path,
        "width": photo.width(),
        "height": photo.height(),
        "overlay": overlay,
        "mask": mask_path,
        "background": found.background,
    });
    if let (Some(summary), Value::Object(about)) = (summary.as_object_mut(), about) {
        summary.extend(about);
    }
    let text = serde_json::to_string_pretty(&summary)? + "\n";
    storage::write(&scores_path, text.into_bytes())?;
    Ok(summary)
}
