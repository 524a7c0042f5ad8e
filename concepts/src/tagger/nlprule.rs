//! Tagging with the dictionary, chunker and disambiguation rules of LanguageTool 5.2, through the crate `nlprule`.
//!
//! The library returns sets of tags, and chunks, for its own tokens. Here it gets the words of this crate, joined by
//! spaces, and [`reading::choose`] picks one tag from each set. Grammar and rule for concepts are those of every
//! tagger.

mod data;
mod reading;

use std::fmt;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};

use ::nlprule::Tokenizer;
use crossbeam::queue::SegQueue;
use rayon::{ThreadPool, ThreadPoolBuilder};

use self::reading::Reading;
use super::{Tag, Tagger};
use crate::Error;
use crate::words::Word;

/// Maximum number of bytes passed to the library at a time, because the time of its chunker grows with their square.
/// Captions are shorter; longer texts are split between words.
const MAX_TEXT: usize = 500;

/// Maximum number of bytes of a word passed to the library; no word of its dictionary is longer.
const MAX_WORD: usize = 64;

/// The tagger cannot be loaded.
fn failed(what: String) -> Error {
    Error::Tagger { tagger: "nlprule".to_owned(), what }
}

/// The tagger.
pub(crate) struct Nlprule {
    tokenizer: Tokenizer,
    /// Thread pools of one thread each that are not in use; there are as many as captions tagged at the same time.
    ///
    /// The library distributes the rules for each sentence over rayon's pool, which makes it three times slower. Only
    /// an environment variable or running it inside a pool of one thread turns this off.
    pools: SegQueue<ThreadPool>,
}

impl Nlprule {
    /// Finds and loads the data. Also returns the SHA-256 of the data, hexadecimal.
    pub(crate) fn load() -> Result<(Self, &'static str), Error> {
        let bytes = data::read(&data::locate()?)?;
        let tokenizer =
            Tokenizer::from_reader(bytes.as_slice()).map_err(|error| failed(error.to_string()))?;
        Ok((Self { tokenizer, pools: SegQueue::new() }, data::SHA256))
    }

    /// Tags the first words, as many as fit one call of the library; returns their number.
    fn tag_first(&self, text: &str, words: &[Word], tags: &mut Vec<Tag>) -> usize {
        let (joined, spans) = join(text, words);
        let words = &words[..spans.len()];
        let read = || self.read(&joined, &spans);
        // The library asserts much about its own state, and captions can contain anything.
        let readings = panic::catch_unwind(AssertUnwindSafe(|| {
            let pool = self.pools.pop().or_else(|| ThreadPoolBuilder::new().num_threads(1).build().ok());
            let Some(pool) = pool else { return read() };
            let readings = pool.install(read);
            self.pools.push(pool);
            readings
        }));
        match readings {
            Ok(readings) => reading::choose(text, words, &readings, tags),
            // A tag that no phrase can contain.
            Err(_) => tags.extend(words.iter().map(|_| Tag::SYM)),
        }
        words.len()
    }

    /// The library's tags and chunks for the words at `spans` of `text`.
    fn read(&self, text: &str, spans: &[Range<usize>]) -> Vec<Reading> {
        let mut readings = vec![Reading::default(); spans.len()];
        let mut at = 0;
        for sentence in self.tokenizer.pipe(text) {
            for token in sentence.tokens() {
                let start = token.span().byte().start;
                while spans.get(at).is_some_and(|span| span.end <= start) {
                    at += 1;
                }
                if let Some(reading) = readings.get_mut(at) {
                    reading.add(token);
                }
            }
        }
        readings
    }
}

impl Tagger for Nlprule {
    fn tag(&self, text: &str, words: &[Word], tags: &mut Vec<Tag>) {
        tags.clear();
        while tags.len() < words.len() {
            self.tag_first(text, &words[tags.len()..], tags);
        }
    }
}

impl fmt::Debug for Nlprule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nlprule").finish_non_exhaustive()
    }
}

/// Joins words with spaces, as many as fit, but at least one; also returns their byte ranges.
fn join(text: &str, words: &[Word]) -> (String, Vec<Range<usize>>) {
    let (mut joined, mut spans) = (String::new(), Vec::new());
    for word in words {
        // The library's rules recognise the pronoun by its capital letter, which canonical text lacks.
        let word = if word.of(text) == "i" { "I" } else { clip(word.of(text)) };
        if !spans.is_empty() {
            if joined.len() + word.len() >= MAX_TEXT {
                break;
            }
            joined.push(' ');
        }
        let start = joined.len();
        // The library recognises only ' as an apostrophe, and treats control characters as parts of words.
        joined.extend(word.chars().map(|c| match c {
            '’' => '\'',
            c if c.is_control() => '-',
            c => c,
        }));
        spans.push(start..joined.len());
    }
    (joined, spans)
}

/// The part of a word that the library needs: the first character of a run of marks, otherwise at most [`MAX_WORD`]
/// bytes.
fn clip(word: &str) -> &str {
    let mut chars = word.char_indices();
    let run = matches!((chars.next(), chars.next()), (Some((_, a)), Some((_, b))) if a == b && !a.is_alphanumeric());
    let max = if run { 1 } else { MAX_WORD };
    let end = word.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= max).last();
    &word[..end.or_else(|| word.chars().next().map(char::len_utf8)).unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_joined_as_the_library_expects() {
        let mut words = Vec::new();
        let text = "men’s “shoes”, 1.5 mm...\u{7f}";
        crate::words::split(text, &mut words);
        let (joined, spans) = join(text, &words);
        assert_eq!(joined, "men 's “ shoes ” , 1.5 mm . -");
        assert_eq!(spans.len(), words.len());
        assert_eq!(&joined[spans[1].clone()], "'s");
    }

    #[test]
    fn long_words_and_texts_are_cut() {
        assert_eq!(clip(&"é".repeat(100)).len(), MAX_WORD);
        assert_eq!(clip("———"), "—");
        let text = "word ".repeat(1000);
        let mut words = Vec::new();
        crate::words::split(&text, &mut words);
        let (joined, spans) = join(&text, &words);
        assert!(joined.len() <= MAX_TEXT && spans.len() == MAX_TEXT / 5, "{}", spans.len());
    }
}
