//! The averaged perceptron (Collins 2002): the score of a tag is the sum of the weights of features of the word, its
//! neighbours and the two tags before it. The tag with the highest score is chosen, from left to right.
//!
//! Features are hashes of (template, value). For the most frequent words, the weights of all features that depend on
//! that word alone are summed when the model is loaded.

use super::features::{self, Form, Neighbours};
use super::{Lexicon, ModelReader, ModelWriter, Tag, Tagger};
use crate::words::Word;

/// Name of this kind of model in model files.
pub(crate) const KIND: &str = "perceptron";

/// The weights of one feature, or the sum over several: one per tag.
type Row = [i16; Tag::COUNT];

/// The weights of a model: for each feature, the tags with a weight other than 0.
pub(crate) type SparseRows = Vec<(u32, Vec<(u8, i16)>)>;

/// Maximum absolute weight, so that the sums over a word's features fit 16 bits.
pub(crate) const MAX_WEIGHT: i16 = 4000;

/// The weight of one tag in a feature.
#[derive(Debug, Clone, Copy)]
struct Weight {
    tag: u8,
    value: i16,
}

/// The position of a feature's weights: `weights[start..start + count]`.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    feature: u32,
    /// Start in the upper 24 bits, count in the lower 8; 0 marks an empty slot.
    place: u32,
}

/// The summed weights of a frequent word, by its position relative to the word to be tagged.
#[derive(Debug)]
struct WordRows {
    own: Row,
    previous: Row,
    next: Row,
}

/// The tagger.
#[derive(Debug)]
pub(crate) struct Perceptron {
    lexicon: Lexicon,
    weights: Weights,
    /// For the lexicon's frequent words, by rank.
    words: Vec<WordRows>,
    /// For the two tags before the word.
    tags: Vec<Row>,
}

impl Perceptron {
    /// Reads the bytes of a model file.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let mut model = ModelReader::new(bytes, KIND)?;
        let lexicon = Lexicon::read(&mut model)?;
        let weights = Weights::read(&mut model)?;
        let words = lexicon.frequent().iter().map(|word| {
            let form = Form::new(word, &lexicon);
            WordRows {
                own: weights.row(&features::own(&form)),
                previous: weights.row(&features::previous(&form)),
                next: weights.row(&features::next(&form)),
            }
        });
        let words = words.collect();
        let numbers = 0..(Tag::COUNT * Tag::COUNT) as u32;
        let tags = numbers.map(|number| {
            let tag = |number: u32| Tag(number as u8);
            weights.row(&features::tags([tag(number / Tag::COUNT as u32), tag(number % Tag::COUNT as u32)]))
        });
        let tags = tags.collect();
        Ok(Self { lexicon, weights, words, tags })
    }

    /// The bytes of a model file. The features in `weights`, and the tags of each, must be in ascending order.
    pub(crate) fn to_bytes(lexicon: &Lexicon, weights: &SparseRows) -> Vec<u8> {
        let mut model = ModelWriter::new(KIND);
        lexicon.write(&mut model);
        model.u32(weights.len() as u32);
        for (feature, weights) in weights {
            model.u32(*feature);
            model.u8(weights.len() as u8);
            for (tag, value) in weights {
                model.u8(*tag);
                model.u16(*value as u16);
            }
        }
        model.into_bytes()
    }

    /// The score of every tag for a word.
    fn scores(&self, neighbours: &Neighbours, before: [Tag; 2]) -> [i32; Tag::COUNT] {
        let mut scores = [0; Tag::COUNT];
        self.add_word(&mut scores, &neighbours.own, |rows| &rows.own, features::own);
        self.add_word(&mut scores, &neighbours.previous, |rows| &rows.previous, features::previous);
        self.add_word(&mut scores, &neighbours.next, |rows| &rows.next, features::next);
        add(&mut scores, &self.tags[usize::from(before[0].0) * Tag::COUNT + usize::from(before[1].0)]);
        self.weights.add(&mut scores, &features::joint(neighbours, before[0]));
        scores
    }

    fn add_word<const N: usize>(
        &self,
        scores: &mut [i32; Tag::COUNT],
        form: &Form,
        known: impl Fn(&WordRows) -> &Row,
        features: impl Fn(&Form) -> [u32; N],
    ) {
        match self.words.get(form.entry.rank as usize) {
            Some(rows) => add(scores, known(rows)),
            None => self.weights.add(scores, &features(form)),
        }
    }
}

