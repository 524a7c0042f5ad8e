//! What a selection takes from the shards: the page's section about it, for `--selection`.

use std::collections::HashMap;

use anyhow::{Result, anyhow, bail};
use concepts::sidecar::Sidecar;
use concepts::statistics::Counts;
use loader::shards::selection::{Metadata, Names, Rule, SelectionFile, ShardOfSelection};
use loader::shards::sidecar;
use storage::Location;

use super::chart;
use super::section::{Concepts, MAX_CHARACTERS, Section, facts};
use super::text::{bdi, clipped, grouped, html as escaped, percent};
use crate::stats::Coverage;

/// What a selection has of the shards of a report.
#[derive(Debug)]
pub(super) struct Selected<'a> {
    rules: Vec<Rule>,
    name: String,
    /// Of each shard, the selected samples in ascending order.
    chosen: Vec<Vec<u32>>,
    /// Sum of all weights, and whether any is not 1.
    weight: f64,
    weighted: bool,
    pub(super) samples: u64,
    without_mention: u64,
    /// Number of selected samples by concept.
    of_concept: HashMap<String, u64>,
    pub(super) coverage: Option<Coverage<'a>>,
}

impl<'a> Selected<'a> {
    /// Reads a selection of these shards. Its rows count once each, whatever their weight, except those with the weight 0.
    pub(super) fn open(path: &Location, shards: &[Location], coverage: Option<Coverage<'a>>) -> Result<Self> {
        let counts: Vec<u32> =
            sidecar::footers(shards.to_vec())?.iter().map(|footer| footer.samples).collect();
        let file = SelectionFile::open(path, counts.iter().map(|&count| u64::from(count)).sum())?;
        let names = Names::new(shards);
        let mut rules = Vec::new();
        if let Some(Metadata { shards, rules: done, .. }) = &file.metadata {
            for ShardOfSelection { shard, samples, .. } in shards {
                let number = names
                    .number(shard)
                    .map_err(|problem| anyhow!("the selection {path} is of other shards: {problem}"))?;
                if counts[number] != *samples {
                    bail!("the selection {path} was made when {shard} had {samples} samples; make it again");
                }
            }
            rules.clone_from(done);
        }
        let mut chosen: Vec<Vec<u32>> = vec![Vec::new(); shards.len()];
        let (mut weight, mut weighted) = (0.0, false);
        file.visit(|run| {
            let number = names.number(run.shard)?;
            let of_shard = &mut chosen[number];
            for (at, &sample) in run.samples.iter().enumerate() {
                if sample >= counts[number] {
                    return Err(format!(
                        "it has sample {sample} of {}, which has {} samples",
                        run.shard, counts[number]
                    ));
                }
                let times = run.weights.get(at).copied().unwrap_or(1.0);
                weighted |= times != 1.0;
                weight += f64::from(times);
                if times > 0.0 {
                    of_shard.push(sample);
                }
            }
            Ok(())
        })?;
        for samples in &mut chosen {
            samples.sort_unstable();
        }
        let samples = chosen.iter().map(|samples| samples.len() as u64).sum();
        Ok(Self {
            name: path.file_name().into_owned(),
            rules,
            chosen,
            weight,
            weighted,
            samples,
            without_mention: 0,
            of_concept: HashMap::new(),
            coverage,
        })
    }

