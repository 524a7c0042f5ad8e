//! `ingest`: turns lists of image URLs and local image folders into WebDataset shards, and tags the concepts of their
//! captions.

// Without panics; see `tools/program/src/lines.rs`.
#[macro_use(eprintln)]
extern crate program;

mod arguments;

use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory, Parser};
use concepts::Extractor;
use ingest::dataset::{Dataset, Part};
use ingest::deny::Deny;
use ingest::download::Downloader;
use ingest::local::Folder;
use ingest::messages::counted;
use ingest::pipeline::Totals;
use ingest::rows::{Format, Where};
use ingest::{Error, Input, hash, index, prune, reshard, tag, verify};
use program::{Outcome, UsageError, print_json};
use storage::Location;

use crate::arguments::{
    Arguments, Command, Download, Hash, Prune, Refresh, Reshard, Retry, RunArguments, Shard, Tag, Verify,
    threads,
};

fn main() -> ExitCode {
    if let Some(code) = pages::requested(Arguments::command) {
        return code;
    }
    let arguments = Arguments::parse();
    // Finished shards are kept and the rest is made again, so nothing is worth waiting for a slow server.
    storage::stop_when_interrupted();
    program::run(|| match arguments.command {
        Command::Download(arguments) => download(&arguments),
        Command::Shard(arguments) => shard(&arguments),
        Command::Tag(arguments) => tag(&arguments),
        Command::Hash(arguments) => hash(&arguments),
        Command::Retry(arguments) => retry(&arguments),
        Command::Reshard(arguments) => reshard(&arguments),
        Command::Prune(arguments) => prune(&arguments),
        Command::Refresh(arguments) => refresh(&arguments),
        Command::Verify(arguments) => verify(&arguments),
    })
}

fn download(arguments: &Download) -> anyhow::Result<Outcome> {
    let Download { input, columns, url_col, output, image, denied, network } = arguments;
    let started = Instant::now();
    let make = || {
        let wanted = columns.wanted(Where::Web, url_col.as_ref())?;
        let input = Input::tables(input, columns.input_format, wanted)?;
        let dataset = output.dataset(image.settings(columns)?, true)?;
        let downloader = Downloader::new(network.settings()?)?;
        let totals = downloader.download(&input, &dataset, denied.read()?.as_ref(), &output.run.resources());
        // Without this, requests that are still in flight would delay the exit.
        downloader.stop();
        totals
    };
    let totals = make().map_err(user_error)?;
    renew_index(&output.out, &output.run)?;
    let advice = format!(
        "when the cause is fixed, run `ingest retry {}` (causes that are not temporary need --causes)",
        output.out.display()
    );
    conclude(&totals, &output.run, started, &shards_complete(&totals), &advice)
}

fn shard(arguments: &Shard) -> anyhow::Result<Outcome> {
    let Shard { input, images, columns, file_col, split, output, image, max_bytes } = arguments;
    let started = Instant::now();
    let make = || {
        let mut wanted = columns.wanted(Where::Local, file_col.as_ref())?;
        wanted.splits.clone_from(split);
        // With --images a folder is a folder of tables, without it a folder of images.
        let (input, folder) = match images {
            Some(images) => (Input::tables(input, columns.input_format, wanted)?, images),
            None if input.is_local_file() || (input.is_remote() && Format::of(input).is_some()) => {
                let problem =
                    format!("{} is a table: give the folder of its images with --images", input.display());
                return Err(Error::Usage(problem));
            }
            None => {
                let option = columns
                    .table_option()
                    .or(file_col.as_ref().map(|_| "--file-col"))
                    .or((!split.is_empty()).then_some("--split"));
                if let Some(option) = option.filter(|_| input.is_local_folder()) {
                    let problem = format!(
                        "{option} is for tables, but {} is a folder of images; for a folder of tables give --images",
                        input.display()
                    );
                    return Err(Error::Usage(problem));
                }
                (Input::Pairs { folder: input.clone(), captioned: !columns.no_captions }, input)
            }
        };
        let dataset = output.dataset(image.settings(columns)?, false)?;
        let totals = Folder::open(folder, *max_bytes)?.shard(&input, &dataset, &output.run.resources())?;
        // Shards without an image must not look like a dataset, nor be complete when the cause is fixed.
        if totals.nothing_succeeded() && output.run.max_failures.is_none() {
            dataset.discard()?;
        }
        Ok(totals)
    };
    let totals = make().map_err(user_error)?;
    renew_index(&output.out, &output.run)?;
    let advice = "no shards were kept";
    conclude(&totals, &output.run, started, &shards_complete(&totals), advice)
}

