//! Canonical text to mentions: the one door to words, tags, grammar and lemmas.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::Error;
use crate::grammar::{self, Phrase};
use crate::lemma::Lemmatiser;
use crate::tagger::brill::Brill;
use crate::tagger::perceptron::Perceptron;
use crate::tagger::{Tag, Tagger};
use crate::words::{self, Word};

/// One noun phrase of a caption. Spans are byte ranges of the canonical text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// The whole phrase, determiner and adjectives included; ends with the head.
    pub phrase: Range<usize>,
    /// The words that make the concept: the last compound noun, if any, and the head.
    pub concept_span: Range<usize>,
    /// The head noun.
    pub head_span: Range<usize>,
    /// Last compound noun + lemma of the head, e.g. "tennis racket".
    pub concept: String,
    /// Lemma of the head, e.g. "racket".
    pub head: String,
    /// Penn Treebank tags of the phrase's words, separated by spaces.
    pub tags: String,
}

/// The taggers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TaggerKind {
    /// Transformation rules learned from data (Brill 1995), embedded.
    Brill,
    /// Averaged perceptron, embedded.
    #[default]
    Perceptron,
    /// The rules and dictionary of LanguageTool through the crate `nlprule`; its data is fetched, not embedded.
    Nlprule,
}

impl TaggerKind {
    /// Every kind, in the order of [`TaggerKind::names`].
    pub const ALL: [Self; 3] = [Self::Brill, Self::Perceptron, Self::Nlprule];

    /// "brill, perceptron, nlprule".
    pub fn names() -> String {
        Self::ALL.map(|kind| kind.to_string()).join(", ")
    }
}

impl fmt::Display for TaggerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Brill => "brill",
            Self::Perceptron => "perceptron",
            Self::Nlprule => "nlprule",
        })
    }
}

impl FromStr for TaggerKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.to_string() == name)
            .ok_or_else(|| Error::UnknownTagger(name.to_owned()))
    }
}

/// What made the mentions; stored in a sidecar's footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggerDescription {
    /// Name of the tagger, e.g. "perceptron".
    pub name: String,
    /// SHA-256 of its data, hexadecimal.
    pub hash: String,
    /// Version of the phrase grammar and the concept rule.
    pub grammar: u32,
}

// `models/README.md` says how the models are made.
const BRILL: &[u8] = include_bytes!("../models/brill.bin");
const PERCEPTRON: &[u8] = include_bytes!("../models/perceptron.bin");

/// Finds the noun phrases of canonical text. Shared by reference between threads.
#[derive(Debug)]
pub struct Extractor {
    tagger: Box<dyn Tagger>,
    lemmatiser: Lemmatiser,
    description: TaggerDescription,
}

/// Buffers of one thread, kept from caption to caption.
#[derive(Default)]
struct Scratch {
    words: Vec<Word>,
    tags: Vec<Tag>,
    phrases: Vec<Phrase>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Extractor {
    /// Loads the tagger's data.
    pub fn new(kind: TaggerKind) -> Result<Self, Error> {
        let damaged = |what| Error::Tagger { tagger: kind.to_string(), what };
        let (tagger, data): (Box<dyn Tagger>, _) = match kind {
            TaggerKind::Perceptron => {
                (Box::new(Perceptron::from_bytes(PERCEPTRON).map_err(damaged)?), PERCEPTRON)
            }
            TaggerKind::Brill => (Box::new(Brill::from_bytes(BRILL).map_err(damaged)?), BRILL),
            TaggerKind::Nlprule => return Err(damaged("is not built in".to_owned())),
        };
        let description = TaggerDescription {
            name: kind.to_string(),
            hash: hex(&Sha256::digest(data)),
            grammar: grammar::VERSION,
        };
        Ok(Self { tagger, lemmatiser: Lemmatiser::new(), description })
    }

    /// The mentions of a caption, from left to right; they do not overlap. None in a text beyond 4 GiB.
    pub fn mentions(&self, canonical: &str) -> Vec<Mention> {
        if u32::try_from(canonical.len()).is_err() {
            return Vec::new();
        }
        SCRATCH.with_borrow_mut(|Scratch { words, tags, phrases }| {
            words::split(canonical, words);
            self.tagger.tag(canonical, words, tags);
            grammar::phrases(canonical, words, tags, phrases);
            phrases.iter().map(|phrase| self.mention(canonical, words, tags, *phrase)).collect()
        })
    }

    /// The concept rule: the noun right before the head, if there is one, and the head's lemma.
    fn mention(&self, text: &str, words: &[Word], tags: &[Tag], phrase: Phrase) -> Mention {
        let head = phrase.end - 1;
        let compound = head > phrase.start && grammar::is_noun(tags[head - 1]);
        let first = if compound { head - 1 } else { head };
        let span = |from: usize, to: usize| words[from].start as usize..words[to].end as usize;
        let lemma = self.lemmatiser.lemma(words[head].of(text), tags[head]);
        let concept = if compound { format!("{} {lemma}", words[first].of(text)) } else { lemma.to_string() };
        let mut names = String::with_capacity(4 * (phrase.end - phrase.start));
        for tag in &tags[phrase.start..phrase.end] {
            if !names.is_empty() {
                names.push(' ');
            }
            names.push_str(tag.name());
        }
        Mention {
            phrase: span(phrase.start, head),
            concept_span: span(first, head),
            head_span: span(head, head),
            concept,
            head: lemma.into_owned(),
            tags: names,
        }
    }

    /// What goes into the sidecar's footer.
    pub fn description(&self) -> TaggerDescription {
        self.description.clone()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