    /// Counts the concepts of the selected samples of a shard.
    pub(super) fn add(&mut self, shard: usize, path: &Location, sidecar: &Sidecar) -> Result<()> {
        let chosen = &self.chosen[shard];
        if chosen.array_windows().any(|[a, b]| a == b) {
            bail!("the selection {} has a sample of {path} twice", self.name);
        }
        let names: Vec<&str> = sidecar.concept_names().collect();
        let mut counts = vec![0_u64; names.len()];
        let mut of_sample = Vec::new();
        for &sample in chosen {
            of_sample.clear();
            of_sample.extend(sidecar.concept_ids(sample));
            of_sample.sort_unstable();
            of_sample.dedup();
            self.without_mention += u64::from(of_sample.is_empty());
            for &concept in &of_sample {
                counts[concept as usize] += 1;
            }
        }
        for (name, count) in names.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
            *self.of_concept.entry(name.to_owned()).or_default() += count;
        }
        if let Some(coverage) = &mut self.coverage {
            coverage.add_samples(sidecar, chosen.iter().copied(), chosen.len() as u64);
        }
        Ok(())
    }

    /// The section: the rules, and what is left of the concepts.
    pub(super) fn section(
        &self,
        counts: &Counts,
        all: &Concepts<'_>,
        before: Option<&Coverage<'_>>,
    ) -> Section {
        let totals = counts.totals();
        let mut body = format!(
            "<p>What the selection <code>{}</code> takes: {} of {} samples ({}).</p>",
            escaped(&self.name),
            grouped(self.samples),
            grouped(totals.samples),
            percent(self.samples, totals.samples)
        );
        if !self.rules.is_empty() {
            body += &self.rules_table();
        }
        let mut lines = Vec::new();
        if self.weighted {
            lines.push(("samples of an epoch, with weights", grouped(self.weight.round() as u64)));
        }
        let from_to = |before: u64, after: u64| format!("{} → {}", grouped(before), grouped(after));
        lines.push(("distinct concepts", from_to(totals.concepts, self.of_concept.len() as u64)));
        lines.push((
            "samples without a concept",
            from_to(totals.samples_without_mention, self.without_mention),
        ));
        let share = |of: u64, samples: u64| percent(of, samples);
        if let Some((name, of)) = all.first() {
            let after = self.of_concept.get(*name).copied().unwrap_or_default();
            let shares = (share(of.samples, totals.samples), share(after, self.samples));
            lines.push(("samples with the most frequent concept", format!("{} → {}", shares.0, shares.1)));
        }
        if let (Some(before), Some(after)) = (before, &self.coverage) {
            let count =
                |coverage: &Coverage<'_>| (coverage.rare().count() as u64, coverage.absent().count() as u64);
            let ((rare, absent), (rare_after, absent_after)) = (count(before), count(after));
            lines.push(("rare classes", from_to(rare, rare_after)));
            lines.push(("absent classes", from_to(absent, absent_after)));
        }
        body += &facts(&lines);
        body += &self.concepts_table(all);
        Section { id: "selection", title: "Selection", body }
    }

    fn rules_table(&self) -> String {
        let rows: String = self
            .rules
            .iter()
            .map(|Rule { rule, dropped, kept }| {
                format!(
                    "<tr><th scope=\"row\"><code>{}</code></th><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
                    escaped(&clipped(rule, MAX_CHARACTERS)),
                    grouped(*dropped),
                    grouped(*kept)
                )
            })
            .collect();
        format!(
            "<div class=\"scroll\"><table><caption>Rules<small>each applied to what the one before has kept</small></caption><thead><tr>\
             <th scope=\"col\">rule</th><th scope=\"col\" class=\"number\">left out</th>\
             <th scope=\"col\" class=\"number\">kept</th></tr></thead><tbody>{rows}</tbody></table></div>"
        )
    }

    /// Concepts at the ranks 1, 2, 4, 8, ..: so that the frequent and the rare ones are seen.
    fn concepts_table(&self, all: &Concepts<'_>) -> String {
        let ranks = std::iter::successors(Some(1_usize), |rank| rank.checked_mul(2));
        let rows: String = ranks
            .map_while(|rank| all.get(rank - 1).map(|concept| (rank, concept)))
            .map(|(rank, (name, of))| {
                let after = self.of_concept.get(*name).copied().unwrap_or_default();
                format!(
                    "<tr><td class=\"number\">{}</td><th scope=\"row\">{}</th><td class=\"number\">{}</td>\
                     <td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td></tr>",
                    grouped(rank as u64),
                    bdi(&clipped(name, MAX_CHARACTERS)),
                    grouped(of.samples),
                    grouped(after),
                    percent(after, of.samples),
                    chart::meter(after, of.samples)
                )
            })
            .collect();
        format!(
            "<div class=\"scroll\"><table><caption>What is left of the concepts<small>at the ranks 1, 2, 4, 8, .. by mentions</small></caption>\
             <thead><tr><th scope=\"col\" class=\"number\">rank</th><th scope=\"col\">concept</th>\
             <th scope=\"col\" class=\"number\">samples before</th><th scope=\"col\" class=\"number\">after</th>\
             <th scope=\"col\" class=\"number\">kept</th><th scope=\"col\"></th></tr></thead><tbody>{rows}</tbody></table></div>"
        )
    }
}
