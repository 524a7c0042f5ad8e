//! Concept statistics of a dataset: how often each concept is mentioned, in how many samples and shards, and which
//! concepts occur in the same samples. Statistics are mergeable: the sum over parts is exactly the statistics of the
//! whole.
//!
//! On disk they are a folder with these files:
//!
//! - `concepts.parquet`, sorted by mentions, descending: `concept` utf8, `mentions`, `samples`, `shards` uint64,
//!   `share` double (samples with the concept / all samples), `example_shards`, `example_keys` lists of utf8 of the
//!   same length (shard file name and key of up to four samples);
//! - `pairs.parquet`, sorted by samples, descending: `a`, `b` utf8 (`a` < `b`), `samples` uint64 (samples with both
//!   concepts), `pmi` double (pointwise mutual information: log2 of p(a, b) / (p(a) p(b)), over samples);
//! - `stats.json`: [`Totals`]. Both tables also have it in their footers, under the key `statistics`;
//! - `statistics.sha256`: the [checksums](crate::checksums) of the three.

mod tables;

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use arrow_array::Array;
use arrow_array::cast::AsArray;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::sidecar::{ConceptReader, Metadata, Sidecar};

pub use tables::{CHECKSUMS, CONCEPTS, Mentioned, PAIRS, TOTALS};

/// Maximum number of example samples per concept: the first ones by shard and key.
const EXAMPLES: usize = 4;

/// Pairs are counted among the first mentions of a sample only, because a caption of many keywords would have
/// thousands.
const PAIRED_MENTIONS: usize = 64;

/// Version of the columns and files of the statistics.
const VERSION: u32 = 2;

/// Statistics of this version are read too. They do not say which captions they are of.
const OLDEST_VERSION: u32 = 1;

/// Sums over all samples.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Totals {
    /// Version of the columns and files.
    pub version: u32,
    /// Number of shards.
    pub shards: u64,
    /// Number of samples, including those without a mention.
    pub samples: u64,
    /// Number of samples without a mention.
    pub samples_without_mention: u64,
    /// Number of mentions.
    pub mentions: u64,
    /// Number of distinct concepts.
    pub concepts: u64,
    /// Number of distinct pairs of concepts that occur in the same sample.
    pub pairs: u64,
    /// Which shards, captions and tagger they are of: the sum, modulo 2^128, of the shards'
    /// [identities](crate::sidecar::Metadata::identity), hexadecimal. Absent if a sidecar was of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Counts of one concept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConceptCounts {
    /// Number of mentions; a sample may have several.
    pub mentions: u64,
    /// Number of samples with at least one mention.
    pub samples: u64,
    /// Number of shards with at least one mention.
    pub shards: u64,
    /// (shard file name, key) of the first samples in sort order, at most four.
    pub examples: BTreeSet<(String, String)>,
}

/// Two concepts that occur in the same samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair<'a> {
    /// The concept that comes first in alphabetical order.
    pub a: &'a str,
    /// The other concept.
    pub b: &'a str,
    /// Number of samples with both.
    pub samples: u64,
    /// Pointwise mutual information: log2 of p(a, b) / (p(a) p(b)), over samples.
    pub pmi: f64,
}

/// The statistics of some shards.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    totals: Totals,
    /// [`Totals::source`]; `None` if it is not known.
    source: Option<u128>,
    names: Vec<String>,
    numbers: HashMap<String, u32>,
    concepts: Vec<ConceptCounts>,
    /// Number of samples with both concepts of a pair.
    pairs: HashMap<PairKey, u64, BuildHasherDefault<PairHasher>>,
}

/// A pair of concept numbers; the lower one is in the upper 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PairKey(u64);

impl PairKey {
    fn new(a: u32, b: u32) -> Self {
        Self(u64::from(a.min(b)) << 32 | u64::from(a.max(b)))
    }

    fn numbers(self) -> (u32, u32) {
        ((self.0 >> 32) as u32, self.0 as u32)
    }
}

/// A hash for pairs of small numbers that no user chooses: one multiplication (by 2^64 / golden ratio) spreads them.
#[derive(Debug, Clone, Default)]
struct PairHasher(u64);

