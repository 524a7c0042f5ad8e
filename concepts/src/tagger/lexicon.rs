//! The lexicon: for single words, the most frequent tag and the set of tags in the training data.

use std::collections::{BTreeMap, HashMap};

use super::letters::Letters;
use super::{ModelReader, ModelWriter, Tag};
use crate::Error;

/// The lexicon's entry for a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its most frequent tag.
    pub(crate) tag: Tag,
    /// Whether the tag is final, independent of the context.
    pub(crate) certain: bool,
    /// Number of its set of tags; 0 for an unknown word.
    pub(crate) class: u16,
    /// Rank among the frequent words, from 1 on, 0 for the edge of the text; [`Entry::RARE`] for other words.
    pub(crate) rank: u16,
}

impl Entry {
    /// The rank of words that are not among the frequent ones.
    const RARE: u16 = u16::MAX;

    /// The entry of an unknown word.
    pub(crate) const UNKNOWN: Self = Self { tag: Tag::NN, certain: false, class: 0, rank: Self::RARE };
}

/// Maps words to entries. Words are stored as hashes to save memory; the frequent ones are also stored as text.
#[derive(Debug)]
pub(crate) struct Lexicon {
    /// Open addressing by the low bits of the hash; empty slots have class 0.
    slots: Vec<(u32, Entry)>,
    frequent: Vec<String>,
}

impl Lexicon {
    fn new(entries: &[(u32, Entry)], frequent: Vec<String>) -> Self {
        let size = (entries.len() * 2).next_power_of_two().max(2);
        let mut slots = vec![(0, Entry::UNKNOWN); size];
        for &(hash, entry) in entries {
            let mut at = hash as usize & (size - 1);
            while slots[at].1.class != 0 {
                at = (at + 1) & (size - 1);
            }
            slots[at] = (hash, entry);
        }
        let mut lexicon = Self { slots, frequent };
        for rank in 1..=lexicon.frequent.len() {
            let at = lexicon.slot(Letters::of(&lexicon.frequent[rank - 1]).hash);
            lexicon.slots[at].1.rank = rank as u16;
        }
        lexicon
    }

    /// The slot of a word, or the empty slot at which the search for it ends.
    fn slot(&self, hash: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let (known, entry) = self.slots[at];
            if entry.class == 0 || known == hash {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    pub(crate) fn get(&self, hash: u32) -> Entry {
        self.slots[self.slot(hash)].1
    }

    /// The most frequent words whose tag depends on the context, in descending order of frequency.
    pub(crate) fn frequent(&self) -> &[String] {
        &self.frequent
    }

    /// The highest number of a class.
    pub(crate) fn highest_class(&self) -> u16 {
        self.slots.iter().map(|(_, entry)| entry.class).max().unwrap_or_default()
    }

    pub(crate) fn write(&self, out: &mut ModelWriter) {
        let mut entries: Vec<_> = self.slots.iter().filter(|(_, entry)| entry.class != 0).collect();
        entries.sort_unstable_by_key(|(hash, _)| *hash);
        out.u32(entries.len() as u32);
        for (hash, entry) in entries {
            out.u32(*hash);
            out.u8(entry.tag.0 | u8::from(entry.certain) << 7);
            out.u16(entry.class);
        }
        out.u32(self.frequent.len() as u32);
        for word in &self.frequent {
            out.text(word);
        }
    }

    pub(crate) fn read(model: &mut ModelReader<'_>) -> Result<Self, Error> {
        let count = model.count(7)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let hash = model.u32()?;
            let tag = model.u8()?;
            let (class, certain) = (model.u16()?, tag & 0x80 != 0);
            let tag = Tag(tag & 0x7f);
            if !(1..=MAX_CLASSES).contains(&class) || usize::from(tag.0) >= Tag::COUNT {
                return Err(model.damaged("a lexicon entry has an invalid class or tag"));
            }
            entries.push((hash, Entry { tag, certain, class, rank: Entry::RARE }));
        }
        let count = model.count(1)?;
        if count >= usize::from(Entry::RARE) {
            return Err(model.damaged("it has more frequent words than the format allows"));
        }
        let frequent = (0..count).map(|_| model.text()).collect::<Result<_, _>>()?;
        Ok(Self::new(&entries, frequent))
    }
}

/// Maximum number of classes, as the perceptron keeps a table with a row for each pair of them. Words of further classes stay
/// unknown. The embedded models have fewer than 400.
const MAX_CLASSES: u16 = 1023;
/// Minimum number of occurrences for a word to enter the lexicon.
const MIN_COUNT: u32 = 2;
/// Minimum number of occurrences for a word to be certain.
const CERTAIN_COUNT: u32 = 20;
/// A certain word has at most one occurrence in this many with another tag.
const CERTAIN_RATIO: u32 = 200;
/// Bit in the set of tags of a class: its words are so rare that they may well have other tags.
pub(crate) const RARE: u64 = 1 << 63;

/// Options for building a lexicon.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LexiconOptions {
    /// A tag belongs to a word's class if the word has it in at least one occurrence in this many.
    pub(crate) class_ratio: u32,
    /// Words with fewer occurrences get separate classes, marked with [`RARE`].
    pub(crate) rare: u32,
    /// Number of words that are also stored as text.
    pub(crate) frequent: usize,
}

