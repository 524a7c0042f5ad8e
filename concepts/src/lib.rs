//! Finds the concepts that captions mention: canonical text, words, part-of-speech tags, noun phrases, concepts. Also
//! the concept vocabulary, which decides which concepts take part in training, and the Parquet sidecar that stores the
//! mentions.
//!
//! Terms, for the caption "Two tiny Rubber Ducks near snow":
//!
//! | term | meaning | here |
//! |---|---|---|
//! | canonical text | the caption as CLIP's tokenizer repairs and normalises it | `two tiny rubber ducks near snow` |
//! | phrase | a noun phrase of the canonical text | `two tiny rubber ducks`; `snow` |
//! | head | the lemma of the phrase's last noun | `duck`; `snow` |
//! | concept | the noun before the head, if there is one, and the head | `rubber duck`; `snow` |
//! | mention | one occurrence of a concept in a caption | two mentions |
//! | bank | the concept vocabulary (the paper's concept bank): names with a label each | |
//! | sidecar | the Parquet file next to a shard with the mentions of its captions | |
//!
//! ```text
//! raw caption -> canonical() -> Extractor::mentions() -> sidecar::Writer      (once, when the dataset is tagged)
//! Sidecar -> Bank::find() -> bpe::Tokens::positions()                         (in every epoch, by the loader)
//! ```

pub mod bank;
pub mod bpe;
mod canonical;
pub mod checksums;
mod entities;
mod error;
mod extractor;
mod grammar;
mod lemma;
mod repair;
pub mod sidecar;
pub mod statistics;
pub mod tables;
pub mod tagger;
mod tagger_kind;
pub mod training;
pub mod words;

pub use bank::{Bank, Matching};
pub use canonical::{CANONICAL_VERSION, canonical, canonical_into};
pub use error::Error;
pub use extractor::{Extractor, Mention, MentionView, TaggerDescription};
pub use tagger_kind::TaggerKind;
