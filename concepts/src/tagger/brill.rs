//! Transformation-based tagging (Brill 1995). First, every word gets its most frequent tag. Then an ordered list of
//! rules of the form "change tag A to B in this context" is applied, each rule to the whole text before the next.
//!
//! A word only gets tags that the lexicon has seen it with, so the lexicon alone decides most words. For the other
//! words, an index finds the rules that match, and a queue keeps these in order: the time depends on the few changes,
//! not on the length of the list of rules.

mod guess;
mod rule;
mod template;
#[cfg(test)]
mod tests;
mod text;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

pub(crate) use guess::{Guesser, GuesserBuilder};
pub(crate) use rule::{Index, Rule};
use template::{Feature, TEMPLATES, WIDTH};
pub(crate) use template::{REACH, View};

use super::{Form, Lexicon, ModelReader, ModelWriter, RARE, Tag, Tagger};
use crate::Error;
use crate::words::Word;

/// Name of this kind of model in model files.
const KIND: &str = "brill";
/// The tag of the positions beyond the text.
pub(crate) const EDGE: Tag = Tag(Tag::COUNT as u8);
/// Stands for "no rule".
const NEVER: u32 = u32::MAX;

/// A set of tags, one bit per tag.
pub(crate) type TagSet = u64;

const fn set(tags: &[Tag]) -> TagSet {
    let (mut set, mut at) = (0, 0);
    while at < tags.len() {
        set |= 1 << tags[at].0;
        at += 1;
    }
    set
}

/// The tags that an unknown word can have: those of the open word classes.
const OPEN: TagSet = set(&[
    Tag::CD,
    Tag::FW,
    Tag::JJ,
    Tag::JJR,
    Tag::JJS,
    Tag::NN,
    Tag::NNS,
    Tag::NNP,
    Tag::NNPS,
    Tag::RB,
    Tag::RBR,
    Tag::UH,
    Tag::VB,
    Tag::VBD,
    Tag::VBG,
    Tag::VBN,
    Tag::VBP,
    Tag::VBZ,
]);

/// What the tagger knows about single words: the first tag, and the tags that a word can get.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pub(crate) lexicon: Lexicon,
    /// The sets of tags of the lexicon's classes, from class 1 on.
    pub(crate) classes: Vec<TagSet>,
    pub(crate) guesser: Guesser,
}

impl Vocabulary {
    /// The form of a word and its first tag.
    pub(crate) fn first(&self, word: &str) -> (Form, Tag) {
        let form = Form::new(word, &self.lexicon);
        let unknown = form.entry.class == 0;
        (form, if unknown { self.guesser.guess(&form) } else { form.entry.tag })
    }

    /// The tags that a word can get; an empty set if the first tag is final.
    pub(crate) fn tags(&self, form: &Form) -> TagSet {
        match form.entry.class {
            _ if form.entry.certain => 0,
            0 => OPEN,
            class => match self.classes.get(usize::from(class) - 1).copied().unwrap_or_default() {
                seen if seen & RARE != 0 && OPEN >> form.entry.tag.0 & 1 == 1 => seen | OPEN,
                seen => seen,
            },
        }
    }
}

/// The tagger.
#[derive(Debug)]
pub(crate) struct Brill {
    vocabulary: Vocabulary,
    rules: Vec<Rule>,
    index: Index,
    /// The words that occur in rules, by hash.
    words: HashMap<u32, String>,
}

