//! A trained pair of towers as a segmenter for any list of words: class vectors, sliding window, up-sampling.

use std::ops::Range;
use std::sync::LazyLock;

use clap::ValueEnum;
use concepts::bpe::Tokenizer;
use image::RgbImage;
use tch::{Kind, Tensor};

use crate::checkpoint::Checkpoint;
use crate::device::{self, Precision};
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::pooling::{Mention, Mentions};
use crate::templates;
use crate::towers::{CaptionTokens, TextTower, unit};
use crate::vision_source::FrozenVision;

/// Captions of class names embedded together.
const TEXT_BATCH: usize = 256;
/// Windows of an image that go through the tower together.
const WINDOW_BATCH: i64 = 16;

/// Which embedding of a class name is its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClassVectors {
    /// The caption's, from its end-of-text token: what L_g aligns with class tokens, and the published protocol.
    Caption,
    /// The name's own words', as mentions are embedded in training: what L_l aligns with patches.
    Concept,
}

impl ClassVectors {
    /// What the objective aligns directly: the words for `simzss`, the caption for `lit`.
    pub fn of(objective: Objective) -> Self {
        match objective {
            Objective::Simzss => Self::Concept,
            Objective::Lit => Self::Caption,
        }
    }
}

/// How images are cut and classes are worded.
#[derive(Debug, Clone)]
pub struct SegmentSettings {
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// What the towers compute in.
    pub precision: Precision,
    /// The image's short side is brought to this many pixels; 0 for the training size.
    pub size: u32,
    /// Step of the sliding window in pixels; the window is a square of `size`. 0 for half the window.
    pub stride: u32,
    /// Templates of the class names: `imagenet`, `simple` or a file.
    pub templates: String,
    /// Which embedding of a name is its vector; none for what the checkpoint's objective aligns.
    pub vectors: Option<ClassVectors>,
}

/// Towers, class vectors and window.
#[derive(Debug)]
pub struct Segmenter {
    vision: FrozenVision,
    /// Unit length, [C, d_v].
    classes: Tensor,
    size: i64,
    stride: i64,
}

impl Segmenter {
    /// From a checkpoint and the names of the classes, in order.
    pub fn open(checkpoint: &Checkpoint, names: &[String], settings: &SegmentSettings) -> Result<Self> {
        let device = device::open(&settings.device)?;
        let kind = settings.precision.kind(device);
        let trained = &checkpoint.state.settings;
        let mut vision_settings = trained.vision.clone();
        vision_settings.weights = checkpoint.vision_path();
        let vision = FrozenVision::open(&vision_settings, kind, device)?;
        let size = i64::from(if settings.size == 0 { trained.data.size } else { settings.size });
        vision.tower.check_size("size", size)?;
        let stride = if settings.stride == 0 { size / 2 } else { i64::from(settings.stride) };
        if names.is_empty() || names.len() > 255 {
            return Err(Error::Setting {
                name: "classes".to_owned(),
                problem: format!("{} names; it takes 1 to 255", names.len()),
            });
        }
        let text = checkpoint.text(vision.tower.width, device)?;
        let by = settings.vectors.unwrap_or(ClassVectors::of(trained.objective.name));
        let classes = class_vectors(&text, names, &templates::read(&settings.templates)?, by, kind)?;
        Ok(Self { vision, classes, size, stride })
    }

    /// Similarity of every class at every pixel of the resized image, [C, h, w], float32.
    ///
    /// The short side becomes `size` and a square window of that size slides over the long side; where windows
    /// overlap their similarities are averaged.
    pub fn scores(&self, image: &RgbImage) -> Tensor {
        tch::no_grad(|| {
            let pixels = self.resized(image);
            let (height, width) = (pixels.size()[1], pixels.size()[2]);
            let classes = self.classes.size()[0];
            let corners: Vec<(i64, i64)> = offsets(height, self.size, self.stride)
                .into_iter()
                .flat_map(|y| offsets(width, self.size, self.stride).into_iter().map(move |x| (y, x)))
                .collect();
            let options = (Kind::Float, self.classes.device());
            let sums = Tensor::zeros([classes, height, width], options);
            let counts = Tensor::zeros([1, height, width], options);
            for some in corners.chunks(WINDOW_BATCH as usize) {
                let windows: Vec<Tensor> = some
                    .iter()
                    .map(|&(y, x)| pixels.narrow(1, y, self.size).narrow(2, x, self.size))
                    .collect();
                let scores = self.window_scores(&Tensor::cat(&windows, 0));
                for (i, &(y, x)) in some.iter().enumerate() {
                    let place = |t: &Tensor| t.narrow(1, y, self.size).narrow(2, x, self.size);
                    let _ = place(&sums).g_add_(&scores.get(i as i64));
                    let _ = place(&counts).g_add_scalar_(1.0);
                }
            }
            sums / counts
        })
    }

    /// The likeliest class of each pixel of an image of `height` x `width`, uint8 [height, width], on the CPU.
    pub fn labels(&self, image: &RgbImage, height: i64, width: i64) -> Tensor {
        let scores = self.scores(image).unsqueeze(0);
        let labels = scores.upsample_bilinear2d([height, width], false, None, None).argmax(1, false);
        labels.squeeze_dim(0).to_kind(Kind::Uint8).to_device(tch::Device::Cpu)
    }

