//! `tools stats` and `tools merge`: how often the captions of a dataset mention each concept. [`concepts::statistics`]
//! does the counting; this module has its inputs ([`sources`]), the printed table, and the [`coverage`] of a list of classes.

mod coverage;
mod sources;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, anyhow, bail};
use clap::ValueHint;
use concepts::statistics::{CONCEPTS, Counts, PAIRS, TOTALS, Totals};
use loader::shards::set_index::SetIndex;
use program::{Interrupted, Outcome, Progress, UsageError, location};
use serde_json::json;
use storage::Location;

use self::coverage::COVERAGE;
pub(crate) use self::coverage::{ClassCoverage, Coverage, RARE};
use self::sources::Source;
pub(crate) use self::sources::{compare_captions, sidecar_of};
use crate::classes::ClassArguments;
use crate::folder;
use crate::input::{self, unreadable};

/// Number of concepts printed.
const TOP: usize = 20;

/// Count the concepts of tagged shards
///
/// Reads the sidecars (NNNNN.concepts.parquet) that `ingest tag` wrote. Prints the totals and the most frequent
/// concepts, and writes OUT/concepts.parquet, OUT/pairs.parquet and OUT/stats.json. The captions of every shard are
/// compared with what its sidecar was made from. Writes the index of the shards, too (DIR/index.parquet, as `tools index`). With classes, it also counts how often each class is mentioned, and writes
/// OUT/coverage.json.
#[derive(Debug, clap::Args)]
pub(crate) struct StatsArguments {
    /// Folder of tagged shards, or of the sidecars that `ingest tag --table` wrote; on disk or at an address such as
    /// s3://bucket/shards
    #[arg(value_name = "DIR", value_parser = location(), value_hint = ValueHint::AnyPath)]
    shards: Location,
    /// Folder or address to write; it must be empty or not exist yet
    #[arg(long, value_name = "DIR", value_parser = location(), value_hint = ValueHint::AnyPath)]
    out: Location,
    #[command(flatten)]
    classes: ClassArguments,
    /// Number of threads; each keeps its own counts in memory [default: number of cores, at most 8]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Print a summary as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Add up the statistics of parts of a dataset
///
/// The sums equal the statistics of the whole dataset exactly, if no shard is in two parts. The coverage of classes
/// (coverage.json) is not merged: count it again with `tools stats`.
#[derive(Debug, clap::Args)]
pub(crate) struct MergeArguments {
    /// Folders or addresses that `tools stats` or `tools merge` wrote
    #[arg(value_name = "DIR", required = true, value_parser = location(), value_hint = ValueHint::AnyPath)]
    parts: Vec<Location>,
    /// Folder or address to write; it must be empty or not exist yet
    #[arg(long, value_name = "DIR", value_parser = location(), value_hint = ValueHint::AnyPath)]
    out: Location,
    /// Print a summary as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Maximum number of threads by default: each keeps its own counts of pairs in memory, and one thread adds them up.
const MAX_DEFAULT_THREADS: usize = 8;

pub(crate) fn stats(arguments: &StatsArguments) -> Result<Outcome> {
    let folder = folder::create(&arguments.out)?;
    let classes = arguments.classes.read()?;
    let coverage = classes.as_ref().map(Coverage::new);
    let sources = sources::list(&arguments.shards)?;
    let cores = || thread::available_parallelism().map_or(1, usize::from).min(MAX_DEFAULT_THREADS);
    let threads = arguments.threads.map_or_else(cores, |threads| threads as usize);
    let threads = threads.clamp(1, sources.len().max(1));
    let counted = count(&sources, coverage.as_ref(), threads);
    if program::interrupted() {
        bail!(Interrupted::new(format!("{} was not written", arguments.out)));
    }
    let Counted { counts, coverage, index } = counted?;
    if counts.totals().samples == 0 {
        bail!(
            "{} contains no samples, so there is nothing to count; if downloads failed, the column error_message of \
             its NNNNN.parquet files says why",
            arguments.shards
        );
    }
    counts.write(folder.path())?;
    if let Some(coverage) = &coverage {
        coverage.write(&folder.path().join(COVERAGE))?;
    }
    folder.publish(TOTALS)?;
    // The shards may be where nobody writes.
    if !index.shards.is_empty()
        && input::is_folder(&arguments.shards)
        && let Err(error) = index.write(&arguments.shards)
    {
        eprintln!("note: no index of the shards was written: {error}");
    }
    print(&counts, coverage.as_ref(), &arguments.out)?;
    if arguments.json {
        program::print_json(&summary(&counts, coverage.as_ref()))?;
    }
    Ok(Outcome::Done)
}

/// Counts every source once. The result does not depend on the number of threads, as sums do not depend on order.
fn count<'a>(sources: &[Source], coverage: Option<&Coverage<'a>>, threads: usize) -> Result<Counted<'a>> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let progress = Mutex::new(Progress::new("counting", "shards", sources.len() as u64));
    let unchecked = AtomicUsize::new(0);
    let work = || -> Result<_> {
        let (counts, coverage) = (Counts::new(), coverage.cloned());
        let mut counted = Counted { counts, coverage, index: SetIndex::default() };
        while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) || program::interrupted() {
                break;
            }
            let added = counted.add(source);
            let checked = added.inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            unchecked.fetch_add(usize::from(!checked), Ordering::Relaxed);
            progress.lock().unwrap_or_else(PoisonError::into_inner).advance(1, String::new);
        }
        Ok(counted)
    };
    let counted = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut sum = work();
        for other in others {
            let other = other.join().map_err(|_| anyhow!("a counting thread panicked"))?;
            sum = match (sum, other) {
                (Ok(sum), Ok(other)) => Ok(sum.and(other)),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
        }
        sum
    })?;
    progress.into_inner().unwrap_or_else(PoisonError::into_inner).finish("");
    if let Some(warning) = loader::shards::sidecar::unchecked_warning(unchecked.into_inner(), sources.len()) {
        eprintln!("warning: {warning}");
    }
    Ok(counted)
}

