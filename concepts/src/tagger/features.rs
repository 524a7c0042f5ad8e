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
        entry: Entry { class: u16::MAX, certain: true, ..Entry::UNKNOWN },
    };

    /// The form of a word, with its entry in the lexicon.
    pub(crate) fn new(word: &str, lexicon: &Lexicon) -> Self {
        let mut form = Self::bare(word);
        form.entry = match Tag::of_mark(word) {
            Some(tag) => Entry { tag, class: MARK_CLASS + u16::from(tag.0), certain: true, ..Entry::UNKNOWN },
            None => lexicon.get(form.word),
        };
        form
    }

    /// The form of a word, without an entry.
    pub(crate) fn bare(word: &str) -> Self {
        let bytes = word.as_bytes();
        let (mut hash, mut last, mut kinds) = (0u64, 0u64, 0u32);
        for chunk in bytes.chunks(8) {
            let mut block = 0u64;
            for &byte in chunk {
                let (byte, kind) = match byte {
                    b'0'..=b'9' => (b'0', 1),
                    b'-' => (byte, 2),
                    b'.' | b'\'' | b'&' => (byte, 4),
                    0x80.. => (byte, 8),
                    _ => (byte, 16),
                };
                kinds |= kind;
                block = block << 8 | u64::from(byte);
                last = last << 8 | u64::from(byte);
            }
            hash = mix(hash, block);
        }
        let first = bytes
            .iter()
            .take(2)
            .fold(0, |first, &byte| first << 8 | u32::from(if byte.is_ascii_digit() { b'0' } else { byte }));
        Self {
            word: fold(mix(hash, bytes.len() as u64)),
            suffix: last as u32,
            shape: first << 16 | kinds << 8 | bytes.len().min(8) as u32,
            entry: Entry::UNKNOWN,
        }
    }
}

/// The first class number of marks; classes of words are below.
pub(crate) const MARK_CLASS: u16 = 0x8000;

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

/// Features that combine several of these.
pub(crate) fn joint(words: &Neighbours, before: Tag) -> [u32; 3] {
    let Neighbours { own, next, .. } = words;
    let tag = u64::from(before.0);
    let class = |form: &Form| u64::from(form.entry.class);
    [
        hash(12, u64::from(own.word) << 8 | tag),
        hash(13, class(next) << 8 | tag),
        hash(14, class(own) << 16 | class(next)),
    ]
}

/// Number of features of one word.
pub(crate) const FEATURES: usize = 6 + 1 + 2 + 2 + 3;

/// All features of the word at `at`; used in training.
pub(crate) fn all(forms: &[Form], at: usize, before: [Tag; 2]) -> [u32; FEATURES] {
    let words = Neighbours::of(forms, at);
    let mut features = [0; FEATURES];
    let groups = own(&words.own)
        .into_iter()
        .chain(previous(&words.previous))
        .chain(next(&words.next))
        .chain(tags(before))
        .chain(joint(&words, before[0]));
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
