//! Lists of words as people write them, and their vectors.

use std::collections::HashMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::checkpoint::Checkpoint;
use crate::device;
use crate::error::{Error, Result, at};
use crate::segmenter::{ClassVectors, SegmentSettings, class_vectors};
use crate::templates;
use crate::towers::TextTower;

/// Most classes of a list: a mask's byte has 255 values for them and one for none.
pub const MOST_CLASSES: usize = 255;

/// Classes, each with the words that mean it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordList {
    /// The first word of each class, which stands for it.
    pub names: Vec<String>,
    /// All words, class by class.
    pub words: Vec<String>,
    /// How many of `words` each class has.
    pub counts: Vec<usize>,
}

impl WordList {
    /// From classes whose synonyms are separated by `|`, as `["cat|kitten", "wooden floor"]`; empty ones are left out.
    ///
    /// # Errors
    /// No class, or more than a mask can hold, as a phrase.
    pub fn new<'a>(classes: impl IntoIterator<Item = &'a str>) -> std::result::Result<Self, String> {
        let mut list = Self { names: Vec::new(), words: Vec::new(), counts: Vec::new() };
        for class in classes {
            let words: Vec<String> =
                class.split('|').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
            if let Some(name) = words.first() {
                list.names.push(name.clone());
                list.counts.push(words.len());
                list.words.extend(words);
            }
        }
        match list.names.len() {
            0 => Err("names nothing; write it as \"cat|kitten, sofa, wooden floor\"".to_owned()),
            1..=MOST_CLASSES => Ok(list),
            more => Err(format!("names {more} classes, and at most {MOST_CLASSES} fit into a mask")),
        }
    }

    /// From a line of classes separated by commas.
    ///
    /// # Errors
    /// As [`WordList::new`].
    pub fn parse(line: &str) -> std::result::Result<Self, String> {
        Self::new(line.split(','))
    }

    /// From a file with a class a line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(at(path))?;
        Self::new(text.lines()).map_err(|problem| Error::Invalid { path: path.to_owned(), problem })
    }

    /// Scores of the classes from those of all words, the best of its words for each: [words, ..] -> [classes, ..].
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

/// The text tower of a checkpoint, with the vectors of the words it was asked for.
#[derive(Debug)]
pub struct WordVectors {
    text: TextTower,
    templates: Vec<String>,
    by: ClassVectors,
    kind: Kind,
    known: HashMap<String, Tensor>,
}

/// Vectors kept; typing goes through every beginning of a word, so they are forgotten when there are more.
const MOST_KNOWN: usize = 20_000;

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

    /// Which embedding of a word is its vector.
    pub fn by(&self) -> ClassVectors {
        self.by
    }

    /// Unit-length vectors of the words, [n, d_v], float32 on the CPU; words asked for before cost nothing.
    pub fn of(&mut self, words: &[String]) -> Result<Tensor> {
        if self.known.len() > MOST_KNOWN {
            self.known.clear();
        }
        let mut new: Vec<String> =
            words.iter().filter(|word| !self.known.contains_key(*word)).cloned().collect();
        new.sort();
        new.dedup();
        if !new.is_empty() {
            let vectors = class_vectors(&self.text, &new, &self.templates, self.by, self.kind)?;
            let vectors = vectors.to_device(Device::Cpu);
            self.known.extend(new.into_iter().enumerate().map(|(i, word)| (word, vectors.get(i as i64))));
        }
        let rows: Vec<Tensor> =
            words.iter().filter_map(|word| self.known.get(word)).map(Tensor::shallow_clone).collect();
        Ok(Tensor::stack(&rows, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_their_synonyms() {
        let list = WordList::parse(" cat | kitten,sofa,, |,wooden floor").unwrap();
        assert_eq!(list.names, ["cat", "sofa", "wooden floor"]);
        assert_eq!(list.words, ["cat", "kitten", "sofa", "wooden floor"]);
        let best = list.best(&Tensor::from_slice2(&[[1.0, 5.0], [4.0, 2.0], [0.0, 1.0], [7.0, 8.0]]));
        assert_eq!(best, Tensor::from_slice2(&[[4.0, 5.0], [0.0, 1.0], [7.0, 8.0]]));
        assert!(WordList::parse(" , |").is_err());
        assert!(WordList::parse(&vec!["a"; 256].join(",")).unwrap_err().contains("256"));
    }
}
