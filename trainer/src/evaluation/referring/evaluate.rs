//! Finds the masks of all expressions of a set, and counts how well they match.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use image::RgbImage;
use image::imageops::flip_horizontal;
use serde::Serialize;
use tch::{Kind, Tensor};

use super::regions::MaskRule;
use super::scores::{Calibration, Counts, Scores, Tally, calibrated};
use super::set::{ReferringSet, Sample};
use crate::data::read_image;
use crate::device::to_vec;
use crate::error::{Error, Result};
use crate::inference::referring::expression::Expression;
use crate::inference::referring::find::Found;
use crate::inference::referring::referrer::Referrer;
use crate::inference::referring::words::mirrored;
use crate::inference::window::Window;
use crate::observer::Observer;

/// Maximum number of expressions whose maps are in memory at a time.
const TOGETHER: usize = 64;
/// Number of images that are read ahead.
const AHEAD: usize = 4;

/// What is evaluated instead of the model as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// [`Method::WholeImage`].
    WholeImage,
    /// [`Method::Mirrored`].
    Mirrored,
    /// [`Method::Patches`].
    Patches,
}

/// Where the masks come from.
#[derive(Debug)]
pub enum Method<'a> {
    /// The model.
    Model(&'a Referrer),
    /// The model on the mirrored image, with left and right changed in the expression; its mask is mirrored back.
    Mirrored(&'a Referrer),
    /// The whole image: what a model without any knowledge reaches.
    WholeImage,
    /// The true mask, as exactly as patches of this side can tell: the share of each patch, bilinear, cut at a half.
    Patches {
        /// Side of a patch, in pixels of the resized image.
        patch: i64,
        /// The size of the resized image.
        window: Window,
    },
}

/// How masks are compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct CountSettings {
    /// Which pixels of polygons that overlap belong to the target.
    pub rule: MaskRule,
    /// Whether precision counts IoUs above its threshold only.
    pub above: bool,
}

/// What was found for an expression.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// Its id in the set.
    pub id: String,
    /// Its image.
    pub image: std::path::PathBuf,
    /// The expression.
    pub expression: String,
    /// The head phrase; `None` if no noun names a thing, and for controls without a model.
    pub head: Option<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// Intersection over union.
    pub iou: f64,
    /// Areas in pixels.
    #[serde(flatten)]
    pub counts: Counts,
    /// The threshold, as a share of the range of the map; `None` for controls without a model.
    pub cut: Option<f64>,
    /// The highest similarity of a patch.
    pub highest: Option<f64>,
    /// With [`Method::Mirrored`]: IoU of the mask with that of the image as it is.
    pub mirror: Option<f64>,
}

impl Record {
    /// Whether the model compared the whole expression, because no noun in it names a thing.
    pub fn has_no_subject(&self) -> bool {
        self.head.is_none() && self.highest.is_some()
    }
}

/// Scores on a set.
#[derive(Debug, Clone, Serialize)]
pub struct ReferringScores {
    /// Of all expressions.
    #[serde(flatten)]
    pub all: Scores,
    /// Of each group.
    pub groups: BTreeMap<String, Scores>,
    /// Number of images.
    pub images: usize,
    /// Number of expressions of which no noun names a thing: they are compared as a whole.
    pub without_subject: usize,
    /// With [`Method::Mirrored`]: mean IoU of the masks with those of the images as they are.
    pub mirror: Option<f64>,
    /// Images per second, including the time to read them.
    pub images_per_second: f64,
}

/// Finds and counts. Returns what was found for each expression, too.
pub fn evaluate(
    set: &ReferringSet,
    method: &Method<'_>,
    settings: CountSettings,
    observer: &dyn Observer,
) -> Result<(ReferringScores, Vec<Record>)> {
    let started = Instant::now();
    let (mut tally, mut records) = (Tally::new(settings.above), Vec::with_capacity(set.samples.len()));
    let mut progress = observer.progress("evaluating", "images", set.images.len() as u64);
    std::thread::scope(|scope| {
        let (send, read) = sync_channel::<Result<RgbImage>>(AHEAD);
        scope.spawn(move || {
            set.images.iter().map(|path| read_image(path)).try_for_each(|image| send.send(image))
        });
        for samples in set.samples.chunk_by(|a, b| a.image == b.image) {
            if observer.interrupted() {
                return Err(Error::interrupted(format!("the evaluation on {} is not finished", set.title)));
            }
            let path = &set.images[samples[0].image];
            let gone = |_| Error::Invalid {
                path: path.clone(),
                problem: "the thread that read it stopped".to_owned(),
            };
            let image = read.recv().map_err(gone)??;
            for some in samples.chunks(TOGETHER) {
                for (sample, record) in some.iter().zip(one(set, path, &image, some, method, settings)?) {
                    tally.add(record.counts, &sample.groups);
                    records.push(record);
                }
            }
            let message = || format!("mIoU {:.1} %", 100.0 * tally.scores().miou.unwrap_or_default());
            progress.advance(1, &message);
        }
        Ok(())
    })?;
    let all = tally.scores();
    progress.finish(&format!("mIoU {:.1} %", 100.0 * all.miou.unwrap_or_default()));
    let mirrors: Vec<f64> = records.iter().filter_map(|record| record.mirror).collect();
    let scores = ReferringScores {
        all,
        groups: tally.groups(),
        images: set.images.len(),
        without_subject: records.iter().filter(|record| record.has_no_subject()).count(),
        mirror: (!mirrors.is_empty()).then(|| mirrors.iter().sum::<f64>() / mirrors.len() as f64),
        images_per_second: set.images.len() as f64 / started.elapsed().as_secs_f64().max(1e-9),
    };
    Ok((scores, records))
}