fn retry(arguments: &Retry) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let folder = &arguments.folder;
    let make = || {
        let run = &arguments.run;
        let dataset = Dataset::load(folder, run.part.part()?)?;
        let downloader = Downloader::new(arguments.network.settings()?)?;
        let deny = arguments.denied.read()?;
        let totals = downloader.retry(&dataset, &arguments.causes, deny.as_ref(), &run.resources());
        downloader.stop();
        totals
    };
    let totals = make().map_err(user_error)?;
    renew_index(folder, &arguments.run)?;
    let idle = if totals.shards_before == 0 {
        format!("{} has no complete shards for this job", folder.display())
    } else {
        let shards = counted(totals.shards_before, "complete shard");
        if arguments.causes.is_empty() {
            format!("no failure in {shards} has a temporary cause; to retry others, use --causes")
        } else {
            format!("no failure in {shards} matches --causes")
        }
    };
    let advice = format!("when the cause is fixed, run `ingest retry {}` again", folder.display());
    conclude(&totals, &arguments.run, started, &idle, &advice)
}

/// Writes the index of the shards that a run has completed.
fn renew_index(folder: &Location, run: &RunArguments) -> anyhow::Result<()> {
    index::renew(folder, run.part.part().map_err(user_error)?, run.resources().threads);
    Ok(())
}

/// Why a run had nothing to do.
fn shards_complete(totals: &Totals) -> String {
    match totals.shards_before {
        0 => "this job's part of the input has no shards".to_owned(),
        shards => format!("{} already complete", counted(shards, "shard")),
    }
}

/// Prints the causes of failure and the summary, and decides the exit code. `idle` says why nothing was done, if so;
/// `advice` what to do if every sample failed.
fn conclude(
    totals: &Totals,
    run: &RunArguments,
    started: Instant,
    idle: &str,
    advice: &str,
) -> anyhow::Result<Outcome> {
    if let Some(warning) = totals.hash_warning() {
        eprintln!("{warning}");
    }
    if totals.failures() > 0 {
        eprintln!("failed samples by cause:");
    }
    for (cause, count) in totals.causes().take(10) {
        eprintln!("{count:>10}  {cause}");
    }
    if totals.stats.removed > 0 {
        eprintln!("{:>10}  removed, or on the list of --deny", totals.stats.removed);
    }
    if totals.shards == 0 {
        eprintln!("nothing to do: {idle}");
    } else if totals.shards_before > 0 {
        eprintln!("already complete before this run: {}", counted(totals.shards_before, "shard"));
    }
    if run.json {
        print_json(&totals.json(started.elapsed().as_secs_f64()))?;
    }
    let (failures, samples) = (totals.failures(), totals.stats.count);
    match run.max_failures {
        Some(limit) if limit.exceeded(totals) => {
            eprintln!("{failures} of {} failed, more than --max-failures allows", counted(samples, "sample"));
            Ok(Outcome::Losses)
        }
        None if totals.nothing_succeeded() => {
            let causes: Vec<String> =
                totals.causes().take(3).map(|(cause, count)| format!("{cause} ({count})")).collect();
            anyhow::bail!(
                "every sample failed (0 of {samples} succeeded); most frequent causes: {}; {advice}",
                causes.join(", ")
            );
        }
        _ => Ok(Outcome::Done),
    }
}

