//! Guesses the first tag of an unknown word: the most frequent tag of rare words with the same ending.

use std::collections::{BTreeMap, HashMap};

use crate::Error;
use crate::tagger::{Form, ModelReader, ModelWriter, Tag};

/// Maximum length of an ending, bytes.
const MAX_LENGTH: u32 = 4;

/// Maps endings to tags.
#[derive(Debug, Default)]
pub(crate) struct Guesser {
    tags: HashMap<(u8, u32), Tag>,
}

/// The key of a word's ending of this length: length and whether the word has digits or hyphens; the ending itself.
fn ending(form: &Form, length: u32) -> (u8, u32) {
    // Digits and hyphens distinguish "700mm" and "red-brick" from "gramm" and "brick".
    let kinds = (form.shape >> 8 & 3) as u8;
    (kinds << 4 | length as u8, form.suffix & u32::MAX.checked_shr(32 - 8 * length).unwrap_or_default())
}

impl Guesser {
    /// The tag of the longest known ending.
    pub(crate) fn guess(&self, form: &Form) -> Tag {
        let known = (0..=MAX_LENGTH).rev().find_map(|length| self.tags.get(&ending(form, length)));
        known.copied().unwrap_or(Tag::NN)
    }

    pub(crate) fn write(&self, out: &mut ModelWriter) {
        let sorted: BTreeMap<_, _> = self.tags.iter().collect();
        out.u32(sorted.len() as u32);
        for ((length, ending), tag) in sorted {
            out.u8(*length);
            out.u32(*ending);
            out.u8(tag.0);
        }
    }

    pub(crate) fn read(model: &mut ModelReader<'_>) -> Result<Self, Error> {
        let count = model.count(6)?;
        let mut tags = HashMap::with_capacity(count);
        for _ in 0..count {
            tags.insert((model.u8()?, model.u32()?), model.tag()?);
        }
        Ok(Self { tags })
    }
}

/// Minimum number of occurrences of an ending.
const MIN_COUNT: u32 = 8;

/// Counts the tags of rare words by their endings.
#[derive(Debug, Default)]
pub(crate) struct GuesserBuilder {
    counts: BTreeMap<(u8, u32), [u32; Tag::COUNT]>,
}

impl GuesserBuilder {
    pub(crate) fn add(&mut self, form: &Form, tag: Tag) {
        for length in 0..=MAX_LENGTH {
            self.counts.entry(ending(form, length)).or_insert([0; Tag::COUNT])[usize::from(tag.0)] += 1;
        }
    }

    pub(crate) fn build(&self) -> Guesser {
        let mut guesser = Guesser::default();
        // Shorter endings first; a longer one is kept only if its tag differs.
        for length in 0..=MAX_LENGTH {
            for (&(kind, ending), counts) in &self.counts {
                if u32::from(kind & 15) != length || counts.iter().sum::<u32>() < MIN_COUNT {
                    continue;
                }
                let best =
                    (0..Tag::COUNT).max_by_key(|&tag| (counts[tag], usize::MAX - tag)).unwrap_or_default();
                let best = Tag(best as u8);
                let shorter = (0..length).rev().find_map(|shorter| {
                    let mask = u32::MAX.checked_shr(32 - 8 * shorter).unwrap_or_default();
                    guesser.tags.get(&(kind & 0xf0 | shorter as u8, ending & mask))
                });
                if shorter != Some(&best) {
                    guesser.tags.insert((kind, ending), best);
                }
            }
        }
        guesser
    }
}
