//! Class lists: the names a data set gives its classes, and the words each is asked for by.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result, at};

/// A class of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// The name the data set gives it, shown in results.
    pub name: String,
    /// The words it is asked for by, the plain reading of its name first; a pixel's score for the class is the best
    /// of them.
    pub words: Vec<String>,
}

/// Which words of a class are put into the templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Words {
    /// The name as a reader would say it, `potted plant` for `pottedplant`: what the published rows use.
    Plain,
    /// The name exactly as the data set spells it.
    Dataset,
    /// Every synonym of the list.
    Synonyms,
}

/// A class a line, `name` or `name = word | word`; the name itself, with spaces for hyphens, is the only word where
/// none is given.
pub fn parse(text: &str) -> Vec<Class> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| match line.split_once(" = ") {
            Some((name, words)) => Class { name: name.trim().to_owned(), words: synonyms(words) },
            None => Class { name: first(line), words: synonyms(&line.replace('-', " ")) },
        })
        .collect()
}

/// `cat | kitten` as two words.
pub fn synonyms(text: &str) -> Vec<String> {
    text.split('|').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn first(text: &str) -> String {
    text.split('|').next().unwrap_or_default().trim().to_owned()
}

/// A list from a file of the same form.
pub fn read(path: &Path) -> Result<Vec<Class>> {
    let classes = parse(&fs::read_to_string(path).map_err(at(path))?);
    let invalid = |problem: String| Error::Invalid { path: path.to_owned(), problem };
    if classes.is_empty() {
        return Err(invalid("names no class".to_owned()));
    }
    match classes.iter().find(|class| class.words.is_empty() || class.name.is_empty()) {
        Some(class) => Err(invalid(format!("class {:?} has no word to be asked for by", class.name))),
        None => Ok(classes),
    }
}

impl Class {
    /// The words to ask for.
    pub fn asked(&self, words: Words) -> Vec<String> {
        match words {
            Words::Plain => self.words.iter().take(1).cloned().collect(),
            Words::Dataset => vec![self.name.clone()],
            Words::Synonyms => self.words.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_names_and_words() {
        let classes =
            parse("background\npottedplant = potted plant | houseplant\nwall-brick\n\nsofa|couch\n");
        let words: Vec<(&str, Vec<&str>)> = classes
            .iter()
            .map(|class| (class.name.as_str(), class.words.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(
            words,
            [
                ("background", vec!["background"]),
                ("pottedplant", vec!["potted plant", "houseplant"]),
                ("wall-brick", vec!["wall brick"]),
                ("sofa", vec!["sofa", "couch"]),
            ]
        );
        assert_eq!(classes[1].asked(Words::Plain), ["potted plant"]);
        assert_eq!(classes[1].asked(Words::Dataset), ["pottedplant"]);
        assert_eq!(classes[1].asked(Words::Synonyms), ["potted plant", "houseplant"]);
    }
}
