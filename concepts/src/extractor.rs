//! Finds the mentions in canonical text: runs word splitting, tagging, grammar and lemmatisation.

use std::cell::Cell;
use std::ops::Range;
use std::str::FromStr;

use crate::Error;
use crate::checksums::sha256;
use crate::grammar::{self, Phrase};
use crate::lemma::Lemmatiser;
use crate::tagger::brill::Brill;
use crate::tagger::nlprule::Nlprule;
use crate::tagger::perceptron::Perceptron;
use crate::tagger::{Tag, Tagger};
use crate::tagger_kind::TaggerKind;
use crate::words::{self, Word};

/// One noun phrase of a caption. All spans are byte ranges of the canonical text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// The whole phrase, including determiner and adjectives; its last word is the head.
    pub phrase: Range<usize>,
    /// The words of the concept: the noun directly before the head, if there is one, and the head.
    pub concept_span: Range<usize>,
    /// The head noun.
    pub head_span: Range<usize>,
    /// The concept: the noun before the head, if there is one, and the lemma of the head, e.g. "tennis racket".
    pub concept: String,
    /// Lemma of the head, e.g. "racket".
    pub head: String,
    /// Penn Treebank tags of the phrase's words, separated by spaces.
    pub tags: String,
}

/// A [`Mention`] that borrows its texts from the extractor's buffers; saves the copies if they are written elsewhere at
/// once.
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

impl FromStr for TaggerKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.to_string() == name)
            .ok_or_else(|| Error::UnknownTagger(name.to_owned()))
    }
}

/// Identifies the tagger that made the mentions; stored in the sidecar's footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggerDescription {
    /// Name of the tagger, e.g. "perceptron".
    pub name: String,
    /// SHA-256 of its model or data, hexadecimal.
    pub hash: String,
    /// Version of the phrase grammar and of the rule for concepts.
    pub grammar: u32,
}

// How the models are made: `models/README.md`.
const BRILL: &[u8] = include_bytes!("../models/brill.bin");
const PERCEPTRON: &[u8] = include_bytes!("../models/perceptron.bin");

/// Finds the noun phrases of canonical text. Threads share it by reference.
#[derive(Debug)]
pub struct Extractor {
    tagger: Box<dyn Tagger>,
    lemmatiser: Lemmatiser,
    description: TaggerDescription,
}

/// Working memory of one thread, reused from caption to caption.
#[derive(Default)]
struct Scratch {
    words: Vec<Word>,
    tags: Vec<Tag>,
    phrases: Vec<Phrase>,
    concept: String,
    names: String,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Extractor {
    /// Loads the tagger's model or data.
    ///
    /// # Errors
    /// The data of nlprule is missing or is not the expected file.
    pub fn new(kind: TaggerKind) -> Result<Self, Error> {
        let (tagger, hash): (Box<dyn Tagger>, _) = match kind {
            TaggerKind::Perceptron => (Box::new(Perceptron::from_bytes(PERCEPTRON)?), sha256(PERCEPTRON)),
            TaggerKind::Brill => (Box::new(Brill::from_bytes(BRILL)?), sha256(BRILL)),
            TaggerKind::Nlprule => {
                let (tagger, hash) = Nlprule::load()?;
                (Box::new(tagger), hash.to_owned())
            }
        };
        let description = TaggerDescription { name: kind.to_string(), hash, grammar: grammar::VERSION };
        Ok(Self { tagger, lemmatiser: Lemmatiser::new(), description })
    }

    /// The mentions of a caption, from left to right; they do not overlap. A text longer than 4 GiB has none.
    pub fn mentions(&self, canonical: &str) -> Vec<Mention> {
        let mut mentions = Vec::new();
        self.visit(canonical, |mention| mentions.push(mention.into()));
        mentions
    }

    /// As [`Extractor::mentions`], but calls `each` with one mention at a time and does not copy the texts.
    pub fn visit(&self, canonical: &str, mut each: impl FnMut(MentionView<'_>)) {
        if u32::try_from(canonical.len()).is_err() {
            return;
        }
        // Taken out, so that `each` may use the extractor, too.
        let mut scratch = SCRATCH.take().unwrap_or_default();
        let Scratch { words, tags, phrases, concept, names } = &mut *scratch;
        words::split(canonical, words);
        self.tagger.tag(canonical, words, tags);
        grammar::phrases(canonical, words, tags, phrases);
        for &phrase in &*phrases {
            self.mention(canonical, (words, tags), phrase, (concept, names), &mut each);
        }
        SCRATCH.set(Some(scratch));
    }

    /// Makes the mention of a phrase. The concept is the noun directly before the head, if there is one, and the head's
    /// lemma.
    fn mention(
        &self,
        text: &str,
        (words, tags): (&[Word], &[Tag]),
        phrase: Phrase,
        (concept, names): (&mut String, &mut String),
        each: &mut impl FnMut(MentionView<'_>),
    ) {
        let head = phrase.end - 1;
        let compound = head > phrase.start && tags[head - 1].is_noun();
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

    /// Identifies the tagger; stored in the sidecar's footer.
    pub fn description(&self) -> TaggerDescription {
        self.description.clone()
    }
}
