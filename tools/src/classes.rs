//! The classes whose mentions `tools stats` and `tools report` count: the options that give them, and their words.

use std::collections::HashMap;

use anyhow::{Result, bail};
use clap::{ValueEnum, ValueHint};
use concepts::sidecar::MentionRow;
use concepts::{Bank, Matching, canonical};
use disk::foreign_files::without_byte_order_mark;
use program::{UsageError, location};
use storage::Location;

/// How to write a list, for error messages.
const EXAMPLE: &str = "write it as \"cat|kitten, sofa\"";

/// The options of every command that counts classes.
#[derive(Debug, clap::Args)]
pub(crate) struct ClassArguments {
    /// Also count the mentions of these classes: a list such as "cat|kitten, sofa"
    ///
    /// Commas separate classes; `cat|kitten` is one class with two words. If the value is the path of an existing
    /// file, or an address such as s3://bucket/classes.txt, it is read as with --class-file.
    #[arg(long, value_name = "LIST")]
    classes: Option<String>,
    /// Also count the mentions of the classes in a file, one class per line
    ///
    /// A line is `cat`, `cat|kitten` (one class with two words) or `NAME = cat | kitten`. Empty lines are skipped.
    #[arg(long, value_name = "FILE", conflicts_with = "classes", value_parser = location(), value_hint = ValueHint::AnyPath)]
    class_file: Option<Location>,
    /// When a mention counts for a class word
    #[arg(long, value_enum, default_value_t = MatchingRule::Longest)]
    matching: MatchingRule,
}

/// [`Matching`] with its description for the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum MatchingRule {
    /// The longest run of words that ends at the mention's head noun and is a class word, plural or singular: "two
    /// brown leather couches" counts for "leather couch" if that is a class word, otherwise for "couch"
    Longest,
    /// The mention's concept is a class word: the concept of "two brown leather couches" is "leather couch", so the
    /// mention counts for "leather couch" but never for "couch" (the rule of the released SimZSS code)
    Strict,
}

/// Classes with the words that name them, and how mentions are matched with these words.
#[derive(Debug)]
pub(crate) struct Classes {
    /// In the order given.
    pub(crate) names: Vec<String>,
    /// Every word once.
    words: Bank,
    /// By label of the word: the classes that it names. A word may name several classes.
    classes_of: Vec<Vec<usize>>,
    pub(crate) matching: Matching,
}

impl ClassArguments {
    /// The classes asked for; none when neither option was given.
    ///
    /// # Errors
    /// [`UsageError`] for a list without classes; another error for a file that cannot be read or has no classes.
    pub(crate) fn read(&self) -> Result<Option<Classes>> {
        let matching = match self.matching {
            MatchingRule::Longest => Matching::Longest,
            MatchingRule::Strict => Matching::Strict,
        };
        let file = match (&self.classes, &self.class_file) {
            (None, None) => return Ok(None),
            (_, Some(file)) => file.clone(),
            (Some(list), None) => {
                let file = Location::from(list.as_str());
                // An earlier version took a file here.
                if file.is_remote() || file.is_local_file() {
                    return Classes::from_file(&file, matching).map(Some);
                }
                if is_file_name(list) {
                    let line = format!(
                        "--classes {list}: there is no such file; give a file with --class-file, or a list: {EXAMPLE}"
                    );
                    return Err(UsageError(line).into());
                }
                let classes = Classes::new(list.split(','), matching)?;
                let none = || UsageError(format!("--classes \"{list}\" has no class; {EXAMPLE}"));
                return Ok(Some(classes.ok_or_else(none)?));
            }
        };
        Classes::from_file(&file, matching).map(Some)
    }
}

/// Whether a value of `--classes` was meant as a file. No class has such a name.
fn is_file_name(value: &str) -> bool {
    let ends = |suffix: &str| value.to_ascii_lowercase().ends_with(suffix);
    !value.contains(',') && (value.contains('/') || ends(".txt") || ends(".json") || ends(".csv"))
}

impl Classes {
    /// Of a file with one class per line. A mention counts for the longest class word at its head.
    pub(crate) fn of_file(file: &Location) -> Result<Self> {
        Self::from_file(file, Matching::Longest)
    }

