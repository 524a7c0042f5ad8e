//! Tables of tagged words.

use crate::tagger::Tag;

/// A sentence: words in lower case, each with its tag.
pub type Sentence = Vec<(String, Tag)>;

/// The sentences of a table that has one word a line, word TAB tag (more columns are ignored), an empty line after a
/// sentence. Hyphenated words are made whole; an error names the line.
pub fn sentences(table: &str) -> Result<Vec<Sentence>, String> {
    let mut sentences = Vec::new();
    let mut sentence: Sentence = Vec::new();
    for (number, line) in table.lines().enumerate() {
        let mut columns = line.split('\t');
        let word = columns.next().unwrap_or_default().to_lowercase();
        if word.is_empty() {
            if !sentence.is_empty() {
                sentences.push(std::mem::take(&mut sentence));
            }
            continue;
        }
        let name = columns.next().unwrap_or_default();
        let tag = Tag::from_name(name).ok_or_else(|| format!("line {}: no tag {name:?}", number + 1))?;
        // "Gore- Bush" is one word of ours.
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

/// Mends what the corpora tag against their own rules.
fn correct(word: &str, tag: Tag) -> Tag {
    match word {
        "'s" | "’s" if tag != Tag::VBZ => Tag::POS,
        "'" | "’" if tag != Tag::POS => Tag::CLOSE_QUOTE,
        _ => tag,
    }
}
