//! `trainer eval segmentation`.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use clap::Args;
use image::ImageEncoder;
use serde_json::{Value, json};

use trainer::data::read_image;
use trainer::evaluation::protocol::Protocol;
use trainer::evaluation::published_datasets::Background;
use trainer::evaluation::segmentation::{DecisionSettings, SegmentationScores, WorstImage, evaluate};
use trainer::evaluation::{SegmentationDataset, table};
use trainer::inference::classes;
use trainer::inference::fusion::Fusion;
use trainer::inference::segmenter::WINDOW_BATCH;
use trainer::towers::Dense;
use trainer::{Error, Result, pictures};

use super::names::NameArgs;
use super::parts::PartsArgs;
use super::predictions::PredictionArgs;
use super::{EvalModelArgs, write_results};
use crate::commands::choices;
use crate::commands::console::Console;

/// Maximum number of missing files that `--check` lists.
const MAX_LISTED: usize = 20;
/// Default of `--worst`.
const WORST: usize = 8;

/// The dataset, and all parts of the protocol.
#[derive(Debug, Args)]
pub(crate) struct SegmentationArgs {
    /// Dataset: voc20, voc21, context59, context60, coco-stuff171, coco-object81, cityscapes19, ade150 or camvid11, in the folder
    /// layout in which it is published; or `folder` for your own: images/, masks/ (8-bit PNG with class indices, 255 = ignored) and
    /// classes.txt.
    #[arg(long, default_value = "folder")]
    dataset: String,
    /// Folder of the dataset.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Split of a published dataset that has several (camvid11: test or val) [default: the first one].
    #[arg(long)]
    split: Option<String>,
    /// Only check whether the dataset is complete, and list missing files; needs no model.
    #[arg(long)]
    check: bool,
    /// Evaluate only the first N images.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// How class 0, background, is predicted [default: as in the published protocol of the dataset; with `--dataset folder`: words].
    #[arg(long, value_parser = choices::background())]
    background: Option<Background>,
    #[command(flatten)]
    names: NameArgs,
    /// Windows per forward pass, from one or several images.
    #[arg(long, default_value_t = WINDOW_BATCH)]
    batch: usize,
    /// Folder to write: result.json, table.md and the images with the lowest scores.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Number of images with the lowest scores that are drawn there.
    #[arg(long, default_value_t = WORST, requires = "out")]
    worst: usize,
    /// Also write the predicted label maps to this folder: NAME.png with class indices, one for each image.
    #[arg(long, value_name = "DIR")]
    save_predictions: Option<PathBuf>,
    #[command(flatten)]
    predictions: PredictionArgs,
    #[command(flatten)]
    model: EvalModelArgs,
    #[command(flatten)]
    parts: PartsArgs,
}

