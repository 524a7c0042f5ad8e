//! `tools select`: chooses samples of tagged shards by rules, and writes them as a selection ([`loader::shards::selection`]),
//! which the loader reads. Every sample gets a [`Fate`]; the rules are applied one after the other, in the order of this file.

mod dataset;
mod names;
mod rules;
mod table;

use std::num::{NonZeroU32, NonZeroU64};

use anyhow::{Result, bail};
use clap::ValueHint;
use loader::shards::selection::{self, Metadata, Rule};
use program::{Outcome, UsageError, location};
use serde_json::json;
use storage::Location;

use self::dataset::{Dataset, Fate};
use self::names::Names;
use crate::classes::{ClassArguments, Classes};
use crate::input;

/// Choose samples of tagged shards: a selection for training
///
/// Writes a Parquet file with the columns shard, sample and weight, for `data.selection` of a training run. Shards and sidecars
/// stay as they are. The rules are applied in the order below, each to what the one before it has kept; without any rule, all
/// samples are selected. Every choice is a function of the seed and of the shards' names.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of shards; on disk or at an address such as s3://bucket/shards
    #[arg(value_name = "DIR", value_parser = location(), value_hint = ValueHint::AnyPath)]
    shards: Location,
    /// File or address to write; it must not exist yet
    #[arg(long, value_name = "FILE", value_parser = location(), value_hint = ValueHint::AnyPath)]
    out: Location,
    /// Keep the samples that a query returns, as `shard` and `key` or `sample`; `tools sql` answers it
    ///
    /// For example: SELECT shard, key FROM samples WHERE width >= 300 AND status = 'success'
    #[arg(long = "where", value_name = "QUERY")]
    query: Option<String>,
    /// Leave out the samples of a Parquet table with the columns `shard` and `sample`, for example another selection; may be
    /// given several times
    #[arg(long, value_name = "FILE", value_parser = location(), value_hint = ValueHint::AnyPath)]
    without: Vec<Location>,
    /// Keep the samples with the highest values of a signal (see --by): this fraction of those that are left, 0 to 1; samples without a
    /// value are left out
    #[arg(long, value_name = "FRACTION", requires = "by")]
    best: Option<f64>,
    /// The signal of --best, PRODUCER.COLUMN, such as score.similarity of `trainer score`
    #[arg(long, value_name = "SIGNAL", requires = "best")]
    by: Option<String>,
    /// Balance by concept, as MetaCLIP does: a sample is kept with the probability 1 - prod(1 - min(1, T / count)) over its
    /// concepts, where `count` is the number of samples with the concept; samples without a concept are left out
    #[arg(long, value_name = "T")]
    balance: Option<NonZeroU32>,
    /// Balance and cap by these names instead of concepts: a file with one name per line, as for --class-file
    #[arg(long, value_name = "FILE", value_parser = location(), value_hint = ValueHint::AnyPath)]
    names: Option<Location>,
    /// Counts for --balance, as `tools stats` wrote them, of these shards or of a larger dataset that they are a part of [default:
    /// counted]
    #[arg(long, value_name = "DIR", requires = "balance", conflicts_with = "names", value_parser = location(), value_hint = ValueHint::AnyPath)]
    statistics: Option<Location>,
    /// Keep at most N samples of each concept: samples come in random order, and one is left out if any of its concepts has N
    /// already
    #[arg(long, value_name = "N")]
    cap: Option<NonZeroU32>,
    /// Keep N of the samples that are left, drawn at random; all if there are fewer
    #[arg(long = "count", value_name = "N")]
    most: Option<NonZeroU64>,
    /// Then take samples back that --balance, --cap or --count have left out, until every class (see --classes) has at least N
    #[arg(long, value_name = "N")]
    cover: Option<NonZeroU32>,
    #[command(flatten)]
    classes: ClassArguments,
    /// Random seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of threads [default: number of cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Print a summary as one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let classes = arguments.classes.read()?;
    if arguments.cover.is_some() != classes.is_some() {
        let line = "--cover needs classes (--classes or --class-file), and classes are used by --cover only";
        return Err(UsageError(line.to_owned()).into());
    }
    if arguments.names.is_some() && arguments.balance.is_none() && arguments.cap.is_none() {
        return Err(UsageError("--names needs --balance or --cap".to_owned()).into());
    }
    if arguments.best.is_some_and(|best| !(best > 0.0 && best <= 1.0)) {
        return Err(UsageError("--best is a fraction: above 0 and at most 1".to_owned()).into());
    }
    let listed = arguments.names.as_ref().map(Classes::of_file).transpose()?;
    if storage::exists(&arguments.out)? {
        bail!("{} exists; remove it or choose another --out", arguments.out);
    }
    let threads = arguments.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        |threads| threads as usize,
    );

    let mut dataset = Dataset::open(input::shards(&arguments.shards)?, threads)?;
    let mut done = Done { rules: Vec::new() };
    done.rule("all samples", &dataset);
    if let Some(query) = &arguments.query {
        let rows = table::query(query, &arguments.shards)?;
        dataset.keep_only(&rows, "the query of --where")?;
        done.rule("--where", &dataset);
    }
    let samples = dataset.shards.iter().map(|shard| shard.fates.len() as u64).sum();
    for file in &arguments.without {
        dataset.drop_all(&table::read(file, samples)?, &file.to_string())?;
        done.rule(&format!("--without {file}"), &dataset);
    }
    if let (Some(best), Some(by)) = (arguments.best, &arguments.by) {
        rules::best(&mut dataset, best, by, threads)?;
        done.rule(&format!("--best {best} --by {by}"), &dataset);
    }
    if arguments.balance.is_some() || arguments.cap.is_some() {
        let names = match (&listed, &arguments.statistics) {
            (Some(listed), _) => Names::listed(listed, &dataset, threads)?,
            (None, Some(folder)) => Names::counted(folder)?,
            (None, None) => Names::concepts(&dataset, threads)?,
        };
        if let Some(most) = arguments.balance {
            rules::balance(&mut dataset, &names, most, arguments.seed, threads)?;
            done.rule(&format!("--balance {most}"), &dataset);
        }
        if let Some(most) = arguments.cap {
            rules::cap(&mut dataset, &names, most, arguments.seed)?;
            done.rule(&format!("--cap {most}"), &dataset);
        }
    }
    if let Some(most) = arguments.most {
        rules::draw(&mut dataset, most, arguments.seed);
        done.rule(&format!("--count {most}"), &dataset);
    }
    let mut lacking = Vec::new();
    if let (Some(least), Some(classes)) = (arguments.cover, &classes) {
        lacking = rules::cover(&mut dataset, classes, least, arguments.seed)?;
        done.rule(&format!("--cover {least}"), &dataset);
    }
    if dataset.count(Fate::Kept) == 0 {
        bail!("these rules leave no sample, so {} was not written\n{}", arguments.out, done.text());
    }
    let metadata = Metadata::new(dataset.shards_of_selection(), done.rules.clone());
    selection::write(&arguments.out, &metadata, dataset.kept().map(|(shard, sample)| (shard, sample, 1.0)))?;
    let mut text = done.text();
    if !lacking.is_empty() {
        let list: Vec<String> =
            lacking.iter().map(|(class, samples)| format!("{class} ({samples})")).collect();
        text += &format!("\nclasses with fewer samples than --cover asks for: {}\n", list.join(", "));
    }
    text += &format!("\nwritten to {}\n", arguments.out);
    crate::screen(&text)?;
    if arguments.json {
        let lacking: Vec<_> =
            lacking.iter().map(|(class, samples)| json!({"class": class, "samples": samples})).collect();
        program::print_json(&json!({
            "samples": dataset.count(Fate::Kept), "rules": done.rules, "classes_not_covered": lacking,
        }))?;
    }
    Ok(Outcome::Done)
}

/// What was done so far.
struct Done {
    rules: Vec<Rule>,
}

impl Done {
    fn rule(&mut self, rule: &str, dataset: &Dataset) {
        let kept = dataset.count(Fate::Kept);
        let before = self.rules.last().map_or(kept, |rule| rule.kept);
        self.rules.push(Rule { rule: rule.to_owned(), dropped: before.saturating_sub(kept), kept });
    }

    fn text(&self) -> String {
        let mut text = format!("{:<40}{:>14}{:>14}\n", "rule", "left out", "kept");
        for Rule { rule, dropped, kept } in &self.rules {
            text += &format!("{rule:<40}{dropped:>14}{kept:>14}\n");
        }
        text
    }
}