impl Tagger for Perceptron {
    fn tag(&self, text: &str, words: &[Word], tags: &mut Vec<Tag>) {
        tags.clear();
        let mut forms = words.iter().map(|word| Form::new(word.of(text), &self.lexicon));
        let mut next = || forms.next().unwrap_or(Form::EDGE);
        let mut around = Neighbours { previous: Form::EDGE, own: next(), next: next() };
        let mut before = [Tag::STOP; 2];
        for _ in words {
            let entry = around.own.entry;
            let tag = if entry.certain { entry.tag } else { best(&self.scores(&around, before)) };
            tags.push(tag);
            before = [tag, before[0]];
            around = Neighbours { previous: around.own, own: around.next, next: next() };
        }
    }
}

fn add(scores: &mut [i32; Tag::COUNT], row: &Row) {
    for (score, weight) in scores.iter_mut().zip(row) {
        *score += i32::from(*weight);
    }
}

/// The tag with the highest score; if several have it, the one with the lowest number.
pub(crate) fn best(scores: &[i32; Tag::COUNT]) -> Tag {
    let highest = scores.iter().copied().max().unwrap_or_default();
    Tag(scores.iter().position(|score| *score == highest).unwrap_or_default() as u8)
}

/// Maps features to weights: a table with open addressing by the low bits of the hash.
#[derive(Debug)]
struct Weights {
    slots: Vec<Slot>,
    weights: Vec<Weight>,
}

impl Weights {
    fn read(model: &mut ModelReader<'_>) -> Result<Self, String> {
        let count = model.count(8)?;
        let mut slots = vec![Slot::default(); (count + count / 2).next_power_of_two().max(2)];
        let mut weights = Vec::with_capacity(count * 4);
        let mask = slots.len() - 1;
        for _ in 0..count {
            let feature = model.u32()?;
            let size = u32::from(model.u8()?);
            if weights.len() >= 1 << 24 {
                return Err("it has more weights than the format allows".to_owned());
            }
            let place = (weights.len() as u32) << 8 | size;
            for _ in 0..size {
                let weight = Weight { tag: model.u8()?, value: model.u16()? as i16 };
                if usize::from(weight.tag) >= Tag::COUNT || weight.value.unsigned_abs() > MAX_WEIGHT as u16 {
                    return Err("a weight has an invalid tag or value".to_owned());
                }
                weights.push(weight);
            }
            let mut at = feature as usize & mask;
            while slots[at].place != 0 {
                at = (at + 1) & mask;
            }
            slots[at] = Slot { feature, place };
        }
        Ok(Self { slots, weights })
    }

    fn of(&self, feature: u32) -> &[Weight] {
        let mask = self.slots.len() - 1;
        let mut at = feature as usize & mask;
        loop {
            let Slot { feature: known, place } = self.slots[at];
            if place == 0 {
                return &[];
            }
            if known == feature {
                let start = (place >> 8) as usize;
                return &self.weights[start..start + (place & 0xff) as usize];
            }
            at = (at + 1) & mask;
        }
    }

    fn add<const N: usize>(&self, scores: &mut [i32; Tag::COUNT], features: &[u32; N]) {
        // All are looked up before the first is added, so that the processor waits for memory once.
        for weights in features.map(|feature| self.of(feature)) {
            for weight in weights {
                scores[usize::from(weight.tag)] += i32::from(weight.value);
            }
        }
    }

    /// The sum of the weights of a few features.
    fn row<const N: usize>(&self, features: &[u32; N]) -> Row {
        let mut scores = [0; Tag::COUNT];
        self.add(&mut scores, features);
        // At most eight features, each with a weight of at most 4,000.
        scores.map(|score| score as i16)
    }
}
