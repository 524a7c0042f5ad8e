//! `ingest`: lists of URLs and local sets to WebDataset shards, and the concepts of their captions.

mod arguments;

use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory, Parser};
use concepts::Extractor;
use ingest::download::Downloader;
use ingest::local::Folder;
use ingest::rows::Where;
use ingest::set::Set;
use ingest::stats::Totals;
use ingest::{Error, Input, tag, verify};
use loader::program::{Outcome, UsageError, print_json};

use crate::arguments::{Arguments, Command, Download, Retry, RunArguments, Shard, Tag, Verify, threads};

fn main() -> ExitCode {
    if let Some(code) = pages::requested(Arguments::command) {
        return code;
    }
    let arguments = Arguments::parse();
    loader::program::run(|| match arguments.command {
        Command::Download(arguments) => download(&arguments),
        Command::Shard(arguments) => shard(&arguments),
        Command::Tag(arguments) => tag(&arguments),
        Command::Retry(arguments) => retry(&arguments),
        Command::Verify(arguments) => verify(&arguments),
    })
}

fn download(arguments: &Download) -> anyhow::Result<Outcome> {
    let Download { input, columns, url_col, output, pictures, network } = arguments;
    let started = Instant::now();
    let make = || {
        let wanted = columns.wanted(Where::Web, url_col.as_ref())?;
        let input = Input::tables(input, columns.input_format, wanted)?;
        let set = output.set(pictures.settings(columns)?)?;
        let downloader = Downloader::new(network.settings()?)?;
        let totals = downloader.download(&input, &set);
        // Requests that are still under way would hold the process up.
        downloader.stop();
        totals
    };
    let totals = make().map_err(told)?;
    conclude(&totals, &output.run, started)
}

fn shard(arguments: &Shard) -> anyhow::Result<Outcome> {
    let Shard { input, images, columns, file_col, output, pictures, max_bytes } = arguments;
    let started = Instant::now();
    let make = || {
        let wanted = columns.wanted(Where::Local, file_col.as_ref())?;
        // A folder is a folder of tables when it is told where the pictures are, else of pictures.
        let (input, folder) = match images {
            Some(images) => (Input::tables(input, columns.input_format, wanted)?, images),
            None if input.is_file() => {
                let problem =
                    format!("{} is a table: say with --images where its pictures are", input.display());
                return Err(Error::Usage(problem));
            }
            None => (Input::Pairs(input.clone()), input),
        };
        let set = output.set(pictures.settings(columns)?)?;
        Folder::open(folder, *max_bytes)?.shard(&input, &set)
    };
    let totals = make().map_err(told)?;
    conclude(&totals, &output.run, started)
}

fn retry(arguments: &Retry) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let make = || {
        let run = &arguments.run;
        let set = Set::load(&arguments.folder, run.part.part()?, threads(run.threads), run.metrics)?;
        let downloader = Downloader::new(arguments.network.settings()?)?;
        let totals = downloader.retry(&set, &arguments.causes);
        downloader.stop();
        totals
    };
    let totals = make().map_err(told)?;
    conclude(&totals, &arguments.run, started)
}

/// The summary, and whether too much is missing.
fn conclude(totals: &Totals, run: &RunArguments, started: Instant) -> anyhow::Result<Outcome> {
    if let Some(warning) = totals.hash_warning() {
        eprintln!("{warning}");
    }
    for (cause, count) in totals.causes().take(10) {
        eprintln!("{count:>10}  {cause}");
    }
    if totals.shards_before > 0 {
        eprintln!("{} of the shards were finished before", totals.shards_before);
    }
    if run.json {
        print_json(&totals.json(started.elapsed().as_secs_f64()))?;
    }
    if run.max_failures.is_some_and(|limit| limit.exceeded(totals)) {
        eprintln!(
            "{} of {} samples are missing, more than --max-failures allows",
            totals.failures(),
            totals.stats.count
        );
        return Ok(Outcome::Losses);
    }
    Ok(Outcome::Done)
}

fn tag(arguments: &Tag) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let extractor = Extractor::new(arguments.tagger)?;
    let Tag { shards, text, captions, .. } = arguments;
    let threads = threads(arguments.threads);
    let totals = match (text, (&captions.table, &captions.out), shards) {
        (Some(text), ..) => {
            let lines = tag::open_text(text).map_err(told)?;
            tag::tag_text(text, lines, std::io::stdout(), &extractor, threads)
        }
        (None, (Some(input), Some(out)), _) => {
            let part = arguments.part.part().map_err(told)?;
            let tables = captions.tables(input, out).map_err(told)?;
            tag::tag_tables(&tables, &extractor, threads, |number| part.owns(number))
        }
        (None, _, Some(shards)) => {
            let part = arguments.part.part().map_err(told)?;
            tag::tag(shards, &extractor, threads, |place| part.owns(place))
        }
        _ => {
            let problem = "give a folder of shards, or --table INPUT --out DIR, or --text FILE";
            return Err(UsageError(problem.to_owned()).into());
        }
    };
    let totals = totals.map_err(told)?;
    if totals.incomplete > 0 {
        eprintln!("{} shards are not complete and were left out", totals.incomplete);
    }
    if totals.captions_not_utf8 > 0 {
        eprintln!(
            "{} captions are not UTF-8 and were read with replacement characters",
            totals.captions_not_utf8
        );
    }
    if totals.unreadable_rows > 0 {
        eprintln!("{} rows cannot be read and count as captions without text", totals.unreadable_rows);
    }
    if arguments.json {
        print_json(&totals.json(started.elapsed().as_secs_f64()))?;
    }
    Ok(Outcome::Done)
}

fn verify(arguments: &Verify) -> anyhow::Result<Outcome> {
    let report = verify::verify(&arguments.folder).map_err(told)?;
    for line in report.problems.iter().chain(&report.notes) {
        eprintln!("{line}");
    }
    if arguments.json {
        print_json(&report.json())?;
    }
    let problems = report.problems.len();
    if problems > 0 {
        anyhow::bail!("{}: {problems} problems in {} shards", arguments.folder.display(), report.shards);
    }
    Ok(Outcome::Done)
}

/// The crate's messages name their source already, so it is not repeated after them.
fn told(error: Error) -> anyhow::Error {
    match error {
        Error::Usage(problem) => UsageError(problem).into(),
        other => anyhow::anyhow!("{other}"),
    }
}
