//! Captions as token ids, and mentions as token positions and labels.

use std::ops::Range;
use std::sync::LazyLock;

use concepts::Tokenizer;
use concepts::sidecar::Sidecar;
use concepts::{Bank, Matching};
use storage::Location;

use crate::Error;
use crate::samples::batch::BatchMention;
use crate::shards::{RawCaption, sidecar_path};

/// CLIP's tokenizer, loaded once per process because loading takes a large part of a second.
pub(crate) static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::clip);

/// The text of one row of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Text {
    /// The caption as canonical text ([`concepts::canonical()`]).
    pub(crate) caption: String,
    /// Token ids of CLIP's vocabulary, padded to the context length.
    pub(crate) tokens: Vec<u32>,
    /// Mentions whose concept is in the vocabulary, from left to right.
    pub(crate) mentions: Vec<BatchMention>,
    /// The concepts that only other captions of the sample mention, ascending; empty unless they are asked for ([`Labels`]).
    pub(crate) siblings: Vec<u32>,
    /// Mentions whose concept is in the vocabulary but that a limit excluded (see [`Labels`]), or of which the limit on tokens
    /// cut a part off.
    pub(crate) left_out: u32,
    /// Whether the sidecar's mentions belong to another caption of the sample, so that this row has none.
    pub(crate) is_other: bool,
}

/// How mentions become labels, and the limits on them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Labels<'a> {
    /// The concept vocabulary: names and their labels.
    pub(crate) bank: &'a Bank,
    /// How a mention is matched to a name.
    pub(crate) matching: Matching,
    /// Maximum number of mentions kept per caption; the first ones are kept.
    pub(crate) most: usize,
    /// Maximum length of a mention, tokens; longer ones are dropped. With [`Matching::Strict`] the whole noun phrase counts, as in
    /// the released SimZSS code.
    pub(crate) longest: usize,
    /// Whether captions are from a field of the `.json` members, of which a sample may have several.
    pub(crate) field: bool,
    /// Whether the concepts of the sample's other captions are wanted.
    pub(crate) siblings: bool,
}

/// Identifies a sample in errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name<'a> {
    /// The shard.
    pub(crate) shard: &'a Location,
    /// Position of the sample in the tar, from 0.
    pub(crate) sample: u32,
    /// Key of the sample.
    pub(crate) key: &'a str,
}

impl Text {
    /// Normalises a raw caption and encodes it as `context` token ids; no mentions.
    pub(crate) fn new(raw: &str, tokenizer: &Tokenizer, context: usize) -> Self {
        let caption = concepts::canonical(raw);
        let tokens = tokenizer.encode(&caption, context).ids;
        Self { caption, tokens, ..Self::default() }
    }

    /// The same, with the mentions that the shard's sidecar has for the sample.
    ///
    /// # Errors
    /// The sidecar was made from another caption of the sample, or its rows have another key or another text.
    pub(crate) fn with_mentions(
        raw: &RawCaption,
        tokenizer: &Tokenizer,
        context: usize,
        sidecar: &Sidecar,
        labels: Labels<'_>,
        name: Name<'_>,
    ) -> Result<Self, Error> {
        // Whether the mentions are of the `.txt` member while captions are from a field: of them only one may have been tagged, and
        // mentions that do not fit are ignored instead of being an error.
        let of_text = labels.field && sidecar.metadata.field.is_none();
        if !of_text && sidecar.has_captions(name.sample, raw.check) == Some(false) {
            return Err(recaptioned(name));
        }
        let caption = concepts::canonical(&raw.text);
        let tokens = tokenizer.encode(&caption, context);
        let (mut mentions, mut siblings) = (Vec::new(), Vec::new());
        let mut left_out = 0;
        for row in sidecar.mentions(name.sample) {
            if sidecar.metadata.field.is_some() && row.caption != raw.number {
                if labels.siblings {
                    siblings.extend(labels.bank.find(labels.matching, &row).map(|(label, _)| label));
                }
                continue;
            }
            let fits = text_at(&caption, &row.phrase_span) == Some(row.phrase);
            if row.key == name.key && !fits && of_text {
                return Ok(Self { caption, tokens: tokens.ids, is_other: true, ..Self::default() });
            }
            if row.key != name.key || !fits {
                return Err(stale(name, row.key, row.phrase));
            }
            let Some((label, span)) = labels.bank.find(labels.matching, &row) else { continue };
            let positions = tokens.positions(&span);
            let length = match labels.matching {
                Matching::Strict => tokens.positions(&row.phrase_span).len(),
                Matching::Longest => positions.len(),
            };
            if positions.is_empty() || length > labels.longest || mentions.len() == labels.most {
                left_out += 1;
            } else {
                mentions.push(BatchMention { label, positions, span });
            }
        }
        siblings.sort_unstable();
        siblings.dedup();
        siblings.retain(|label| mentions.iter().all(|mention| mention.label != *label));
        Ok(Self { caption, tokens: tokens.ids, mentions, siblings, left_out, is_other: false })
    }
}

fn text_at<'a>(caption: &'a str, span: &Range<u32>) -> Option<&'a str> {
    caption.get(span.start as usize..span.end as usize)
}

fn recaptioned(name: Name<'_>) -> Error {
    let problem = format!(
        "the caption of sample {} (key {}) is not the one that was tagged; run `ingest tag` on the folder again",
        name.sample, name.key
    );
    Error::companion(&sidecar_path(name.shard), problem)
}

fn stale(name: Name<'_>, key: &str, phrase: &str) -> Error {
    let problem = format!(
        "it does not match its shard: at sample {} it has the mention {phrase:?} of key {key}, but there the shard \
         has key {} or a different caption; run `ingest tag` on the folder again",
        name.sample, name.key
    );
    Error::companion(&sidecar_path(name.shard), problem)
}