    fn from_file(file: &Location, matching: Matching) -> Result<Self> {
        let bytes = storage::read(file)?;
        let Ok(text) = std::str::from_utf8(without_byte_order_mark(&bytes)) else {
            bail!("{file} is not UTF-8 text; a class file has one class per line");
        };
        match Self::new(text.lines(), matching)? {
            Some(classes) => Ok(classes),
            None => bail!("{file} has no classes; write one class per line"),
        }
    }

    /// From lines of the form `cat`, `cat|kitten` or `NAME = cat | kitten`; none when no line has a word.
    pub(crate) fn new<'a>(lines: impl Iterator<Item = &'a str>, matching: Matching) -> Result<Option<Self>> {
        let mut classes: Vec<(String, Vec<String>)> = Vec::new();
        let mut numbers = HashMap::new();
        for line in lines {
            let (name, words) = line.split_once(" = ").unwrap_or(("", line));
            let words: Vec<String> =
                words.split('|').map(canonical).filter(|word| !word.is_empty()).collect();
            let Some(first) = words.first() else { continue };
            let name = Some(canonical(name)).filter(|name| !name.is_empty()).unwrap_or_else(|| first.clone());
            // A class that is listed twice, with a hyphen or without, is one class.
            let number = *numbers.entry(name.replace('-', " ")).or_insert(classes.len());
            match classes.get_mut(number) {
                Some((_, known)) => known.extend(words),
                None => classes.push((name, words)),
            }
        }
        if classes.is_empty() {
            return Ok(None);
        }
        let words = Bank::from_names(classes.iter().flat_map(|(_, words)| words))?;
        let mut classes_of = vec![Vec::new(); words.len()];
        for (class, (_, of_class)) in classes.iter().enumerate() {
            for word in of_class {
                let named = label(&words, word).and_then(|label| classes_of.get_mut(label as usize));
                if let Some(named) = named
                    && !named.contains(&class)
                {
                    named.push(class);
                }
            }
        }
        let names = classes.into_iter().map(|(name, _)| name).collect();
        Ok(Some(Self { names, words, classes_of, matching }))
    }

    /// The classes, by index, that a mention counts for.
    pub(crate) fn of(&self, mention: &MentionRow<'_>) -> &[usize] {
        let found = self.words.find(self.matching, mention);
        found.and_then(|(label, _)| self.classes_of.get(label as usize)).map_or(&[], Vec::as_slice)
    }
}

/// The label of a word in the bank, which compares words in a form of its own (hyphens as spaces).
fn label(bank: &Bank, word: &str) -> Option<u32> {
    let row = MentionRow {
        key: "",
        sample: 0,
        caption: 0,
        phrase: word,
        concept: word,
        head: word,
        phrase_span: 0..0,
        concept_span: 0..0,
        tags: "",
    };
    bank.find(Matching::Strict, &row).map(|(label, _)| label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes_of(lines: &[&str], word: &str) -> Vec<String> {
        let classes = Classes::new(lines.iter().copied(), Matching::Longest).unwrap().unwrap();
        let label = label(&classes.words, word);
        let indices = label.map(|label| classes.classes_of[label as usize].clone()).unwrap_or_default();
        indices.into_iter().map(|class| classes.names[class].clone()).collect()
    }

    #[test]
    fn a_class_has_words() {
        let lines = [
            "Cat | kitten",
            "sofa",
            "",
            "animal = cat | dog",
            "sofa|couch",
            "traffic-light",
            "traffic light",
            " | ",
        ];
        let classes = Classes::new(lines.into_iter(), Matching::Longest).unwrap().unwrap();
        assert_eq!(classes.names, ["cat", "sofa", "animal", "traffic-light"]);
        assert_eq!(classes_of(&lines, "kitten"), ["cat"]);
        assert_eq!(classes_of(&lines, "cat"), ["cat", "animal"]);
        assert_eq!(classes_of(&lines, "couch"), ["sofa"]);
        assert_eq!(classes_of(&lines, "traffic light"), ["traffic-light"]);
        assert_eq!(classes_of(&lines, "animal"), Vec::<String>::new());
        assert!(Classes::new([" ", "|"].into_iter(), Matching::Longest).unwrap().is_none());
    }

    #[test]
    fn a_mistyped_file_name_is_not_a_class() {
        for name in ["classes.txt", "lists/classes", "CLASSES.TXT"] {
            assert!(is_file_name(name), "{name}");
        }
        for list in ["cat", "cat|kitten, sofa", "a.b", "cat, a/b"] {
            assert!(!is_file_name(list), "{list}");
        }
    }
}
