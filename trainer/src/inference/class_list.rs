//! Lists of classes as users write them.

use std::path::Path;

use storage::read_text;
use tch::Tensor;

use super::classes::synonyms;
use crate::error::{Error, Result};

/// Maximum number of classes in a list: a byte of a mask has 255 values for classes and one for background.
pub const MAX_CLASSES: usize = 255;

/// Classes, each with one or several names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassList {
    /// The name of each class that is shown.
    pub names: Vec<String>,
    /// The names for the prompts of all classes, class by class.
    pub words: Vec<String>,
    /// Number of entries of `words` per class.
    pub counts: Vec<usize>,
}

impl ClassList {
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
    /// As [`ClassList::new`].
    pub fn parse(line: &str) -> std::result::Result<Self, String> {
        Self::new(line.split(','))
    }

    /// From a file with one class per line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        Self::new(text.lines()).map_err(|problem| Error::Invalid { path: path.to_owned(), problem })
    }

    /// The classes as one line, separated by commas, as [`ClassList::parse`] reads it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_their_synonyms() {
        let list = ClassList::parse(" cat | kitten,sofa,, |,wooden floor").unwrap();
        assert_eq!(list.names, ["cat", "sofa", "wooden floor"]);
        assert_eq!(list.words, ["cat", "kitten", "sofa", "wooden floor"]);
        let best = list.best(&Tensor::from_slice2(&[[1.0, 5.0], [4.0, 2.0], [0.0, 1.0], [7.0, 8.0]]));
        assert_eq!(best, Tensor::from_slice2(&[[4.0, 5.0], [0.0, 1.0], [7.0, 8.0]]));
        assert!(ClassList::parse(" , |").is_err());
        assert_eq!(list.line(), "cat|kitten, sofa, wooden floor");
        assert_eq!(ClassList::parse(&list.line()).unwrap(), list);
        let list = ClassList::new(["pottedplant = potted plant | houseplant", "wall-brick"]).unwrap();
        assert_eq!(list.names, ["pottedplant", "wall-brick"]);
        assert_eq!(list.words, ["potted plant", "houseplant", "wall-brick"]);
        assert!(ClassList::parse(&vec!["a"; 256].join(",")).unwrap_err().contains("256"));
    }
}