fn tag(arguments: &Tag) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let extractor = Extractor::new(arguments.tagger)?;
    let Tag { shards, text, captions, tables: from, .. } = arguments;
    let threads = threads(arguments.work.threads);
    let totals = match (text, (&from.table, &from.out), shards) {
        (Some(text), ..) => {
            let lines = tag::open_text(text).map_err(user_error)?;
            tag::tag_text(text, lines, std::io::stdout(), &extractor, threads)
        }
        (None, (Some(input), Some(out)), _) => {
            let part = arguments.work.part.part().map_err(user_error)?;
            let tables = from.tables(input, out, arguments.force).map_err(user_error)?;
            tag::tag_tables(&tables, &extractor, threads, |number| part.owns(number))
        }
        (None, _, Some(shards)) => {
            let part = arguments.work.part.part().map_err(user_error)?;
            let (field, force) = (captions.field(), arguments.force);
            let totals = tag::tag(shards, field, &extractor, threads, force, |place| part.owns(place));
            if totals.is_ok() {
                index::renew(shards, part, threads);
            }
            totals
        }
        _ => {
            let problem = "give a folder of shards, --table INPUT --out FOLDER, or --text FILE";
            return Err(UsageError(problem.to_owned()).into());
        }
    };
    let totals = totals.map_err(user_error)?;
    let before = totals.shards - totals.tagged;
    if text.is_none() {
        let noun = if from.table.is_some() { "sidecar" } else { "shard" };
        match (totals.tagged, before) {
            (0, 0) => eprintln!("nothing to do: this job's part of the input has no shards"),
            (0, before) => eprintln!("nothing to do: {} already complete", counted(before, noun)),
            (_, 0) => {}
            (_, before) => eprintln!("already complete before this run: {}", counted(before, noun)),
        }
    }
    if totals.renewed > 0 {
        eprintln!(
            "renewed {}, made when captions were normalised by older rules",
            counted(totals.renewed, "sidecar")
        );
    }
    if totals.unchecked > 0 {
        eprintln!(
            "warning: kept {} of version 1, which cannot tell whether all captions are those that were tagged; --force makes \
             them again",
            counted(totals.unchecked, "sidecar")
        );
    }
    if totals.incomplete > 0 {
        eprintln!(
            "skipped {} (no _stats.json): finish them with the command that makes them, then tag again",
            counted(totals.incomplete, "incomplete shard")
        );
    }
    if totals.captions_not_utf8 > 0 {
        eprintln!(
            "{} not valid UTF-8: invalid bytes were replaced by U+FFFD",
            counted(totals.captions_not_utf8, "caption")
        );
    }
    if totals.unreadable_rows > 0 {
        eprintln!("{} unreadable: tagged as empty captions", counted(totals.unreadable_rows, "row"));
    }
    if let (Some(field), 1..) = (captions.field(), totals.without_field) {
        let samples = counted(totals.without_field, "sample");
        eprintln!(
            "{samples} without a text or a list of texts in the field {field:?}: no captions were tagged"
        );
    }
    if arguments.work.json {
        print_json(&totals.json(started.elapsed().as_secs_f64()))?;
    }
    Ok(Outcome::Done)
}

fn hash(arguments: &Hash) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let Hash { shards, force, work } = arguments;
    let part = work.part.part().map_err(user_error)?;
    let totals = hash::hash(shards, threads(work.threads), *force, |place| part.owns(place));
    let totals = totals.map_err(user_error)?;
    match (totals.hashed, totals.shards - totals.hashed) {
        (0, 0) => eprintln!("nothing to do: this job's part of the input has no shards"),
        (0, before) => eprintln!("nothing to do: {} already hashed", counted(before, "shard")),
        (_, 0) => {}
        (_, before) => eprintln!("already hashed before this run: {}", counted(before, "shard")),
    }
    if totals.incomplete > 0 {
        eprintln!(
            "left out {} (no _stats.json): finish them with the command that makes them, then hash again",
            counted(totals.incomplete, "incomplete shard")
        );
    }
    if work.json {
        print_json(&totals.json(started.elapsed().as_secs_f64()))?;
    }
    Ok(Outcome::Done)
}