    /// [n, size, size, 3] pixels -> [n, C, size, size].
    fn window_scores(&self, pixels: &Tensor) -> Tensor {
        let patches = unit(&self.vision.features(pixels).patches);
        let side = self.size / self.vision.tower.patch;
        let scores = patches.matmul(&self.classes.transpose(0, 1)).transpose(1, 2);
        let grid = scores.reshape([-1, self.classes.size()[0], side, side]);
        grid.upsample_bilinear2d([self.size, self.size], false, None, None)
    }

    /// Pixels 0..255 as float32, [1, h, w, 3], the short side `size`; bilinear, as the published protocol.
    fn resized(&self, image: &RgbImage) -> Tensor {
        let (width, height) = (i64::from(image.width()), i64::from(image.height()));
        let pixels = Tensor::from_slice(image.as_raw()).view([1, height, width, 3]).to_kind(Kind::Float);
        let short = height.min(width);
        let scaled =
            |side: i64| ((side * self.size) as f64 / short as f64).round().max(self.size as f64) as i64;
        if short == self.size {
            return pixels;
        }
        pixels
            .permute([0, 3, 1, 2])
            .upsample_bilinear2d([scaled(height), scaled(width)], false, None, None)
            .permute([0, 2, 3, 1])
    }
}

/// Offsets of windows of `size` along a side of `length` >= `size`: every `stride`, the last flush with the end.
fn offsets(length: i64, size: i64, stride: i64) -> Vec<i64> {
    let mut out: Vec<i64> = (0..=length - size).step_by(stride.max(1) as usize).collect();
    if out.last() != Some(&(length - size)) {
        out.push(length - size);
    }
    out
}

/// Class vectors: the mean over the templates of unit-length embeddings of each name, of unit length, [C, d_v].
pub fn class_vectors(
    text: &TextTower,
    names: &[String],
    templates: &[String],
    by: ClassVectors,
    kind: Kind,
) -> Result<Tensor> {
    if names.iter().any(|name| name.trim().is_empty()) {
        return Err(Error::Setting {
            name: "classes".to_owned(),
            problem: "one of the names is empty".to_owned(),
        });
    }
    let captions: Vec<(String, Range<u32>)> =
        names.iter().flat_map(|name| templates.iter().map(move |template| worded(template, name))).collect();
    let embedded: Vec<Tensor> =
        tch::no_grad(|| captions.chunks(TEXT_BATCH).map(|some| embed(text, some, by, kind)).collect());
    let all = Tensor::cat(&embedded, 0).view([names.len() as i64, templates.len() as i64, -1]);
    Ok(unit(&all.mean_dim([1i64].as_slice(), false, Kind::Float)))
}

/// A name in a template, as canonical text, with the bytes that the name takes.
fn worded(template: &str, name: &str) -> (String, Range<u32>) {
    let caption = concepts::canonical(&template.replace("{}", name.trim()));
    let name = concepts::canonical(name);
    let before = concepts::canonical(template.split("{}").next().unwrap_or_default()).len();
    let start = caption.get(before..).and_then(|rest| rest.find(&name)).map_or(0, |at| before + at);
    (caption, start as u32..(start + name.len()) as u32)
}

/// Unit-length embeddings of captions or of the names in them, [n, d_v].
fn embed(text: &TextTower, captions: &[(String, Range<u32>)], by: ClassVectors, kind: Kind) -> Tensor {
    // Making one takes longer than embedding a word.
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::clip);
    let context = text.shape.context as usize;
    let device = text.logit_scale().device();
    let (mut ids, mut mentions) = (Vec::new(), Vec::new());
    for (row, (caption, name)) in captions.iter().enumerate() {
        let tokens = TOKENIZER.encode(caption, context);
        mentions.push(Mention { row: row as u32, label: 0, positions: tokens.positions(name) });
        ids.extend(tokens.ids.into_iter().map(i64::from));
    }
    let captions = CaptionTokens::new(&ids, context, device);
    let tokens = text.tokens(&captions.ids, kind);
    match by {
        ClassVectors::Caption => unit(&text.captions(&tokens, &captions.end)),
        ClassVectors::Concept => {
            let mentions = Mentions::new(&mentions, tokens.size()[1], device);
            unit(&text.project(&mentions.mean_tokens(&tokens)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_in_its_template() {
        for (template, name, caption) in [
            ("a photo of a {}.", "Traffic  Cone", "a photo of a traffic cone."),
            ("{}", "ball", "ball"),
            ("the ball: a {} in the scene", "ball", "the ball: a ball in the scene"),
        ] {
            let (found, span) = worded(template, name);
            assert_eq!(found, caption);
            assert_eq!(&found[span.start as usize..span.end as usize], concepts::canonical(name));
        }
        assert_eq!(worded("the ball: a {} in the scene", "ball").1, 12..16);
    }

    #[test]
    fn windows_cover_the_side_and_end_flush() {
        assert_eq!(offsets(448, 448, 224), [0]);
        assert_eq!(offsets(672, 448, 224), [0, 224]);
        assert_eq!(offsets(700, 448, 224), [0, 224, 252]);
        assert_eq!(offsets(449, 448, 224), [0, 1]);
    }
}
