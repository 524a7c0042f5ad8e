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
use crate::tagger::nlprule::Nlprule;
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

/// A [`Mention`] whose texts lie in the extractor's buffers, for those who write them somewhere at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MentionView<'a> {
    /// As in [`Mention`].
    pub phrase: Range<usize>,
    /// As in [`Mention`].
    pub concept_span: Range<usize>,
    /// As in [`Mention`].
    pub head_span: Range<usize>,
    /// As in [`Mention`].
    pub concept: &'a str,
    /// As in [`Mention`].
    pub head: &'a str,
    /// As in [`Mention`].
    pub tags: &'a str,
}

impl From<MentionView<'_>> for Mention {
    fn from(view: MentionView<'_>) -> Self {
        Self {
            phrase: view.phrase,
            concept_span: view.concept_span,
            head_span: view.head_span,
            concept: view.concept.to_owned(),
            head: view.head.to_owned(),
            tags: view.tags.to_owned(),
        }
    }
}

impl<'a> From<&'a Mention> for MentionView<'a> {
    fn from(mention: &'a Mention) -> Self {
        Self {
            phrase: mention.phrase.clone(),
            concept_span: mention.concept_span.clone(),
            head_span: mention.head_span.clone(),
            concept: &mention.concept,
            head: &mention.head,
            tags: &mention.tags,
        }
    }
}

/// The taggers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TaggerKind {
    /// Transformation rules learned from data (Brill 1995), embedded.
    Brill,
    /// Averaged perceptron, embedded.
    #[default]
    Perceptron,
    /// The rules and dictionary of LanguageTool through the crate `nlprule`. Its data is not embedded:
    /// `tools/nlprule-data.sh` brings it. Where the crate panics, the words it was given (at most 500 bytes of a
    /// caption) have no mentions.
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
    concept: String,
    names: String,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Extractor {
    /// Loads the tagger's data.
    pub fn new(kind: TaggerKind) -> Result<Self, Error> {
        let damaged = |what| Error::Tagger { tagger: kind.to_string(), what };
        let (tagger, hash): (Box<dyn Tagger>, _) = match kind {
            TaggerKind::Perceptron => {
                let tagger = Perceptron::from_bytes(PERCEPTRON).map_err(damaged)?;
                (Box::new(tagger), hex(&Sha256::digest(PERCEPTRON)))
            }
            TaggerKind::Brill => {
                let tagger = Brill::from_bytes(BRILL).map_err(damaged)?;
                (Box::new(tagger), hex(&Sha256::digest(BRILL)))
            }
            TaggerKind::Nlprule => {
                let (tagger, hash) = Nlprule::load().map_err(damaged)?;
                (Box::new(tagger), hash.to_owned())
            }
        };
        let description = TaggerDescription { name: kind.to_string(), hash, grammar: grammar::VERSION };
        Ok(Self { tagger, lemmatiser: Lemmatiser::new(), description })
    }

    /// The mentions of a caption, from left to right; they do not overlap. None in a text beyond 4 GiB.
    pub fn mentions(&self, canonical: &str) -> Vec<Mention> {
        let mut mentions = Vec::new();
        self.visit(canonical, |mention| mentions.push(mention.into()));
        mentions
    }

    /// Hands over the same mentions one by one, without a copy of any text.
    pub fn visit(&self, canonical: &str, mut each: impl FnMut(MentionView<'_>)) {
        if u32::try_from(canonical.len()).is_err() {
            return;
        }
        // Taken out, so that `each` may use the extractor, too.
        let mut scratch = SCRATCH.take();
        let Scratch { words, tags, phrases, concept, names } = &mut scratch;
        words::split(canonical, words);
        self.tagger.tag(canonical, words, tags);
        grammar::phrases(canonical, words, tags, phrases);
        for &phrase in &*phrases {
            self.mention(canonical, (words, tags), phrase, (concept, names), &mut each);
        }
        SCRATCH.set(scratch);
    }

    /// The concept rule: the noun right before the head, if there is one, and the head's lemma.
    fn mention(
        &self,
        text: &str,
        (words, tags): (&[Word], &[Tag]),
        phrase: Phrase,
        (concept, names): (&mut String, &mut String),
        each: &mut impl FnMut(MentionView<'_>),
    ) {
        let head = phrase.end - 1;
        let compound = head > phrase.start && grammar::is_noun(tags[head - 1]);
        let first = if compound { head - 1 } else { head };
        let lemma = self.lemmatiser.lemma(words[head].of(text), tags[head]);
        concept.clear();
        if compound {
            concept.push_str(words[first].of(text));
            concept.push(' ');
        }
        concept.push_str(&lemma);
        names.clear();
        for tag in &tags[phrase.start..phrase.end] {
            if !names.is_empty() {
                names.push(' ');
            }
            names.push_str(tag.name());
        }
        let span = |from: usize| words[from].start as usize..words[head].end as usize;
        each(MentionView {
            phrase: span(phrase.start),
            concept_span: span(first),
            head_span: span(head),
            concept,
            head: &lemma,
            tags: names,
        });
    }

    /// What goes into the sidecar's footer.
    pub fn description(&self) -> TaggerDescription {
        self.description.clone()
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
