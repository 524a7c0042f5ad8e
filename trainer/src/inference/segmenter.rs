//! Segmentation with any list of classes: class embeddings, sliding window, and scores for every pixel.

use std::ops::Range;

use image::RgbImage;
use tch::Tensor;

use super::class_vectors::{ClassVectors, ComparedWith, class_vectors};
use super::cut::Cut;
use super::fusion::Fusion;
use super::model::Model;
use super::names::{self, NameRule};
use super::pamr::Pamr;
use super::templates;
use super::window::{Resize, Window};
use super::{classes, labels};
use crate::checkpoint::Checkpoint;
use crate::device::{self, Precision, to_vec};
use crate::error::{Error, Result};
use crate::towers::unit;

/// Default number of windows per forward pass.
pub const WINDOW_BATCH: usize = 16;
/// Labels are bytes, and 255 means background.
const CLASS_LIMIT: usize = 255;

/// How images are cut into windows, and how class names become embeddings.
#[derive(Debug, Clone)]
pub struct SegmentSettings {
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Number format in which the towers compute.
    pub precision: Precision,
    /// The short side of the image is resized to this many pixels; 0 = the image size in training.
    pub size: u32,
    /// Step of the sliding window in pixels; 0 = half of the window. The window is a square with side `size`.
    pub stride: u32,
    /// Prompt templates: `imagenet`, `simple` or a file.
    pub templates: String,
    /// Which embedding represents a class; `None` = the one that suits the objective of the checkpoint.
    pub vectors: Option<ClassVectors>,
}

impl SegmentSettings {
    /// The window, for a model that was trained with images of this size.
    pub fn window(&self, trained: i64) -> Window {
        let short = if self.size == 0 { trained } else { i64::from(self.size) };
        let stride = if self.stride == 0 { short / 2 } else { i64::from(self.stride) };
        Window { short, long: 0, side: short, stride, resize: Resize::Float, ..Window::PUBLISHED }
    }
}

/// Towers, class embeddings and window.
#[derive(Debug)]
pub struct Segmenter {
    /// The towers.
    pub model: Model,
    /// Embeddings of all names, L2-normalized, [W, d].
    words: Tensor,
    /// The rows of `words` that belong to each class.
    classes: Vec<Range<i64>>,
    /// How images are cut.
    pub window: Window,
    /// What is averaged where windows overlap.
    pub fusion: Fusion,
    /// Refinement of the scores of each window.
    pub pamr: Option<Pamr>,
    /// How labels are decided, if it is by the similarities of all names instead of those of classes.
    pub names: Option<NameRule>,
    /// Where no class has as high a score as this, a patch that is not foreground gets class 0, if the features say what is foreground.
    pub sure: Option<f64>,
}

impl Segmenter {
    /// From a checkpoint and the class names, in order; `cat|kitten` is one class with two names.
    pub fn open(checkpoint: &Checkpoint, names: &[String], settings: &SegmentSettings) -> Result<Self> {
        let model = Model::open(checkpoint, settings.precision, device::open(&settings.device)?)?;
        let window = settings.window(model.size);
        let words: Vec<Vec<String>> = names.iter().map(|name| classes::synonyms(name)).collect();
        let by = settings.vectors.unwrap_or(model.vectors);
        Self::new(model, &words, &templates::read(&settings.templates)?, by, window)
    }

    /// From a model and the names of each class. The score of a pixel for a class is the maximum over its names.
    pub fn new(
        model: Model,
        classes: &[Vec<String>],
        templates: &[String],
        by: ClassVectors,
        window: Window,
    ) -> Result<Self> {
        let refuse = |problem: String| Err(Error::Setting { name: "classes".to_owned(), problem });
        if classes.is_empty() || classes.len() > CLASS_LIMIT {
            return refuse(format!("has {} classes; it must have 1 to {CLASS_LIMIT}", classes.len()));
        }
        if classes.iter().any(Vec::is_empty) {
            return refuse("has a class without a name".to_owned());
        }
        let words: Vec<String> = classes.iter().flatten().cloned().collect();
        let vectors = class_vectors(&model.text, &words, templates, by, ComparedWith::Patches, model.kind)?;
        let mut from = 0;
        let classes = classes
            .iter()
            .map(|words| {
                let range = from..from + words.len() as i64;
                from = range.end;
                range
            })
            .collect();
        Ok(Self { classes, ..Self::with_vectors(model, vectors, window)? })
    }

