//! The averaged perceptron (Collins 2002): the score of a tag is the sum of the weights of features of the word, its
//! neighbours and the two tags before it. The tag with the highest score is chosen, from left to right.
//!
//! Features are hashes of (template, value). When the model is loaded, the weights that the most frequent words need are put
//! into rows with one number per tag: of all features that depend on one word alone, their sum. Scoring such a word adds
//! seven rows, several tags at a time; only the features of other words are looked up.

use super::features::{self, EDGE_CLASS, FEATURES, Form, MARK_CLASS, Neighbours};
use super::{Lexicon, ModelReader, ModelWriter, Tag, Tagger};
use crate::Error;
use crate::words::Word;

/// Name of this kind of model in model files.
const KIND: &str = "perceptron";

/// The weights of a model: for each feature, the tags with a weight other than 0.
pub(crate) type SparseRows = Vec<(u32, Vec<(u8, i16)>)>;

/// Maximum absolute weight, so that the sum over all features fits 16 bits.
pub(crate) const MAX_WEIGHT: i16 = i16::MAX / FEATURES as i16;

/// Number of columns of a row: one per tag, and some that fill the last vector register.
const COLUMNS: usize = Tag::COUNT.next_multiple_of(16);

/// A weight for each tag: of one feature, or the sum over several.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
struct Row([i16; COLUMNS]);

impl Row {
    const ZERO: Self = Self([0; COLUMNS]);

    /// The tag with the highest score; if several have it, the one with the lowest number.
    fn best(&self) -> Tag {
        Tag(first(&self.0, highest(&self.0)) as u8)
    }
}

// Without branches, so that the compiler compares eight columns at once; and not inlined, because it compares them one by one
// where it knows how many they are.

#[inline(never)]
fn highest(scores: &[i16]) -> i16 {
    scores.iter().fold(i16::MIN, |highest, &score| highest.max(score))
}

/// The lowest number of a column with this score.
#[inline(never)]
fn first(scores: &[i16], wanted: i16) -> i16 {
    /// More than any number.
    const OTHER: i16 = COLUMNS.next_power_of_two() as i16;
    let numbers =
        scores.iter().zip(0..).map(|(&score, number)| number | (i16::from(score != wanted) * OTHER));
    numbers.fold(i16::MAX, i16::min)
}

/// The rows of a frequent word, by its position relative to the word to be tagged.
#[derive(Debug)]
#[repr(C, align(64))]
struct WordRows {
    own: Row,
    /// Of the word itself together with the tag before it.
    after: TagRows,
    previous: Row,
    next: Row,
}

/// The rows of features that combine something with the tag before the word: one for each tag that has weights.
#[derive(Debug, Clone, Copy)]
struct TagRows {
    /// One bit per tag.
    tags: u64,
    /// The row of the first of these tags.
    first: u32,
}

impl TagRows {
    /// Looks for the features and appends their rows.
    fn read(weights: &Weights, rows: &mut Vec<Row>, feature: impl Fn(Tag) -> u32) -> Self {
        let first = rows.len() as u32;
        let mut tags = 0u64;
        for tag in 0..Tag::COUNT as u8 {
            let feature = [feature(Tag(tag))];
            if !weights.of(feature[0]).is_empty() {
                tags |= 1u64 << tag;
                rows.push(weights.row(&feature));
            }
        }
        Self { tags, first }
    }

    /// The row for a tag; row 0, which is [`Row::ZERO`], if it has no weights.
    fn row(self, tag: Tag) -> usize {
        let bit = 1u64 << tag.0;
        let before = (self.tags & (bit - 1)).count_ones();
        if self.tags & bit == 0 { 0 } else { (self.first + before) as usize }
    }
}

/// The tagger.
#[derive(Debug)]
pub(crate) struct Perceptron {
    lexicon: Lexicon,
    weights: Weights,
    /// For the edge of the text and the lexicon's frequent words, by rank.
    words: Vec<WordRows>,
    /// For the two tags before the word.
    tags: Vec<Row>,
    classes: Classes,
    /// The rows of features that combine several things. The first is [`Row::ZERO`].
    joint: Vec<Row>,
}