/// The calibration that these records give; `None` without a map, or without an expression with a target.
pub fn calibration(records: &[Record]) -> Option<Calibration> {
    let maxima: Vec<(f64, bool)> =
        records.iter().filter_map(|record| Some((record.highest?, record.counts.target > 0))).collect();
    calibrated(&maxima)
}

/// What is found for some expressions about an image.
fn one(
    set: &ReferringSet,
    path: &Path,
    image: &RgbImage,
    samples: &[Sample],
    method: &Method<'_>,
    settings: CountSettings,
) -> Result<Vec<Record>> {
    let (width, height) = image.dimensions();
    let targets = samples
        .iter()
        .map(|sample| {
            sample.target.mask((width, height), settings.rule, &|problem| set.invalid(sample, &problem))
        })
        .collect::<Result<Vec<Vec<bool>>>>()?;
    let texts = || samples.iter().map(|sample| sample.text.as_str());
    let mut mirrors = None;
    let (expressions, found): (Vec<Option<Expression>>, Vec<Found>) = match method {
        Method::WholeImage => {
            (vec![None; samples.len()], targets.iter().map(|t| drawn(vec![true; t.len()])).collect())
        }
        Method::Patches { patch, window } => {
            let reduced = |target: &Vec<bool>| drawn(on_patches(target, (width, height), *patch, window));
            (vec![None; samples.len()], targets.iter().map(reduced).collect())
        }
        Method::Model(referrer) => {
            let expressions: Vec<Expression> = texts().map(|text| referrer.read(text)).collect();
            let found = referrer.find(image, &expressions);
            (expressions.into_iter().map(Some).collect(), found)
        }
        Method::Mirrored(referrer) => {
            let expressions: Vec<Expression> = texts().map(|text| referrer.read(text)).collect();
            let swapped: Vec<Expression> = texts().map(|text| referrer.read(&mirrored(text))).collect();
            let straight = referrer.find(image, &expressions);
            let mut found = referrer.find(&flip_horizontal(image), &swapped);
            for found in &mut found {
                found.mask.chunks_mut(width as usize).for_each(<[bool]>::reverse);
            }
            let alike = |(a, b): (&Found, &Found)| Counts::new(&a.mask, &b.mask, false).iou();
            mirrors = Some(found.iter().zip(&straight).map(alike).collect::<Vec<f64>>());
            (expressions.into_iter().map(Some).collect(), found)
        }
    };
    let record = |at: usize| {
        let (sample, found, expression) = (&samples[at], &found[at], &expressions[at]);
        let counts = Counts::new(&found.mask, &targets[at], found.absent);
        let of_model = expression.is_some();
        let head = |one: &Expression| one.subject.is_some().then(|| one.head().to_owned());
        Record {
            id: sample.id.clone(),
            image: path.to_owned(),
            expression: sample.text.clone(),
            head: expression.as_ref().and_then(head),
            groups: sample.groups.clone(),
            iou: counts.iou(),
            counts,
            cut: of_model.then_some(found.cut),
            highest: of_model.then_some(found.highest),
            mirror: mirrors.as_ref().map(|mirrors| mirrors[at]),
        }
    };
    Ok((0..samples.len()).map(record).collect())
}

/// A mask that no model found.
fn drawn(mask: Vec<bool>) -> Found {
    Found { mask, cut: 0.0, highest: 0.0, absent: false }
}

/// A mask, as exactly as patches can tell.
fn on_patches(mask: &[bool], (width, height): (u32, u32), patch: i64, window: &Window) -> Vec<bool> {
    let (width, height) = (i64::from(width), i64::from(height));
    let (rows, columns) = window.fit(height, width);
    let grid = [rows, columns].map(|side| (side as f64 / patch as f64).round().max(1.0) as i64);
    let bytes: Vec<u8> = mask.iter().map(|&inside| u8::from(inside)).collect();
    let shares =
        Tensor::from_slice(&bytes).view([1, 1, height, width]).to_kind(Kind::Float).adaptive_avg_pool2d(grid);
    to_vec(&shares.upsample_bilinear2d([height, width], false, None, None))
        .into_iter()
        .map(|share| share >= 0.5)
        .collect()
}
