//! Mojibake: UTF-8 that was decoded as another encoding, as in "cafÃ©". Recognised and repaired with the tables and
//! expressions of ftfy.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use regex::{Regex, bytes};

/// Written by `mojibake.py` next to it, which describes it.
const TABLE: &str = include_str!("../../models/mojibake.txt");

pub(super) static TABLES: LazyLock<Tables> = LazyLock::new(Tables::read);

pub(super) struct Tables {
    encodings: Vec<Encoding>,
    /// The letters of each ligature.
    pub(super) ligatures: HashMap<char, String>,
    /// Finds sequences of characters that hardly occur in intended text.
    bad: Regex,
    /// Finds UTF-8 that was decoded as something else; its group 1 is the sequence without the character before it.
    embedded: Regex,
    /// In bytes: UTF-8 in which a space has replaced the byte a0.
    altered: bytes::Regex,
    /// In bytes: UTF-8 in which bytes were lost; [`LOST`] or "?" stands for each.
    lossy: bytes::Regex,
}

/// The byte that stands for U+FFFD, and so for a byte that was lost.
const LOST: u8 = 0x1a;

/// An encoding of one byte per character; the first 128 are ASCII.
struct Encoding {
    name: &'static str,
    /// Bytes 0x80 to 0xff.
    bytes: HashMap<char, u8>,
}

impl Tables {
    fn read() -> Self {
        let mut encodings = Vec::new();
        let mut ligatures = HashMap::new();
        let mut expressions: HashMap<&str, Vec<&str>> = HashMap::new();
        for line in TABLE.lines() {
            match *line.split('\t').collect::<Vec<_>>() {
                ["encoding", name, codes] => {
                    encodings.push(Encoding { name, bytes: characters(codes).zip(0x80..=0xff).collect() });
                }
                ["ligature", code, letters] => {
                    ligatures.extend(characters(code).map(|c| (c, characters(letters).collect())));
                }
                [name, expression] => expressions.entry(name).or_default().push(expression),
                _ => {}
            }
        }
        let one_of = |name| expressions.get(name).map_or(String::new(), |all| all.join("|"));
        Self {
            encodings,
            ligatures,
            bad: expression(&one_of("bad")),
            embedded: expression(&format!("(?:^|[^{}])({})", one_of("continuation"), one_of("embedded"))),
            altered: expression_of_bytes(&one_of("altered")),
            lossy: expression_of_bytes(&one_of("lossy")),
        }
    }
}

fn characters(codes: &'static str) -> impl Iterator<Item = char> {
    codes.split(' ').filter_map(|code| u32::from_str_radix(code, 16).ok().and_then(char::from_u32))
}

#[expect(clippy::expect_used, reason = "expressions are constants")]
pub(super) fn expression(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a valid expression")
}

#[expect(clippy::expect_used, reason = "expressions are constants")]
fn expression_of_bytes(pattern: &str) -> bytes::Regex {
    bytes::RegexBuilder::new(pattern).unicode(false).build().expect("a valid expression")
}

/// Repairs mojibake until there is none that can be repaired.
pub(super) fn repair(text: &str) -> Cow<'_, str> {
    let mut repaired = Cow::Borrowed(text);
    while let Some(next) = repair_once(&repaired) {
        repaired = Cow::Owned(next);
    }
    repaired
}

/// `None` if nothing has changed.
fn repair_once(text: &str) -> Option<String> {
    if text.is_ascii() || !TABLES.bad.is_match(text) {
        return None;
    }
    let differs = |repaired: &String| repaired != text;
    // First, the whole text as UTF-8 that was decoded by mistake.
    if let Some(repaired) = TABLES.encodings.iter().find_map(|encoding| encoding.decode_again(text)) {
        return Some(repaired).filter(differs);
    }
    // Then the parts of it that are.
    Some(repair_embedded(text))
        .filter(differs)
        .or_else(|| Some(text.chars().map(c1_as_windows_1252).collect()).filter(differs))
}

/// The character that Windows-1252 has in place of a C1 control character.
pub(super) fn c1_as_windows_1252(c: char) -> char {
    match c {
        '\u{80}'..='\u{9f}' => crate::entities::WINDOWS_1252[c as usize - 0x80],
        _ => c,
    }
}

