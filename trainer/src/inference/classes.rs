//! Class lists: the class names of a dataset, and the names that are used in the prompts.

use std::path::Path;

use storage::read_text;

use crate::error::{Error, Result};

/// A class of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Its name in the dataset, which results show.
    pub name: String,
    /// Its names for the prompts; the first is the plain English form of `name`, the others are synonyms. The score of a pixel for the
    /// class is the maximum over the names that are used.
    pub words: Vec<String>,
}

/// Which names of a class are used in the prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassNames {
    /// The name in plain English, `potted plant` for `pottedplant`, as for the published results.
    Plain,
    /// The name exactly as the dataset spells it, `pottedplant`.
    Dataset,
    /// The plain name and all synonyms in the class list.
    Synonyms,
}

/// Reads one class per line: `name`, `name|synonym` or `name = prompt | prompt`. Without ` = `, the names are also used in the
/// prompts, with spaces instead of hyphens.
pub fn parse(text: &str) -> Vec<Class> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| match line.split_once(" = ") {
            Some((name, words)) => Class { name: name.trim().to_owned(), words: synonyms(words) },
            None => Class { name: first(line), words: synonyms(&line.replace('-', " ")) },
        })
        .collect()
}

/// Splits `cat | kitten` into two names.
pub fn synonyms(text: &str) -> Vec<String> {
    text.split('|').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn first(text: &str) -> String {
    text.split('|').next().unwrap_or_default().trim().to_owned()
}

/// Reads a file of this form.
pub fn read(path: &Path) -> Result<Vec<Class>> {
    let classes = parse(&read_text(path)?);
    checked(classes).map_err(|problem| Error::Invalid { path: path.to_owned(), problem })
}

/// Reads a list of other projects: one class per line, with its names separated by `separator`, the first of which is also its name in
/// results. Empty lines are left out.
pub fn read_separated(path: &Path, separator: &str) -> Result<Vec<Class>> {
    let text = read_text(path)?;
    let classes = separated(&text, separator);
    checked(classes).map_err(|problem| Error::Invalid { path: path.to_owned(), problem })
}

fn separated(text: &str, separator: &str) -> Vec<Class> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let words: Vec<String> = line
                .split(separator)
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect();
            Class { name: words.first().cloned().unwrap_or_default(), words }
        })
        .collect()
}

/// The same classes with the names of others for results.
pub fn renamed(classes: Vec<Class>, names: &[Class]) -> Vec<Class> {
    classes.into_iter().zip(names).map(|(class, of)| Class { name: of.name.clone(), ..class }).collect()
}

/// The list if it can be used.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence.
pub fn checked(classes: Vec<Class>) -> std::result::Result<Vec<Class>, String> {
    if classes.is_empty() {
        return Err("contains no class".to_owned());
    }
    match classes.iter().find(|class| class.words.is_empty() || class.name.is_empty()) {
        Some(class) => Err(format!("has no name for class {:?}", class.name)),
        None => Ok(classes),
    }
}

impl Class {
    /// The names for the prompts.
    pub fn prompts(&self, names: ClassNames) -> Vec<String> {
        match names {
            ClassNames::Plain => self.words.iter().take(1).cloned().collect(),
            ClassNames::Dataset => vec![self.name.clone()],
            ClassNames::Synonyms => self.words.clone(),
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
        assert_eq!(classes[1].prompts(ClassNames::Plain), ["potted plant"]);
        assert_eq!(classes[1].prompts(ClassNames::Dataset), ["pottedplant"]);
        assert_eq!(classes[1].prompts(ClassNames::Synonyms), ["potted plant", "houseplant"]);
    }

    #[test]
    fn lists_of_other_projects_have_separators_of_their_own() {
        let words = |text: &str, separator: &str| -> Vec<Vec<String>> {
            separated(text, separator).into_iter().map(|class| class.words).collect()
        };
        assert_eq!(words("sky, wall\ntv, tv set\n", ", "), [["sky", "wall"], ["tv", "tv set"]]);
        // A comma in a name is one only where commas separate.
        assert_eq!(words("sky, clear; wall\n\n", "; "), [["sky, clear", "wall"]]);
        assert_eq!(words("sky,wall \ncat", ","), [vec!["sky", "wall"], vec!["cat"]]);
        let [class] = &renamed(separated("ship, boat", ", "), &parse("boat"))[..] else { panic!("one") };
        assert_eq!((class.name.as_str(), class.prompts(ClassNames::Synonyms)), ("boat", class.words.clone()));
    }
}
