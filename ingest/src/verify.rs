//! `ingest verify`: checks that tars, tables, statistics and sidecars are undamaged and describe the same samples.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use concepts::files::TEMPORARY;
use concepts::sidecar::{Parts, Sidecar};
use loader::program::{Progress, interrupted};
use loader::shard;
use loader::tar::Archive;
use serde_json::{Value, json};

use crate::error::Error;
use crate::records::{self, Records};
use crate::stats::{ShardStats, counted};

/// The result for a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of checked shards, or of sidecars of a tagged table.
    pub shards: u64,
    /// Number of samples in their tars.
    pub samples: u64,
    /// Number of shards with a sidecar.
    pub sidecars: u64,
    /// Damage: one line each, beginning with the file.
    pub problems: Vec<String>,
    /// Harmless leftovers: one line each, beginning with the file.
    pub notes: Vec<String>,
}

impl Report {
    /// The summary object of `--json`.
    pub fn json(&self) -> Value {
        json!({
            "shards": self.shards,
            "samples": self.samples,
            "sidecars": self.sidecars,
            "problems": self.problems,
            "notes": self.notes,
        })
    }
}

/// Checks every shard of a folder. Damage is reported, not an error.
pub fn verify(folder: &Path) -> Result<Report, Error> {
    if loader::source::is_remote(folder) {
        let problem =
            format!("{} is not a local folder: copy the shards to a disk to verify them", folder.display());
        return Err(Error::Usage(problem));
    }
    if let Some(parts) = Parts::read(folder)? {
        return verify_parts(folder, &parts);
    }
    let input = [folder.to_owned()];
    let mut report = Report::default();
    for path in shard::incomplete(&input)? {
        report.problems.push(format!(
            "{}: incomplete (no _stats.json): run the command that made the dataset again",
            path.display()
        ));
    }
    let listed = list(folder)?;
    for name in &listed.leftovers {
        let path = folder.join(name);
        report.notes.push(format!(
            "{}: left by a process that was stopped; the next run of `ingest` on this folder completes or removes it",
            path.display()
        ));
    }
    report.problems.extend(listed.problems);
    let shards = if listed.tars == 0 { Vec::new() } else { shard::list(&input).unwrap_or_default() };
    if shards.is_empty() && report.problems.is_empty() {
        return Err(Error::input(folder, "no shards in this folder"));
    }
    let mut progress = Progress::new("verifying", "shards", shards.len() as u64);
    for path in &shards {
        if interrupted() {
            return Err(Error::Interrupted);
        }
        report.shards += 1;
        if let Err(problem) = verify_shard(path, &mut report) {
            report.problems.push(problem);
        }
        let problems = report.problems.len() as u64;
        progress.advance(1, || counted(problems, "problem"));
    }
    progress.finish(&counted(report.problems.len() as u64, "problem"));
    Ok(report)
}

/// Checks the sidecars that `ingest tag --table` made.
fn verify_parts(folder: &Path, parts: &Parts) -> Result<Report, Error> {
    let mut report = Report::default();
    for (number, footer) in (0..).zip(parts.footers()) {
        if interrupted() {
            return Err(Error::Interrupted);
        }
        report.shards += 1;
        report.samples += u64::from(footer.samples);
        let path = Parts::path(folder, number);
        let checked =
            Sidecar::open(&path).and_then(|sidecar| Parts::refuse_unless(&footer, &sidecar.metadata, &path));
        match checked {
            Ok(()) => report.sidecars += 1,
            Err(error) => report.problems.push(error.to_string()),
        }
    }
    Ok(report)
}

struct Listed {
    tars: usize,
    leftovers: Vec<String>,
    problems: Vec<String>,
}

/// Checks the file names: temporary files, gaps in the numbers, statistics and sidecars without a tar.
fn list(folder: &Path) -> Result<Listed, Error> {
    let mut names = HashSet::new();
    for entry in fs::read_dir(folder).map_err(Error::file("read", folder))? {
        names.insert(entry.map_err(Error::file("read", folder))?.file_name().to_string_lossy().into_owned());
    }
    let mut leftovers: Vec<String> = names
        .iter()
        .filter(|name| name.starts_with(TEMPORARY) && !is_in_use(&folder.join(name)))
        .cloned()
        .collect();
    leftovers.sort();
    let stems: HashSet<&str> = names.iter().filter_map(|name| shard::stem(Path::new(name))).collect();
    let mut orphans: Vec<&String> = names
        .iter()
        .filter(|name| {
            let stem = name.strip_suffix("_stats.json").or_else(|| name.strip_suffix(".concepts.parquet"));
            !name.starts_with(TEMPORARY) && stem.is_some_and(|stem| !stems.contains(stem))
        })
        .collect();
    orphans.sort();
    let mut problems: Vec<String> =
        orphans.iter().map(|name| format!("{}: its tar is missing", folder.join(name).display())).collect();
    let numbers: HashSet<u32> = stems
        .iter()
        .filter(|stem| stem.len() >= 5 && stem.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|stem| stem.parse().ok())
        .collect();
    // Only in datasets of ingest is a gap certainly an error: elsewhere the numbers may be a selection.
    if names.contains(crate::dataset::MANIFEST)
        && let Some(last) = numbers.iter().max()
    {
        let missing: Vec<u32> = (0..*last).filter(|number| !numbers.contains(number)).collect();
        for number in missing.iter().take(20) {
            let tar = folder.join(format!("{number:05}.tar"));
            problems.push(format!("{}: missing, although later shards exist", tar.display()));
        }
        if missing.len() > 20 {
            let more = counted(missing.len() as u64 - 20, "more shard");
            problems.push(format!("{}: {more} missing", folder.display()));
        }
    }
    Ok(Listed { tars: stems.len(), leftovers, problems })
}