impl Hasher for PairHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, value: u64) {
        let product = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 << 8 | u64::from(byte));
        }
    }
}

/// Working memory for counting one shard.
#[derive(Debug, Default)]
struct Scratch {
    /// The concepts of the shard, and for each concept whether it is one of them.
    in_shard: Vec<u32>,
    is_in_shard: Vec<bool>,
    /// The concepts of the current sample, one entry per mention.
    sample: Vec<u32>,
    /// The distinct concepts among its first [`PAIRED_MENTIONS`] mentions.
    paired: Vec<u32>,
}

impl Counts {
    /// Empty statistics.
    pub fn new() -> Self {
        Self { totals: Totals { version: VERSION, ..Totals::default() }, source: Some(0), ..Self::default() }
    }

    /// Sums over all samples.
    pub fn totals(&self) -> Totals {
        Totals {
            concepts: self.names.len() as u64,
            pairs: self.pairs.len() as u64,
            source: self.source.map(|source| format!("{source:032x}")),
            ..self.totals.clone()
        }
    }

    /// The counts of a concept; `None` if it is not mentioned.
    pub fn concept(&self, name: &str) -> Option<&ConceptCounts> {
        self.numbers.get(name).map(|&number| &self.concepts[number as usize])
    }

    /// Number of samples that mention both concepts.
    pub fn pair(&self, a: &str, b: &str) -> u64 {
        let number = |name| self.numbers.get(name).copied();
        let (Some(a), Some(b)) = (number(a), number(b)) else { return 0 };
        self.pairs.get(&PairKey::new(a, b)).copied().unwrap_or(0)
    }