    /// From L2-normalized class embeddings, [C, d].
    pub fn with_vectors(model: Model, vectors: Tensor, window: Window) -> Result<Self> {
        window.check(model.vision.patch())?;
        let other = model.vision.dense_patch();
        if other != model.vision.patch() && window.side % other != 0 {
            let problem = format!(
                "is {} px; it must be a multiple of the patch size of the tower of --proxy-weights, {other} px, too",
                window.side
            );
            return Err(Error::Setting { name: "--window".to_owned(), problem });
        }
        let classes = (0..vectors.size()[0]).map(|class| class..class + 1).collect();
        Ok(Self {
            model,
            words: vectors,
            classes,
            window,
            fusion: Fusion::default(),
            pamr: None,
            names: None,
            sure: None,
        })
    }

    /// For [`Segmenter::compared`] only.
    pub fn without_classes(model: Model, window: Window) -> Result<Self> {
        let none = Tensor::zeros([0, model.text.patches()], (tch::Kind::Float, model.device()));
        Self::with_vectors(model, none, window)
    }

    /// Similarities of these L2-normalized vectors, [R, d], with every pixel of the resized image, [R, h, w], and for each vector the
    /// highest similarity of a patch.
    pub fn compared(&self, image: &RgbImage, vectors: &Tensor) -> (Tensor, Vec<f32>) {
        let score = |patches: &Tensor| patches.matmul(&vectors.transpose(0, 1)).transpose(1, 2);
        let (cuts, grids) = self.windows_scored(&[image], WINDOW_BATCH, &score);
        tch::no_grad(|| {
            let highest: Vec<Tensor> =
                grids.iter().map(|grid| grid.amax([1i64, 2].as_slice(), false)).collect();
            let highest = Tensor::stack(&highest, 0).amax([0i64].as_slice(), false);
            (cuts[0].blend(&grids, Fusion::Similarity, None), to_vec(&highest))
        })
    }

    /// Similarity of every class (with a rule for [`Segmenter::names`], of every name) at every pixel of the resized image, [C, h, w],
    /// float32. Where windows overlap, their similarities are averaged.
    pub fn scores(&self, image: &RgbImage) -> Tensor {
        let (cuts, grids) =
            self.windows_scored(&[image], WINDOW_BATCH, &|patches| self.similarities(patches));
        self.blended(&cuts[0], &grids)
    }

