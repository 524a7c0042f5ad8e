//! A sample's caption as tokens, and its mentions as token positions and labels.

use std::ops::Range;
use std::path::Path;
use std::sync::LazyLock;

use concepts::bpe::Tokenizer;
use concepts::sidecar::Sidecar;
use concepts::{Bank, Matching};

use crate::{BatchMention, Error};

/// CLIP's, made once a process: it takes a good part of a second.
pub(crate) static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::clip);

/// The text of one row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// Canonical text.
    pub caption: String,
    /// Ids of CLIP's vocabulary, one a position of the context.
    pub tokens: Vec<u32>,
    /// Mentions that the bank knows, from left to right; `sample` is 0.
    pub mentions: Vec<BatchMention>,
    /// Mentions that the bank knows but the limits left out.
    pub left_out: u32,
    /// Whether the sidecar's mentions are those of another caption.
    pub is_other: bool,
}

/// The mentions' side of the settings.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// Names and their labels.
    pub bank: &'a Bank,
    /// How a mention finds its name.
    pub matching: Matching,
    /// Mentions kept, the first ones.
    pub most: usize,
    /// Longest mention kept, tokens.
    pub longest: usize,
    /// Whether the sample has several captions: mentions of another one are then none of this, and no error.
    pub several: bool,
}

/// A sample's name: errors carry it.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    /// The shard.
    pub shard: &'a Path,
    /// Position in the tar.
    pub sample: u32,
    /// The key.
    pub key: &'a str,
}

impl Text {
    /// Canonical text and `context` tokens of a raw caption, without mentions.
    pub fn new(raw: &str, tokenizer: &Tokenizer, context: usize) -> Self {
        let caption = concepts::canonical(raw);
        let tokens = tokenizer.encode(&caption, context).ids;
        Self { caption, tokens, ..Self::default() }
    }

    /// The same with the mentions that the shard's sidecar has for it.
    ///
    /// # Errors
    /// A sidecar whose rows speak of another key or another caption.
    pub fn with_mentions(
        raw: &str,
        tokenizer: &Tokenizer,
        context: usize,
        sidecar: &Sidecar,
        labels: Labels<'_>,
        name: Name<'_>,
    ) -> Result<Self, Error> {
        let caption = concepts::canonical(raw);
        let tokens = tokenizer.encode(&caption, context);
        let mut mentions = Vec::new();
        let mut left_out = 0;
        for row in sidecar.mentions(name.sample) {
            let fits = text_at(&caption, &row.phrase_span) == Some(row.phrase);
            if row.key == name.key && !fits && labels.several {
                return Ok(Self { caption, tokens: tokens.ids, is_other: true, ..Self::default() });
            }
            if row.key != name.key || !fits {
                return Err(stale(name, row.key, row.phrase));
            }
            let Some((label, span)) = labels.bank.find(labels.matching, &row) else { continue };
            let positions = tokens.positions(&span);
            if positions.is_empty() || positions.len() > labels.longest || mentions.len() == labels.most {
                left_out += 1;
            } else {
                mentions.push(BatchMention { sample: 0, label, positions, span });
            }
        }
        Ok(Self { caption, tokens: tokens.ids, mentions, left_out, is_other: false })
    }
}

fn text_at<'a>(caption: &'a str, span: &Range<u32>) -> Option<&'a str> {
    caption.get(span.start as usize..span.end as usize)
}

fn stale(name: Name<'_>, key: &str, phrase: &str) -> Error {
    let problem = format!(
        "does not match its shard: it has the mention {phrase:?} of {key} at sample {}, which is {} with another \
         key or caption; run `ingest tag` on the folder again",
        name.sample, name.key
    );
    Error::companion(&crate::shard::sidecar_path(name.shard), problem)
}
