//! Transformation-based learning (Brill 1995): of all rules that the templates can make, the one that corrects most
//! tags is applied to the whole corpus and appended to the list of rules, until no rule corrects enough.
//!
//! Candidate rules are made at the wrong tags. The gain of each is kept up to date: after a change, only the positions
//! around it are counted again (Ngai and Florian 2001). Changes also create new candidates; these are gathered whenever
//! the best gain has dropped by the factor `FALL`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::Sentence;
use crate::grammar;
use crate::tagger::brill::{Brill, EDGE, GuesserBuilder, Index, REACH, Rule, TagSet, View, Vocabulary};
use crate::tagger::{Form, LexiconBuilder, LexiconOptions, Tag};

/// Options of rule learning.
#[derive(Debug, Clone, Copy)]
pub struct BrillOptions {
    /// Rules with a lower gain are not learned. A corrected tag counts 3 if it changes the phrases, otherwise 1.
    pub min_gain: i32,
    /// Maximum number of rules.
    pub max_rules: usize,
}

impl Default for BrillOptions {
    fn default() -> Self {
        Self { min_gain: 9, max_rules: 5000 }
    }
}

/// A word may only get the tags of its class. Rare tags belong to the class; rare words may get any open-class tag.
const LEXICON: LexiconOptions = LexiconOptions { class_ratio: 100, rare: 6, frequent: 0 };
/// Words with at most this many occurrences train the guesser for unknown words.
const RARE: u32 = 3;
/// Candidates are gathered again when the best gain is below this fraction of the best gain after the last gathering.
const FALL: f64 = 0.5;

/// The cost of a wrong tag. The grammar reads roles, so a tag with another role costs more, because it changes the
/// phrases.
fn cost(tag: Tag, truth: Tag) -> i32 {
    if tag == truth {
        0
    } else if grammar::same_role(tag, truth) {
        1
    } else {
        3
    }
}

/// The training sentences, one after another, with edges between them.
struct Corpus {
    forms: Vec<Form>,
    truths: Vec<Tag>,
    tags: Vec<Tag>,
    allowed: Vec<TagSet>,
}

impl Corpus {
    fn new(sentences: &[Sentence], vocabulary: &Vocabulary) -> Self {
        let mut corpus =
            Self { forms: Vec::new(), truths: Vec::new(), tags: Vec::new(), allowed: Vec::new() };
        corpus.edge();
        for sentence in sentences {
            for (word, truth) in sentence {
                let (form, tag) = vocabulary.first(word);
                corpus.push(form, *truth, tag, vocabulary.tags(&form));
            }
            corpus.edge();
        }
        corpus
    }

    fn edge(&mut self) {
        for _ in 0..REACH {
            self.push(Form::EDGE, EDGE, EDGE, 0);
        }
    }

    fn push(&mut self, form: Form, truth: Tag, tag: Tag, allowed: TagSet) {
        self.forms.push(form);
        self.truths.push(truth);
        self.tags.push(tag);
        self.allowed.push(allowed);
    }

    fn view(&self, at: usize) -> Option<View> {
        View::of(&self.forms, &self.tags, at)
    }

    fn allows(&self, at: usize, tag: Tag) -> bool {
        self.allowed[at] >> tag.0 & 1 == 1
    }

    /// The gain of changing the tag at a position to `to`.
    fn gain(&self, at: usize, to: Tag) -> i32 {
        cost(self.tags[at], self.truths[at]) - cost(to, self.truths[at])
    }

    fn wrong(&self) -> f64 {
        let words = self.truths.iter().filter(|truth| **truth != EDGE).count();
        let wrong = self.truths.iter().zip(&self.tags).filter(|(truth, tag)| truth != tag).count();
        wrong as f64 / words.max(1) as f64
    }
}

/// Candidate rules, with the current gain of each.
struct Candidates {
    rules: Vec<Rule>,
    gains: Vec<i32>,
    index: Index,
}

impl Candidates {
    /// All rules whose gain is at least `min_gain`, before what they make wrong is subtracted.
    fn gather(corpus: &Corpus, min_gain: i32) -> Self {
        let mut gains: HashMap<Rule, i32, BuildHasherDefault<RuleHasher>> = HashMap::default();
        for at in 0..corpus.tags.len() {
            let truth = corpus.truths[at];
            if corpus.tags[at] != truth
                && corpus.allows(at, truth)
                && let Some(view) = corpus.view(at)
            {
                for rule in Rule::all(&view, corpus.tags[at], truth) {
                    *gains.entry(rule).or_default() += corpus.gain(at, truth);
                }
            }
        }
        gains.retain(|_, gain| *gain >= min_gain);
        let mut rules: Vec<_> = gains.into_keys().collect();
        rules.sort_unstable();
        let index = Index::new(&rules);
        let mut candidates = Self { gains: vec![0; rules.len()], rules, index };
        for at in 0..corpus.tags.len() {
            candidates.count(corpus, at, 1);
        }
        candidates
    }

