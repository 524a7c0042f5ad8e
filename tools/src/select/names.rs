//! What samples are balanced by: the concepts of their mentions, or a list of names; and how many samples have each.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt64Type};
use concepts::sidecar::Sidecar;
use concepts::statistics::{CONCEPTS, TOTALS};
use concepts::tables::{Table, Texts};
use storage::Location;

use super::dataset::Dataset;
use crate::classes::Classes;
use crate::each::each;
use crate::stats::sidecar_of;

/// Names with the number of samples that have each.
#[derive(Debug)]
pub(super) struct Names<'a> {
    kind: Kind<'a>,
    pub(super) samples: Vec<u64>,
}

#[derive(Debug)]
enum Kind<'a> {
    /// By concept.
    Concepts(HashMap<String, u32>),
    Listed(&'a Classes),
}

impl<'a> Names<'a> {
    /// The concepts of the sidecars.
    pub(super) fn concepts(dataset: &Dataset, threads: usize) -> Result<Self> {
        let counted = each(dataset.shards.len(), threads, "counting", |number| {
            let sidecar = sidecar_of(&dataset.shards[number].path)?;
            let concepts: Vec<String> = sidecar.concept_names().map(str::to_owned).collect();
            let mut samples = vec![0; concepts.len()];
            let mut of_sample = Vec::new();
            for sample in sidecar.samples_with_mentions() {
                distinct(&mut of_sample, sidecar.concept_ids(sample));
                for &concept in &of_sample {
                    samples[concept as usize] += 1;
                }
            }
            Ok((concepts, samples))
        })?;
        let (mut numbers, mut sums) = (HashMap::new(), Vec::new());
        for (concepts, samples) in counted {
            for (concept, samples) in concepts.into_iter().zip(samples) {
                let number = *numbers.entry(concept).or_insert_with(|| {
                    sums.push(0);
                    sums.len() as u32 - 1
                });
                sums[number as usize] += samples;
            }
        }
        Ok(Self { kind: Kind::Concepts(numbers), samples: sums })
    }

    /// The concepts of a folder of statistics, of which only the table of concepts is read.
    pub(super) fn counted(folder: &Location) -> Result<Self> {
        let path = folder.join(CONCEPTS);
        if !storage::exists(folder.join(TOTALS))? {
            bail!("{folder} has no statistics ({TOTALS}); create them with `tools stats`");
        }
        let unreadable = || format!("{path} cannot be read; count the statistics again with `tools stats`");
        let table = Table::open(storage::read(&path)?, Texts::Dictionaries).with_context(unreadable)?;
        let (mut numbers, mut samples) = (HashMap::new(), Vec::new());
        for batch in table.batches(Some(&["concept", "samples"]), 65_536).with_context(unreadable)? {
            let batch = batch.with_context(unreadable)?;
            let column = |name: &str| batch.column_by_name(name).with_context(unreadable);
            let concepts = column("concept")?.as_dictionary_opt::<Int32Type>().with_context(unreadable)?;
            let values = concepts.values().as_string::<i32>();
            let counts = column("samples")?.as_primitive_opt::<UInt64Type>().with_context(unreadable)?;
            for (&concept, &count) in concepts.keys().values().iter().zip(counts.values()) {
                numbers.insert(values.value(concept as usize).to_owned(), samples.len() as u32);
                samples.push(count);
            }
        }
        Ok(Self { kind: Kind::Concepts(numbers), samples })
    }

    /// A list of names.
    pub(super) fn listed(list: &'a Classes, dataset: &Dataset, threads: usize) -> Result<Self> {
        let mut names = Self { kind: Kind::Listed(list), samples: vec![0; list.names.len()] };
        let counted = each(dataset.shards.len(), threads, "counting", |number| {
            let sidecar = sidecar_of(&dataset.shards[number].path)?;
            let mut samples = vec![0; list.names.len()];
            names.visit(&sidecar, |_, of_sample| {
                for &name in of_sample {
                    samples[name as usize] += 1;
                }
            })?;
            Ok(samples)
        })?;
        for samples in counted {
            names.samples.iter_mut().zip(samples).for_each(|(sum, more)| *sum += more);
        }
        Ok(names)
    }

    /// Calls `each` with every sample that has a name, in tar order, and its distinct names.
    pub(super) fn visit(&self, sidecar: &Sidecar, mut each: impl FnMut(u32, &[u32])) -> Result<()> {
        // By the sidecar's own number of a concept, so that each text is looked up once.
        let numbers: Vec<u32> = match &self.kind {
            Kind::Listed(_) => Vec::new(),
            Kind::Concepts(numbers) => sidecar
                .concept_names()
                .map(|concept| {
                    let unknown = || {
                        format!(
                            "{} mentions \"{concept}\", which is not in the statistics: they are of other shards, or of an \
                             earlier state of these; count them again with `tools stats`",
                            sidecar.metadata.shard
                        )
                    };
                    numbers.get(concept).copied().with_context(unknown)
                })
                .collect::<Result<_>>()?,
        };
        let mut of_sample = Vec::new();
        for sample in sidecar.samples_with_mentions() {
            match &self.kind {
                Kind::Concepts(_) => {
                    distinct(&mut of_sample, sidecar.concept_ids(sample).map(|id| numbers[id as usize]));
                }
                Kind::Listed(list) => {
                    let classes = |row| list.of(&row).iter().map(|&class| class as u32).collect::<Vec<_>>();
                    distinct(&mut of_sample, sidecar.mentions(sample).flat_map(classes));
                }
            }
            if !of_sample.is_empty() {
                each(sample, &of_sample);
            }
        }
        Ok(())
    }
}

fn distinct(to: &mut Vec<u32>, numbers: impl Iterator<Item = u32>) {
    to.clear();
    to.extend(numbers);
    to.sort_unstable();
    to.dedup();
}
