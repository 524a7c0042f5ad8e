//! The features of the perceptron: hashes of (template, value), grouped by what the value depends on.

use super::Tag;
use super::letters::{Letters, fold, mix};
use super::lexicon::{Entry, Lexicon};
use crate::words::Word;

/// What features need of a word, computed once per word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    /// [`Letters::hash`].
    pub(crate) word: u32,
    /// [`Letters::suffix`].
    pub(crate) suffix: u32,
    /// [`Letters::shape`].
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
        Self::within(word, Word { start: 0, end: word.len() as u32 }, lexicon)
    }

    /// The form of a word, without an entry.
    pub(crate) fn bare(word: &str) -> Self {
        let Letters { hash, suffix, shape } = Letters::of(word);
        Self { word: hash, suffix, shape, entry: Entry::UNKNOWN }
    }

    /// The form of a word of a text, with its entry in the lexicon.
    pub(crate) fn within(text: &str, word: Word, lexicon: &Lexicon) -> Self {
        let Letters { hash, suffix, shape } = Letters::within(text, word.start as usize, word.end as usize);
        let entry = lexicon.get(hash);
        let mut form = Self { word: hash, suffix, shape, entry };
        if !text.as_bytes().get(word.start as usize).is_some_and(u8::is_ascii_alphanumeric)
            && let Some(tag) = Tag::of_mark(word.of(text))
        {
            form.entry = Entry { tag, class: MARK_CLASS + u16::from(tag.0), certain: true, ..entry };
        }
        form
    }
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
