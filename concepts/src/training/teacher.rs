//! Replaces the tags of sentences by those of another tagger, to learn from it.

use super::Sentence;
use crate::Error;
use crate::tagger::Tagger;
use crate::tagger::perceptron::Perceptron;
use crate::words::Word;

/// Replaces the tags of every sentence by those of a perceptron; `model` is the bytes of its model file.
///
/// Sums of weights are better than rules at telling mistakes in the training data from regularities. So a perceptron
/// that was trained on the data gives cleaner tags than the data has.
pub fn retag(sentences: &mut [Sentence], model: &[u8]) -> Result<(), Error> {
    let teacher = Perceptron::from_bytes(model)?;
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
