//! Features of the pictures that were sent last, and the scores of words on them.

use std::collections::VecDeque;

use tch::Tensor;

use crate::dense::numbers;
use crate::error::Result;
use crate::words::{WordList, WordVectors};

/// Bytes of features kept; a picture at 448 x 672 has 4.7 MB of them beside a ViT-B/14.
const MOST_BYTES: usize = 512 << 20;

/// The text tower and the pictures that words are compared with.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) words: WordVectors,
    /// Last used last.
    pictures: VecDeque<(String, Tensor)>,
}

impl Held {
    pub(super) fn new(words: WordVectors) -> Self {
        Self { words, pictures: VecDeque::new() }
    }

    fn picture(&mut self, id: &str) -> Option<&Tensor> {
        let at = self.pictures.iter().position(|(held, _)| held == id)?;
        let used = self.pictures.remove(at)?;
        self.pictures.push_back(used);
        self.pictures.back().map(|(_, features)| features)
    }

    /// Keeps a picture's features, [rows, columns, d_v], and lets the longest unused go where there are too many.
    pub(super) fn keep(&mut self, id: String, features: Tensor) {
        let bytes = |features: &Tensor| features.numel() * size_of::<f32>();
        self.pictures.retain(|(held, _)| *held != id);
        self.pictures.push_back((id, features));
        while self.pictures.len() > 1
            && self.pictures.iter().map(|(_, f)| bytes(f)).sum::<usize>() > MOST_BYTES
        {
            self.pictures.pop_front();
        }
    }

    /// Similarity of each class at each patch, float32 [classes, rows, columns] as little-endian bytes; none for a
    /// picture that is no longer held.
    pub(super) fn scores(&mut self, id: &str, list: &WordList) -> Result<Option<Vec<u8>>> {
        let vectors = self.words.of(&list.words)?;
        let Some(features) = self.picture(id) else { return Ok(None) };
        let scores =
            tch::no_grad(|| list.best(&features.matmul(&vectors.transpose(0, 1)).permute([2, 0, 1])));
        Ok(Some(numbers(&scores).into_iter().flat_map(f32::to_le_bytes).collect()))
    }
}
