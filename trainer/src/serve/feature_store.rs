//! The features of recently used images, and the similarity of class names to them.

use std::collections::VecDeque;

use concepts::{Extractor, TaggerKind};
use serde_json::{Value, json};
use tch::Tensor;

use crate::device::to_vec;
use crate::error::Result;
use crate::inference::class_list::ClassList;
use crate::inference::referring::expression::Expression;
use crate::inference::referring::find::{ReferSettings, find};
use crate::inference::referring::map::Map;
use crate::inference::referring::referrer::{map_of, nameless};
use crate::inference::word_vectors::WordVectors;

/// Maximum size of the stored features in bytes. With a ViT-B/14, an image of 448 x 672 pixels has 4.7 MB of features.
const MAX_BYTES: usize = 128 << 20;

/// The text tower, the tagger for expressions, and the features of images.
#[derive(Debug)]
pub(super) struct FeatureStore {
    pub(super) words: WordVectors,
    extractor: Extractor,
    pictures: RecentPictures,
}

impl FeatureStore {
    pub(super) fn new(words: WordVectors) -> Result<Self> {
        let extractor = Extractor::new(TaggerKind::default())?;
        Ok(Self { words, extractor, pictures: RecentPictures { most: MAX_BYTES, held: VecDeque::new() } })
    }

    /// Stores the features of an image, [rows, columns, d_v].
    pub(super) fn keep(&mut self, id: String, features: Tensor) {
        self.pictures.keep(id, features);
    }

    /// Similarity of each class to each patch, float32 [classes, rows, columns] as little-endian bytes; `None` if the features of the
    /// image are no longer stored.
    pub(super) fn scores(&mut self, id: &str, list: &ClassList) -> Result<Option<Vec<u8>>> {
        let vectors = self.words.of(&list.words)?;
        let Some(features) = self.pictures.get(id) else { return Ok(None) };
        let scores =
            tch::no_grad(|| list.best(&features.matmul(&vectors.transpose(0, 1)).permute([2, 0, 1])));
        Ok(Some(to_vec(&scores).into_iter().flat_map(f32::to_le_bytes).collect()))
    }

    /// What an expression means in an image of this size, for a response; `None` if the features of the image are no longer stored. An
    /// error is a sentence for the user.
    pub(super) fn mask(
        &mut self,
        id: &str,
        text: &str,
        width: u32,
        height: u32,
    ) -> std::result::Result<Option<Value>, String> {
        let expression = Expression::read(&self.extractor, text);
        if expression.subject.is_none() {
            return Err(nameless(text));
        }
        let settings = ReferSettings::default();
        let vectors = self.words.expressions(std::slice::from_ref(&expression), settings.expression_weight);
        let Some(features) = self.pictures.get(id) else { return Ok(None) };
        let grids = tch::no_grad(|| features.matmul(&vectors.transpose(0, 1)).permute([2, 0, 1]));
        let maps: Vec<Map> = (0..grids.size()[0]).map(|row| map_of(&grids.get(row), height, width)).collect();
        let own = to_vec(&grids.get(0));
        let highest = own.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let found = find(&expression, &maps[0], maps.get(1), f64::from(highest), &settings);
        Ok(Some(json!({
            "head": expression.head(),
            "cut": found.cut,
            "highest": highest,
            "runs": runs(&found.mask),
            "similarity": own,
        })))
    }
}

/// Lengths of runs of pixels outside and inside in turn, row by row.
fn runs(mask: &[bool]) -> Vec<usize> {
    let mut runs: Vec<usize> = mask.chunk_by(|a, b| a == b).map(<[bool]>::len).collect();
    if mask.first() == Some(&true) {
        runs.insert(0, 0);
    }
    runs
}

/// The features of the most recently used images.
#[derive(Debug)]
struct RecentPictures {
    /// Maximum size in bytes. One image is kept in any case.
    most: usize,
    /// In order of use, the most recently used last.
    held: VecDeque<(String, Tensor)>,
}

impl RecentPictures {
    fn get(&mut self, id: &str) -> Option<&Tensor> {
        let at = self.held.iter().position(|(held, _)| held == id)?;
        let used = self.held.remove(at)?;
        self.held.push_back(used);
        self.held.back().map(|(_, features)| features)
    }

    /// Adds an image, and evicts the least recently used ones if they are too large together.
    fn keep(&mut self, id: String, features: Tensor) {
        self.held.retain(|(held, _)| *held != id);
        self.held.push_back((id, features));
        while self.held.len() > 1 && self.bytes() > self.most {
            self.held.pop_front();
        }
    }

    fn bytes(&self) -> usize {
        self.held.iter().map(|(_, features)| features.numel() * size_of::<f32>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn runs_begin_outside() {
        assert_eq!(runs(&[false, true, true, false]), [1, 2, 1]);
        assert_eq!(runs(&[true, false]), [0, 1, 1]);
        assert!(runs(&[]).is_empty());
    }

    #[test]
    fn the_features_of_many_images_take_bounded_memory() {
        let features = |rows: i64| Tensor::zeros([rows, 5, 10], (Kind::Float, Device::Cpu));
        let mut recent = RecentPictures { most: 1000, held: VecDeque::new() };
        for image in 0..100 {
            // 200 bytes each.
            recent.keep(image.to_string(), features(1));
            assert!(recent.bytes() <= 1000);
            assert!(recent.get("0").is_some(), "the one in use stays");
        }
        let held: Vec<_> = recent.held.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(held, ["96", "97", "98", "99", "0"]);
        recent.keep("large".to_owned(), features(9));
        assert_eq!(recent.held.len(), 1, "one image may be larger than the limit");
    }
}