/// Whether a process that writes this temporary file lives.
fn is_in_use(path: &Path) -> bool {
    fs::File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// Checks one shard. Of several problems in the same file only the first is reported.
fn verify_shard(path: &Path, report: &mut Report) -> Result<(), String> {
    let archive = Archive::open(path).map_err(|error| error.to_string())?;
    let (samples, has_end) = archive.samples_and_end().map_err(|error| error.to_string())?;
    report.samples += samples.len() as u64;
    for sample in &samples {
        if sample.image().is_none() {
            let problem = format!("{}: sample {} has no image", path.display(), sample.key);
            report.problems.push(problem);
            break;
        }
    }
    let sidecar = shard::sidecar_path(path);
    if sidecar.exists() {
        report.sidecars += 1;
        if let Err(error) = verify_sidecar(&sidecar, path, &samples) {
            report.problems.push(error);
        }
    }
    let stats_path = shard::stats_path(path);
    let stats = stats_path.exists().then(|| {
        let bytes = fs::read(&stats_path).map_err(|error| cannot_read(&stats_path, &error))?;
        serde_json::from_slice::<ShardStats>(&bytes)
            .map_err(|error| format!("{}: damaged: {error}", stats_path.display()))
    });
    let table_path = shard::table_path(path);
    if !table_path.exists() {
        return match stats {
            // Shards of other tools have neither table nor statistics.
            None if has_end => Ok(()),
            None => {
                let problem = "has no mark of the end of a tar, and neither table nor statistics: it may have been cut between \
                               two samples; compare its size with that of the original";
                Err(format!("{}: {problem}", path.display()))
            }
            Some(_) => Err(format!("{} (the table of this shard) does not exist", table_path.display())),
        };
    }
    let table = records::read(&table_path).map_err(|error| error.to_string())?;
    if let Some(stats) = stats {
        verify_stats(&stats?, &table, &stats_path)?;
    }
    verify_table(&table, &table_path, &archive, &samples)
}

fn cannot_read(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

fn verify_stats(stats: &ShardStats, table: &Records, path: &Path) -> Result<(), String> {
    let successes = table.rows.iter().filter(|record| record.success).count() as u64;
    if stats.successes != successes {
        let declared = stats.successes;
        return Err(format!("{}: declares {declared} successes, the table has {successes}", path.display()));
    }
    // img2dataset also counts rows that it dropped, so the table may have fewer rows.
    if stats.count < table.rows.len() as u64 {
        let (declared, rows) = (stats.count, table.rows.len());
        return Err(format!("{}: declares {declared} samples, the table has {rows}", path.display()));
    }
    Ok(())
}

fn verify_table(
    table: &Records,
    path: &Path,
    archive: &Archive,
    samples: &[loader::tar::Sample],
) -> Result<(), String> {
    let fail = |problem: String| Err(format!("{}: {problem}", path.display()));
    let in_tar: HashMap<&str, &loader::tar::Sample> =
        samples.iter().map(|sample| (sample.key.as_str(), sample)).collect();
    let successes = table.rows.iter().filter(|record| record.success).count();
    if successes != samples.len() || in_tar.len() != samples.len() {
        return fail(format!("has {successes} successful rows, but the tar has {} samples", samples.len()));
    }
    for record in table.rows.iter().filter(|record| record.success) {
        let key = &record.key;
        let Some(sample) = in_tar.get(key.as_str()) else {
            return fail(format!("sample {key} is not in the tar"));
        };
        let image = sample.image().map(|member| (member.offset, member.length));
        if record.location.is_some() && record.location != image {
            return fail(format!("wrong offset or length of the image of sample {key}"));
        }
        if let (Some(caption), Some(member)) = (&record.caption, sample.caption()) {
            let text = archive.read(member.offset, member.length).map_err(|error| error.to_string())?;
            if text != caption.as_bytes() {
                return fail(format!("the caption of sample {key} differs from the one in the tar"));
            }
        }
        if let Some((offset, length)) = image {
            let start = archive.read(offset, length.min(12)).map_err(|error| error.to_string())?;
            if !has_image_signature(&start) {
                return fail(format!("the image of sample {key} in the tar is damaged"));
            }
        }
    }
    Ok(())
}

/// Whether a file begins like a JPEG, PNG or WebP.
fn has_image_signature(start: &[u8]) -> bool {
    start.starts_with(&[0xff, 0xd8, 0xff])
        || start.starts_with(b"\x89PNG")
        || (start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WEBP"))
}

fn verify_sidecar(sidecar: &Path, path: &Path, samples: &[loader::tar::Sample]) -> Result<(), String> {
    let bytes = fs::metadata(path).map_err(|error| cannot_read(path, &error))?.len();
    let table = Sidecar::open(sidecar).map_err(|error| error.to_string())?;
    table.refuse_unless_for(path, bytes, samples.len() as u32).map_err(|error| error.to_string())?;
    for (position, sample) in (0..).zip(samples) {
        // The sidecar has the keys of samples with mentions only.
        if table.key(position).is_some_and(|key| key != sample.key) {
            let problem = format!(
                "describes other samples than the tar, starting with {}: run `ingest tag` again",
                sample.key
            );
            return Err(format!("{}: {problem}", sidecar.display()));
        }
    }
    Ok(())
}