/// What was counted in some sources, and the index of those that are shards.
struct Counted<'a> {
    counts: Counts,
    coverage: Option<Coverage<'a>>,
    index: SetIndex,
}

impl Counted<'_> {
    /// Returns whether the captions could be compared with what the sidecar was made from.
    fn add(&mut self, source: &Source) -> Result<bool> {
        let Self { counts, coverage, index } = self;
        let checked;
        if let Some(coverage) = coverage {
            let sidecar = source.open()?;
            index.shards.extend(source.check(&sidecar.metadata)?);
            checked = sidecar.metadata.captions.is_some();
            counts.add_shard(&sidecar);
            coverage.add(&sidecar);
        } else {
            let sidecar = source.concepts()?;
            index.shards.extend(source.check(&sidecar.metadata)?);
            checked = sidecar.metadata.captions.is_some();
            counts.add_file(sidecar)?;
        }
        Ok(checked)
    }

    fn and(mut self, more: Self) -> Self {
        self.counts.merge(&more.counts);
        if let (Some(coverage), Some(more)) = (&mut self.coverage, more.coverage) {
            coverage.merge(&more);
        }
        self.index.shards.extend(more.index.shards);
        self
    }
}

pub(crate) fn merge(arguments: &MergeArguments) -> Result<Outcome> {
    // A folder given twice would count its samples twice.
    let mut seen = Vec::new();
    for part in &arguments.parts {
        let one = match part {
            Location::Local(path) => fs::canonicalize(path).map_err(|error| unreadable(path, error))?.into(),
            // Without a slash at its end.
            Location::Remote(_) => part.join(""),
        };
        if seen.contains(&one) {
            return Err(UsageError(format!("{part} is given twice; give every part once")).into());
        }
        seen.push(one);
    }
    let folder = folder::create(&arguments.out)?;
    let mut counts = Counts::new();
    for part in &arguments.parts {
        counts.merge(&input::statistics(part)?);
    }
    counts.write(folder.path())?;
    folder.publish(TOTALS)?;
    print(&counts, None, &arguments.out)?;
    if arguments.json {
        program::print_json(&summary(&counts, None))?;
    }
    Ok(Outcome::Done)
}

fn summary(counts: &Counts, coverage: Option<&Coverage<'_>>) -> serde_json::Value {
    let top: Vec<_> = counts
        .concepts()
        .into_iter()
        .take(TOP)
        .map(|(concept, of)| json!({"concept": concept, "mentions": of.mentions, "samples": of.samples}))
        .collect();
    let mut summary = json!(counts.totals());
    summary["top"] = json!(top);
    if let Some(coverage) = coverage {
        summary["coverage"] = coverage.json();
    }
    summary
}

/// Prints the totals, the most frequent concepts, and the classes with few mentions or none.
fn print(counts: &Counts, coverage: Option<&Coverage<'_>>, out: &Location) -> Result<()> {
    let Totals { shards, samples, samples_without_mention, mentions, concepts, pairs, .. } = counts.totals();
    let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    let mut text = String::new();
    for (what, value) in [
        ("shards", shards),
        ("samples", samples),
        ("samples without a concept", samples_without_mention),
        ("mentions", mentions),
        ("distinct concepts", concepts),
        ("pairs of concepts", pairs),
    ] {
        text += &format!("{what:<28}{value:>12}\n");
    }
    if concepts > 0 {
        text += &format!("\n{:<32}{:>10}{:>10}{:>9}\n", "concept", "mentions", "samples", "share");
    }
    for (concept, of) in counts.concepts().into_iter().take(TOP) {
        let share = share(of.samples, samples);
        text += &format!("{concept:<32}{:>10}{:>10}{share:>8.2}%\n", of.mentions, of.samples);
    }
    if let Some(coverage) = coverage {
        text += &coverage.text();
    }
    let coverage = if coverage.is_some() { format!(", {COVERAGE}") } else { String::new() };
    text += &format!("\nwritten to {out} ({CONCEPTS}, {PAIRS}, {TOTALS}{coverage})\n");
    crate::screen(&text)
}
