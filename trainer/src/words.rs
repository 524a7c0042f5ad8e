//! Lists of classes as users write them, and the embeddings of their names.

use std::collections::HashMap;
use std::path::Path;

use loader::source::read_text;
use tch::{Device, Kind, Tensor};

use crate::checkpoint::Checkpoint;
use crate::device;
use crate::error::{Error, Result};
use crate::evaluation::classes::synonyms;
use crate::segmenter::{ClassVectors, SegmentSettings, class_vectors};
use crate::templates;
use crate::towers::TextTower;

/// Maximum number of classes in a list: a byte of a mask has 255 values for classes and one for background.
pub const MAX_CLASSES: usize = 255;

/// Classes, each with one or several names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordList {
    /// The name of each class that is shown.
    pub names: Vec<String>,
    /// The names for the prompts of all classes, class by class.
    pub words: Vec<String>,
    /// Number of entries of `words` per class.
    pub counts: Vec<usize>,
}

impl WordList {
    /// From classes with synonyms separated by `|`, as `["cat|kitten", "wooden floor"]`. `name = prompt | prompt` shows one name and
    /// uses others in the prompts. Empty entries are left out.
    ///
    /// # Errors
    /// No class, or more than a mask can hold, as the rest of a sentence.
    pub fn new<'a>(classes: impl IntoIterator<Item = &'a str>) -> std::result::Result<Self, String> {
        let mut list = Self { names: Vec::new(), words: Vec::new(), counts: Vec::new() };
        for class in classes {
            let (name, words) =
                class.split_once(" = ").map_or((None, class), |(name, words)| (Some(name), words));
            let words = synonyms(words);
            if let Some(first) = words.first() {
                let name = name.map(str::trim).filter(|name| !name.is_empty()).unwrap_or(first);
                list.names.push(name.to_owned());
                list.counts.push(words.len());
                list.words.extend(words);
            }
        }
        match list.names.len() {
            0 => Err("contains no class; write it as \"cat|kitten, sofa, wooden floor\"".to_owned()),
            1..=MAX_CLASSES => Ok(list),
            more => Err(format!("has {more} classes, but a mask can hold at most {MAX_CLASSES}")),
        }
    }

    /// From one line, with classes separated by commas.
    ///
    /// # Errors
    /// As [`WordList::new`].
    pub fn parse(line: &str) -> std::result::Result<Self, String> {
        Self::new(line.split(','))
    }

    /// From a file with one class per line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        Self::new(text.lines()).map_err(|problem| Error::Invalid { path: path.to_owned(), problem })
    }

    /// The classes as one line, separated by commas, as [`WordList::parse`] reads it.
    pub fn line(&self) -> String {
        let mut words = self.words.iter();
        let classes = self
            .counts
            .iter()
            .map(|&count| words.by_ref().take(count).map(String::as_str).collect::<Vec<_>>().join("|"));
        classes.collect::<Vec<_>>().join(", ")
    }

    /// Scores of the classes from those of all names, the maximum over its names for each: [names, ..] -> [classes, ..].
    pub fn best(&self, scores: &Tensor) -> Tensor {
        let mut first = 0;
        let classes = self.counts.iter().map(|&count| {
            let of_class = scores.narrow(0, first, count as i64);
            first += count as i64;
            if count == 1 { of_class.get(0) } else { of_class.amax([0i64].as_slice(), false) }
        });
        Tensor::stack(&classes.collect::<Vec<_>>(), 0)
    }
}

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
            let vectors = class_vectors(&self.text, new, &self.templates, self.by, self.kind)?;
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
    fn classes_and_their_synonyms() {
        let list = WordList::parse(" cat | kitten,sofa,, |,wooden floor").unwrap();
        assert_eq!(list.names, ["cat", "sofa", "wooden floor"]);
        assert_eq!(list.words, ["cat", "kitten", "sofa", "wooden floor"]);
        let best = list.best(&Tensor::from_slice2(&[[1.0, 5.0], [4.0, 2.0], [0.0, 1.0], [7.0, 8.0]]));
        assert_eq!(best, Tensor::from_slice2(&[[4.0, 5.0], [0.0, 1.0], [7.0, 8.0]]));
        assert!(WordList::parse(" , |").is_err());
        assert_eq!(list.line(), "cat|kitten, sofa, wooden floor");
        assert_eq!(WordList::parse(&list.line()).unwrap(), list);
        let list = WordList::new(["pottedplant = potted plant | houseplant", "wall-brick"]).unwrap();
        assert_eq!(list.names, ["pottedplant", "wall-brick"]);
        assert_eq!(list.words, ["potted plant", "houseplant", "wall-brick"]);
        assert!(WordList::parse(&vec!["a"; 256].join(",")).unwrap_err().contains("256"));
    }

    #[test]
    fn names_can_be_embedded_a_few_at_a_time() {
        let shape = TextShape { width: 64, depth: 1, heads: 1, context: 16 };
        let vectors = || {
            tch::manual_seed(1);
            WordVectors {
                text: TextTower::random(shape, 32, Device::Cpu),
                templates: ["a {}", "the {}", "one {}", "no {}"].map(str::to_owned).to_vec(),
                by: ClassVectors::Caption,
                kind: Kind::Float,
                known: HashMap::new(),
            }
        };
        let words: Vec<String> = (0..40).map(|word| format!("thing {}", word % 37)).collect();
        let (mut pieces, mut whole) = (vectors(), vectors());
        let left: Vec<usize> = (0..4).map(|_| pieces.embed_some(&words).unwrap()).collect();
        assert_eq!(left, [21, 5, 0, 0], "16 names with 4 prompts each at a time, of 37");
        let apart = pieces.of(&words).unwrap() - whole.of(&words).unwrap();
        assert!(apart.abs().max().double_value(&[]) < 1e-5);
    }
}
