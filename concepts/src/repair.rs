//! Repairs damaged text as the Python library ftfy does: `ftfy.fix_text` of version 6.3 with its default settings, which
//! is the first step of CLIP's `basic_clean`. `tests/fixtures/text` compares the two.
//!
//! ftfy's repair of UTF-16 surrogates has nothing to do here, because a `str` cannot contain them.

mod mojibake;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use icu_normalizer::ComposingNormalizerBorrowed;
use regex::Regex;

use self::mojibake::{TABLES, c1_as_windows_1252};
use crate::entities;

/// Number of characters that are repaired together at most, as in ftfy.
const MAX_SEGMENT: usize = 1_000_000;

/// Maximum number of rounds of repairs. ftfy has no limit; text that was escaped more than 32 times would take it one
/// round for each.
const MAX_ROUNDS: usize = 32;

/// Repairs text, line by line. Borrowed if there is obviously nothing to repair.
pub(crate) fn repair(text: &str) -> Cow<'_, str> {
    if text.bytes().all(is_plain) && !(text.contains('&') && text.contains(';')) {
        return Cow::Borrowed(text);
    }
    let mut repaired = String::with_capacity(text.len());
    let mut rest = text;
    // Where there is a "<", the text is HTML, and its references are meant; ftfy then keeps those of later lines, too.
    let mut references = true;
    while !rest.is_empty() {
        let (segment, after) = rest.split_at(end_of_segment(rest));
        references &= !segment.contains('<');
        repaired.push_str(&repair_segment(segment, references));
        rest = after;
    }
    Cow::Owned(repaired)
}

/// Whether a byte is an ASCII character that no repair changes, unless it is part of a reference.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\x0c')
}

fn end_of_segment(text: &str) -> usize {
    let line = text.find('\n').map_or(text.len(), |newline| newline + 1);
    text[..line].char_indices().nth(MAX_SEGMENT).map_or(line, |(start, _)| start)
}

fn repair_segment(segment: &str, references: bool) -> String {
    let mut text = segment.to_owned();
    for _ in 0..MAX_ROUNDS {
        let next = repair_once(&text, references);
        if next == text {
            break;
        }
        text = next;
    }
    text
}

/// One round of repairs, in ftfy's order.
fn repair_once(text: &str, references: bool) -> String {
    static TERMINAL_ESCAPE: LazyLock<Regex> = LazyLock::new(|| mojibake::expression(r"\x1b\[[\d;]*[a-zA-Z]"));
    static NFC: ComposingNormalizerBorrowed<'_> = ComposingNormalizerBorrowed::new_nfc();
    let text = if references { entities::unescape_complete(text) } else { Cow::Borrowed(text) };
    let text = mojibake::repair(&text);
    let text = replace_characters(&text);
    let mut text = if text.contains('\x1b') { TERMINAL_ESCAPE.replace_all(&text, "") } else { text };
    if text.contains(is_unwanted) {
        text.to_mut().retain(|c| !is_unwanted(c));
    }
    NFC.normalize(&text).into_owned()
}

/// Replaces C1 control characters, ligatures, forms of unusual width, curly quotes and line breaks.
fn replace_characters(text: &str) -> Cow<'_, str> {
    let changes = |c: char| {
        c1_as_windows_1252(c) != c || quote_or_break(c) != c || (!c.is_ascii() && FORMS.contains_key(&c))
    };
    if !text.contains(changes) {
        return Cow::Borrowed(text);
    }
    let mut replaced = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '\r' && characters.peek() == Some(&'\n') {
            continue;
        }
        let c = c1_as_windows_1252(c);
        match FORMS.get(&c) {
            Some(letters) => replaced.extend(letters.chars().map(quote_or_break)),
            None => replaced.push(quote_or_break(c)),
        }
    }
    Cow::Owned(replaced)
}

/// The usual forms of ligatures, and of characters of full or half width.
static FORMS: LazyLock<HashMap<char, String>> = LazyLock::new(|| {
    let mut forms = TABLES.ligatures.clone();
    forms.insert('\u{3000}', " ".to_owned());
    let nfkc = ComposingNormalizerBorrowed::new_nfkc();
    for c in '\u{ff01}'..='\u{ffef}' {
        let form = nfkc.normalize(c.encode_utf8(&mut [0; 4])).into_owned();
        if !form.chars().eq([c]) {
            forms.insert(c, form);
        }
    }
    forms
});

fn quote_or_break(c: char) -> char {
    match c {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        '\r' | '\u{2028}' | '\u{2029}' => '\n',
        _ => c,
    }
}

/// Control characters that have no visible effect.
fn is_unwanted(c: char) -> bool {
    matches!(c, '\0'..='\x08' | '\x0b' | '\x0e'..='\x1f' | '\x7f'
        | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One line of damaged text: repairs that overlap, follow each other or enclose each other.
    fn damaged() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "(Ã©|Ã |â€™|â€œ|â€|Â |Â°|ã©|Ð¿Ñ€|Å¡|ï»¿|ðŸ˜€|Ã¢â‚¬â„¢|í\u{a0}½í¸\u{80}|É€|œ|à¸‡)",
            "(&amp;|&amp;amp;|&eacute;|&EACUTE;|&#8217;|&#x201c;|&lt;|&#59;|&nbsp|&|;|#)",
            "[’“”‘ʼﬁﬀŉＡ！　ﾞｶé\u{301}\u{1b}\\[0m\u{0}\u{b}\u{7f}\u{85}\u{92}\u{feff}\u{fffd}?]{1,4}",
            "[a-z ]{1,5}",
            "[\u{80}-\u{17f}]{1,4}",
            "\\PC{1,3}",
        ];
        proptest::collection::vec(piece, 0..8)
            .prop_map(|pieces| pieces.concat().replace(['\u{2028}', '\u{2029}'], ""))
    }

    #[test]
    fn every_case_is_repaired_as_by_ftfy() {
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/text/captions.json")).unwrap();
        let cases = cases["cases"].as_array().unwrap();
        for case in cases {
            let raw = case["raw"].as_str().unwrap();
            assert_eq!(repair(raw), case["repaired"].as_str().unwrap(), "{raw:?}");
        }
        assert!(cases.iter().filter(|case| case["raw"] != case["repaired"]).count() > 200);
    }

    #[test]
    fn repaired_text_needs_no_repair() {
        proptest!(ProptestConfig::with_cases(20_000), |(text in damaged())| {
            let repaired = repair(&text);
            prop_assert_eq!(&repair(&repaired), &repaired, "{:?}", text);
        });
    }

    #[test]
    fn plain_text_is_the_same_by_every_way() {
        proptest!(ProptestConfig::with_cases(5_000), |(text in "[ -~\t\n\x0c]{0,40}")| {
            let lines = text.split_inclusive('\n');
            let mut references = true;
            let slow: String = lines.map(|line| {
                references &= !line.contains('<');
                repair_segment(line, references)
            }).collect();
            prop_assert_eq!(repair(&text), slow);
        });
    }

    #[test]
    fn a_long_line_is_repaired_in_parts() {
        // The mojibake of a quote lies across the border, so that neither part has it whole.
        let long = "x".repeat(MAX_SEGMENT - 1) + "Ã©";
        assert_eq!(repair(&long), long);
        assert_eq!(repair(&long[1..]), "x".repeat(MAX_SEGMENT - 2) + "é");
    }

    #[test]
    fn text_that_was_escaped_very_often_takes_little_time() {
        let nested = "&".to_owned() + &"amp;".repeat(200_000);
        assert_eq!(repair(&nested).len(), nested.len() - 4 * MAX_ROUNDS);
    }
}
