//! The dictionary, chunker and disambiguation rules of LanguageTool 5.2, through the crate `nlprule`.
//!
//! They answer with sets of tags and with chunks, on tokens of their own. Here they are asked about our words, joined
//! by spaces, and [`reading::choose`] makes one tag of each set; grammar and concept rule are those of every tagger.

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
use crate::words::Word;

/// Bytes handed to the library at a time, at most, because its chunker takes time by their square. Captions are
/// shorter; longer texts are cut between words.
const LONGEST_TEXT: usize = 500;

/// Bytes of a word that the library sees: no word of its dictionary is longer.
const LONGEST_WORD: usize = 64;

/// The tagger.
pub(crate) struct Nlprule {
    tokenizer: Tokenizer,
    /// Pools of one thread that nobody uses at the moment; as many are made as captions are tagged at once.
    ///
    /// The library spreads the rules over rayon's pool, sentence by sentence, which makes it three times slower than
    /// without. All that turns this off is an environment variable, or a pool of one thread to run in.
    pools: SegQueue<ThreadPool>,
}

impl Nlprule {
    /// Finds and loads the data; also returns its SHA-256, hexadecimal.
    pub(crate) fn load() -> Result<(Self, &'static str), String> {
        let bytes = data::read(&data::locate()?)?;
        let tokenizer = Tokenizer::from_reader(bytes.as_slice()).map_err(|error| error.to_string())?;
        Ok((Self { tokenizer, pools: SegQueue::new() }, data::SHA256))
    }

    /// Tags as many of the words as are handed over at a time; returns their number.
    fn tag_first(&self, text: &str, words: &[Word], tags: &mut Vec<Tag>) -> usize {
        let (joined, spans) = join(text, words);
        let words = &words[..spans.len()];
        let read = || self.read(&joined, &spans);
        // The library asserts much about its own state, and nothing bounds what a caption can be.
        let readings = panic::catch_unwind(AssertUnwindSafe(|| {
            let pool = self.pools.pop().or_else(|| ThreadPoolBuilder::new().num_threads(1).build().ok());
            let Some(pool) = pool else { return read() };
            let readings = pool.install(read);
            self.pools.push(pool);
            readings
        }));
        match readings {
            Ok(readings) => reading::choose(text, words, &readings, tags),
            // Nothing of which a phrase can be made.
            Err(_) => tags.extend(words.iter().map(|_| Tag::SYM)),
        }
        words.len()
    }

    /// What the library says about the words that lie at `spans` of `text`.
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

/// The words, separated by spaces, and where they lie; at least one.
fn join(text: &str, words: &[Word]) -> (String, Vec<Range<usize>>) {
    let (mut joined, mut spans) = (String::new(), Vec::new());
    for word in words {
        // Its rules know the pronoun by the capital letter that canonical text lacks.
        let word = if word.of(text) == "i" { "I" } else { clip(word.of(text)) };
        if !spans.is_empty() {
            if joined.len() + word.len() >= LONGEST_TEXT {
                break;
            }
            joined.push(' ');
        }
        let start = joined.len();
        // The library reads ' alone as an apostrophe, and takes control characters for parts of words.
        joined.extend(word.chars().map(|c| match c {
            '’' => '\'',
            c if c.is_control() => '-',
            c => c,
        }));
        spans.push(start..joined.len());
    }
    (joined, spans)
}

/// As much of a word as the library needs to see: of a run of marks the first.
fn clip(word: &str) -> &str {
    let mut chars = word.char_indices();
    let run = matches!((chars.next(), chars.next()), (Some((_, a)), Some((_, b))) if a == b && !a.is_alphanumeric());
    let longest = if run { 1 } else { LONGEST_WORD };
    let end = word.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= longest).last();
    &word[..end.or_else(|| word.chars().next().map(char::len_utf8)).unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_joined_as_the_library_reads_them() {
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
        assert_eq!(clip(&"é".repeat(100)).len(), LONGEST_WORD);
        assert_eq!(clip("———"), "—");
        let text = "word ".repeat(1000);
        let mut words = Vec::new();
        crate::words::split(&text, &mut words);
        let (joined, spans) = join(&text, &words);
        assert!(joined.len() <= LONGEST_TEXT && spans.len() == LONGEST_TEXT / 5, "{}", spans.len());
    }
}
