//! Finds the concepts that captions mention: canonical text, words, part-of-speech tags, noun phrases, concepts. Also
//! the concept vocabulary, which decides which concepts take part in training, and the Parquet sidecar that stores the
//! mentions.
//!
//! ```
//! use concepts::{Extractor, TaggerKind, canonical};
//!
//! # fn main() -> Result<(), concepts::Error> {
//! let extractor = Extractor::new(TaggerKind::default())?;
//! let text = canonical("Two tiny  Rubber Ducks near snow");
//! assert_eq!(text, "two tiny rubber ducks near snow");
//!
//! let mentions = extractor.mentions(&text);
//! assert_eq!(&text[mentions[0].phrase.clone()], "two tiny rubber ducks");
//! assert_eq!((&*mentions[0].concept, &*mentions[0].head), ("rubber duck", "duck"));
//! assert_eq!(mentions[1].concept, "snow");
//! # Ok(())
//! # }
//! ```
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
//! Sidecar -> Bank::find() -> Tokens::positions()                              (in every epoch, by the loader)
//! ```

pub mod checksums;
pub mod sidecar;
pub mod statistics;
pub mod tables;
pub mod training;

mod bank;
mod bpe;
mod canonical;
mod entities;
mod error;
mod extractor;
mod grammar;
mod lemma;
mod repair;
mod tagger;
mod tagger_kind;
mod words;

pub use bank::{Bank, Matching};
pub use bpe::{Tokenizer, Tokens};
pub use canonical::{CANONICAL_VERSION, canonical, canonical_into};
pub use error::Error;
pub use extractor::{Extractor, Mention, MentionView, TaggerDescription};
pub use tagger_kind::TaggerKind;
pub use words::{Word, split as split_words};
