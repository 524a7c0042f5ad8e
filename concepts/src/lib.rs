//! Captions to concepts: canonical text, words, part-of-speech tags, noun phrases, concepts; the bank
//! that decides which of them take part in training; the Parquet sidecar that stores them.
//!
//! ```text
//! raw caption -> canonical() -> Extractor::mentions() -> sidecar::Writer      (once, by the tagger)
//! Sidecar -> Bank::find() -> bpe::Tokens::positions()                         (every epoch, by the loader)
//! ```

pub mod bank;
pub mod bpe;
mod canonical;
mod entities;
mod error;
mod extractor;
pub mod files;
mod grammar;
mod lemma;
pub mod sidecar;
pub mod statistics;
pub mod tagger;
pub mod training;
pub mod words;

pub use bank::{Bank, Matching};
pub use canonical::{canonical, canonical_into};
pub use error::Error;
pub use extractor::{Extractor, Mention, MentionView, TaggerDescription, TaggerKind};
