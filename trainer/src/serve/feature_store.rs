//! The features of recently used images, and the similarity of class names to them.

use std::collections::VecDeque;

use tch::Tensor;

use crate::device::to_vec;
use crate::error::Result;
use crate::inference::class_list::ClassList;
use crate::inference::word_vectors::WordVectors;

/// Maximum size of the stored features in bytes. With a ViT-B/14, an image of 448 x 672 pixels has 4.7 MB of features.
const MAX_BYTES: usize = 128 << 20;

/// The text tower, and the features of images.
#[derive(Debug)]
pub(super) struct FeatureStore {
    pub(super) words: WordVectors,
    pictures: RecentPictures,
}

impl FeatureStore {
    pub(super) fn new(words: WordVectors) -> Self {
        Self { words, pictures: RecentPictures { most: MAX_BYTES, held: VecDeque::new() } }
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
