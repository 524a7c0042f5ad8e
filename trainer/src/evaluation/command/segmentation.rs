//! `trainer eval segmentation`.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::super::classes::{self, Words};
use super::super::datasets::{Background, SegmentationSet};
use super::super::pamr::Pamr;
use super::super::segmentation::{Deciding, Low, SegmentationScores, evaluate, read_image};
use super::super::table;
use super::{EvalModelArgs, write_results};
use crate::class_vectors::ClassVectors;
use crate::error::{Error, Result, at, image_at};
use crate::picture;
use crate::segmenter::{Segmenter, WINDOW_BATCH};
use crate::templates;
use crate::window::Window;

/// TCL's threshold for the sets with background.
pub(in crate::evaluation) const THRESHOLD: f64 = 0.4;
/// Missing files that `--check` names.
const NAMED: usize = 20;
/// Images with low scores that are drawn where `--out` is given.
const WORST: usize = 8;

/// The set, and every part of the protocol.
#[derive(Debug, Args)]
pub struct SegmentationArgs {
    /// voc20, voc21, context59, context60, coco-stuff171, coco-object81, cityscapes19, ade150 or camvid11 in the
    /// layout they are published in; or `folder`: images/, masks/ (8-bit class indices, 255 ignored) and classes.txt.
    #[arg(long, default_value = "folder")]
    dataset: String,
    /// Folder of the data.
    #[arg(long)]
    data: PathBuf,
    /// The split of a published set that has several (camvid11: test or val).
    #[arg(long)]
    split: Option<String>,
    /// Only say whether the set is complete, and what is missing.
    #[arg(long)]
    check: bool,
    /// Score only the first N images.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// What becomes of class 0: `ignored` (foreground only), by `threshold`, or asked for by its `words`
    /// [default: as the set's name says; for folders words].
    #[arg(long, value_enum)]
    background: Option<Background>,
    /// Least softmax probability of a class that is not background.
    #[arg(long, default_value_t = THRESHOLD)]
    threshold: f64,
    /// What similarities are multiplied with before that softmax [default: the scale that the model learned].
    #[arg(long)]
    scale: Option<f64>,
    /// Which words of each class are asked for.
    #[arg(long, value_enum, default_value = "plain")]
    words: Words,
    /// The words of the classes from a file, a class a line in the set's order, `name = word | word`.
    #[arg(long)]
    classes: Option<PathBuf>,
    /// Short side the images are brought to, in pixels [default: 448; for folders the training size].
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    size: u32,
    /// Most pixels of the long side; 0 for no limit.
    #[arg(long, default_value_t = Window::PUBLISHED.long as u32)]
    long_side: u32,
    /// Side of the sliding window in pixels [default: the short side].
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    window: u32,
    /// Step of the sliding window in pixels [default: half the window].
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    stride: u32,
    /// Times the scores are refined by the image's colours (PAMR; the papers use 10); 0 for no refinement.
    #[arg(long, default_value_t = 0)]
    pamr: usize,
    /// Windows that go through the tower together, of one image or several.
    #[arg(long, default_value_t = WINDOW_BATCH)]
    batch: usize,
    /// Folder for result.json, table.md and the worst images.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Images with the lowest scores to draw there.
    #[arg(long, default_value_t = WORST)]
    worst: usize,
    #[command(flatten)]
    model: EvalModelArgs,
}

impl SegmentationArgs {
    pub(super) fn run(&self, json: bool) -> Result<Value> {
        let mut set = self.set()?;
        if self.check {
            return check(&set);
        }
        set.refuse_if_incomplete()?;
        set.pairs.truncate(self.limit.unwrap_or(usize::MAX).max(1));

        let (model, mut about) = self.model.open()?;
        if let Some(covered) = covered(&set, &about["bank"]["names"]) {
            about["bank"]["classes_of_this_set"] = json!(covered);
        }
        let folder = self.dataset == "folder";
        let own = |value: u32, default: i64| if value == 0 { default } else { i64::from(value) };
        let short = own(self.size, if folder { model.size } else { Window::PUBLISHED.short });
        let side = own(self.window, short);
        let window = Window {
            short,
            long: i64::from(self.long_side),
            side,
            stride: own(self.stride, (side / 2).max(1)),
        };
        let published = if folder { model.vectors } else { ClassVectors::Caption };
        let vectors = self.model.class_vectors.unwrap_or(published);
        let templates = self.model.templates.as_deref().unwrap_or("imagenet");
        let learned = model.text.logit_scale().double_value(&[]);
        let deciding = Deciding {
            threshold: self.threshold,
            scale: self.scale.unwrap_or(learned),
            pamr: (self.pamr > 0)
                .then(|| Pamr { iterations: self.pamr, dilations: Pamr::DILATIONS.to_vec() }),
            batch: self.batch,
            readers: self.model.readers(),
            worst: if self.out.is_some() { self.worst } else { 0 },
        };
        let by_threshold = set.background == Some(Background::Threshold);
        let asked: Vec<Vec<String>> =
            set.classes.iter().skip(usize::from(by_threshold)).map(|class| class.asked(self.words)).collect();
        let segmenter = Segmenter::new(model, &asked, &templates::read(templates)?, vectors, window)?;
        let (scores, low) = evaluate(&set, &segmenter, &deciding)?;

        let protocol = json!({
            "background": set.background,
            "threshold": by_threshold.then_some(self.threshold),
            "scale": (by_threshold || deciding.pamr.is_some()).then_some(deciding.scale),
            "window": window,
            "templates": templates,
            "vectors": vectors,
            "words": if self.classes.is_some() { json!(self.classes) } else { json!(self.words) },
            "pamr": deciding.pamr,
        });
        let result = json!({
            "task": "segmentation", "dataset": set.name, "title": set.title, "split": set.split,
            "published_images": set.published, "model": about, "protocol": protocol, "scores": scores, "worst": low,
        });
        if let Some(out) = &self.out {
            write_results(out, &result, &table::markdown(std::slice::from_ref(&result)))?;
            draw(&set, &low, &out.join("worst"))?;
        }
        if !json {
            print_classes(&scores);
        }
        println!("{}", line(&scores));
        // The scores at the top as well: what scripts have read since the first version.
        let mut summary = result;
        if let (Some(summary), Ok(Value::Object(scores))) =
            (summary.as_object_mut(), serde_json::to_value(&scores))
        {
            summary.extend(scores);
        }
        Ok(summary)
    }

