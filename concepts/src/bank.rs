//! The concept vocabulary (the paper's concept bank): its names decide which mentions take part in training, and their
//! labels.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use crate::sidecar::MentionRow;
use crate::{Error, canonical};
use disk::foreign_files::without_byte_order_mark;

/// How a mention is matched to a name of the [`Bank`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Matching {
    /// The concept (last compound noun and lemma of the head) must be a name. This is the rule of the released SimZSS
    /// code.
    Strict,
    /// The longest run of words that ends at the head noun and is a name, either as written or with the head's lemma:
    /// "brown leather couch" matches the name "leather couch", "boots" matches "boots" if that is a name and otherwise
    /// "boot".
    #[default]
    Longest,
}

impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Longest => "longest",
        })
    }
}

impl FromStr for Matching {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "strict" => Ok(Self::Strict),
            "longest" => Ok(Self::Longest),
            _ => Err(Error::UnknownMatching(name.to_owned())),
        }
    }
}

/// A concept vocabulary: names and their labels, which are 0..len in the order given.
#[derive(Debug, Clone)]
pub struct Bank {
    names: Vec<String>,
    /// Label by the [`key`] of the name.
    labels: HashMap<String, u32>,
    /// Length of the longest name in bytes. Longer texts are not looked up, however long a phrase is.
    longest: usize,
}

impl Bank {
    /// Makes a vocabulary of these names. Names are normalised to canonical text; hyphens count as spaces. Duplicates
    /// and empty names are left out.
    ///
    /// # Errors
    /// No name is left.
    pub fn from_names<I>(names: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::new("the list of concepts", names)
    }

    /// Makes a vocabulary of the lines of a UTF-8 file, one name per line; otherwise as [`Bank::from_names`].
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8, or has no names.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Self::from_bytes(path, &fs::read(path).map_err(Error::io(path, "read"))?)
    }

    /// The same from the bytes of a file; `path` is its name in errors.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(without_byte_order_mark(bytes)).map_err(|_| Error::Bank {
            origin: path.display().to_string(),
            what: "is not UTF-8 text; write one concept name per line",
        })?;
        Self::new(&path.display().to_string(), text.lines())
    }

    /// The vocabulary with the [names](Bank::names) of another one, as they are.
    ///
    /// # Errors
    /// There is no name.
    pub fn with_names_of_another(names: Vec<String>) -> Result<Self, Error> {
        let mut bank = Self::empty();
        for name in names {
            bank.add(name);
        }
        bank.refuse_empty("the list of concepts")
    }

    fn empty() -> Self {
        Self { names: Vec::new(), labels: HashMap::new(), longest: 0 }
    }

    /// Adds a canonical name, unless there is one with the same [`key`].
    fn add(&mut self, name: String) {
        if let Entry::Vacant(entry) = self.labels.entry(key(&name))
            && !entry.key().is_empty()
        {
            entry.insert(self.names.len() as u32);
            self.longest = self.longest.max(name.len());
            self.names.push(name);
        }
    }

    fn refuse_empty(self, origin: &str) -> Result<Self, Error> {
        if self.names.is_empty() {
            let what = "has no concept names; write one per line";
            return Err(Error::Bank { origin: origin.to_owned(), what });
        }
        Ok(self)
    }

    fn new<I>(origin: &str, names: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut bank = Self::empty();
        for name in names {
            bank.add(canonical(name.as_ref()));
        }
        bank.refuse_empty(origin)
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Always false: a vocabulary has at least one name.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of a label; "" if the label is not below [`Bank::len`].
    pub fn name(&self, label: u32) -> &str {
        self.names.get(label as usize).map_or("", String::as_str)
    }

    /// The names in label order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The label of a mention, and the byte range of the words that matched, in the canonical text. The tokens of these
    /// words are pooled to the concept's embedding (the set S_l in the paper). `None` if no name matches.
    pub fn find(&self, matching: Matching, row: &MentionRow<'_>) -> Option<(u32, Range<u32>)> {
        match matching {
            Matching::Strict => self.label(&key(row.concept)).map(|label| (label, row.concept_span.clone())),
            Matching::Longest => self.longest(row),
        }
    }

    /// The label for a [`key`].
    fn label(&self, key: &str) -> Option<u32> {
        if key.len() > self.longest { None } else { self.labels.get(key).copied() }
    }

    fn longest(&self, row: &MentionRow<'_>) -> Option<(u32, Range<u32>)> {
        let surface = key(row.phrase);
        // The head is the phrase's last word, including hyphens.
        let head_start = row.phrase.rfind(' ').map_or(0, |space| space + 1);
        let lemma = format!("{}{}", &surface[..head_start], key(row.head));
        // `key` does not change lengths, so offsets into it are offsets into the phrase.
        let mut start = 0;
        loop {
            let lemma = || lemma.get(start..).and_then(|lemma| self.label(lemma));
            if let Some(label) = self.label(&surface[start..]).or_else(lemma) {
                return Some((label, row.phrase_span.start + start as u32..row.phrase_span.end));
            }
            start += surface[start..].find(' ')? + 1;
        }
    }
}

/// The form in which names and words are compared, because class lists and captions differ: "stop-sign" and "stop
/// sign". It has the same length in bytes as the text.
fn key(text: &str) -> String {
    text.replace('-', " ")
}
