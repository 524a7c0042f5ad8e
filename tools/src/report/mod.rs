//! `tools report`: an HTML page about tagged shards, for people, and their Croissant metadata, for programs.

mod chart;
mod concept_sections;
mod croissant;
mod data_sections;
mod distributions;
mod examples;
mod page;
mod pairs;
mod section;
mod selected;
mod survey;
mod text;

use std::fs;
use std::io::Write;

use anyhow::{Context, Result, bail};
use clap::ValueHint;
use concepts::statistics::Counts;
use disk::files::{AtomicFile, clear_leftovers_of};
use program::{Interrupted, Outcome, Progress, UsageError, location};
use serde_json::json;
use storage::Location;

use crate::classes::ClassArguments;
use crate::input;
use crate::stats::{Coverage, compare_captions, sidecar_of};
use examples::Examples;
use pairs::Pairs;
use selected::Selected;
use survey::Survey;

/// Name of the metadata file. Programs look for this name.
const CROISSANT: &str = "croissant.json";

/// Write an HTML report about tagged shards
///
/// The report shows how often each concept is mentioned, example images of the most frequent concepts, pairs of
/// concepts, lengths of captions, sizes of images, and failures by cause. It is one file that needs no network. The
/// command also writes croissant.json, the dataset's metadata in the Croissant format, next to the report. Files that
/// an earlier report wrote are replaced.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of tagged shards, on disk or at an address such as s3://bucket/shards
    #[arg(value_name = "DIR", value_parser = location(), value_hint = ValueHint::AnyPath)]
    shards: Location,
    /// HTML file to write, on disk or at an address such as s3://bucket/report.html
    #[arg(long, value_name = "FILE.html", value_parser = location(), value_hint = ValueHint::AnyPath)]
    out: Location,
    /// Folder that `tools stats` wrote for these shards: saves counting concepts and pairs again
    #[arg(long, value_name = "DIR", value_parser = location(), value_hint = ValueHint::AnyPath)]
    statistics: Option<Location>,
    /// Selection of these shards, as `tools select` writes it: also shows what its rules left out, and the concepts and classes
    /// before and after
    #[arg(long, value_name = "FILE", value_parser = location(), value_hint = ValueHint::AnyPath)]
    selection: Option<Location>,
    #[command(flatten)]
    classes: ClassArguments,
    /// Name of the dataset, shown as the title [default: the folder's name]
    #[arg(long)]
    name: Option<String>,
    /// URL of the dataset's licence, for croissant.json
    #[arg(long, value_name = "URL")]
    license: Option<String>,
    /// Web page of the dataset, for croissant.json
    #[arg(long)]
    url: Option<String>,
    /// Creator of the dataset, for croissant.json
    #[arg(long, value_name = "NAME")]
    creator: Option<String>,
    /// Print a summary as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Everything that the page shows.
#[derive(Debug)]
struct Findings<'a> {
    name: String,
    counts: Counts,
    survey: Survey,
    coverage: Option<Coverage<'a>>,
    selected: Option<Selected<'a>>,
    pairs: Pairs,
    examples: Examples,
    first_shard: String,
    last_shard: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let croissant_path = check_targets(&arguments.out)?;
    let classes = arguments.classes.read()?;
    let mut coverage = classes.as_ref().map(Coverage::new);
    let counted = arguments.statistics.as_ref().map(input::statistics).transpose()?;
    let shards = input::shards(&arguments.shards)?;
    let selection = arguments.selection.as_ref();
    let mut selected = selection
        .map(|file| Selected::open(file, &shards, classes.as_ref().map(Coverage::new)))
        .transpose()?;

    let mut survey = Survey::new();
    let mut counts = Counts::new();
    let (mut mentions, mut without, mut unchecked) = (0, 0, 0);
    let mut source = Some(0_u128);
    let mut progress = Progress::new("reading", "shards", shards.len() as u64);
    for (number, path) in shards.iter().enumerate() {
        if program::interrupted() {
            bail!(Interrupted::new(format!("{} was not written", arguments.out)));
        }
        let sidecar = sidecar_of(path)?;
        compare_captions(path, &sidecar.metadata)?;
        unchecked += usize::from(sidecar.metadata.captions.is_none());
        source = source.zip(sidecar.metadata.identity()).map(|(sum, more)| sum.wrapping_add(more));
        survey.add(path, &sidecar.metadata)?;
        mentions += sidecar.metadata.mentions;
        without += u64::from(sidecar.metadata.captions_without_mention);
        if counted.is_none() {
            counts.add_shard(&sidecar);
        }
        if let Some(coverage) = &mut coverage {
            coverage.add(&sidecar);
        }
        if let Some(selected) = &mut selected {
            selected.add(number, path, &sidecar)?;
        }
        progress.advance(1, || format!("{mentions} mentions"));
    }
    progress.finish("");
    if let Some(warning) = loader::shards::sidecar::unchecked_warning(unchecked, shards.len()) {
        eprintln!("warning: {warning}");
    }
    if survey.attempts == 0 {
        bail!("the shards in {} contain no samples, so there is nothing to report", arguments.shards);
    }
    if let (Some(statistics), Some(folder)) = (counted, &arguments.statistics) {
        let of = statistics.totals();
        let (counted, found) = (
            [of.shards, of.samples, of.samples_without_mention, of.mentions],
            [survey.shards, survey.samples, without, mentions],
        );
        if counted != found {
            bail!(
                "{} has the statistics of other shards ({} samples, {} mentions, {} shards) than those in {} ({} samples, \
                 {mentions} mentions, {} shards); run `tools stats` again",
                folder,
                of.samples,
                of.mentions,
                of.shards,
                arguments.shards,
                survey.samples,
                survey.shards
            );
        }
        if of.source.zip(source).is_some_and(|(of, found)| of != format!("{found:032x}")) {
            bail!(
                "{} has the statistics of other captions, shards or another tagger than those in {}; run `tools stats` again",
                folder,
                arguments.shards
            );
        }
        counts = statistics;
    }

    let (pairs, examples) = {
        let all = counts.concepts();
        let top: Vec<&str> = all.iter().take(section::TOP).map(|(name, _)| *name).collect();
        let examples_of = all.iter().take(section::TOP).flat_map(|(_, of)| &of.examples);
        let likely: Vec<&str> = examples_of.map(|(shard, _)| shard.as_str()).collect();
        let shown: Vec<&str> = all.iter().take(page::ROWS).map(|(name, _)| *name).collect();
        (Pairs::choose(&counts, &shown), examples::collect(&top, &shards, &likely)?)
    };
    let file_name =
        |shard: Option<&Location>| shard.map_or(String::new(), |shard| shard.file_name().into_owned());
    let findings = Findings {
        name: arguments.name.clone().unwrap_or_else(|| folder_name(&arguments.shards)),
        counts,
        survey,
        coverage,
        selected,
        pairs,
        examples,
        first_shard: file_name(shards.first()),
        last_shard: file_name(shards.last()),
    };
    let html = page::html(&findings)?;
    let metadata = croissant::describe(&findings, arguments, &shards)?;
    write_both((&arguments.out, html.as_bytes()), (&croissant_path, metadata.as_bytes()))?;
    print_summary(arguments, &findings, html.len(), &croissant_path)?;
    Ok(Outcome::Done)
}

