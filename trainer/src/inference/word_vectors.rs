//! The embeddings of class names, each of which is computed once.

use std::collections::HashMap;

use tch::{Device, Kind, Tensor};

use super::class_vectors::{ClassVectors, ComparedWith, class_vectors};
use super::referring::expression::Expression;
use super::referring::vectors::{embed, queries};
use super::segmenter::SegmentSettings;
use super::templates;
use crate::checkpoint::Checkpoint;
use crate::device;
use crate::error::Result;
use crate::towers::TextTower;

/// The text tower of a checkpoint, with a cache of embeddings.
#[derive(Debug)]
pub struct WordVectors {
    text: TextTower,
    templates: Vec<String>,
    by: ClassVectors,
    kind: Kind,
    known: HashMap<String, Tensor>,
}

/// Maximum size of the cache; when it is full, it is emptied. (While a user types, every prefix of a name is embedded.)
const MAX_CACHED: usize = 20_000;

/// Number of prompts that [`WordVectors::embed_some`] embeds at a time.
const PROMPTS: usize = 64;

impl WordVectors {
    /// Opens the text tower for a vision tower of this width.
    pub fn open(checkpoint: &Checkpoint, vision_width: i64, settings: &SegmentSettings) -> Result<Self> {
        let device = device::open(&settings.device)?;
        let by = settings.vectors.unwrap_or(ClassVectors::of(checkpoint.state.settings.objective.name));
        Ok(Self {
            text: checkpoint.text(vision_width, device)?,
            templates: templates::read(&settings.templates)?,
            by,
            kind: settings.precision.kind(device),
            known: HashMap::new(),
        })
    }

    /// Embeddings of expressions and of the other things of their relations, [n, d_v], on the CPU; see
    /// [`embed`]. They are not stored.
    pub fn expressions(&self, expressions: &[Expression], weight: Option<f64>) -> Tensor {
        let queries = queries(expressions);
        tch::no_grad(|| embed(&self.text, &queries, self.by, weight, self.kind)).to_device(Device::Cpu)
    }

    /// Which embedding represents a class.
    pub fn by(&self) -> ClassVectors {
        self.by
    }

    /// The names that are not in the cache, which is emptied if it has no room for them.
    fn unknown(&mut self, words: &[String]) -> Vec<String> {
        if self.known.len() + words.len() > MAX_CACHED {
            self.known.clear();
        }
        let mut new: Vec<String> =
            words.iter().filter(|word| !self.known.contains_key(*word)).cloned().collect();
        new.sort();
        new.dedup();
        new
    }

    fn embed(&mut self, new: &[String]) -> Result<()> {
        if !new.is_empty() {
            let vectors =
                class_vectors(&self.text, new, &self.templates, self.by, ComparedWith::Patches, self.kind)?;
            let vectors = vectors.to_device(Device::Cpu);
            // Copies: a row that shares the memory of the others would keep all of it.
            let rows = new.iter().enumerate().map(|(i, word)| (word.clone(), vectors.get(i as i64).copy()));
            self.known.extend(rows);
        }
        Ok(())
    }

    /// Embeds a few of the names that are not in the cache; returns how many are left. [`WordVectors::of`] embeds all of them,
    /// which may take seconds.
    pub fn embed_some(&mut self, words: &[String]) -> Result<usize> {
        let new = self.unknown(words);
        let some = new.len().min((PROMPTS / self.templates.len().max(1)).max(1));
        self.embed(&new[..some])?;
        Ok(new.len() - some)
    }

    /// L2-normalized embeddings of the names, [n, d_v], float32 on the CPU. Those that are in the cache are not computed again.
    pub fn of(&mut self, words: &[String]) -> Result<Tensor> {
        let new = self.unknown(words);
        self.embed(&new)?;
        let rows: Vec<Tensor> =
            words.iter().filter_map(|word| self.known.get(word)).map(Tensor::shallow_clone).collect();
        Ok(Tensor::stack(&rows, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::towers::TextShape;

    #[test]
    fn names_can_be_embedded_a_few_at_a_time() {
        let shape = TextShape { width: 64, depth: 1, heads: 1, context: 16 };
        let vectors = || WordVectors {
            text: TextTower::random(shape, 32, Device::Cpu),
            templates: ["a {}", "the {}", "one {}", "no {}"].map(str::to_owned).to_vec(),
            by: ClassVectors::Caption,
            kind: Kind::Float,
            known: HashMap::new(),
        };
        let words: Vec<String> = (0..40).map(|word| format!("thing {}", word % 37)).collect();
        let (mut pieces, mut whole) = (vectors(), vectors());
        // Not by the same seed: other tests draw from the same generator at the same time.
        for ((_, to), (_, from)) in whole.text.named().iter().zip(pieces.text.named()) {
            tch::no_grad(|| to.shallow_clone().copy_(&from));
        }
        let left: Vec<usize> = (0..4).map(|_| pieces.embed_some(&words).unwrap()).collect();
        assert_eq!(left, [21, 5, 0, 0], "16 names with 4 prompts each at a time, of 37");
        let apart = pieces.of(&words).unwrap() - whole.of(&words).unwrap();
        assert!(apart.abs().max().double_value(&[]) < 1e-5);
    }
}
