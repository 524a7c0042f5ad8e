//! A rule, and the index that finds the rules that match.

use std::hash::{Hash, Hasher};

use super::template::{Feature, TEMPLATES, View, WIDTH};
use crate::tagger::Tag;

/// "Change tag `from` to `to` if the features of the template have these values."
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    pub(super) template: u8,
    pub(super) from: Tag,
    pub(super) to: Tag,
    pub(super) values: [u32; WIDTH],
}

impl Hash for Rule {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c] = self.values;
        state.write_u32(u32::from_le_bytes([self.template, self.from.0, self.to.0, 0]));
        state.write_u64(u64::from(a) << 32 | u64::from(b));
        state.write_u32(c);
    }
}

impl Rule {
    /// The rules that would change `from` to `to` at this position: one per template.
    pub(crate) fn all(view: &View, from: Tag, to: Tag) -> impl Iterator<Item = Self> {
        TEMPLATES.iter().zip(0..).map(move |(features, template)| Self {
            template,
            from,
            to,
            values: view.values(*features),
        })
    }

    /// Whether the context matches; the word's own tag is not checked.
    pub(crate) fn fits(&self, view: &View) -> bool {
        TEMPLATES
            .get(usize::from(self.template))
            .is_some_and(|features| view.values(*features) == self.values)
    }

    pub(crate) fn from(&self) -> Tag {
        self.from
    }

    pub(crate) fn to(&self) -> Tag {
        self.to
    }

    /// Hashes of the words that occur in the rule.
    pub(crate) fn words(&self) -> impl Iterator<Item = u32> {
        self.conditions().filter(|(feature, _)| feature.is_word()).map(|(_, value)| value)
    }

    /// The features of the rule's template, with their values.
    pub(super) fn conditions(&self) -> impl Iterator<Item = (Feature, u32)> {
        let features =
            TEMPLATES.get(usize::from(self.template)).copied().unwrap_or([Feature::Nothing; WIDTH]);
        features.into_iter().zip(self.values).filter(|(feature, _)| *feature != Feature::Nothing)
    }

    /// A hash that all rules with the same context and the same `from` share.
    fn key(template: usize, from: Tag, values: [u32; WIDTH]) -> u32 {
        let start = u64::from(from.0) << 8 | template as u64;
        let hash = values.into_iter().fold(start, |hash, value| {
            (hash.rotate_left(25) ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        (hash ^ hash >> 32) as u32
    }
}

/// Finds rules by their context: those of a model, or the candidates in training.
///
/// Uses open addressing by the low bits of the key. Different contexts may share a key, so the caller has to compare.
#[derive(Debug)]
pub(crate) struct Index {
    /// Key and rule number; the number [`Index::EMPTY`] marks an empty slot.
    slots: Vec<(u32, u32)>,
    /// For each tag, the templates with rules that change it, one bit each.
    templates: [u64; Tag::COUNT + 1],
}

const _: () = assert!(TEMPLATES.len() <= 64, "one bit per template");

impl Index {
    const EMPTY: u32 = u32::MAX;

    /// An index of these rules; a rule's number is its position.
    pub(crate) fn new(rules: &[Rule]) -> Self {
        let mut index = Self {
            slots: vec![(0, Self::EMPTY); (rules.len() * 4).next_power_of_two().max(2)],
            templates: [0; Tag::COUNT + 1],
        };
        let mask = index.slots.len() - 1;
        for (rule, number) in rules.iter().zip(0..) {
            index.templates[usize::from(rule.from.0)] |= 1 << rule.template;
            let key = Rule::key(usize::from(rule.template), rule.from, rule.values);
            let mut at = key as usize & mask;
            while index.slots[at].1 != Self::EMPTY {
                at = (at + 1) & mask;
            }
            index.slots[at] = (key, number);
        }
        index
    }

    /// Calls `found` with the numbers of all rules that may change `from` at this position, and perhaps a few others.
    pub(crate) fn each(&self, view: &View, from: Tag, mut found: impl FnMut(u32)) {
        let mask = self.slots.len() - 1;
        let mut templates = self.templates.get(usize::from(from.0)).copied().unwrap_or_default();
        while templates != 0 {
            let template = templates.trailing_zeros() as usize;
            templates &= templates - 1;
            let key = Rule::key(template, from, view.values(TEMPLATES[template]));
            let mut at = key as usize & mask;
            while self.slots[at].1 != Self::EMPTY {
                if self.slots[at].0 == key {
                    found(self.slots[at].1);
                }
                at = (at + 1) & mask;
            }
        }
    }
}