impl SegmentationArgs {
    pub(super) fn run(&self, json: bool) -> Result<Value> {
        let of_others = self.predictions.predictions.is_some();
        if !self.check && !of_others {
            self.model.check()?;
        }
        let mut set = self.set()?;
        if self.check {
            return check(&set);
        }
        set.check_complete()?;
        set.pairs.truncate(self.limit.unwrap_or(usize::MAX).max(1));
        let worst = if self.out.is_some() { self.worst } else { 0 };
        if of_others {
            let (scores, low, about, protocol) = self.predictions.score(&set, self.model.readers(), worst)?;
            return self.report(&set, &scores, &low, &about, &protocol, json);
        }

        let (model, mut about) = self.model.open(&self.parts.dense())?;
        if let Some(covered) = covered(&set, &about["bank"]["names"]) {
            about["bank"]["classes_of_this_set"] = json!(covered);
        }
        let own_words = self.names.given();
        let parts = self.parts.parts(&model, &self.dataset, own_words.is_some());
        let learned = model.text.logit_scale().double_value(&[]);
        let decision = DecisionSettings {
            threshold: parts.threshold,
            scale: parts.scale.unwrap_or(learned),
            batch: self.batch,
            readers: self.model.readers(),
            worst,
        };
        let by_threshold = set.background == Some(Background::Threshold);
        let segmenter = parts.segmenter(model, &set)?;
        if let Some(folder) = &self.save_predictions {
            storage::create_folder(folder)?;
        }
        let (scores, low) = evaluate(&set, &segmenter, &decision, &Console, &mut |at, mask, labels| {
            let size = (mask.width, mask.height);
            self.save_predictions
                .as_ref()
                .map_or(Ok(()), |folder| save(folder, &set.pairs[at].0, size, labels))
        })?;

        // Also where the options are those of a protocol that is not named.
        let named = Protocol::of(&set.name, set.background, &parts)
            .filter(|protocol| own_words.is_none() != protocol.separator.is_some());
        let by_names = segmenter.names.as_ref();
        let scaled = by_threshold && !parts.fusion.is_bounded();
        let protocol = json!({
            "name": named.map(|protocol| protocol.name),
            "background": set.background,
            "threshold": (by_threshold && by_names.is_none()).then_some(decision.threshold),
            "scale": (scaled && by_names.is_none()).then_some(decision.scale),
            "names": by_names,
            "sure": parts.sure,
            "window": parts.window,
            "templates": parts.templates,
            "vectors": parts.vectors,
            "words": own_words.unwrap_or_else(|| json!(parts.names)),
            "dense": (parts.dense != Dense::Tokens).then_some(parts.dense),
            "fusion": (parts.fusion != Fusion::Similarity).then_some(parts.fusion),
            "pamr": segmenter.pamr,
        });
        self.report(&set, &scores, &low, &about, &protocol, json)
    }

    /// Writes and prints the results; returns the summary.
    fn report(
        &self,
        set: &SegmentationDataset,
        scores: &SegmentationScores,
        low: &[WorstImage],
        about: &Value,
        protocol: &Value,
        json: bool,
    ) -> Result<Value> {
        let result = json!({
            "task": "segmentation", "dataset": set.name, "title": set.title, "split": set.split,
            "published_images": set.published, "model": about, "protocol": protocol, "scores": scores, "worst": low,
        });
        if let Some(out) = &self.out {
            write_results(out, &result, &table::markdown(std::slice::from_ref(&result)))?;
            draw(set, low, &out.join("worst"))?;
        }
        if !json {
            print_classes(scores);
        }
        println!("{}", line(scores));
        // The scores also at the top level, where scripts have read them since the first version.
        let mut summary = result;
        if let (Some(summary), Ok(Value::Object(scores))) =
            (summary.as_object_mut(), serde_json::to_value(scores))
        {
            summary.extend(scores);
        }
        Ok(summary)
    }

    fn set(&self) -> Result<SegmentationDataset> {
        self.parts.check(&self.dataset)?;
        self.names.check(self.parts.protocol)?;
        let mut set = SegmentationDataset::open(&self.dataset, &self.data, self.split.as_deref())?;
        let by_protocol = self.parts.protocol.and_then(|protocol| protocol.background_of(set.background));
        if let Some(background) = by_protocol {
            set = set.with_background(background);
        }
        let refuse = |problem: String| Err(Error::Setting { name: "--background".to_owned(), problem });
        if let Some(background) = self.background {
            if set.published.is_some() && set.background.is_none() {
                return refuse(format!("cannot be used with {}, which has no background class", set.name));
            }
            if set.background == Some(Background::Ignored) && background != Background::Ignored {
                return refuse(format!(
                    "must be ignored for {}; voc21 and context60 are the same datasets with the background",
                    set.name
                ));
            }
            if let Some(protocol) = self.parts.protocol.filter(|_| set.background != Some(background)) {
                return refuse(format!(
                    "differs from what --protocol {} fixes for {}; leave out one of both",
                    protocol.name, set.name
                ));
            }
            set = set.with_background(background);
        }
        let by_names = |protocol: &Protocol| protocol.separator.is_some();
        let by_threshold =
            set.background == Some(Background::Threshold) || self.parts.protocol.is_some_and(by_names);
        let unused = |option: &str, with: &str| {
            Err(Error::Usage(format!("option {option} has an effect only with {with}; leave it out")))
        };
        if self.parts.threshold.is_some() && !by_threshold {
            return unused("--threshold", "--background threshold");
        }
        if self.parts.scale.is_some() && !by_threshold {
            return unused("--scale", "--background threshold");
        }
        if self.parts.scale.is_some() && self.parts.fusion.is_some_and(Fusion::is_bounded) {
            return unused("--scale", "--fusion similarity");
        }
        if self.split.is_some() && self.dataset == "folder" {
            return unused("--split", "a published dataset");
        }
        if let Some(classes) = self.names.read(&set, self.parts.protocol)? {
            set.classes = classes;
        }
        Ok(set)
    }
}

