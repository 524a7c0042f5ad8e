//! Training the averaged perceptron.

use std::collections::HashMap;

use crate::tagger::perceptron::{LARGEST_WEIGHT, Perceptron, SparseRows, best};
use crate::tagger::{FEATURES, Form, LexiconBuilder, LexiconOptions, Tag, all_features};

use super::Sentence;
/// How the perceptron is trained.
#[derive(Debug, Clone, Copy)]
pub struct PerceptronOptions {
    /// Passes over the sentences.
    pub epochs: usize,
    /// Order of the sentences.
    pub seed: u64,
    /// Features that were not part of at least this many updates are left out of the model.
    pub min_updates: u32,
}

impl Default for PerceptronOptions {
    fn default() -> Self {
        Self { epochs: 8, seed: 1, min_updates: 4 }
    }
}

/// A feature's weights while training.
#[derive(Clone)]
struct Row {
    weights: [i32; Tag::COUNT],
    /// Sum over time of each weight, up to `since`.
    totals: [i64; Tag::COUNT],
    since: [u32; Tag::COUNT],
    updates: u32,
}

/// The words kept by name make up 19 in 20 of the words of captions, and their sums 3 MB.
const LEXICON: LexiconOptions = LexiconOptions { class_ratio: 20, rare: 0, frequent: 8192 };
/// Steps of a model's weights to one update: finer ones decide nothing.
const SCALE: f64 = 64.0;
/// Weights below this many steps are left out.
const SMALLEST: i16 = 4;

/// Trains the averaged perceptron; returns its model file's bytes. `report` is told the share of words that were
/// tagged wrongly in every epoch.
pub fn perceptron(
    sentences: &[Sentence],
    options: PerceptronOptions,
    mut report: impl FnMut(usize, f64),
) -> Vec<u8> {
    let mut lexicon = LexiconBuilder::default();
    for (word, tag) in sentences.iter().flatten() {
        lexicon.add(word, *tag);
    }
    let (lexicon, _) = lexicon.build(LEXICON);
    let mut rows: Vec<Row> = Vec::new();
    let mut index: HashMap<u32, u32> = HashMap::new();
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    let mut random = SplitMix(options.seed);
    let mut now = 0u32;
    let mut forms = Vec::new();
    for epoch in 0..options.epochs {
        for i in (1..order.len()).rev() {
            order.swap(i, (random.next() % (i as u64 + 1)) as usize);
        }
        let (mut words, mut wrong) = (0u64, 0u64);
        for &sentence in &order {
            let sentence = &sentences[sentence];
            forms.clear();
            forms.extend(sentence.iter().map(|(word, _)| Form::new(word, &lexicon)));
            let mut before = [Tag::STOP; 2];
            for (at, (_, truth)) in sentence.iter().enumerate() {
                words += 1;
                let entry = forms[at].entry;
                let guess = if entry.certain {
                    entry.tag
                } else {
                    now += 1;
                    let features = all_features(&forms, at, before);
                    let mut scores = [0i32; Tag::COUNT];
                    let known = features.map(|feature| index.get(&feature).copied());
                    for row in known.iter().flatten() {
                        for (score, weight) in scores.iter_mut().zip(&rows[*row as usize].weights) {
                            *score += weight;
                        }
                    }
                    let guess = best(&scores);
                    if guess != *truth {
                        wrong += 1;
                        update(&mut rows, &mut index, &features, *truth, guess, now);
                    }
                    guess
                };
                before = [guess, before[0]];
            }
        }
        report(epoch, wrong as f64 / words.max(1) as f64);
    }
    Perceptron::to_bytes(&lexicon, &average(&rows, &index, now, options.min_updates))
}

fn update(
    rows: &mut Vec<Row>,
    index: &mut HashMap<u32, u32>,
    features: &[u32; FEATURES],
    truth: Tag,
    guess: Tag,
    now: u32,
) {
    for &feature in features {
        let row = *index.entry(feature).or_insert_with(|| {
            rows.push(Row {
                weights: [0; Tag::COUNT],
                totals: [0; Tag::COUNT],
                since: [0; Tag::COUNT],
                updates: 0,
            });
            rows.len() as u32 - 1
        });
        let row = &mut rows[row as usize];
        row.updates += 1;
        for (tag, step) in [(truth.0 as usize, 1), (guess.0 as usize, -1)] {
            row.totals[tag] += i64::from(row.weights[tag]) * i64::from(now - row.since[tag]);
            row.since[tag] = now;
            row.weights[tag] += step;
        }
    }
}

/// The weights' averages over all steps, in steps of [`SCALE`]; what rounds to nothing is left out.
fn average(rows: &[Row], index: &HashMap<u32, u32>, now: u32, min_updates: u32) -> SparseRows {
    let mut averages = Vec::new();
    for (&feature, &row) in index {
        let row = &rows[row as usize];
        if row.updates < min_updates {
            continue;
        }
        let weight = |tag: usize| {
            let total = row.totals[tag] + i64::from(row.weights[tag]) * i64::from(now - row.since[tag]);
            let steps = (total as f64 / f64::from(now.max(1)) * SCALE).round();
            steps.clamp(f64::from(-LARGEST_WEIGHT), f64::from(LARGEST_WEIGHT)) as i16
        };
        let weights = (0..Tag::COUNT).map(|tag| (tag as u8, weight(tag)));
        let weights: Vec<_> = weights.filter(|(_, weight)| weight.abs() >= SMALLEST).collect();
        if !weights.is_empty() {
            averages.push((feature, weights));
        }
    }
    averages.sort_unstable_by_key(|(feature, _)| *feature);
    averages
}

/// SplitMix64 (Steele, Lea, Flood 2014): a generator of a few lines, the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
