//! Sentences tagged by another tagger, to learn from it.

use super::Sentence;
use crate::Error;
use crate::tagger::Tagger;
use crate::tagger::perceptron::{KIND, Perceptron};
use crate::words::Word;

/// Gives every sentence the tags of a perceptron; `model` is its model file's bytes.
///
/// Rules cannot tell the mistakes in their data from its regularities as well as sums of weights can. A perceptron that
/// was trained on the data gives cleaner tags than the data had.
pub fn retag(sentences: &mut [Sentence], model: &[u8]) -> Result<(), Error> {
    let damaged = |what| Error::Tagger { tagger: KIND.to_owned(), what };
    let teacher = Perceptron::from_bytes(model).map_err(damaged)?;
    let (mut text, mut words, mut tags) = (String::new(), Vec::new(), Vec::new());
    for sentence in sentences {
        text.clear();
        words.clear();
        for (word, _) in sentence.iter() {
            let start = text.len() as u32;
            text.push_str(word);
            words.push(Word { start, end: text.len() as u32 });
        }
        teacher.tag(&text, &words, &mut tags);
        sentence.iter_mut().zip(&tags).for_each(|((_, tag), taught)| *tag = *taught);
    }
    Ok(())
}