fn repair_embedded(text: &str) -> String {
    let mut repaired = String::with_capacity(text.len());
    let mut done = 0;
    loop {
        // The character before counts, even if it is the last one of the previous sequence.
        let from = text[..done].char_indices().next_back().map_or(0, |(start, _)| start);
        let found = TABLES.embedded.captures_at(text, from).and_then(|captures| captures.get(1));
        let Some(found) = found else {
            repaired.push_str(&text[done..]);
            return repaired;
        };
        repaired.push_str(&text[done..found.start()]);
        let sequence = found.as_str();
        if sequence.len() < text.len() && TABLES.bad.is_match(sequence) {
            repaired.push_str(&repair(sequence));
        } else {
            repaired.push_str(sequence);
        }
        done = found.end();
    }
}

impl Encoding {
    /// Encodes the text and decodes the bytes as UTF-8. `None` if one of the two is not possible.
    fn decode_again(&self, text: &str) -> Option<String> {
        let mut bytes = self.encode(text)?;
        // In Mac OS Roman this would take an en dash and a space for it.
        if self.name != "macroman" && TABLES.altered.is_match(&bytes) {
            bytes = restore_a0(&bytes);
        }
        if self.is_sloppy() {
            bytes = TABLES.lossy.replace_all(&bytes, "\u{fffd}".as_bytes()).into_owned();
        }
        from_utf8_or_variants(&bytes)
    }

    /// Whether bytes without a meaning stand for the C1 control characters, and [`LOST`] for U+FFFD.
    fn is_sloppy(&self) -> bool {
        self.name.starts_with("sloppy")
    }

    fn encode(&self, text: &str) -> Option<Vec<u8>> {
        let lost = char::from(LOST);
        let byte = |c: char| match c {
            '\u{fffd}' if self.is_sloppy() => Some(LOST),
            c if c.is_ascii() => Some(c as u8).filter(|_| c != lost || !self.is_sloppy()),
            c => self.bytes.get(&c).copied(),
        };
        text.chars().map(byte).collect()
    }
}

/// Puts back the bytes a0 that spaces have replaced.
fn restore_a0(bytes: &[u8]) -> Vec<u8> {
    // "Ã " at the end of a word is the word "à", and the space after it is needed; except in some Portuguese words.
    let mut words = Vec::with_capacity(bytes.len());
    for (at, &byte) in bytes.iter().enumerate() {
        words.push(byte);
        if let [0xc3, b' ', after @ ..] = &bytes[at..]
            && ![" ", "quele", "quela", "quilo", "s "].iter().any(|word| after.starts_with(word.as_bytes()))
        {
            words.push(0xa0);
        }
    }
    let a0 = |&byte: &u8| if byte == b' ' { 0xa0 } else { byte };
    let restored = |found: &bytes::Captures<'_>| found[0].iter().map(a0).collect::<Vec<u8>>();
    TABLES.altered.replace_all(&words, restored).into_owned()
}

/// Decodes UTF-8, and with it what some programs write instead: characters beyond U+FFFF as two surrogates of three
/// bytes each (CESU-8), and U+0000 as c0 80 (Java).
fn from_utf8_or_variants(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(bytes.len());
    let (mut start, mut at) = (0, 0);
    while at < bytes.len() {
        let (c, length) = match bytes[at..] {
            // ftfy's expressions also match before a newline at the end.
            [0xc0, 0x80, ..] | [0xc0, b'\n'] => ('\0', 2),
            [0xed, b @ 0xa0..=0xaf, c @ 0x80..=0xbf, 0xed, e @ 0xb0..=0xbf, f @ 0x80..=0xbf, ..]
            | [0xed, b @ 0xa0..=0xaf, c @ 0x80..=0xbf, 0xed, e @ 0xb0..=0xbf, f @ b'\n'] => {
                let bits = |byte: u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
                let code = bits(b, 0x0f, 16) + bits(c, 0x3f, 10) + bits(e, 0x0f, 6) + bits(f, 0x3f, 0);
                (char::from_u32(code + 0x1_0000)?, 6)
            }
            _ => {
                at += 1;
                continue;
            }
        };
        text.push_str(std::str::from_utf8(&bytes[start..at]).ok()?);
        text.push(c);
        at += length;
        start = at;
    }
    text.push_str(std::str::from_utf8(&bytes[start..]).ok()?);
    Some(text)
}
