//! What a data set speaks of: how often each concept is mentioned, in how many samples and shards, and which
//! concepts come together. Counts of parts add up to the counts of the whole, exactly.
//!
//! On disk, a folder of three files:
//!
//! - `concepts.parquet`, most mentioned first: `concept` utf8, `mentions`, `samples`, `shards` uint64, `share`
//!   double (samples with it / all samples), `example_shards`, `example_keys` list of utf8 (up to [`EXAMPLES`]
//!   samples, side by side);
//! - `pairs.parquet`, most frequent first: `a`, `b` utf8 (`a` < `b`), `samples` uint64 (those with both), `pmi`
//!   double (log2 of p(a, b) / (p(a) p(b)), over samples);
//! - `stats.json`: [`Totals`]; both tables have it in their footers too, under the key `statistics`.

mod tables;

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::sidecar::Sidecar;

pub use tables::{CONCEPTS, FOOTER_KEY, PAIRS, TOTALS};

/// Example samples kept of every concept: the first by shard and position.
pub const EXAMPLES: usize = 4;

/// Pairs are counted among the concepts of a sample's first mentions only: a page of keywords would have thousands.
pub const PAIRED_MENTIONS: usize = 64;

/// Version of the statistics' layout.
pub const VERSION: u32 = 1;

/// Sums over all samples.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// [`VERSION`] of the layout.
    pub version: u32,
    /// Shards counted.
    pub shards: u64,
    /// Samples, those without a mention included.
    pub samples: u64,
    /// Samples without a mention.
    pub samples_without_mention: u64,
    /// Mentions.
    pub mentions: u64,
    /// Distinct concepts.
    pub concepts: u64,
    /// Distinct pairs of concepts that share a sample.
    pub pairs: u64,
}

/// One concept's counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConceptCounts {
    /// Mentions; a sample may have several.
    pub mentions: u64,
    /// Samples with at least one.
    pub samples: u64,
    /// Shards with at least one.
    pub shards: u64,
    /// (shard's file name, key) of the first samples, at most [`EXAMPLES`], in order.
    pub examples: BTreeSet<(String, String)>,
}

/// The counts of some shards.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    totals: Totals,
    names: Vec<String>,
    numbers: HashMap<String, u32>,
    concepts: Vec<ConceptCounts>,
    /// Samples with both of two concepts, by number, the lower first.
    pairs: HashMap<(u32, u32), u64>,
}

impl Counts {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self { totals: Totals { version: VERSION, ..Totals::default() }, ..Self::default() }
    }

    /// Sums over all samples.
    pub fn totals(&self) -> Totals {
        Totals { concepts: self.names.len() as u64, pairs: self.pairs.len() as u64, ..self.totals.clone() }
    }

    /// A concept's counts.
    pub fn concept(&self, name: &str) -> Option<&ConceptCounts> {
        self.numbers.get(name).map(|&number| &self.concepts[number as usize])
    }

    /// Samples that mention both concepts.
    pub fn pair(&self, a: &str, b: &str) -> u64 {
        let number = |name| self.numbers.get(name).copied();
        let (Some(a), Some(b)) = (number(a), number(b)) else { return 0 };
        self.pairs.get(&(a.min(b), a.max(b))).copied().unwrap_or(0)
    }

    /// Every concept with its counts, most mentioned first, by name where equal.
    pub fn concepts(&self) -> Vec<(&str, &ConceptCounts)> {
        let mut all: Vec<_> = self.names.iter().map(String::as_str).zip(&self.concepts).collect();
        all.sort_unstable_by(|(a, x), (b, y)| y.mentions.cmp(&x.mentions).then(a.cmp(b)));
        all
    }

    /// The concepts mentioned at least `times` times, most mentioned first: names for an open bank.
    pub fn names_seen(&self, times: u64) -> impl Iterator<Item = &str> {
        self.concepts()
            .into_iter()
            .take_while(move |(_, counts)| counts.mentions >= times)
            .map(|(name, _)| name)
    }

    /// Counts a shard. Each shard once: shards are told apart by nothing but this.
    pub fn add_shard(&mut self, sidecar: &Sidecar) {
        let shard = &sidecar.metadata.shard;
        self.totals.shards += 1;
        self.totals.samples += u64::from(sidecar.metadata.samples);
        // The shard's own concept ids, so that no string is hashed more than once a shard.
        let numbers: Vec<u32> = sidecar.concept_names().map(|name| self.number(name)).collect();
        let mut in_shard = vec![false; numbers.len()];
        let (mut sample_numbers, mut paired) = (Vec::new(), Vec::new());
        for sample in 0..sidecar.metadata.samples {
            sample_numbers.clear();
            for local in sidecar.concept_ids(sample) {
                in_shard[local as usize] = true;
                let number = numbers[local as usize];
                self.concepts[number as usize].mentions += 1;
                self.totals.mentions += 1;
                sample_numbers.push(number);
            }
            paired.clear();
            paired.extend_from_slice(&sample_numbers[..sample_numbers.len().min(PAIRED_MENTIONS)]);
            for numbers in [&mut sample_numbers, &mut paired] {
                numbers.sort_unstable();
                numbers.dedup();
            }
            self.totals.samples_without_mention += u64::from(sample_numbers.is_empty());
            for &number in &sample_numbers {
                let concept = &mut self.concepts[number as usize];
                concept.samples += 1;
                keep_example(&mut concept.examples, shard, sidecar.key(sample).unwrap_or_default());
            }
            for (i, &number) in paired.iter().enumerate() {
                for &other in &paired[i + 1..] {
                    *self.pairs.entry((number, other)).or_default() += 1;
                }
            }
        }
        for (number, _) in numbers.iter().zip(in_shard).filter(|(_, seen)| *seen) {
            self.concepts[*number as usize].shards += 1;
        }
    }

    /// Adds the counts of other shards.
    pub fn merge(&mut self, other: &Self) {
        let (sums, more) = (&mut self.totals, &other.totals);
        sums.shards += more.shards;
        sums.samples += more.samples;
        sums.samples_without_mention += more.samples_without_mention;
        sums.mentions += more.mentions;
        let numbers: Vec<u32> = other.names.iter().map(|name| self.number(name)).collect();
        for (number, more) in numbers.iter().zip(&other.concepts) {
            let concept = &mut self.concepts[*number as usize];
            concept.mentions += more.mentions;
            concept.samples += more.samples;
            concept.shards += more.shards;
            for (shard, key) in &more.examples {
                keep_example(&mut concept.examples, shard, key);
            }
        }
        for (&(a, b), samples) in &other.pairs {
            let (a, b) = (numbers[a as usize], numbers[b as usize]);
            *self.pairs.entry((a.min(b), a.max(b))).or_default() += samples;
        }
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        self.concepts.push(ConceptCounts::default());
        number
    }
}

/// The set keeps its first [`EXAMPLES`] elements, whatever the order in which they come.
fn keep_example(examples: &mut BTreeSet<(String, String)>, shard: &str, key: &str) {
    if examples.len() == EXAMPLES {
        let Some((last_shard, last_key)) = examples.last() else { return };
        if (shard, key) >= (last_shard.as_str(), last_key.as_str()) {
            return;
        }
    }
    examples.insert((shard.to_owned(), key.to_owned()));
    if examples.len() > EXAMPLES {
        examples.pop_last();
    }
}
