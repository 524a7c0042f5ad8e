//! The features of recently used images, and the similarity of class names to them.

use std::collections::VecDeque;

use tch::Tensor;

use crate::dense::numbers;
use crate::error::Result;
use crate::words::{WordList, WordVectors};

/// Maximum size of the stored features in bytes. With a ViT-B/14, an image of 448 x 672 pixels has 4.7 MB of features.
const MAX_BYTES: usize = 512 << 20;

/// The text tower, and the features of images.
#[derive(Debug)]
pub(super) struct FeatureStore {
    pub(super) words: WordVectors,
    /// In order of use, the most recently used last.
    pictures: VecDeque<(String, Tensor)>,
}

impl FeatureStore {
    pub(super) fn new(words: WordVectors) -> Self {
        Self { words, pictures: VecDeque::new() }
    }

    fn picture(&mut self, id: &str) -> Option<&Tensor> {
        let at = self.pictures.iter().position(|(held, _)| held == id)?;
        let used = self.pictures.remove(at)?;
        self.pictures.push_back(used);
        self.pictures.back().map(|(_, features)| features)
    }

    /// Stores the features of an image, [rows, columns, d_v], and evicts the least recently used ones if there are too many.
    pub(super) fn keep(&mut self, id: String, features: Tensor) {
        let bytes = |features: &Tensor| features.numel() * size_of::<f32>();
        self.pictures.retain(|(held, _)| *held != id);
        self.pictures.push_back((id, features));
        while self.pictures.len() > 1
            && self.pictures.iter().map(|(_, f)| bytes(f)).sum::<usize>() > MAX_BYTES
        {
            self.pictures.pop_front();
        }
    }

    /// Similarity of each class to each patch, float32 [classes, rows, columns] as little-endian bytes; `None` if the features of the
    /// image are no longer stored.
    pub(super) fn scores(&mut self, id: &str, list: &WordList) -> Result<Option<Vec<u8>>> {
        let vectors = self.words.of(&list.words)?;
        let Some(features) = self.picture(id) else { return Ok(None) };
        let scores =
            tch::no_grad(|| list.best(&features.matmul(&vectors.transpose(0, 1)).permute([2, 0, 1])));
        Ok(Some(numbers(&scores).into_iter().flat_map(f32::to_le_bytes).collect()))
    }
}
