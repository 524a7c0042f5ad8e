//! CLIP's byte-pair encoding of a caption, with the byte range of each token.
//!
//! The ids come from the crate `instant-clip-tokenizer`, which does not report byte ranges. They are computed here:
//! tokens never span a space, and the tokens of a run without spaces cover it completely and in order, so a table of
//! the length of every token is enough.

use std::fmt;
use std::ops::Range;

use instant_clip_tokenizer::Token;

/// Maximum length of a run without spaces, bytes; longer runs are split. Merging takes time quadratic in the length of
/// a word, and no real word is that long. The tokens around a split may differ from those of the whole run.
const MAX_RUN: usize = 2048;

/// CLIP's tokenizer: 49,408 ids; 49406 is the start of text, 49407 the end of text.
pub struct Tokenizer {
    inner: instant_clip_tokenizer::Tokenizer,
    /// Length of every token in bytes, by id; 0 for tokens that are only part of a character.
    lengths: Vec<u8>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokenizer")
    }
}

/// A caption as token ids with byte ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tokens {
    /// Start of text, the caption's tokens, end of text, then padding with 0; `context` ids in all. A caption that is
    /// too long is truncated, and the end of text is the last id.
    pub ids: Vec<u32>,
    /// For each id, its byte range in the canonical text; empty for start, end and padding. If several tokens form one
    /// character (as for some emoji), all of them have the range of that character.
    pub spans: Vec<Range<u32>>,
    /// The byte of the canonical text at which it was truncated; `u32::MAX` if it was not.
    pub end: u32,
}

impl Tokenizer {
    /// CLIP's vocabulary. Takes some tens of milliseconds to load: load it once and share it.
    pub fn clip() -> Self {
        let inner = instant_clip_tokenizer::Tokenizer::new();
        let vocabulary = (0..=inner.end_of_text().to_u16()).filter_map(|id| Token::from_u16(id, &inner));
        let lengths = vocabulary.map(|token| u8::try_from(length(&inner, &[token])).unwrap_or(0)).collect();
        Self { inner, lengths }
    }

    /// Encodes canonical text as `context` ids.
    pub fn encode(&self, canonical: &str, context: usize) -> Tokens {
        let (ids, spans) = (Vec::with_capacity(context), Vec::with_capacity(context));
        let mut tokens = Tokens { ids, spans, end: u32::MAX };
        let mut encoded = Vec::new();
        tokens.push(self.inner.start_of_text(), 0..0);
        for run in runs(canonical) {
            if tokens.ids.len() + 1 >= context {
                tokens.end = run.start as u32;
                break;
            }
            encoded.clear();
            self.inner.encode(&canonical[run.clone()], &mut encoded);
            encoded.truncate(context);
            self.push_run(&mut tokens, &encoded, &run);
        }
        let room = context.saturating_sub(1);
        if let Some(left_out) = tokens.spans.get(room) {
            tokens.end = left_out.start;
        }
        tokens.ids.truncate(room);
        tokens.spans.truncate(room);
        tokens.push(self.inner.end_of_text(), 0..0);
        tokens.ids.resize(context, 0);
        tokens.spans.resize(context, 0..0);
        tokens
    }

    /// Appends the tokens of a run. Tokens that are parts of a character are appended together when the character is
    /// complete.
    fn push_run(&self, tokens: &mut Tokens, encoded: &[Token], run: &Range<usize>) {
        let (mut at, mut first) = (run.start, 0);
        for (index, token) in encoded.iter().enumerate() {
            let known =
                self.lengths.get(usize::from(token.to_u16())).map_or(0, |length| usize::from(*length));
            let length = if first == index && known > 0 {
                known
            } else {
                length(&self.inner, &encoded[first..=index])
            };
            if length == 0 && index + 1 < encoded.len() {
                continue;
            }
            // The last token ends where the run does, even if the library normalised the text differently.
            let end = if index + 1 == encoded.len() { run.end } else { (at + length).min(run.end) };
            for token in &encoded[first..=index] {
                tokens.push(*token, at as u32..end as u32);
            }
            (at, first) = (end, index + 1);
        }
    }
}

