//! The features of the perceptron: hashes of (template, value), grouped by what the value depends on.

use super::Tag;
use super::lexicon::{Entry, Lexicon};

/// What features need of a word, computed once per word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    /// Hash of the word, with digits replaced by 0.
    pub(crate) word: u32,
    /// The last four bytes, with digits replaced by 0; the upper bytes are 0 if the word is shorter.
    pub(crate) suffix: u32,
    /// The first two bytes, the kinds of characters, and the length up to eight.
    pub(crate) shape: u32,
    /// The word's entry in the lexicon.
    pub(crate) entry: Entry,
}

impl Form {
    /// The form of the positions before the first and after the last word.
    pub(crate) const EDGE: Self = Self {
        word: 0,
        suffix: 0,
        shape: 0,
        entry: Entry { class: EDGE_CLASS, certain: true, rank: 0, ..Entry::UNKNOWN },
    };

    /// The form of a word, with its entry in the lexicon.
    pub(crate) fn new(word: &str, lexicon: &Lexicon) -> Self {
        let mut form = Self::bare(word);
        form.entry = lexicon.get(form.word);
        if let Some(tag) = Tag::of_mark(word) {
            form.entry = Entry { tag, class: MARK_CLASS + u16::from(tag.0), certain: true, ..form.entry };
        }
        form
    }

    /// The form of a word, without an entry.
    pub(crate) fn bare(word: &str) -> Self {
        let bytes = word.as_bytes();
        let (mut hash, mut suffix, mut kinds) = (0u64, 0u32, 0u32);
        for chunk in bytes.chunks(8) {
            let (block, kind) = block(chunk);
            kinds |= kind;
            suffix = if chunk.len() < 4 { suffix << (8 * chunk.len()) | block as u32 } else { block as u32 };
            hash = mix(hash, block);
        }
        let first = match *bytes {
            [] => 0,
            [only] => u32::from(digit_as_0(only)),
            [first, second, ..] => u32::from(digit_as_0(first)) << 8 | u32::from(digit_as_0(second)),
        };
        Self {
            word: fold(mix(hash, bytes.len() as u64)),
            suffix,
            shape: first << 16 | kinds << 8 | bytes.len().min(8) as u32,
            entry: Entry::UNKNOWN,
        }
    }
}

/// One to eight bytes as a number, the first one in the highest place, with digits replaced by 0; and the kinds of the
/// characters.
fn block(bytes: &[u8]) -> (u64, u32) {
    let (length, middle) = (bytes.len(), bytes.len() / 2);
    let shifted = |at: usize| u64::from(bytes[at]) << (8 * (length - 1 - at));
    // Without a loop, whose end the processor could not predict: the parts may overlap.
    let block = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_be_bytes(*first)) << (8 * (length - 4)) | u64::from(u32::from_be_bytes(*last))
        }
        _ => shifted(0) | shifted(middle) | shifted(length - 1),
    };
    // All bytes from 0x40 to 0x7f are of the last kind below.
    let used = u64::MAX >> (64 - 8 * length);
    if (block ^ u64::from_ne_bytes([0x40; 8])) & u64::from_ne_bytes([0xc0; 8]) & used == 0 {
        return (block, 16);
    }
    bytes.iter().fold((0, 0), |(block, kinds), &byte| {
        let kind = match byte {
            b'0'..=b'9' => 1,
            b'-' => 2,
            b'.' | b'\'' | b'&' => 4,
            0x80.. => 8,
            _ => 16,
        };
        (block << 8 | u64::from(digit_as_0(byte)), kinds | kind)
    })
}

fn digit_as_0(byte: u8) -> u8 {
    if byte.is_ascii_digit() { b'0' } else { byte }
}

/// The first class number of marks; classes of words are below.
pub(crate) const MARK_CLASS: u16 = 0x8000;

/// The class of the positions before the first and after the last word.
pub(crate) const EDGE_CLASS: u16 = u16::MAX;

/// A word, and the words before and after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbours {
    pub(crate) previous: Form,
    pub(crate) own: Form,
    pub(crate) next: Form,
}

