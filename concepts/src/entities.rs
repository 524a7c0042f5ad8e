//! HTML character references, replaced as by Python's `html.unescape` (HTML 5, section 13.2.5), or more cautiously, as by
//! ftfy.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

/// One reference per line: name, TAB, code points. Most names end with a semicolon.
const NAMED: &str = include_str!("../models/entities.txt");

/// Maximum length of a name in characters, without its semicolon.
const MAX_NAME_LENGTH: usize = 32;

/// The same for [`unescape_complete`], and for a number.
const MAX_COMPLETE_LENGTH: usize = 24;

/// The characters for the numbers 0x80..=0x9f: those of Windows-1252, where it has one.
pub(crate) const WINDOWS_1252: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2c6}',
    '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}', '\u{90}', '\u{2018}',
    '\u{2019}', '\u{201c}', '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2dc}', '\u{2122}', '\u{161}',
    '\u{203a}', '\u{153}', '\u{9d}', '\u{17e}', '\u{178}',
];

/// Replaces the references in `text` once, from left to right. Anything that is not a reference is kept.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(ampersand) = rest.find('&') {
        out.push_str(&rest[..ampersand]);
        rest = &rest[ampersand + 1..];
        let length = if rest.starts_with('#') { number(rest, &mut out) } else { name(rest, &mut out) };
        if length == 0 {
            out.push('&');
        }
        rest = &rest[length..];
    }
    out.push_str(rest);
    out
}

/// Replaces only the references that end with a semicolon, as ftfy does, and knows more names: those in small letters also
/// in capitals, for capital characters (`&EACUTE;`).
pub(crate) fn unescape_complete(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut done = 0;
    for (ampersand, _) in text.match_indices('&') {
        let rest = &text[ampersand + 1..];
        let start = usize::from(rest.starts_with('#'));
        let most = MAX_COMPLETE_LENGTH + 1;
        let count = rest[start..].bytes().take(most).take_while(u8::is_ascii_alphanumeric).count();
        let length = start + count + 1;
        if count == 0 || count == most || rest.as_bytes().get(length - 1) != Some(&b';') {
            continue;
        }
        if let Some(characters) = complete(&rest[..length]) {
            out.push_str(&text[done..ampersand]);
            out.push_str(&characters);
            done = ampersand + 1 + length;
        }
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[done..]);
    Cow::Owned(out)
}

/// The characters for `amp;` or `#38;`.
fn complete(reference: &str) -> Option<Cow<'static, str>> {
    if let Some(characters) = named().get(reference).or_else(|| named_in_capitals().get(reference)) {
        return Some(Cow::Borrowed(characters));
    }
    let mut character = String::new();
    let whole = reference.starts_with('#') && number(reference, &mut character) == reference.len();
    // ftfy looks for a semicolon to see that the number was invalid, and so keeps the reference of the semicolon.
    (whole && character != ";").then_some(Cow::Owned(character))
}

/// Appends the character for `#38;` or `#x26;` at the start of `text`. Returns the length of the reference, 0 if there
/// is none.
fn number(text: &str, out: &mut String) -> usize {
    let (digits, radix) = match text.as_bytes() {
        [b'#', b'x' | b'X', ..] => (2, 16),
        _ => (1, 10),
    };
    let count = text[digits..].bytes().take_while(|byte| (*byte as char).is_digit(radix)).count();
    if count == 0 {
        return 0;
    }
    let end = digits + count;
    // A number that does not fit 32 bits is not a character either.
    let code = u32::from_str_radix(&text[digits..end], radix).unwrap_or(u32::MAX);
    out.extend(character(code));
    end + usize::from(text[end..].starts_with(';'))
}

fn character(code: u32) -> Option<char> {
    match code {
        0 => Some('\u{fffd}'),
        0x80..=0x9f => Some(WINDOWS_1252[code as usize - 0x80]),
        // Control characters and non-characters are removed.
        0x1..=0x8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        0x1_0000.. if code <= 0x10_ffff && code & 0xfffe == 0xfffe => None,
        _ if matches!(code, 0xfffe | 0xffff) => None,
        _ => Some(char::from_u32(code).unwrap_or('\u{fffd}')),
    }
}

/// Appends the characters for `amp;` at the start of `text`, or for the longest known name at the start, as browsers
/// read "&copy2024". Returns the length of the reference, 0 if there is none.
fn name(text: &str, out: &mut String) -> usize {
    let ends = |c: char| matches!(c, '\t' | '\n' | '\x0c' | ' ' | '<' | '&' | '#' | ';');
    let end = text.chars().take(MAX_NAME_LENGTH).take_while(|c| !ends(*c)).map(char::len_utf8).sum();
    let named = named();
    let with_semicolon = end + usize::from(end > 0 && text[end..].starts_with(';'));
    let lengths = std::iter::once(with_semicolon).chain((2..=end).rev());
    for length in lengths {
        if let Some(characters) = text.get(..length).and_then(|name| named.get(name)) {
            out.push_str(characters);
            return length;
        }
    }
    0
}

fn named_in_capitals() -> &'static HashMap<String, String> {
    static NAMES: OnceLock<HashMap<String, String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let in_capitals = |(name, characters): (&&str, &String)| {
            let capitals = name.to_uppercase();
            // Names that mean something else, or begin with a name that needs no semicolon, are left alone.
            let free = unescape(&format!("&{capitals}")) == format!("&{capitals}");
            let small = name.ends_with(';') && !name.contains(|c: char| c.is_ascii_uppercase());
            (small && free).then(|| (capitals, characters.to_uppercase()))
        };
        named().iter().filter_map(in_capitals).collect()
    })
}

fn named() -> &'static HashMap<&'static str, String> {
    static NAMES: OnceLock<HashMap<&'static str, String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let pairs = NAMED.lines().filter_map(|line| line.split_once('\t'));
        let character = |code| u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
        pairs.map(|(name, codes)| (name, codes.split(' ').filter_map(character).collect())).collect()
    })
}
