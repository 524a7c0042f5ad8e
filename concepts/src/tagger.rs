//! Part-of-speech taggers: words to Penn Treebank tags.

mod features;
mod lexicon;
mod model;
pub(crate) mod nlprule;
pub(crate) mod perceptron;
mod tags;

pub(crate) use features::{FEATURES, Form, all as all_features};
pub(crate) use lexicon::{Lexicon, LexiconBuilder};
pub(crate) use model::{ModelReader, ModelWriter};
pub use tags::Tag;

use crate::words::Word;

/// Anything that tags words.
pub trait Tagger: Send + Sync + std::fmt::Debug {
    /// Gives every word of `text` one tag; `tags` is cleared first and has as many as `words` after.
    fn tag(&self, text: &str, words: &[Word], tags: &mut Vec<Tag>);
}
