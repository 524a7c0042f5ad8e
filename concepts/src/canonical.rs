//! Canonical text: what CLIP's tokenizer makes of a raw caption before it cuts it into tokens.

use std::borrow::Cow;

use crate::entities::unescape;

/// `lower(whitespace_clean(basic_clean(raw)))` as CLIP's tokenizer cleans text: HTML character references are
/// replaced (twice, as the web escapes twice), runs of whitespace become one space, the ends are trimmed, letters
/// become lower case.
///
/// CLIP's repair of wrongly decoded text (`ftfy`) is left out: it is a guess, and rarely changes a caption.
pub fn canonical(raw: &str) -> String {
    let mut text = String::new();
    canonical_into(raw, &mut text);
    text
}

/// [`canonical`] into a buffer, which is cleared first: for those who clean one caption after another.
pub fn canonical_into(raw: &str, clean: &mut String) {
    clean.clear();
    let text = unescape_twice(raw);
    clean.reserve(text.len());
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        if !clean.is_empty() {
            clean.push(' ');
        }
        clean.push_str(word);
    }
    // Of the whole text, not word by word: the form of a final sigma depends on its neighbours.
    if clean.is_ascii() {
        clean.make_ascii_lowercase();
    } else {
        *clean = clean.to_lowercase();
    }
}

fn unescape_twice(raw: &str) -> Cow<'_, str> {
    if !raw.contains('&') {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(unescape(&unescape(raw)))
}

/// What Python's `str.split` takes for whitespace: Unicode's, and four control characters.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}
