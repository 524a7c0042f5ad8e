//! Canonical text: a caption as CLIP's tokenizer normalises it before it encodes it.

use std::borrow::Cow;

use crate::entities::unescape;

/// Normalises a caption as CLIP's tokenizer does, `lower(whitespace_clean(basic_clean(raw)))`: replaces HTML character
/// references (twice, because captions from the web are often escaped twice), collapses runs of whitespace to one
/// space, removes whitespace at both ends, and converts to lower case.
///
/// CLIP also repairs wrongly decoded text (with `ftfy`). That step is left out: it guesses, and rarely changes a
/// caption.
pub fn canonical(raw: &str) -> String {
    let mut text = String::new();
    canonical_into(raw, &mut text);
    text
}

/// As [`canonical`], into a buffer that is cleared first: avoids an allocation per caption.
pub fn canonical_into(raw: &str, clean: &mut String) {
    clean.clear();
    let text = unescape_twice(raw);
    if text.is_ascii() {
        ascii_into(text.as_bytes(), clean);
        return;
    }
    clean.reserve(text.len());
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        if !clean.is_empty() {
            clean.push(' ');
        }
        clean.push_str(word);
    }
    // The whole text at once, not word by word: the lower case of a final sigma depends on its neighbours.
    *clean = clean.to_lowercase();
}

/// The same for pure ASCII text, which most captions are: byte by byte.
fn ascii_into(text: &[u8], clean: &mut String) {
    let mut bytes = std::mem::take(clean).into_bytes();
    bytes.reserve(text.len());
    for word in text.split(|&byte| is_space(char::from(byte))).filter(|word| !word.is_empty()) {
        if !bytes.is_empty() {
            bytes.push(b' ');
        }
        bytes.extend_from_slice(word);
    }
    bytes.make_ascii_lowercase();
    *clean = String::from_utf8(bytes).unwrap_or_default();
}

fn unescape_twice(raw: &str) -> Cow<'_, str> {
    if !raw.contains('&') {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(unescape(&unescape(raw)))
}

/// What Python's `str.split` treats as whitespace: Unicode whitespace and four control characters.
fn is_space(c: char) -> bool {
    match c {
        '\t'..='\r' | '\x1c'..='\x1f' | ' ' => true,
        '\0'..='\x7f' => false,
        _ => c.is_whitespace(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_text_is_cleaned_like_any_other() {
        for code in 0..0x80 {
            let c = char::from(code);
            for text in [format!("{c}a{c}{c}B &lt;{c} "), format!("X{c}"), format!("{c}")] {
                let other = canonical(&format!("{text} é"));
                let other = other.strip_suffix('é').map(|text| text.trim_end_matches(' '));
                assert_eq!(Some(canonical(&text).as_str()), other, "{text:?}");
            }
        }
        assert_eq!(canonical("\u{85}A\u{a0}\u{3000}B\u{1c}"), "a b", "whitespace as in Python's str.split");
    }
}
