//! Towers, tagger and window: from an image and expressions to masks.

use concepts::{Extractor, TaggerKind};
use image::RgbImage;
use serde::Serialize;
use tch::Tensor;

use super::expression::Expression;
use super::find::{Found, ReferSettings, find};
use super::map::Map;
use super::vectors::{default_weight, embed, queries};
use crate::checkpoint::Checkpoint;
use crate::device::{self, to_vec};
use crate::error::{Error, Result};
use crate::inference::class_vectors::ClassVectors;
use crate::inference::labels::upsample;
use crate::inference::model::Model;
use crate::inference::segmentation::{NO_CLASS, Segmentation};
use crate::inference::segmenter::{SegmentSettings, Segmenter};
use crate::inference::window::Window;

/// Finds what expressions mean in images.
#[derive(Debug)]
pub struct Referrer {
    segmenter: Segmenter,
    extractor: Extractor,
    by: ClassVectors,
    settings: ReferSettings,
}

impl Referrer {
    /// With a model; its heads are embedded as it embeds classes.
    pub fn new(model: Model, window: Window, settings: ReferSettings) -> Result<Self> {
        settings.check()?;
        let by = model.vectors;
        let segmenter = Segmenter::without_classes(model, window)?;
        Ok(Self { segmenter, extractor: Extractor::new(TaggerKind::default())?, by, settings })
    }

    /// The same from a checkpoint. Of the settings, `device`, `precision`, `size`, `stride` and `vectors` are used.
    pub fn open(checkpoint: &Checkpoint, segment: &SegmentSettings, settings: ReferSettings) -> Result<Self> {
        settings.check()?;
        let model = Model::open(checkpoint, segment.precision, device::open(&segment.device)?)?;
        let window = segment.window(model.size);
        Ok(Self { by: segment.vectors.unwrap_or(model.vectors), ..Self::new(model, window, settings)? })
    }

    /// Reads an expression.
    pub fn read(&self, text: &str) -> Expression {
        Expression::read(&self.extractor, text)
    }

    /// The masks of the expressions in an image, of its size.
    pub fn find(&self, image: &RgbImage, expressions: &[Expression]) -> Vec<Found> {
        self.found_at(image, expressions).0
    }

    /// The same, with the map of each expression.
    pub fn found_at(&self, image: &RgbImage, expressions: &[Expression]) -> (Vec<Found>, Vec<Map>) {
        let queries = queries(expressions);
        let model = &self.segmenter.model;
        let vectors = tch::no_grad(|| {
            embed(&model.text, &queries, self.by, self.settings.expression_weight, model.kind)
        });
        let (scores, highest) = self.segmenter.compared(image, &vectors);
        let mut rows =
            (0..queries.len()).map(|row| map_of(&scores.get(row as i64), image.height(), image.width()));
        let mut highest = highest.into_iter();
        let mut next = || rows.next().zip(highest.next());
        let (mut found, mut maps) = (Vec::new(), Vec::new());
        for one in expressions {
            let Some((map, top)) = next() else { break };
            let other = one.relation.as_ref().and_then(|_| next()).map(|(map, _)| map);
            found.push(find(one, &map, other.as_ref(), f64::from(top), &self.settings));
            maps.push(map);
        }
        (found, maps)
    }

    /// The labels of the pixels of an image: the number of the expression that means them, of several the most similar one; and what was
    /// found for each expression.
    pub fn segmentation(&self, image: &RgbImage, texts: &[String]) -> (Segmentation, Vec<ExpressionSummary>) {
        let expressions: Vec<Expression> = texts.iter().map(|text| self.read(text)).collect();
        let (found, maps) = self.found_at(image, &expressions);
        let pixels = image.width() as usize * image.height() as usize;
        let mut labels = vec![NO_CLASS; pixels];
        let mut best = vec![f32::NEG_INFINITY; pixels];
        for (number, (found, map)) in
            found.iter().zip(&maps).enumerate().filter(|(_, (found, _))| !found.absent)
        {
            for at in (0..pixels).filter(|&at| found.mask[at]) {
                if map.values[at] > best[at] {
                    (best[at], labels[at]) = (map.values[at], number as u8);
                }
            }
        }
        let summary = |(number, (found, expression)): (usize, (&Found, &Expression))| ExpressionSummary {
            expression: texts[number].clone(),
            index: number,
            head: expression.head().to_owned(),
            share: if found.absent { 0.0 } else { share(&found.mask) },
            cut: found.cut,
            highest: found.highest,
            absent: found.absent,
        };
        let meant: Vec<bool> = labels.iter().map(|&label| label != NO_CLASS).collect();
        let background = 1.0 - share(&meant);
        let about = found.iter().zip(&expressions).enumerate().map(summary).collect();
        let (height, width) = (image.height(), image.width());
        (Segmentation { height, width, labels, background, classes: Vec::new() }, about)
    }

    /// The weight of the embedding of a whole expression.
    pub fn expression_weight(&self) -> f64 {
        self.settings.expression_weight.unwrap_or(default_weight(self.by))
    }

    /// The side of a patch, in pixels.
    pub fn patch(&self) -> i64 {
        self.segmenter.model.vision.patch()
    }
}

/// What was found for an expression in an image.
#[derive(Debug, Clone, Serialize)]
pub struct ExpressionSummary {
    /// The expression.
    pub expression: String,
    /// Its value in the mask.
    pub index: usize,
    /// Its head phrase.
    pub head: String,
    /// Fraction of the pixels that it means.
    pub share: f64,
    /// The threshold, as a share of the range of its similarities.
    pub cut: f64,
    /// The highest similarity of a patch.
    pub highest: f64,
    /// Whether that is too low, so that it means nothing in the image.
    pub absent: bool,
}

/// Fraction of the pixels inside.
fn share(mask: &[bool]) -> f64 {
    mask.iter().filter(|inside| **inside).count() as f64 / mask.len().max(1) as f64
}

/// A map of `height` x `width` pixels from similarities of any size, [h, w], bilinear.
pub fn map_of(scores: &Tensor, height: u32, width: u32) -> Map {
    let scores = upsample(&scores.unsqueeze(0).unsqueeze(0), height.into(), width.into());
    Map { width: width as usize, height: height as usize, values: to_vec(&scores) }
}

/// Refuses an expression that names nothing.
///
/// # Errors
/// Wrong use if it has no noun, or only nouns for parts of the image such as "side".
pub fn check(text: &str) -> Result<()> {
    let expression = Expression::read(&Extractor::new(TaggerKind::default())?, text);
    match expression.subject {
        Some(_) => Ok(()),
        None => Err(Error::Setting {
            name: "--refer".to_owned(),
            problem: format!("is of no use: {}", nameless(text)),
        }),
    }
}

/// Why an expression without a subject is refused.
pub fn nameless(text: &str) -> String {
    format!("in {text:?} no noun names a thing; write for example \"the red car on the left\"")
}