impl Perceptron {
    /// Reads the bytes of a model file.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut model = ModelReader::new(bytes, KIND)?;
        let lexicon = Lexicon::read(&mut model)?;
        let weights = Weights::read(&mut model)?;
        let mut joint = vec![Row::ZERO];
        let forms = lexicon.frequent().iter().map(|word| Form::new(word, &lexicon));
        let words = [Form::EDGE].into_iter().chain(forms).map(|form| WordRows {
            own: weights.row(&features::own(&form)),
            after: TagRows::read(&weights, &mut joint, |tag| features::after(&form, tag)),
            previous: weights.row(&features::previous(&form)),
            next: weights.row(&features::next(&form)),
        });
        let words = words.collect();
        let numbers = 0..(Tag::COUNT * Tag::COUNT) as u32;
        let tags = numbers.map(|number| {
            let tag = |number: u32| Tag(number as u8);
            let mut row = weights
                .row(&features::tags([tag(number / Tag::COUNT as u32), tag(number % Tag::COUNT as u32)]));
            // One of the rows of every sum says that the columns beyond the tags are never the best.
            row.0[Tag::COUNT..].fill(i16::MIN);
            row
        });
        let tags = tags.collect();
        let classes = Classes::new(&lexicon, &weights, &mut joint);
        Ok(Self { lexicon, weights, words, tags, classes, joint })
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
    fn scores(&self, around: &Neighbours, before: [Tag; 2]) -> Row {
        let Neighbours { previous, own, next } = around;
        let (rare_own, rare_after, rare_previous, rare_next);
        let (own_row, after) = if let Some(rows) = self.words.get(usize::from(own.entry.rank)) {
            (&rows.own, &self.joint[rows.after.row(before[0])])
        } else {
            rare_own = self.weights.row(&features::own(own));
            rare_after = self.weights.row(&[features::after(own, before[0])]);
            (&rare_own, &rare_after)
        };
        let previous_row = if let Some(rows) = self.words.get(usize::from(previous.entry.rank)) {
            &rows.previous
        } else {
            rare_previous = self.weights.row(&features::previous(previous));
            &rare_previous
        };
        let next_row = if let Some(rows) = self.words.get(usize::from(next.entry.rank)) {
            &rows.next
        } else {
            rare_next = self.weights.row(&features::next(next));
            &rare_next
        };
        let tags = &self.tags[usize::from(before[0].0) * Tag::COUNT + usize::from(before[1].0)];
        let [class, classes] = self.classes.rows(own, next, before[0]).map(|row| &self.joint[row]);
        let mut scores = Row::ZERO;
        for (at, score) in scores.0.iter_mut().enumerate() {
            let words = own_row.0[at] + previous_row.0[at] + next_row.0[at] + classes.0[at];
            *score = words + tags.0[at] + after.0[at] + class.0[at];
        }
        scores
    }
}

impl Tagger for Perceptron {
    fn tag(&self, text: &str, words: &[Word], tags: &mut Vec<Tag>) {
        tags.clear();
        let mut forms = words.iter().map(|&word| Form::within(text, word, &self.lexicon));
        let mut next = || forms.next().unwrap_or(Form::EDGE);
        let mut around = Neighbours { previous: Form::EDGE, own: next(), next: next() };
        let mut before = [Tag::STOP; 2];
        for _ in words {
            let entry = around.own.entry;
            let tag = if entry.certain { entry.tag } else { self.scores(&around, before).best() };
            tags.push(tag);
            before = [tag, before[0]];
            around = Neighbours { previous: around.own, own: around.next, next: next() };
        }
    }
}

/// The rows of features that are about classes of words.
#[derive(Debug)]
struct Classes {
    /// Number of classes of words; the classes of marks and of the edge follow.
    words: usize,
    /// Number of all classes.
    count: usize,
    /// For each class, the rows of words before which it stands.
    next: Vec<TagRows>,
    /// For each pair of the word's class and the next one's, the row.
    pairs: Vec<u32>,
}

impl Classes {
    fn new(lexicon: &Lexicon, weights: &Weights, joint: &mut Vec<Row>) -> Self {
        let words = usize::from(lexicon.highest_class()) + 1;
        let marks = MARK_CLASS..MARK_CLASS + Tag::COUNT as u16;
        let classes: Vec<u16> = (0..words as u16).chain(marks).chain([EDGE_CLASS]).collect();
        let next = classes
            .iter()
            .map(|&class| TagRows::read(weights, joint, |tag| features::before_class(class, tag)))
            .collect();
        let mut pairs = Vec::with_capacity(classes.len() * classes.len());
        for &own in &classes {
            for &next in &classes {
                let feature = [features::classes(own, next)];
                let empty = weights.of(feature[0]).is_empty();
                pairs.push(if empty { 0 } else { joint.len() as u32 });
                joint.extend((!empty).then(|| weights.row(&feature)));
            }
        }
        Self { words, count: classes.len(), next, pairs }
    }

