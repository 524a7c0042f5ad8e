//! `tools report`: one HTML page about a set of tagged shards, for a person, and its Croissant metadata, for programs.

mod chart;
mod croissant;
mod examples;
mod material;
mod measures;
mod page;
mod pairs;
mod speech;
mod survey;
mod text;

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use concepts::files::AtomicFile;
use concepts::statistics::Counts;
use concepts::{Bank, Matching};
use loader::program::{self, Outcome, Progress, UsageError};
use loader::shard;
use serde_json::json;

use crate::stats::{Coverage, sidecar_of};
use examples::Examples;
use pairs::Pairs;
use survey::Survey;

/// Name of the metadata's file, which is the one that programs look for.
const CROISSANT: &str = "croissant.json";

/// Write an HTML page about tagged shards
///
/// Counts concepts, captions, picture sizes and failures and writes them, with pictures of the most frequent concepts,
/// into one file that needs no network. Beside it goes croissant.json, the set's Croissant metadata. Both replace what
/// an earlier report wrote.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of tagged shards
    #[arg(value_name = "DIR")]
    shards: PathBuf,
    /// Page to write
    #[arg(long, value_name = "FILE.html")]
    out: PathBuf,
    /// Statistics of this set that `tools stats` wrote, so that concepts and pairs are not counted again
    #[arg(long, value_name = "DIR")]
    statistics: Option<PathBuf>,
    /// Class names, one a line: also says which are rarely or never mentioned
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// How mentions are matched with class names: longest or strict
    #[arg(long, default_value = "longest")]
    matching: Matching,
    /// What to call the set [default: the folder's name]
    #[arg(long)]
    name: Option<String>,
    /// Licence of the set, for croissant.json
    #[arg(long, value_name = "URL")]
    license: Option<String>,
    /// Page of the set, for croissant.json
    #[arg(long)]
    url: Option<String>,
    /// Who made the set, for croissant.json
    #[arg(long, value_name = "NAME")]
    creator: Option<String>,
    /// Print a summary as one line of JSON
    #[arg(long)]
    json: bool,
}

/// All that the page tells.
#[derive(Debug)]
struct Findings<'a> {
    name: String,
    counts: Counts,
    survey: Survey,
    coverage: Option<Coverage<'a>>,
    pairs: Pairs,
    examples: Examples,
    first_shard: String,
    last_shard: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let croissant_path = check_targets(&arguments.out)?;
    let bank = arguments.classes.as_deref().map(Bank::from_file).transpose()?;
    let mut coverage = bank.as_ref().map(|bank| Coverage::new(bank, arguments.matching));
    let counted = arguments.statistics.as_deref().map(Counts::read).transpose()?;
    let inputs = [arguments.shards.clone()];
    let shards = shard::list(&inputs)?;
    for unfinished in shard::incomplete(&inputs)? {
        eprintln!("left out: {} is not complete", unfinished.display());
    }

    let mut survey = Survey::new();
    let mut counts = Counts::new();
    let (mut mentions, mut without) = (0, 0);
    let mut progress = Progress::new("reading", "shards", shards.len() as u64);
    for path in &shards {
        if program::interrupted() {
            bail!("interrupted; {} was not written", arguments.out.display());
        }
        let sidecar = sidecar_of(path)?;
        survey.add(path, &sidecar.metadata)?;
        mentions += sidecar.metadata.mentions;
        without += u64::from(sidecar.metadata.captions_without_mention);
        if counted.is_none() {
            counts.add_shard(&sidecar);
        }
        if let Some(coverage) = &mut coverage {
            coverage.add(&sidecar);
        }
        progress.advance(1, || format!("{mentions} mentions"));
    }
    progress.finish("");
    if let (Some(counted), Some(folder)) = (counted, &arguments.statistics) {
        let of = counted.totals();
        let (said, there) = (
            [of.shards, of.samples, of.samples_without_mention, of.mentions],
            [survey.shards, survey.samples, without, mentions],
        );
        if said != there {
            bail!(
                "{} counts {} samples and {} mentions in {} shards, {} has {}, {mentions} and {}; run `tools stats` again",
                folder.display(),
                of.samples,
                of.mentions,
                of.shards,
                arguments.shards.display(),
                survey.samples,
                survey.shards
            );
        }
        counts = counted;
    }

    let (pairs, examples) = {
        let all = counts.concepts();
        let top: Vec<&str> = all.iter().take(page::TOP).map(|(name, _)| *name).collect();
        let examples_of = all.iter().take(page::TOP).flat_map(|(_, of)| &of.examples);
        let likely: Vec<&str> = examples_of.map(|(shard, _)| shard.as_str()).collect();
        let shown: Vec<&str> = all.iter().take(page::ROWS).map(|(name, _)| *name).collect();
        (Pairs::choose(&counts, &shown), examples::collect(&top, &shards, &likely)?)
    };
    let file_name = |path: Option<&PathBuf>| {
        path.and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy().into_owned()
    };
    let findings = Findings {
        name: arguments.name.clone().unwrap_or_else(|| folder_name(&arguments.shards)),
        counts,
        survey,
        coverage,
        pairs,
        examples,
        first_shard: file_name(shards.first()),
        last_shard: file_name(shards.last()),
    };
    let html = page::html(&findings)?;
    let metadata = croissant::describe(&findings, arguments, &shards)?;
    write_both((&arguments.out, html.as_bytes()), (&croissant_path, metadata.as_bytes()))?;
    say(arguments, &findings, html.len(), &croissant_path)?;
    Ok(Outcome::Done)
}