/// Number of bytes that these tokens of a word stand for; 0 if they are not whole characters.
fn length(tokenizer: &instant_clip_tokenizer::Tokenizer, tokens: &[Token]) -> usize {
    let text = tokenizer.decode(tokens.iter().copied());
    // The decoder appends a space to every word.
    let text = text.strip_suffix(' ').unwrap_or(&text);
    if text.contains(char::REPLACEMENT_CHARACTER) { 0 } else { text.len() }
}

/// The runs of `text` without whitespace; runs longer than [`MAX_RUN`] are split.
fn runs(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += text[at..].find(|c: char| !c.is_whitespace())?;
        let start = at;
        let end = text[start..].find(char::is_whitespace).map_or(text.len(), |length| start + length);
        at = end.min(start + MAX_RUN);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        Some(start..at)
    })
}

impl Tokens {
    fn push(&mut self, token: Token, span: Range<u32>) {
        self.ids.push(u32::from(token.to_u16()));
        self.spans.push(span);
    }

    /// The positions of the tokens whose bytes overlap the span; empty if the text was truncated before the end of the span:
    /// a part of a phrase may mean something else.
    pub fn positions(&self, span: &Range<u32>) -> Range<u32> {
        if span.end > self.end {
            return 0..0;
        }
        let overlaps = |token: &Range<u32>| token.start < span.end && token.end > span.start;
        let first = self.spans.iter().position(overlaps).unwrap_or(0);
        let last = self.spans.iter().rposition(overlaps).map_or(first, |last| last + 1);
        first as u32..last as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_positions_of_a_caption() {
        let tokenizer = Tokenizer::clip();
        let text = "a person riding a motorcycle";
        let tokens = tokenizer.encode(text, 77);
        // Ids of OpenAI's tokenizer.
        assert_eq!(tokens.ids[..7], [49406, 320, 2533, 6765, 320, 10297, 49407]);
        assert_eq!((tokens.ids.len(), tokens.ids[7..].iter().max()), (77, Some(&0)));
        let words: Vec<_> =
            tokens.spans[1..6].iter().map(|s| &text[s.start as usize..s.end as usize]).collect();
        assert_eq!(words, ["a", "person", "riding", "a", "motorcycle"]);
        assert_eq!(tokens.positions(&(2..8)), 2..3);
        assert_eq!(tokens.positions(&(16..28)), 4..6);
    }

    #[test]
    fn a_truncated_caption_keeps_the_end_of_text_and_loses_later_mentions() {
        let tokens = Tokenizer::clip().encode("dog cat dog cat", 4);
        assert_eq!(tokens.ids, [49406, 1929, 2368, 49407]);
        assert_eq!(tokens.positions(&(4..7)), 2..3);
        assert!(tokens.positions(&(8..11)).is_empty());
        // Of "cat dog" only the first word is left.
        assert!(tokens.positions(&(4..11)).is_empty());
        assert_eq!(tokens.end, 8);
        // A word that is cut: "motorcycle-motorcycle" is three tokens, of which one fits. The whole caption fits in five.
        let text = "a motorcycle-motorcycle";
        let span = 2..text.len() as u32;
        assert!(Tokenizer::clip().encode(text, 4).positions(&span).is_empty());
        assert_eq!(Tokenizer::clip().encode(text, 6).positions(&span), 2..5);
        for context in 0..3 {
            assert_eq!(Tokenizer::clip().encode("dog", context).ids.len(), context);
        }
    }

    #[test]
    fn byte_ranges_of_characters_that_take_several_tokens() {
        let text = "café 🦜x dog's, 中文";
        let tokens = Tokenizer::clip().encode(text, 77);
        for span in tokens.spans.iter().filter(|span| !span.is_empty()) {
            assert!(text.get(span.start as usize..span.end as usize).is_some(), "{span:?} cuts a character");
        }
        let at = |word: &str| {
            let start = text.find(word).unwrap() as u32;
            tokens.positions(&(start..start + word.len() as u32))
        };
        assert_eq!(at("dog").end, at("'s").start);
        assert_eq!(at("🦜").end, at("x").start);
        assert!(at("🦜").len() > 1, "{tokens:?}");
        assert_eq!(at("中").end, at("文").start);
    }

    #[test]
    fn extremely_long_words_take_little_time() {
        let started = std::time::Instant::now();
        let tokens = Tokenizer::clip().encode(&"ab".repeat(500_000), 77);
        assert_eq!(tokens.ids.len(), 77);
        assert!(started.elapsed().as_secs() < 5);
    }
}
