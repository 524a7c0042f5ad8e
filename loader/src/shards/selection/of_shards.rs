//! A selection of the shards that are read: its rows by shard, checked against the shards.

use storage::Location;

use super::{Metadata, Names, Run, SelectionFile, ShardOfSelection, refused};
use crate::Error;
use crate::order::Selected;
use crate::shards::Identity;
use crate::shards::store::Expected;

/// What a selection has of the shards of a loader.
pub(crate) struct OfShards {
    pub(crate) shards: Vec<Selected>,
    /// The shards that it was made from.
    pub(crate) expected: Expected,
    pub(crate) check: u64,
}

/// Reads a selection of `shards`, which have these numbers of samples.
///
/// # Errors
/// It cannot be read, or is one of other shards; it has a sample twice, or none.
pub(crate) fn read(path: &Location, shards: &[Location], counts: &[u32]) -> Result<OfShards, Error> {
    let (rows, contents, check) = read_rows(path, shards, counts)?;
    let selected = rows.into_iter().map(|rows| Selected::new(rows.samples, &rows.weights)).collect();
    let since = format!("the selection {path} was made; make the selection again");
    Ok(OfShards { shards: selected, expected: Expected { shards: contents, captions: true, since }, check })
}

/// The positions of the selected samples of each of `shards`, in tar order, where samples can only be taken or not: without those of
/// weight 0. The shards have these numbers of samples, and are what distinguishes them from others.
///
/// # Errors
/// As when a loader opens it, or a weight is neither 0 nor 1.
pub fn taken(
    path: &Location,
    shards: &[Location],
    counts: &[u32],
    contents: &[Identity],
) -> Result<Vec<Vec<u32>>, Error> {
    let (rows, expected, _) = read_rows(path, shards, counts)?;
    let mut taken = Vec::new();
    for (shard, rows) in rows.into_iter().enumerate() {
        let changed = expected[shard].and_then(|expected| expected.difference(&contents[shard], true));
        if let Some(what) = changed {
            let problem =
                format!("has {what} than when the selection {path} was made; make the selection again");
            return Err(Error::Changed { path: shards[shard].clone(), problem });
        }
        let Rows { mut samples, weights } = rows;
        if let Some(weight) = weights.iter().find(|weight| ![0.0, 1.0].contains(*weight)) {
            let problem = format!(
                "a sample of {} has the weight {weight}, but here a sample is taken once or not at all: give all the weight 1 \
                 or leave the column out, or let the loader read the selection",
                shards[shard]
            );
            return Err(refused(path, &problem));
        }
        if !weights.is_empty() {
            let mut weights = weights.iter();
            samples.retain(|_| weights.next() == Some(&1.0));
        }
        taken.push(samples);
    }
    Ok(taken)
}

/// The rows of each of `shards` in tar order, the contents that the selection expects of it, and the check of the selection.
type RowsOfShards = (Vec<Rows>, Vec<Option<Identity>>, u64);

fn read_rows(path: &Location, shards: &[Location], counts: &[u32]) -> Result<RowsOfShards, Error> {
    let samples = counts.iter().map(|&count| u64::from(count)).sum();
    let file = SelectionFile::open(path, samples)?;
    if let Some(other) = file.other_column() {
        let problem = format!(
            "it has a column {other}, which a selection does not have: leave it out, so that it is certain what was meant"
        );
        return Err(refused(path, &problem));
    }
    let check = file.check;
    let names = Names::new(shards);
    let mut contents = vec![None; shards.len()];
    if let Some(metadata) = &file.metadata {
        contents =
            known_shards(metadata, &names, shards, counts).map_err(|problem| refused(path, &problem))?;
    }
    let mut rows: Vec<Rows> = Vec::new();
    rows.resize_with(shards.len(), Rows::default);
    file.visit(|run| {
        let shard = names.number(run.shard)?;
        let count = counts[shard];
        if let Some(sample) = run.samples.iter().find(|sample| **sample >= count) {
            return Err(format!(
                "it has sample {sample} of {}, which has {count} samples, numbered from 0",
                run.shard
            ));
        }
        rows[shard].push(run);
        Ok(())
    })?;
    let sorted = rows.into_iter().zip(shards).map(|(rows, shard)| {
        rows.sorted().map_err(|twice| refused(path, &format!("it has sample {twice} of {shard} twice")))
    });
    Ok((sorted.collect::<Result<Vec<_>, _>>()?, contents, check))
}

/// The contents that a selection expects of the shards.
fn known_shards(
    metadata: &Metadata,
    names: &Names<'_>,
    shards: &[Location],
    counts: &[u32],
) -> Result<Vec<Option<Identity>>, String> {
    let mut contents = vec![None; shards.len()];
    let mut known = vec![false; shards.len()];
    for ShardOfSelection { shard, samples, content } in &metadata.shards {
        // Only its rows must be of shards that are there.
        let Ok(number) = names.number(shard) else { continue };
        if counts[number] != *samples {
            return Err(format!(
                "it was made when {} had {samples} samples, but it has {}; make the selection again",
                shards[number], counts[number]
            ));
        }
        (contents[number], known[number]) = (*content, true);
    }
    match known.iter().position(|known| !known) {
        Some(number) => Err(format!(
            "it was not made from {}: leave this shard out, or make a selection of all shards",
            shards[number]
        )),
        None => Ok(contents),
    }
}

/// The rows of one shard.
#[derive(Default)]
struct Rows {
    samples: Vec<u32>,
    /// Empty as long as all weights are 1.
    weights: Vec<f32>,
}

impl Rows {
    fn push(&mut self, run: Run<'_>) {
        if !run.weights.is_empty() {
            self.weights.resize(self.samples.len(), 1.0);
        }
        self.samples.extend_from_slice(run.samples);
        if !self.weights.is_empty() || !run.weights.is_empty() {
            self.weights.extend_from_slice(run.weights);
            self.weights.resize(self.samples.len(), 1.0);
        }
    }

    /// In tar order; the error is a sample that comes twice.
    fn sorted(mut self) -> Result<Self, u32> {
        if !self.samples.is_sorted() {
            if self.weights.is_empty() {
                self.samples.sort_unstable();
            } else {
                let mut rows: Vec<(u32, f32)> = self.samples.into_iter().zip(self.weights).collect();
                rows.sort_by_key(|&(sample, _)| sample);
                (self.samples, self.weights) = rows.into_iter().unzip();
            }
        }
        match self.samples.array_windows().find(|[a, b]| a == b) {
            Some(&[twice, _]) => Err(twice),
            None => Ok(self),
        }
    }
}
