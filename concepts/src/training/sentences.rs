//! Reads tables of tagged words.

use crate::Error;
use crate::tagger::Tag;

/// A sentence: words in lower case, each with its tag.
pub type Sentence = Vec<(String, Tag)>;

/// Reads the sentences of a table with one word per line: word, TAB, tag (further columns are ignored), with an empty
/// line after each sentence. The parts of hyphenated words are joined.
///
/// # Errors
/// [`Error::Line`] for a word without a known tag.
pub fn sentences(table: &str) -> Result<Vec<Sentence>, Error> {
    let mut sentences = Vec::new();
    let mut sentence: Sentence = Vec::new();
    for (number, line) in (1..).zip(table.lines()) {
        let mut columns = line.split('\t');
        let word = columns.next().unwrap_or_default().to_lowercase();
        if word.is_empty() {
            if !sentence.is_empty() {
                sentences.push(std::mem::take(&mut sentence));
            }
            continue;
        }
        let name = columns.next().unwrap_or_default();
        let unknown = || Error::Line { number, what: format!("has the unknown tag {name:?}") };
        let tag = Tag::from_name(name).ok_or_else(unknown)?;
        // The corpora split hyphenated words ("gore- bush"); here they are one word.
        let joins = word.starts_with(char::is_alphanumeric);
        match sentence.last_mut() {
            Some((last, last_tag))
                if joins && last.len() > 1 && last.ends_with('-') && !last.ends_with("--") =>
            {
                last.push_str(&word);
                *last_tag = tag;
            }
            _ => {
                let tag = correct(&word, tag);
                sentence.push((word, tag));
            }
        }
    }
    if !sentence.is_empty() {
        sentences.push(sentence);
    }
    Ok(sentences)
}

/// Corrects tags for which the corpora break their own rules.
fn correct(word: &str, tag: Tag) -> Tag {
    match word {
        "'s" | "’s" if tag != Tag::VBZ => Tag::POS,
        "'" | "’" if tag != Tag::POS => Tag::CLOSE_QUOTE,
        _ => tag,
    }
}