    /// Adds the gains of the candidates at a position, multiplied by `times`.
    fn count(&mut self, corpus: &Corpus, at: usize, times: i32) {
        if corpus.allowed[at] == 0 {
            return;
        }
        let Some(view) = corpus.view(at) else { return };
        let Self { rules, gains, index } = self;
        index.each(&view, corpus.tags[at], |number| {
            let rule = &rules[number as usize];
            if corpus.allows(at, rule.to()) && rule.from() == corpus.tags[at] && rule.fits(&view) {
                gains[number as usize] += times * corpus.gain(at, rule.to());
            }
        });
    }

    /// The candidate with the highest gain; the first one if several have it.
    fn best(&self) -> Option<(Rule, i32)> {
        let highest = *self.gains.iter().max()?;
        let at = self.gains.iter().position(|gain| *gain == highest)?;
        Some((self.rules[at], highest))
    }

    /// Applies a rule to the corpus from left to right, and updates the gains around every change.
    fn apply(&mut self, corpus: &mut Corpus, rule: &Rule) {
        for at in REACH..corpus.tags.len() - REACH {
            let fires = corpus.tags[at] == rule.from()
                && corpus.allows(at, rule.to())
                && corpus.view(at).is_some_and(|view| rule.fits(&view));
            if fires {
                (at - REACH..=at + REACH).for_each(|near| self.count(corpus, near, -1));
                corpus.tags[at] = rule.to();
                (at - REACH..=at + REACH).for_each(|near| self.count(corpus, near, 1));
            }
        }
    }
}

/// A fast hash of a few numbers. Nobody chooses rules in order to make them collide.
#[derive(Default)]
struct RuleHasher(u64);

impl Hasher for RuleHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            self.write_u64(chunk.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(25) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Trains the transformation-based tagger and returns the bytes of its model file. `report` is called now and then with
/// the number of rules so far and the fraction of words that are tagged wrongly.
pub fn brill(sentences: &[Sentence], options: BrillOptions, mut report: impl FnMut(usize, f64)) -> Vec<u8> {
    let vocabulary = vocabulary(sentences);
    let mut corpus = Corpus::new(sentences, &vocabulary);
    let mut rules = Vec::new();
    report(0, corpus.wrong());
    'gather: loop {
        let mut candidates = Candidates::gather(&corpus, options.min_gain);
        let mut enough = options.min_gain;
        let mut fresh = true;
        while let Some((rule, gain)) = candidates.best() {
            if gain < options.min_gain && fresh || rules.len() >= options.max_rules {
                break 'gather;
            }
            if gain < enough {
                break;
            }
            if fresh {
                enough = enough.max((f64::from(gain) * FALL) as i32);
                fresh = false;
            }
            candidates.apply(&mut corpus, &rule);
            rules.push(rule);
        }
        if fresh {
            break;
        }
        report(rules.len(), corpus.wrong());
    }
    let words = words(sentences, &rules);
    Brill::to_bytes(&vocabulary, &rules, words.iter().map(String::as_str))
}

fn vocabulary(sentences: &[Sentence]) -> Vocabulary {
    let mut lexicon = LexiconBuilder::default();
    let mut counts: HashMap<&str, u32> = HashMap::new();
    for (word, tag) in sentences.iter().flatten() {
        lexicon.add(word, *tag);
        *counts.entry(word).or_default() += 1;
    }
    let mut guesser = GuesserBuilder::default();
    for (word, tag) in sentences.iter().flatten() {
        if counts.get(word.as_str()).is_some_and(|count| *count <= RARE) && Tag::of_mark(word).is_none() {
            guesser.add(&Form::bare(word), *tag);
        }
    }
    let (lexicon, classes) = lexicon.build(LEXICON);
    Vocabulary { lexicon, classes, guesser: guesser.build() }
}

/// The words that occur in the rules, with digits replaced by 0.
fn words(sentences: &[Sentence], rules: &[Rule]) -> BTreeSet<String> {
    let mut texts = BTreeMap::new();
    for (word, _) in sentences.iter().flatten() {
        texts.entry(Form::bare(word).word).or_insert(word);
    }
    let asked = rules.iter().flat_map(Rule::words).filter_map(|hash| texts.get(&hash));
    asked.map(|word| word.replace(|c: char| c.is_ascii_digit(), "0")).collect()
}