/// Number of classes of the dataset that the vocabulary file contains; `None` if the file does not exist any more.
fn covered(set: &SegmentationDataset, names: &Value) -> Option<usize> {
    let text = storage::read_text(Path::new(names.as_str()?)).ok()?;
    let bank: std::collections::HashSet<String> = text.lines().map(concepts::canonical).collect();
    let known =
        |class: &&classes::Class| class.words.iter().any(|word| bank.contains(&concepts::canonical(word)));
    Some(set.classes.iter().filter(known).count())
}

/// Prints whether the dataset is complete; an error if it is not.
fn check(set: &SegmentationDataset) -> Result<Value> {
    let (found, missing) = (set.pairs.len(), set.missing.len());
    let split = if set.split.is_empty() { String::new() } else { format!(" ({})", set.split) };
    println!("{}{split}: {found} images with masks, {missing} files missing", set.title);
    for path in set.missing.iter().take(MAX_LISTED) {
        println!("missing: {}", path.display());
    }
    if missing > MAX_LISTED {
        println!("missing: {} more", missing - MAX_LISTED);
    }
    if let Some(published) = set.published.filter(|&published| published != found + missing) {
        println!("the published dataset has {published} images, so this is a different selection");
    }
    set.check_complete()?;
    Ok(json!({ "dataset": set.name, "images": found, "published_images": set.published, "missing": missing }))
}

/// Writes the predicted labels of an image.
fn save(folder: &Path, image: &Path, (width, height): (u32, u32), labels: &[u8]) -> Result<()> {
    let name = format!("{}.png", image.file_stem().unwrap_or_default().to_string_lossy());
    let path = folder.join(name);
    let failed = |source| Error::Image { path: path.clone(), source };
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.write_image(labels, width, height, image::ExtendedColorType::L8).map_err(failed)?;
    Ok(storage::write(&path, bytes)?)
}

/// Draws the predicted and the true labels of the images with the lowest scores.
fn draw(set: &SegmentationDataset, low: &[WorstImage], folder: &Path) -> Result<()> {
    if low.is_empty() {
        return Ok(());
    }
    storage::create_folder(folder)?;
    let names: Vec<String> = set.classes.iter().map(|class| class.name.clone()).collect();
    for (number, image) in low.iter().enumerate() {
        let photo = read_image(&image.image)?;
        let name = image.image.file_stem().unwrap_or_default().to_string_lossy();
        for (what, labels) in [("predicted", &image.predicted), ("truth", &image.truth)] {
            let path = folder.join(format!("{number:02}-{name}-{what}.png"));
            let mut bytes = Cursor::new(Vec::new());
            let page = pictures::overlay(&photo, labels, &names)?;
            page.write_to(&mut bytes, image::ImageFormat::Png)
                .map_err(|source| Error::Image { path: path.clone(), source })?;
            storage::replace(&path, bytes.into_inner())?;
        }
    }
    Ok(())
}

fn print_classes(scores: &SegmentationScores) {
    println!("{:<24} {:>6} {:>8}", "class", "IoU %", "area %");
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