/// The path of the metadata. Fails early for paths that cannot be written at the end, and for a croissant.json that
/// another program wrote.
fn check_targets(out: &Location) -> Result<Location> {
    let is_folder = match out {
        Location::Local(path) => path.is_dir(),
        Location::Remote(address) => address.to_string().ends_with('/'),
    };
    if ["", CROISSANT].contains(&&*out.file_name()) || is_folder {
        return Err(UsageError(format!("--out {out} is not the name of an HTML file to write")).into());
    }
    let path = out.with_file_name(CROISSANT);
    match storage::read(&path) {
        Ok(text) if String::from_utf8_lossy(&text).contains(croissant::MARK) => {}
        Err(error) if storage::is_missing(&error) => {}
        Err(error) => return Err(error.into()),
        _ => {
            bail!("{path} was not written by `tools report`; move it away or choose another folder for --out")
        }
    }
    let folder = out.parent().filter(|folder| *folder != Location::default());
    if let Some(folder) = folder
        && folder.local().is_some_and(|folder| !folder.is_dir())
    {
        bail!("cannot write {out}: the folder {folder} does not exist");
    }
    Ok(path)
}

/// Writes both files under temporary names before it renames either; in a store, the page last.
fn write_both(page: (&Location, &[u8]), metadata: (&Location, &[u8])) -> Result<()> {
    let mut files = Vec::new();
    for (target, bytes) in [metadata, page] {
        let Location::Local(path) = target else {
            storage::write(target, bytes.to_vec())?;
            continue;
        };
        clear_leftovers_of(path);
        let written = AtomicFile::create(path).and_then(|mut file| file.write_all(bytes).map(|()| file));
        files.push((path, written.with_context(|| format!("cannot write {}", path.display()))?));
    }
    for (path, file) in files {
        file.commit().with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn folder_name(folder: &Location) -> String {
    let whole = folder.local().and_then(|path| fs::canonicalize(path).ok()).map(Location::from);
    match whole.as_ref().unwrap_or(folder).file_name() {
        name if name.is_empty() => folder.to_string(),
        name => name.into_owned(),
    }
}

fn print_summary(
    arguments: &Arguments,
    findings: &Findings<'_>,
    bytes: usize,
    croissant: &Location,
) -> Result<()> {
    let totals = findings.counts.totals();
    let images: usize = findings.examples.of.iter().map(Vec::len).sum();
    let skipped = findings.examples.skipped;
    let mut text = format!(
        "{} samples, {} mentions of {} concepts; {images} example images",
        totals.samples, totals.mentions, totals.concepts
    );
    if skipped > 0 {
        text += &format!(" ({skipped} others could not be decoded)");
    }
    let size = text::bytes(bytes as u64);
    crate::screen(&format!("{text}\nwritten to {} ({size}) and {croissant}\n", arguments.out))?;
    if arguments.json {
        let coverage = findings.coverage.as_ref();
        program::print_json(&json!({
            "out": arguments.out.to_string(),
            "croissant": croissant.to_string(),
            "bytes": bytes,
            "shards": totals.shards,
            "samples": totals.samples,
            "attempts": findings.survey.attempts,
            "captions": findings.survey.captions,
            "mentions": totals.mentions,
            "samples_without_mention": totals.samples_without_mention,
            "concepts": totals.concepts,
            "images": images,
            "images_skipped": skipped,
            "selected": findings.selected.as_ref().map(|selected| selected.samples),
            "classes_absent": coverage.map(|coverage| coverage.absent().count()),
            "classes_rare": coverage.map(|coverage| coverage.rare().count()),
        }))?;
    }
    Ok(())
}
