//! The concept bank: the names that decide which mentions take part in training, and as which label.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use crate::sidecar::MentionRow;
use crate::{Error, canonical};

/// How a mention finds its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Matching {
    /// The concept (last compound noun + lemma of the head) is a name: the rule of the method's released code.
    Strict,
    /// The longest run of the phrase's words that ends at the head and is a name, as written before with the
    /// head's lemma: "leather couch" finds "couch", "boots" finds "boots".
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
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "strict" => Ok(Self::Strict),
            "longest" => Ok(Self::Longest),
            _ => Err(format!("no matching is called {name:?}; there are: strict, longest")),
        }
    }
}

/// Concept names and their labels, 0..len in the order given.
#[derive(Debug, Clone)]
pub struct Bank {
    names: Vec<String>,
    /// By [`key`] of the name.
    labels: HashMap<String, u32>,
    /// Bytes of the longest name: nothing longer need be looked up, however long a phrase is.
    longest: usize,
}

impl Bank {
    /// A bank of these names: canonical text, hyphens and spaces alike, each once, blank ones left out.
    ///
    /// Fails when nothing is left.
    pub fn from_names<I>(names: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::new("the bank", names)
    }

    /// A bank of a file's lines.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(Error::io(path, "read"))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::Bank {
            origin: path.display().to_string(),
            what: "is not UTF-8 text; a bank is one concept name a line",
        })?;
        Self::new(&path.display().to_string(), text.trim_start_matches('\u{feff}').lines())
    }

    fn new<I>(origin: &str, names: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut bank = Self { names: Vec::new(), labels: HashMap::new(), longest: 0 };
        for name in names {
            let name = canonical(name.as_ref());
            if let Entry::Vacant(entry) = bank.labels.entry(key(&name))
                && !entry.key().is_empty()
            {
                entry.insert(bank.names.len() as u32);
                bank.longest = bank.longest.max(name.len());
                bank.names.push(name);
            }
        }
        if bank.names.is_empty() {
            return Err(Error::Bank {
                origin: origin.to_owned(),
                what: "has no names; a bank is one concept name a line",
            });
        }
        Ok(bank)
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Never: a bank has at least one name.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of a label below [`Bank::len`]; "" beyond it.
    pub fn name(&self, label: u32) -> &str {
        self.names.get(label as usize).map_or("", String::as_str)
    }

    /// The names in label order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The label of a mention, and the bytes of the canonical text whose tokens make S_l: those of the words
    /// that matched.
    pub fn find(&self, matching: Matching, row: &MentionRow<'_>) -> Option<(u32, Range<u32>)> {
        match matching {
            Matching::Strict => self.label(&key(row.concept)).map(|label| (label, row.concept_span.clone())),
            Matching::Longest => self.longest(row),
        }
    }

    /// The label of a name's [`key`].
    fn label(&self, key: &str) -> Option<u32> {
        if key.len() > self.longest { None } else { self.labels.get(key).copied() }
    }

    fn longest(&self, row: &MentionRow<'_>) -> Option<(u32, Range<u32>)> {
        let surface = key(row.phrase);
        // The head is the phrase's last word, hyphens and all.
        let head_start = row.phrase.rfind(' ').map_or(0, |space| space + 1);
        let lemma = format!("{}{}", &surface[..head_start], key(row.head));
        // `key` keeps lengths, so its offsets are the phrase's.
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

/// The form in which names and words are compared: class lists write "stop-sign", captions "stop sign", or the
/// other way round. Byte for byte as long as the text.
fn key(text: &str) -> String {
    text.replace('-', " ")
}
