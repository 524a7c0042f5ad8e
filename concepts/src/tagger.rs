//! Part-of-speech taggers: words to Penn Treebank tags.

pub(crate) mod brill;
mod features;
mod letters;
mod lexicon;
mod model;
pub(crate) mod nlprule;
pub(crate) mod perceptron;
mod tags;

pub(crate) use features::{FEATURES, Form, all as all_features};
pub(crate) use lexicon::{Lexicon, LexiconBuilder, LexiconOptions, RARE};
pub(crate) use model::{ModelReader, ModelWriter};
pub use tags::Tag;

use crate::Error;
use crate::words::Word;

/// A part-of-speech tagger.
pub(crate) trait Tagger: Send + Sync + std::fmt::Debug {
    /// Gives every word of `text` one tag. `tags` is cleared first; afterwards it is as long as `words`.
    fn tag(&self, text: &str, words: &[Word], tags: &mut Vec<Tag>);
}

/// The rules of a Brill (transformation-based) model as text, in the order in which they are applied:
/// `NN -> VBZ if the previous tag is NNS`.
///
/// # Errors
/// `model` is not the bytes of a Brill model.
pub fn brill_rules(model: &[u8]) -> Result<Vec<String>, Error> {
    Ok(brill::Brill::from_bytes(model)?.rules().collect())
}