/// Where the metadata goes. Refuses what would fail at the end, and a croissant.json that is someone's own.
fn check_targets(out: &Path) -> Result<PathBuf> {
    if out.file_name().is_none_or(|name| name == CROISSANT) || out.is_dir() {
        return Err(UsageError(format!("--out {} does not name a file for the page", out.display())).into());
    }
    let path = out.with_file_name(CROISSANT);
    match fs::read_to_string(&path) {
        Ok(text) if text.contains(croissant::MARK) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        _ => bail!("{} was not written by a report; move it away or choose another --out", path.display()),
    }
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder
        && !folder.is_dir()
    {
        bail!("cannot write {}: there is no folder {}", out.display(), folder.display());
    }
    Ok(path)
}

/// Writes both files before either gets its name.
fn write_both(page: (&Path, &[u8]), metadata: (&Path, &[u8])) -> Result<()> {
    let mut files = Vec::new();
    for (path, bytes) in [metadata, page] {
        let written = AtomicFile::create(path).and_then(|mut file| file.write_all(bytes).map(|()| file));
        files.push((path, written.with_context(|| format!("cannot write {}", path.display()))?));
    }
    for (path, file) in files {
        file.commit().with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn folder_name(path: &Path) -> String {
    let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    whole.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn say(arguments: &Arguments, findings: &Findings<'_>, bytes: usize, croissant: &Path) -> Result<()> {
    let totals = findings.counts.totals();
    let pictures: usize = findings.examples.of.iter().map(Vec::len).sum();
    let skipped = findings.examples.skipped;
    let mut text = format!(
        "{} samples, {} mentions of {} concepts; {pictures} pictures",
        totals.samples, totals.mentions, totals.concepts
    );
    if skipped > 0 {
        text += &format!(" ({skipped} could not be read)");
    }
    let size = text::bytes(bytes as u64);
    crate::screen(&format!(
        "{text}\nwritten to {} ({size}) and {}\n",
        arguments.out.display(),
        croissant.display()
    ))?;
    if arguments.json {
        let coverage = findings.coverage.as_ref();
        program::print_json(&json!({
            "out": arguments.out.display().to_string(),
            "croissant": croissant.display().to_string(),
            "bytes": bytes,
            "shards": totals.shards,
            "samples": totals.samples,
            "attempts": findings.survey.attempts,
            "captions": findings.survey.captions,
            "mentions": totals.mentions,
            "samples_without_mention": totals.samples_without_mention,
            "concepts": totals.concepts,
            "pictures": pictures,
            "pictures_skipped": skipped,
            "classes_absent": coverage.map(|coverage| coverage.absent().count()),
            "classes_rare": coverage.map(|coverage| coverage.rare().count()),
        }))?;
    }
    Ok(())
}