/// Counts the tags of words.
#[derive(Debug, Default)]
pub(crate) struct LexiconBuilder {
    counts: HashMap<String, [u32; Tag::COUNT]>,
}

impl LexiconBuilder {
    pub(crate) fn add(&mut self, word: &str, tag: Tag) {
        if let Some(counts) = self.counts.get_mut(word) {
            counts[usize::from(tag.0)] += 1;
        } else {
            let mut counts = [0; Tag::COUNT];
            counts[usize::from(tag.0)] = 1;
            self.counts.insert(word.to_owned(), counts);
        }
    }

    /// The lexicon and, from class 1 on, each class's set of tags: one bit per tag.
    pub(crate) fn build(&self, options: LexiconOptions) -> (Lexicon, Vec<u64>) {
        // Digits are replaced by 0, so "1999" and "2004" are counted as one word.
        let mut by_hash: BTreeMap<u32, [u32; Tag::COUNT]> = BTreeMap::new();
        for (word, counts) in &self.counts {
            let sums = by_hash.entry(Letters::of(word).hash).or_insert([0; Tag::COUNT]);
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        let mut classes = BTreeMap::new();
        let mut entries = Vec::new();
        for (hash, counts) in by_hash {
            let total: u32 = counts.iter().sum();
            if total < MIN_COUNT {
                continue;
            }
            let best = (0..Tag::COUNT).max_by_key(|&tag| (counts[tag], usize::MAX - tag)).unwrap_or_default();
            let in_class =
                counts.iter().enumerate().filter(|&(_, &count)| count * options.class_ratio >= total);
            let set = in_class.fold(0u64, |set, (tag, _)| set | 1 << tag);
            let set = if total < options.rare { set | RARE } else { set };
            let next = classes.len() as u16 + 1;
            if next > MAX_CLASSES && !classes.contains_key(&set) {
                continue;
            }
            let class = *classes.entry(set).or_insert(next);
            let others = total - counts[best];
            let certain = total >= CERTAIN_COUNT && others * CERTAIN_RATIO <= total;
            entries.push((hash, Entry { tag: Tag(best as u8), certain, class, rank: Entry::RARE }));
        }
        let mut sets = vec![0; classes.len()];
        for (set, class) in classes {
            sets[usize::from(class) - 1] = set;
        }
        (Lexicon::new(&entries, self.frequent(options.frequent)), sets)
    }

    fn frequent(&self, most: usize) -> Vec<String> {
        let mut words: Vec<(u32, &String)> =
            self.counts.iter().map(|(word, counts)| (counts.iter().sum(), word)).collect();
        words.retain(|&(total, word)| total >= CERTAIN_COUNT && word.len() < usize::from(u8::MAX));
        words.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        words.into_iter().take(most).map(|(_, word)| word.clone()).collect()
    }
}
