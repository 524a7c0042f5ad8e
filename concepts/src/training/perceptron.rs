//! Training the averaged perceptron.

use std::collections::HashMap;

use crate::tagger::perceptron::{MAX_WEIGHT, Perceptron, SparseRows};
use crate::tagger::{FEATURES, Form, Lexicon, LexiconBuilder, LexiconOptions, Tag, all_features};

use super::Sentence;

/// Options for training the perceptron.
#[derive(Debug, Clone, Copy)]
pub struct PerceptronOptions {
    /// Number of models that are trained, each with another order of the sentences. Their weights are averaged, because
    /// a single order decides too much about rare words.
    pub runs: usize,
    /// Number of passes over the sentences in each run.
    pub epochs: usize,
    /// Seed of the orders of the sentences.
    pub seed: u64,
    /// Features with fewer updates than this are left out of the model.
    pub min_updates: u32,
}

impl Default for PerceptronOptions {
    fn default() -> Self {
        Self { runs: 4, epochs: 8, seed: 1, min_updates: 4 }
    }
}

/// The weights of a feature during training.
#[derive(Clone)]
struct Row {
    weights: [i32; Tag::COUNT],
    /// Sum over time of each weight, up to `since`.
    totals: [i64; Tag::COUNT],
    since: [u32; Tag::COUNT],
    updates: u32,
}

/// The words stored by name are 19 in 20 of the words in captions, and their rows take 5 MB.
const LEXICON: LexiconOptions = LexiconOptions { class_ratio: 20, rare: 0, frequent: 8192 };
/// Weights are stored in units of 1 / `SCALE` of an update; a finer resolution changes no decision.
const SCALE: f64 = 64.0;
/// Weights below this many units are left out.
const MIN_WEIGHT: i32 = 12;

/// The weights of features, summed over the runs, in units of 1 / [`SCALE`] of an update.
type Sums = HashMap<u32, [i32; Tag::COUNT]>;

/// Trains the averaged perceptron and returns the bytes of its model file. `report` is called after every epoch with
/// its number and the fraction of words that were tagged wrongly.
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
    let mut random = SplitMix(options.seed);
    let mut sums = Sums::new();
    for number in 0..options.runs {
        run(sentences, &lexicon, options, &mut random, &mut sums, |epoch, wrong| {
            report(number * options.epochs + epoch, wrong);
        });
    }
    Perceptron::to_bytes(&lexicon, &average(&sums, options.runs))
}

/// Trains one model and adds its weights to `sums`.
fn run(
    sentences: &[Sentence],
    lexicon: &Lexicon,
    options: PerceptronOptions,
    random: &mut SplitMix,
    sums: &mut Sums,
    mut report: impl FnMut(usize, f64),
) {
    let mut rows: Vec<Row> = Vec::new();
    let mut index: HashMap<u32, u32> = HashMap::new();
    let mut order: Vec<usize> = (0..sentences.len()).collect();
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
            forms.extend(sentence.iter().map(|(word, _)| Form::new(word, lexicon)));
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
    add(&rows, &index, now, options.min_updates, sums);
}

/// The tag with the highest score; if several have it, the one with the lowest number.
fn best(scores: &[i32; Tag::COUNT]) -> Tag {
    let highest = scores.iter().copied().max().unwrap_or_default();
    Tag(scores.iter().position(|score| *score == highest).unwrap_or_default() as u8)
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

/// Adds the averages of the weights over all steps of a run to `sums`.
fn add(rows: &[Row], index: &HashMap<u32, u32>, now: u32, min_updates: u32, sums: &mut Sums) {
    for (&feature, &row) in index {
        let row = &rows[row as usize];
        if row.updates < min_updates {
            continue;
        }
        let sum = sums.entry(feature).or_insert([0; Tag::COUNT]);
        for (tag, sum) in sum.iter_mut().enumerate() {
            let total = row.totals[tag] + i64::from(row.weights[tag]) * i64::from(now - row.since[tag]);
            *sum += (total as f64 / f64::from(now.max(1)) * SCALE).round() as i32;
        }
    }
}

/// The averages of the weights over all runs; small ones are left out.
fn average(sums: &Sums, runs: usize) -> SparseRows {
    let mut averages = Vec::new();
    let max = i32::from(MAX_WEIGHT);
    for (&feature, sum) in sums {
        let weights = sum.iter().enumerate().map(|(tag, sum)| (tag as u8, sum / runs.max(1) as i32));
        let weights: Vec<_> = weights
            .filter(|(_, weight)| weight.abs() >= MIN_WEIGHT)
            .map(|(tag, weight)| (tag, weight.clamp(-max, max) as i16))
            .collect();
        if !weights.is_empty() {
            averages.push((feature, weights));
        }
    }
    averages.sort_unstable_by_key(|(feature, _)| *feature);
    averages
}

/// SplitMix64 (Steele, Lea, Flood 2014): a short random generator that gives the same numbers everywhere.
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