impl Brill {
    /// Reads the bytes of a model file.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut model = ModelReader::new(bytes, KIND)?;
        let lexicon = Lexicon::read(&mut model)?;
        let classes = (0..model.count(8)?).map(|_| model.u64()).collect::<Result<_, _>>()?;
        let guesser = Guesser::read(&mut model)?;
        let mut words = HashMap::new();
        for _ in 0..model.count(1)? {
            let word = model.text()?;
            words.insert(Form::bare(&word).word, word);
        }
        let count = model.count(3)?;
        let mut rules = Vec::with_capacity(count);
        for _ in 0..count {
            let template = model.u8()?;
            let mut rule = Rule { template, from: model.tag()?, to: model.tag()?, values: [0; WIDTH] };
            let unknown = || model.damaged("a rule has an unknown template");
            let features = TEMPLATES.get(usize::from(template)).ok_or_else(unknown)?;
            for (feature, value) in features.iter().zip(&mut rule.values) {
                *value = match feature {
                    Feature::Nothing => 0,
                    _ => model.u32()?,
                }
            }
            rules.push(rule);
        }
        let index = Index::new(&rules);
        Ok(Self { vocabulary: Vocabulary { lexicon, classes, guesser }, rules, index, words })
    }

    /// The bytes of a model file; `words` are the words that occur in rules.
    pub(crate) fn to_bytes<'a>(
        vocabulary: &Vocabulary,
        rules: &[Rule],
        words: impl ExactSizeIterator<Item = &'a str>,
    ) -> Vec<u8> {
        let mut model = ModelWriter::new(KIND);
        vocabulary.lexicon.write(&mut model);
        model.u32(vocabulary.classes.len() as u32);
        for class in &vocabulary.classes {
            model.u64(*class);
        }
        vocabulary.guesser.write(&mut model);
        model.u32(words.len() as u32);
        for word in words {
            model.text(word);
        }
        model.u32(rules.len() as u32);
        for rule in rules {
            model.u8(rule.template);
            model.u8(rule.from.0);
            model.u8(rule.to.0);
            for (_, value) in rule.conditions() {
                model.u32(value);
            }
        }
        model.into_bytes()
    }

    /// The first rule from number `from` on that matches at a position; [`NEVER`] if none does.
    fn first(&self, text: &Tagged, at: usize, from: u32) -> u32 {
        let Some(view) = View::of(&text.forms, &text.tags, at) else { return NEVER };
        let mut first = NEVER;
        self.index.each(&view, text.tags[at], |number| {
            if number >= from && number < first {
                let rule = &self.rules[number as usize];
                if text.allowed[at] >> rule.to.0 & 1 == 1 && rule.from == text.tags[at] && rule.fits(&view) {
                    first = number;
                }
            }
        });
        first
    }
}

/// A text to which rules are applied, with [`REACH`] edges before and after it.
struct Tagged {
    forms: Vec<Form>,
    tags: Vec<Tag>,
    allowed: Vec<TagSet>,
}

impl Tagged {
    fn new(vocabulary: &Vocabulary, text: &str, words: &[Word]) -> Self {
        let length = words.len() + 2 * REACH;
        let mut tagged = Self {
            forms: Vec::with_capacity(length),
            tags: Vec::with_capacity(length),
            allowed: Vec::with_capacity(length),
        };
        tagged.edge();
        for word in words {
            let (form, tag) = vocabulary.first(word.of(text));
            tagged.forms.push(form);
            tagged.tags.push(tag);
            tagged.allowed.push(vocabulary.tags(&form));
        }
        tagged.edge();
        tagged
    }

    fn edge(&mut self) {
        for _ in 0..REACH {
            self.forms.push(Form::EDGE);
            self.tags.push(EDGE);
            self.allowed.push(0);
        }
    }
}

impl Tagger for Brill {
    fn tag(&self, text: &str, words: &[Word], tags: &mut Vec<Tag>) {
        let mut text = Tagged::new(&self.vocabulary, text, words);
        // For each position, the rule that matches there next; and all of these, in the order in which they are
        // applied.
        let mut next = vec![NEVER; text.tags.len()];
        let mut due = BinaryHeap::new();
        for (at, next) in next.iter_mut().enumerate().skip(REACH).take(words.len()) {
            if text.allowed[at] != 0 {
                *next = self.first(&text, at, 0);
                if *next != NEVER {
                    due.push(Reverse((*next, at)));
                }
            }
        }
        while let Some(Reverse((number, at))) = due.pop() {
            // Another rule has changed the context of this one.
            if next[at] != number {
                continue;
            }
            text.tags[at] = self.rules[number as usize].to;
            for (near, next) in next.iter_mut().enumerate().skip(at - REACH).take(2 * REACH + 1) {
                if text.allowed[near] == 0 {
                    continue;
                }
                // The rule goes from left to right, so it has not reached the positions on the right yet.
                let first = self.first(&text, near, if near > at { number } else { number + 1 });
                if first != *next {
                    *next = first;
                    if first != NEVER {
                        due.push(Reverse((first, near)));
                    }
                }
            }
        }
        tags.clear();
        tags.extend_from_slice(&text.tags[REACH..REACH + words.len()]);
    }
}