    fn set(&self) -> Result<SegmentationSet> {
        let mut set = SegmentationSet::open(&self.dataset, &self.data, self.split.as_deref())?;
        let refuse = |name: &str, problem: String| Err(Error::Setting { name: name.to_owned(), problem });
        if let Some(background) = self.background {
            if set.published.is_some() && set.background.is_none() {
                return refuse("background", format!("{} has no background class", set.name));
            }
            if set.background == Some(Background::Ignored) && background != Background::Ignored {
                return refuse("background", format!("{} leaves it out; its sister set keeps it", set.name));
            }
            set = set.with_background(background);
        }
        if let Some(path) = &self.classes {
            let words = classes::read(path)?;
            if words.len() != set.classes.len() {
                let problem =
                    format!("has {} classes, and {} has {}", words.len(), set.title, set.classes.len());
                return Err(Error::Invalid { path: path.clone(), problem });
            }
            set.classes = words;
        }
        Ok(set)
    }
}

/// Classes of the set whose words the bank's file names; none where the file is not there any more.
fn covered(set: &SegmentationSet, names: &Value) -> Option<usize> {
    let text = std::fs::read_to_string(names.as_str()?).ok()?;
    let bank: std::collections::HashSet<String> = text.lines().map(concepts::canonical).collect();
    let known =
        |class: &&classes::Class| class.words.iter().any(|word| bank.contains(&concepts::canonical(word)));
    Some(set.classes.iter().filter(known).count())
}

/// Says whether a set is complete; an error when it is not.
fn check(set: &SegmentationSet) -> Result<Value> {
    let (found, missing) = (set.pairs.len(), set.missing.len());
    let split = if set.split.is_empty() { String::new() } else { format!(" ({})", set.split) };
    println!("{}{split}: {found} images with masks, {missing} files missing", set.title);
    for path in set.missing.iter().take(NAMED) {
        println!("missing: {}", path.display());
    }
    if missing > NAMED {
        println!("missing: {} more", missing - NAMED);
    }
    if let Some(published) = set.published.filter(|&published| published != found + missing) {
        println!("the set is published with {published} images: this is part of it, or more");
    }
    set.refuse_if_incomplete()?;
    Ok(json!({ "dataset": set.name, "images": found, "published_images": set.published, "missing": missing }))
}

/// The predicted and the true labels of the images with the lowest scores.
fn draw(set: &SegmentationSet, low: &[Low], folder: &Path) -> Result<()> {
    if low.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    let names: Vec<String> = set.classes.iter().map(|class| class.name.clone()).collect();
    for (number, image) in low.iter().enumerate() {
        let photo = read_image(&image.image)?;
        let name = image.image.file_stem().unwrap_or_default().to_string_lossy();
        for (what, labels) in [("predicted", &image.predicted), ("truth", &image.truth)] {
            let path = folder.join(format!("{number:02}-{name}-{what}.png"));
            let mut bytes = Cursor::new(Vec::new());
            let page = picture::overlay(&photo, labels, &names)?;
            page.write_to(&mut bytes, image::ImageFormat::Png).map_err(image_at(&path))?;
            concepts::files::write_atomic(&path, bytes.get_ref()).map_err(at(&path))?;
        }
    }
    Ok(())
}

fn print_classes(scores: &SegmentationScores) {
    println!("{:<24} {:>6} {:>8}", "class", "IoU %", "share %");
    for class in &scores.classes {
        let iou = class.iou.map_or("-".to_owned(), |iou| format!("{:.1}", 100.0 * iou));
        println!("{:<24} {iou:>6} {:>8.2}", class.class, 100.0 * class.share);
    }
}

fn line(scores: &SegmentationScores) -> String {
    let all = (scores.pixels + scores.ignored).max(1) as f64;
    format!(
        "mIoU {:.2} %, pixel accuracy {:.2} %, chance {:.2} %, {} images, {:.2} % of the pixels ignored",
        100.0 * scores.miou,
        100.0 * scores.pixel_accuracy,
        100.0 * scores.chance,
        scores.images,
        100.0 * scores.ignored as f64 / all
    )
}