fn reshard(arguments: &Reshard) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let options = reshard::Options {
        selection: arguments.selection.clone(),
        out: arguments.out.clone(),
        size: arguments.samples_per_shard,
        shuffle: arguments.shuffle.then_some(arguments.seed),
        compress: arguments.compress,
        part: arguments.work.part.part().map_err(user_error)?,
        threads: threads(arguments.work.threads),
    };
    let totals = reshard::reshard(&arguments.shards, &options).map_err(user_error)?;
    index::renew(&options.out, options.part, options.threads);
    match (totals.written, totals.shards - totals.written) {
        (0, 0) => eprintln!("nothing to do: this job's part of the input has no shards"),
        (0, before) => eprintln!("nothing to do: {} already complete", counted(before, "shard")),
        (_, 0) => {}
        (_, before) => eprintln!("made by earlier runs or other processes: {}", counted(before, "shard")),
    }
    if arguments.work.json {
        print_json(&totals.json(started.elapsed().as_secs_f64()))?;
    }
    Ok(Outcome::Done)
}

fn prune(arguments: &Prune) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let wanted = match (&arguments.keys, &arguments.urls) {
        (Some(keys), _) => prune::Keys::read(keys, &arguments.status).map(prune::Wanted::Keys),
        (None, Some(urls)) => Deny::read(urls).map(prune::Wanted::Listed),
        (None, None) => Err(Error::Usage("give --keys or --urls".to_owned())),
    };
    let wanted = wanted.map_err(user_error)?;
    let threads = threads(arguments.threads);
    let totals = prune::prune(&arguments.shards, &wanted, threads).map_err(user_error)?;
    index::renew(&arguments.shards, Part::ALL, threads);
    let before = match totals.before {
        0 => String::new(),
        before => format!("; {} removed before", counted(before, "row")),
    };
    eprintln!(
        "removed {} ({}) from {} of {}{before}",
        counted(totals.removed, "row"),
        counted(totals.samples, "sample"),
        totals.rewritten,
        counted(totals.shards, "shard")
    );
    if arguments.json {
        print_json(&totals.json(started.elapsed().as_secs_f64()))?;
    }
    Ok(Outcome::Done)
}

fn refresh(arguments: &Refresh) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let ask = || {
        let part = arguments.part.part()?;
        let downloader = Downloader::new(arguments.network.settings()?)?;
        let counts =
            downloader.refresh(&arguments.shards, &arguments.out, arguments.force, |place| part.owns(place));
        downloader.stop();
        counts
    };
    let counts = ask().map_err(user_error)?;
    match (counts.asked, counts.shards - counts.asked) {
        (0, 0) => eprintln!("nothing to do: this job's part of the input has no shards"),
        (0, before) => {
            eprintln!("nothing to do: {} already asked for (--force asks again)", counted(before, "shard"));
        }
        (_, 0) => {}
        (_, before) => eprintln!("already asked for before this run: {}", counted(before, "shard")),
    }
    if arguments.json {
        print_json(&counts.json(started.elapsed().as_secs_f64()))?;
    }
    Ok(Outcome::Done)
}

fn verify(arguments: &Verify) -> anyhow::Result<Outcome> {
    let options = verify::Options { quick: arguments.quick, threads: threads(arguments.threads) };
    let report = verify::verify(&arguments.folder, options).map_err(user_error)?;
    for line in report.problems.iter().chain(&report.notes) {
        eprintln!("{line}");
    }
    if arguments.json {
        print_json(&report.json())?;
    }
    let problems = report.problems.len();
    if problems > 0 {
        anyhow::bail!(
            "{}: {} in {}",
            arguments.folder.display(),
            counted(problems as u64, "problem"),
            counted(report.shards, "shard")
        );
    }
    Ok(Outcome::Done)
}

/// Wrong use becomes a [`UsageError`], which ends with exit code 2.
fn user_error(error: Error) -> anyhow::Error {
    if error.is_usage() { UsageError(error.to_string()).into() } else { error.into() }
}