    /// The position of a class among all of them.
    fn position(&self, class: u16) -> usize {
        match class {
            EDGE_CLASS => self.count - 1,
            MARK_CLASS.. => self.words + usize::from(class - MARK_CLASS),
            _ => usize::from(class),
        }
    }

    /// The rows for the next word's class, after this tag and after this word's class.
    fn rows(&self, own: &Form, next: &Form, before: Tag) -> [usize; 2] {
        let (own, next) = (self.position(own.entry.class), self.position(next.entry.class));
        [self.next[next].row(before), self.pairs[own * self.count + next] as usize]
    }
}

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

/// Maps features to weights: a table with open addressing by the low bits of the hash.
#[derive(Debug)]
struct Weights {
    slots: Vec<Slot>,
    weights: Vec<Weight>,
}

impl Weights {
    fn read(model: &mut ModelReader<'_>) -> Result<Self, Error> {
        let count = model.count(8)?;
        let mut slots = vec![Slot::default(); (count + count / 2).next_power_of_two().max(2)];
        let mut weights = Vec::with_capacity(count * 4);
        let mask = slots.len() - 1;
        for _ in 0..count {
            let feature = model.u32()?;
            let size = u32::from(model.u8()?);
            if weights.len() >= 1 << 24 {
                return Err(model.damaged("it has more weights than the format allows"));
            }
            let place = (weights.len() as u32) << 8 | size;
            let mut before = None;
            for _ in 0..size {
                let weight = Weight { tag: model.u8()?, value: model.u16()? as i16 };
                // One weight per tag, or the sums would not fit.
                let ascending = before < Some(weight.tag) && usize::from(weight.tag) < Tag::COUNT;
                if !ascending || weight.value.unsigned_abs() > MAX_WEIGHT as u16 {
                    return Err(model.damaged("a weight has an invalid tag or value"));
                }
                before = Some(weight.tag);
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

    /// The sum of the weights of a few features.
    fn row<const N: usize>(&self, features: &[u32; N]) -> Row {
        let mut row = Row::ZERO;
        // All are looked up before the first is added, so that the processor waits for memory once.
        for weights in features.map(|feature| self.of(feature)) {
            for weight in weights {
                row.0[usize::from(weight.tag)] += weight.value;
            }
        }
        row
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::words;

    #[test]
    fn scores_are_the_sums_of_the_weights_of_all_features() {
        let tagger = Perceptron::from_bytes(include_bytes!("../../models/perceptron.bin")).unwrap();
        let (mut words, mut tags) = (Vec::new(), Vec::new());
        for text in [
            "a man in black, riding an 1850s velocipede to the beach.",
            "xyzzy's 3/4 l\u{f6}wenz\u{e4}hne & t-shirts: \"qwfp\" -- 20% off!",
            "dogs",
            "the zzyzx the",
        ] {
            words::split(text, &mut words);
            tagger.tag(text, &words, &mut tags);
            let forms: Vec<Form> =
                words.iter().map(|word| Form::new(word.of(text), &tagger.lexicon)).collect();
            let before = |at: usize, back: usize| at.checked_sub(back).map_or(Tag::STOP, |at| tags[at]);
            for at in 0..forms.len() {
                let before = [before(at, 1), before(at, 2)];
                let scores = tagger.scores(&Neighbours::of(&forms, at), before);
                let mut sums = [0; Tag::COUNT];
                for weight in features::all(&forms, at, before).iter().flat_map(|&it| tagger.weights.of(it)) {
                    sums[usize::from(weight.tag)] += i32::from(weight.value);
                }
                assert_eq!(scores.0[..Tag::COUNT].iter().map(|&it| i32::from(it)).collect::<Vec<_>>(), sums);
                if !forms[at].entry.certain {
                    let highest = sums.iter().max().unwrap();
                    let best = sums.iter().position(|sum| sum == highest).unwrap();
                    assert_eq!(usize::from(tags[at].0), best, "{text}, word {at}");
                }
            }
        }
    }

    #[test]
    fn the_columns_beyond_the_tags_are_never_the_best() {
        let mut row = Row([-5; COLUMNS]);
        row.0[Tag::COUNT..].fill(i16::MIN);
        assert_eq!(row.best(), Tag(0));
        row.0[usize::from(Tag::WRB.0)] = -4;
        assert_eq!(row.best(), Tag::WRB);
        row.0[usize::from(Tag::NN.0)] = -4;
        assert_eq!(row.best(), Tag::NN);
    }
}