impl Neighbours {
    pub(crate) fn of(forms: &[Form], at: usize) -> Self {
        let form = |at: Option<usize>| at.and_then(|at| forms.get(at)).copied().unwrap_or(Form::EDGE);
        Self { previous: form(at.checked_sub(1)), own: form(Some(at)), next: form(at.checked_add(1)) }
    }
}

/// Features of the word itself.
pub(crate) fn own(form: &Form) -> [u32; 6] {
    let suffix = u64::from(form.suffix);
    [
        hash(1, u64::from(form.word)),
        hash(2, suffix & 0xff),
        hash(3, suffix & 0xffff),
        hash(4, suffix & 0xff_ffff),
        hash(5, suffix),
        hash(6, u64::from(form.shape)),
    ]
}

/// Features of the word before.
pub(crate) fn previous(form: &Form) -> [u32; 1] {
    [hash(7, u64::from(form.word))]
}

/// Features of the word after.
pub(crate) fn next(form: &Form) -> [u32; 2] {
    [hash(8, u64::from(form.word)), hash(9, u64::from(form.suffix & 0xff_ffff))]
}

/// Features of the two tags before, the nearer one first.
pub(crate) fn tags(before: [Tag; 2]) -> [u32; 2] {
    let tag = u64::from(before[0].0);
    [hash(10, tag), hash(11, tag << 8 | u64::from(before[1].0))]
}

/// Feature of the word after a tag.
pub(crate) fn after(own: &Form, before: Tag) -> u32 {
    hash(12, u64::from(own.word) << 8 | u64::from(before.0))
}

/// Feature of the next word's class and the tag before.
pub(crate) fn before_class(next: u16, before: Tag) -> u32 {
    hash(13, u64::from(next) << 8 | u64::from(before.0))
}

/// Feature of the word's class and the next one's.
pub(crate) fn classes(own: u16, next: u16) -> u32 {
    hash(14, u64::from(own) << 16 | u64::from(next))
}

/// Number of features of one word.
pub(crate) const FEATURES: usize = 6 + 1 + 2 + 2 + 3;

/// All features of the word at `at`; used in training.
pub(crate) fn all(forms: &[Form], at: usize, before: [Tag; 2]) -> [u32; FEATURES] {
    let words = Neighbours::of(forms, at);
    let (own_class, next_class) = (words.own.entry.class, words.next.entry.class);
    let mut features = [0; FEATURES];
    let groups = own(&words.own)
        .into_iter()
        .chain(previous(&words.previous))
        .chain(next(&words.next))
        .chain(tags(before))
        .chain([
            after(&words.own, before[0]),
            before_class(next_class, before[0]),
            classes(own_class, next_class),
        ]);
    features.iter_mut().zip(groups).for_each(|(feature, hash)| *feature = hash);
    features
}

fn hash(template: u64, value: u64) -> u32 {
    fold(mix(template, value))
}

/// Multiplies a value into a hash; the constant is 2^64 / golden ratio.
fn mix(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Reduces a hash to 32 bits that depend on all of its bits.
fn fold(hash: u64) -> u32 {
    (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_shr(32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_are_0_and_kinds_and_suffix_are_those_of_the_bytes() {
        proptest!(ProptestConfig::with_cases(2_000), |(word in "[a-z0-9@_.'&\u{e9}-]{1,20}")| {
            let form = Form::bare(&word);
            let zeros: Vec<u8> =
                word.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte }).collect();
            let suffix = zeros.iter().fold(0u64, |suffix, &byte| suffix << 8 | u64::from(byte)) as u32;
            prop_assert_eq!(form.suffix, suffix);
            let kind = |byte: u8| match byte {
                b'0'..=b'9' => 1,
                b'-' => 2,
                b'.' | b'\'' | b'&' => 4,
                0x80.. => 8,
                _ => 16,
            };
            let kinds = word.bytes().fold(0, |kinds, byte| kinds | kind(byte));
            prop_assert_eq!(form.shape >> 8 & 0xff, kinds);
            prop_assert_eq!(form.shape >> 16, zeros.iter().take(2).fold(0, |it, &byte| it << 8 | u32::from(byte)));
            prop_assert_eq!(form.word, Form::bare(&String::from_utf8_lossy(&zeros)).word);
        });
    }
}
