//! Which classes of a list the captions of a dataset mention, and how often.

use std::path::Path;

use anyhow::{Context, Result};
use concepts::sidecar::Sidecar;
use disk::files;
use serde::Serialize;
use serde_json::json;

use crate::classes::Classes;

/// File next to the statistics that has the number of mentions of each class.
pub(super) const COVERAGE: &str = "coverage.json";

/// A class that fewer than one sample in this many mentions is called rare.
pub(crate) const RARE: u64 = 1000;

/// Number of rare classes, and of absent ones, that are printed.
const LISTED: usize = 12;

/// How often the classes of a list are mentioned.
#[derive(Debug, Clone)]
pub(crate) struct Coverage<'a> {
    pub(crate) list: &'a Classes,
    /// In the order of the list.
    pub(crate) classes: Vec<ClassCoverage>,
    samples: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ClassCoverage {
    pub(crate) class: String,
    mentions: u64,
    /// Samples with at least one mention.
    pub(crate) samples: u64,
}

impl<'a> Coverage<'a> {
    pub(crate) fn new(list: &'a Classes) -> Self {
        let class = |name: &String| ClassCoverage { class: name.clone(), mentions: 0, samples: 0 };
        let classes = list.names.iter().map(class).collect();
        Self { list, classes, samples: 0 }
    }

    pub(crate) fn add(&mut self, sidecar: &Sidecar) {
        self.add_samples(sidecar, sidecar.samples_with_mentions(), u64::from(sidecar.metadata.samples));
    }

    /// Adds these samples of a sidecar; `number` of them, or more if others have no mention.
    pub(crate) fn add_samples(&mut self, sidecar: &Sidecar, samples: impl Iterator<Item = u32>, number: u64) {
        let mut of_sample = Vec::new();
        for sample in samples {
            of_sample.clear();
            for row in sidecar.mentions(sample) {
                for &class in self.list.of(&row) {
                    self.classes[class].mentions += 1;
                    of_sample.push(class);
                }
            }
            of_sample.sort_unstable();
            of_sample.dedup();
            for &class in &of_sample {
                self.classes[class].samples += 1;
            }
        }
        self.samples += number;
    }

    pub(super) fn merge(&mut self, more: &Self) {
        for (class, more) in self.classes.iter_mut().zip(&more.classes) {
            class.mentions += more.mentions;
            class.samples += more.samples;
        }
        self.samples += more.samples;
    }

    /// Classes without any mention.
    pub(crate) fn absent(&self) -> impl Iterator<Item = &ClassCoverage> {
        self.classes.iter().filter(|class| class.mentions == 0)
    }

    /// Classes that are mentioned, but in fewer than one sample in [`RARE`].
    pub(crate) fn rare(&self) -> impl Iterator<Item = &ClassCoverage> {
        self.classes.iter().filter(|class| class.mentions > 0 && class.samples * RARE < self.samples)
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let names =
            |classes: Vec<&ClassCoverage>| classes.into_iter().map(|c| c.class.clone()).collect::<Vec<_>>();
        json!({
            "matching": self.list.matching.to_string(),
            "samples": self.samples,
            "absent": names(self.absent().collect()),
            "rare": names(self.rare().collect()),
            "classes": self.classes,
        })
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.json())? + "\n";
        files::write_atomic(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The classes with few mentions or none, for the screen.
    pub(super) fn text(&self) -> String {
        let (absent, rare) = (self.absent().count(), self.rare().count());
        let total = self.classes.len();
        let mut text = format!(
            "\n{total} classes: {} mentioned ({rare} of them rare: in fewer than 1 in {RARE} samples), {absent} absent\n",
            total - absent
        );
        let list = |classes: Vec<String>| match classes.len() {
            0..=LISTED => classes.join(", "),
            more => {
                format!("{} and {} more (see {COVERAGE})", classes[..LISTED].join(", "), more - LISTED)
            }
        };
        if rare > 0 {
            let rare = self.rare().map(|class| format!("{} ({})", class.class, class.samples)).collect();
            text += &format!("rare classes, with their number of samples: {}\n", list(rare));
        }
        if absent > 0 {
            let absent = self.absent().map(|class| class.class.clone()).collect();
            text += &format!("absent classes, never mentioned: {}\n", list(absent));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use concepts::Matching;

    use super::*;

    #[test]
    fn a_class_is_rare_below_one_sample_in_a_thousand() {
        let list = Classes::new(["cat", "dog", "fish"].into_iter(), Matching::Longest).unwrap().unwrap();
        let mut coverage = Coverage::new(&list);
        coverage.samples = 10 * RARE;
        for (class, samples) in [(0, 10), (1, 9)] {
            (coverage.classes[class].mentions, coverage.classes[class].samples) = (20, samples);
        }
        let expected = "\n3 classes: 2 mentioned (1 of them rare: in fewer than 1 in 1000 samples), 1 absent\n\
                        rare classes, with their number of samples: dog (9)\nabsent classes, never mentioned: fish\n";
        assert_eq!(coverage.text(), expected);
    }

    #[test]
    fn a_long_list_of_classes_is_cut() {
        let names: Vec<String> = (0..=LISTED).map(|number| format!("class{number}")).collect();
        let list = Classes::new(names.iter().map(String::as_str), Matching::Longest).unwrap().unwrap();
        let text = Coverage::new(&list).text();
        assert!(
            text.ends_with(&format!("{} and 1 more (see {COVERAGE})\n", names[..LISTED].join(", "))),
            "{text}"
        );
    }
}
