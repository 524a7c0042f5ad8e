//! Canonical text: a caption as CLIP's tokenizer normalises it before it encodes it.

use std::borrow::Cow;

use crate::entities::unescape;
use crate::repair::repair;

/// Version of the rules by which captions become canonical text. It changes when the text of any caption does, because
/// the offsets in sidecars then refer to another text. Version 1 did not repair text.
pub const CANONICAL_VERSION: u32 = 2;

/// Normalises a caption as CLIP's tokenizer does, `lower(whitespace_clean(basic_clean(raw)))`: repairs damaged text as
/// Python's ftfy does (wrongly decoded characters, curly quotes, ligatures, full-width forms, control characters and
/// more), replaces HTML character references (twice, because captions from the web are often escaped twice), collapses
/// runs of whitespace to one space, removes whitespace at both ends, and converts to lower case.
pub fn canonical(raw: &str) -> String {
    let mut text = String::new();
    canonical_into(raw, &mut text);
    text
}

/// As [`canonical`], into a buffer that is cleared first: avoids an allocation per caption.
pub fn canonical_into(raw: &str, clean: &mut String) {
    clean.clear();
    if is_clean(raw) {
        clean.push_str(raw);
        clean.make_ascii_lowercase();
        return;
    }
    if is_plain(raw) {
        ascii_into(raw.as_bytes(), clean);
        return;
    }
    let repaired = repair(raw);
    let text = unescape_twice(&repaired);
    if text.is_ascii() {
        ascii_into(text.as_bytes(), clean);
        return;
    }
    clean.reserve(text.len());
    for word in text.split_whitespace() {
        if !clean.is_empty() {
            clean.push(' ');
        }
        clean.push_str(word);
    }
    // The whole text at once, not word by word: the lower case of a final sigma depends on its neighbours.
    *clean = clean.to_lowercase();
}

/// Whether text is canonical but for capital letters, as most captions are: visible ASCII characters, no references, and
/// single spaces between words.
fn is_clean(text: &str) -> bool {
    const AT_ONCE: usize = 16;
    let other = |byte: u8| matches!(byte, ..b' ' | b'&' | 0x7f..);
    let Some((&last, bytes)) = text.as_bytes().split_last() else { return true };
    let next = &text.as_bytes()[1..];
    // Without an early end, so that the compiler compares many bytes at once; the last ones may be compared twice.
    let faults = |bytes: &[u8], next: &[u8]| {
        let fault =
            |byte: u8, next: u8| u8::from(other(byte)) | u8::from(byte == b' ') & u8::from(next == b' ');
        bytes.iter().zip(next).fold(0, |faults, (&byte, &next)| faults | fault(byte, next))
    };
    let faults = match (bytes.last_chunk::<AT_ONCE>(), next.last_chunk::<AT_ONCE>()) {
        (Some(end), Some(next_end)) => {
            let pairs = bytes.as_chunks::<AT_ONCE>().0.iter().zip(next.as_chunks::<AT_ONCE>().0);
            pairs.fold(faults(end, next_end), |all, (bytes, next)| all | faults(bytes, next))
        }
        _ => faults(bytes, next),
    };
    faults == 0 && !other(last) && last != b' ' && !text.starts_with(' ')
}

/// Whether text is ASCII without references and control characters: nothing to repair.
fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b' '..=b'%' | b'\''..=b'~' | b'\t' | b'\n' | b'\x0c' | b'\r');
    text.bytes().all(plain)
}

/// Collapses the whitespace of pure ASCII text and makes it lower case, byte by byte.
fn ascii_into(text: &[u8], clean: &mut String) {
    let mut bytes = std::mem::take(clean).into_bytes();
    bytes.reserve(text.len());
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_cleaned_like_any_other() {
        use proptest::prelude::*;
        proptest!(ProptestConfig::with_cases(5_000), |(text in "[ -%'-~\t\n\r\x0c]{0,40}")| {
            // A word that is repaired makes the whole text take the longer way.
            let other = canonical(&format!("{text} \u{201c}"));
            let other = other.strip_suffix('"').map(|text| text.trim_end_matches(' '));
            prop_assert_eq!(Some(canonical(&text)), other.map(str::to_owned));
        });
    }

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
        assert_eq!(
            canonical("\u{2003}A\u{a0}\u{3000}B\u{2028}"),
            "a b",
            "whitespace as in Python's str.split"
        );
    }
}
