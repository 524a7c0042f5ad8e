//! A rule, and the index that finds the rules that fire.

use std::hash::{Hash, Hasher};

use super::template::{Look, TEMPLATES, View, WIDTH};
use crate::tagger::Tag;

/// "Change tag `from` to `to` where the looks of the template have these values."
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
    /// The rules that would change `from` to `to` in a place of this view: one a template.
    pub(crate) fn all(view: &View, from: Tag, to: Tag) -> impl Iterator<Item = Self> {
        TEMPLATES.iter().zip(0..).map(move |(looks, template)| Self {
            template,
            from,
            to,
            values: view.values(*looks),
        })
    }

    /// Whether the context is right; the word's own tag is not looked at.
    pub(crate) fn fits(&self, view: &View) -> bool {
        TEMPLATES.get(usize::from(self.template)).is_some_and(|looks| view.values(*looks) == self.values)
    }

    pub(crate) fn from(&self) -> Tag {
        self.from
    }

    pub(crate) fn to(&self) -> Tag {
        self.to
    }

    /// Hashes of the words that the rule asks for.
    pub(crate) fn words(&self) -> impl Iterator<Item = u32> {
        self.conditions().filter(|(look, _)| look.is_word()).map(|(_, value)| value)
    }

    /// What the rule asks about.
    pub(super) fn conditions(&self) -> impl Iterator<Item = (Look, u32)> {
        let looks = TEMPLATES.get(usize::from(self.template)).copied().unwrap_or([Look::Nothing; WIDTH]);
        looks.into_iter().zip(self.values).filter(|(look, _)| *look != Look::Nothing)
    }

    /// The rule's number that every rule with this context and this `from` shares.
    fn key(template: usize, from: Tag, values: [u32; WIDTH]) -> u32 {
        let start = u64::from(from.0) << 8 | template as u64;
        let hash = values.into_iter().fold(start, |hash, value| {
            (hash.rotate_left(25) ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        (hash ^ hash >> 32) as u32
    }
}

/// Numbers of things by rule context: of rules in a model, of candidates in training.
///
/// Open addressing by the key's low bits. Different contexts may share a key: whoever asks compares.
#[derive(Debug)]
pub(crate) struct Index {
    /// Key and number; [`Index::EMPTY`] = empty slot.
    slots: Vec<(u32, u32)>,
    /// By tag, the templates that have rules from it, one bit each.
    templates: [u64; Tag::COUNT + 1],
}

const _: () = assert!(TEMPLATES.len() <= 64, "a bit each");

impl Index {
    const EMPTY: u32 = u32::MAX;

    /// Of rules, in their order.
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

    /// Calls `found` with the numbers of all rules that may change `from` in this view, and maybe of a few others.
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