    /// The same for several images, one after the other. Their windows are processed `batch` at a time, also across images.
    pub fn scores_of<'a>(
        &'a self,
        images: &[&RgbImage],
        batch: usize,
    ) -> impl Iterator<Item = Tensor> + use<'a> {
        let (cuts, grids) = self.windows_scored(images, batch, &|patches| self.similarities(patches));
        let mut grids = grids.into_iter();
        // Full-size scores of many classes are large, so they exist for one image at a time.
        cuts.into_iter().map(move |cut| {
            let own: Vec<Tensor> = grids.by_ref().take(cut.windows.len()).collect();
            self.blended(&cut, &own)
        })
    }

    /// The windows of the images, and for each window what `score` makes of its patches, [R, grid, grid]. It gets L2-normalized patches,
    /// [n, P, d], and returns [n, R, P].
    pub fn windows_scored(
        &self,
        images: &[&RgbImage],
        batch: usize,
        score: &dyn Fn(&Tensor) -> Tensor,
    ) -> (Vec<Cut>, Vec<Tensor>) {
        self.windows_of_features(images, batch, &|patches| score(&unit(patches)))
    }

    /// The same for patches as the model gives them.
    pub fn windows_of_features(
        &self,
        images: &[&RgbImage],
        batch: usize,
        score: &dyn Fn(&Tensor) -> Tensor,
    ) -> (Vec<Cut>, Vec<Tensor>) {
        tch::no_grad(|| {
            let filling = self.model.vision.mean_pixel();
            let cut = |image: &&RgbImage| {
                self.window.cut(&self.window.resized(image, self.model.device()), &filling)
            };
            let cuts: Vec<Cut> = images.iter().map(cut).collect();
            let windows: Vec<&Tensor> = cuts.iter().flat_map(|cut| &cut.windows).collect();
            let mut grids: Vec<Tensor> = Vec::with_capacity(windows.len());
            for alike in windows.chunk_by(|one, next| one.size() == next.size()) {
                for some in alike.chunks(batch.max(1)) {
                    grids.extend(self.patch_scores(&Tensor::cat(some, 0), score).unbind(0));
                }
            }
            (cuts, grids)
        })
    }

    /// Scores of the classes of an image from the similarities of the patches in its windows with all names.
    pub fn blended(&self, cut: &Cut, grids: &[Tensor]) -> Tensor {
        tch::no_grad(|| {
            let blended = cut.blend(grids, self.fusion, self.pamr.as_ref());
            if self.names.is_some() { blended } else { self.of_classes(&blended) }
        })
    }

    /// Labels of an image from its scores, for an image of `height` x `width` pixels, if they are decided by a rule for
    /// [`Segmenter::names`]: uint8 [height, width], on the CPU.
    pub fn labels_by_names(&self, image: &RgbImage, scores: &Tensor, size: [i64; 2]) -> Option<Tensor> {
        let rule = self.names.as_ref()?;
        let pixels = self.window.resized(image, scores.device());
        Some(names::decide(scores, &self.classes, size, rule, &pixels))
    }

    /// Number of windows of an image.
    pub fn windows(&self, image: &RgbImage) -> usize {
        self.window.count(i64::from(image.height()), i64::from(image.width()))
    }

    /// The most similar class of each pixel, for an image of `height` x `width` pixels: uint8 [height, width], on the CPU.
    pub fn labels(&self, image: &RgbImage, height: i64, width: i64) -> Tensor {
        labels::decide(&self.scores(image), height, width, labels::Rule::HighestScore)
    }

    /// Similarity of every name with every patch: [n, P, d] -> [n, W, P].
    pub fn similarities(&self, patches: &Tensor) -> Tensor {
        patches.matmul(&self.words.transpose(0, 1)).transpose(1, 2)
    }

    /// The names of a class as one vector of length 1, [C, d]: their mean.
    pub fn class_vectors(&self) -> Tensor {
        let mean = |range: &Range<i64>| {
            self.words.narrow(0, range.start, range.end - range.start).mean_dim(
                [0i64].as_slice(),
                false,
                None,
            )
        };
        unit(&Tensor::stack(&self.classes.iter().map(mean).collect::<Vec<_>>(), 0))
    }

    /// [n, h, w, 3] pixels -> scores of every patch, [n, R, rows, columns].
    fn patch_scores(&self, pixels: &Tensor, score: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        let pixels = self.window.whole_patches(pixels, self.model.vision.patch());
        let (features, foreground) = self.model.vision.read(&pixels);
        let scores = self.fusion.of_patches(score(&features.patches));
        if let (Some(sure), Some(foreground)) = (self.sure, foreground) {
            let unsure = scores.amax([1i64].as_slice(), false).lt(sure).logical_and(&foreground.le(0.5));
            let _ = scores.select(1, 0).masked_fill_(&unsure, 1.0);
        }
        let patch = self.model.vision.dense_patch();
        scores.reshape([-1, scores.size()[1], pixels.size()[1] / patch, pixels.size()[2] / patch])
    }

    /// The patches of windows as the model gives them: [n, side, side, 3] pixels -> [n, P, d].
    pub fn patches(&self, pixels: &Tensor) -> Tensor {
        let pixels = self.window.whole_patches(pixels, self.model.vision.patch());
        self.model.vision.read(&pixels).0.patches
    }

    /// Scores of names, [W, h, w] -> scores of classes, [C, h, w].
    fn of_classes(&self, scores: &Tensor) -> Tensor {
        if self.classes.len() as i64 == self.words.size()[0] {
            return scores.shallow_clone();
        }
        let best = |range: &Range<i64>| {
            scores.narrow(0, range.start, range.end - range.start).amax([0i64].as_slice(), false)
        };
        Tensor::stack(&self.classes.iter().map(best).collect::<Vec<_>>(), 0)
    }
}