    /// All pairs of concepts that occur in the same sample, in no particular order.
    pub fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        self.pairs.iter().map(|(key, &samples)| {
            let (a, b) = key.numbers();
            let name = |number: u32| self.names[number as usize].as_str();
            let count = |number: u32| self.concepts[number as usize].samples as f64;
            let pmi = (samples as f64 * self.totals.samples as f64 / (count(a) * count(b))).log2();
            Pair { a: name(a).min(name(b)), b: name(a).max(name(b)), samples, pmi }
        })
    }

    /// All concepts with their counts, sorted by mentions, descending, and then by name.
    pub fn concepts(&self) -> Vec<(&str, &ConceptCounts)> {
        let mut all: Vec<_> = self.names.iter().map(String::as_str).zip(&self.concepts).collect();
        all.sort_unstable_by(|(a, x), (b, y)| y.mentions.cmp(&x.mentions).then(a.cmp(b)));
        all
    }

    /// The concepts with at least `times` mentions, sorted by mentions, descending: names for a vocabulary made of the
    /// dataset.
    pub fn names_seen(&self, times: u64) -> impl Iterator<Item = &str> {
        self.concepts()
            .into_iter()
            .take_while(move |(_, counts)| counts.mentions >= times)
            .map(|(name, _)| name)
    }

    /// Adds the counts of a shard. Nothing detects a shard that is added twice.
    pub fn add_shard(&mut self, sidecar: &Sidecar) {
        let metadata = &sidecar.metadata;
        // By the shard's own concept ids, so that each string is hashed at most once per shard.
        let numbers: Vec<u32> = sidecar.concept_names().map(|name| self.number(name)).collect();
        let mut scratch = Scratch::default();
        let mut mentioned = 0;
        for sample in sidecar.samples_with_mentions() {
            scratch.sample.extend(sidecar.concept_ids(sample).map(|id| numbers[id as usize]));
            mentioned += 1;
            self.add_sample(&metadata.shard, sidecar.key(sample).unwrap_or_default(), &mut scratch);
        }
        self.end_shard(metadata, mentioned, scratch);
    }

    /// As [`Counts::add_shard`], but reads the sidecar in pieces, so that memory does not grow with its size. After an
    /// error the counts must not be used, because they may contain a part of the shard.
    pub fn add_file(&mut self, mut sidecar: ConceptReader) -> Result<(), Error> {
        let metadata = sidecar.metadata.clone();
        let mut scratch = Scratch::default();
        let mut mentioned = 0;
        let (mut current, mut key) = (0, String::new());
        while let Some(batch) = sidecar.next_batch()? {
            let values = batch.concept.values().as_string::<i32>();
            let keys = batch.key.values().as_string::<i32>();
            // A dictionary may have values that no row uses, so a concept gets its number when the first row uses it.
            let mut numbers = vec![None; values.len()];
            let rows = batch.sample.values().iter().zip(batch.concept.keys().values());
            for (row, (&sample, &value)) in rows.enumerate() {
                if sample != current || scratch.sample.is_empty() {
                    if !scratch.sample.is_empty() {
                        self.add_sample(&metadata.shard, &key, &mut scratch);
                    }
                    mentioned += 1;
                    current = sample;
                    key.clear();
                    key.push_str(keys.value(batch.key.keys().value(row) as usize));
                }
                let value = value as usize;
                let number = *numbers[value].get_or_insert_with(|| self.number(values.value(value)));
                scratch.sample.push(number);
            }
        }
        if !scratch.sample.is_empty() {
            self.add_sample(&metadata.shard, &key, &mut scratch);
        }
        self.end_shard(&metadata, mentioned, scratch);
        Ok(())
    }

    /// Counts the mentions in `scratch.sample` and clears it.
    fn add_sample(&mut self, shard: &str, key: &str, scratch: &mut Scratch) {
        let Scratch { in_shard, is_in_shard, sample, paired } = scratch;
        self.totals.mentions += sample.len() as u64;
        is_in_shard.resize(self.names.len(), false);
        for &number in &*sample {
            self.concepts[number as usize].mentions += 1;
            if !std::mem::replace(&mut is_in_shard[number as usize], true) {
                in_shard.push(number);
            }
        }
        paired.clear();
        paired.extend_from_slice(&sample[..sample.len().min(PAIRED_MENTIONS)]);
        for numbers in [&mut *sample, &mut *paired] {
            numbers.sort_unstable();
            numbers.dedup();
        }
        for &number in &*sample {
            let concept = &mut self.concepts[number as usize];
            concept.samples += 1;
            keep_example(&mut concept.examples, shard, key);
        }
        for (i, &number) in paired.iter().enumerate() {
            for &other in &paired[i + 1..] {
                *self.pairs.entry(PairKey::new(number, other)).or_default() += 1;
            }
        }
        sample.clear();
    }

    /// Counts the shard itself; `mentioned` is the number of its samples with a mention.
    fn end_shard(&mut self, metadata: &Metadata, mentioned: u64, scratch: Scratch) {
        self.totals.shards += 1;
        self.totals.samples += u64::from(metadata.samples);
        self.totals.samples_without_mention += u64::from(metadata.samples) - mentioned;
        self.add_source(metadata.identity());
        for number in scratch.in_shard {
            self.concepts[number as usize].shards += 1;
        }
    }

    /// [`Totals::source`] of statistics of these sidecars.
    pub fn source_of<'a>(sidecars: impl IntoIterator<Item = &'a Metadata>) -> Option<String> {
        let mut counts = Self::new();
        for sidecar in sidecars {
            counts.add_source(sidecar.identity());
        }
        counts.totals().source
    }

    fn add_source(&mut self, source: Option<u128>) {
        self.source = self.source.zip(source).map(|(sum, more)| sum.wrapping_add(more));
    }

    /// Adds the counts of other shards.
    pub fn merge(&mut self, other: &Self) {
        let (sums, more) = (&mut self.totals, &other.totals);
        sums.shards += more.shards;
        sums.samples += more.samples;
        sums.samples_without_mention += more.samples_without_mention;
        sums.mentions += more.mentions;
        self.add_source(other.source);
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
        for (pair, samples) in &other.pairs {
            let (a, b) = pair.numbers();
            let pair = PairKey::new(numbers[a as usize], numbers[b as usize]);
            *self.pairs.entry(pair).or_default() += samples;
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

/// Adds an example; only the first [`EXAMPLES`] in sort order are kept, so the order in which they come does not
/// matter.
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
