//! Checks one shard: the checksums of its files, then its tar in one pass, each sample against the table, the sidecar and the
//! signals, then its statistics.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use concepts::sidecar::{OLDEST_VERSION, Sidecar};
use loader::SampleError;
use loader::shards::{self, CAPTION_EXTENSION, IMAGE_EXTENSIONS, StoredCaptions, Visited};
use serde_json::Value;
use storage::Location;

use super::Options;
use super::signals::OpenSignals;
use crate::dataset::ShardStats;
use crate::dataset::sums;
use crate::error::Error;
use crate::image::{self, Hash};
use crate::parallel::StopFlag;
use crate::problem::Status;
use crate::shard::records::{self, Record, Records};
use crate::tag::existing::describes;

/// Of a tar that nothing else describes.
const WITHOUT_END: &str = "has no mark of the end of a tar, and neither table nor statistics: it may have been cut between two \
                           samples; compare its size with that of the original";

/// Maximum number of damaged samples of a shard that are named.
const NAMED: usize = 20;

/// What was found in a shard.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) samples: u64,
    /// Whether it has a sidecar, and if so, whether that can tell if a caption has changed.
    pub(super) sidecar: Option<bool>,
    /// Files of signals.
    pub(super) signals: u64,
    pub(super) images: u64,
    pub(super) hashes: u64,
    /// Files whose checksum was compared.
    pub(super) checksums: u64,
    /// Whether the tar has a checksum.
    pub(super) summed: bool,
    pub(super) problems: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// Checks one shard. Of several problems in the same table, sidecar or statistics only the first is reported. `ours`: the shard
/// was made by `ingest`. `producers`: those of the signals next to it, as far as names tell.
pub(super) fn verify(
    path: &Location,
    options: Options,
    ours: bool,
    producers: &[String],
    stop: &StopFlag,
) -> Result<Found, Error> {
    let mut found = Found::default();
    if let Err(problem) = compare_sums(path, options, &mut found) {
        found.problems.push(problem);
    }
    let table_path = shards::table_path(path);
    let (table, mut problem) = match read(&table_path) {
        Ok(None) => (None, None),
        Ok(Some(bytes)) => match records::parse(&table_path, bytes) {
            Ok(table) => (Some(table), None),
            Err(error) => (None, Some(error.to_string())),
        },
        Err(problem) => (None, Some(problem)),
    };
    let table_exists = table.is_some() || problem.is_some();
    found.problems.extend(problem.take());
    let rows = table.as_ref().map(Table::of);
    let sidecar = open_sidecar(path, &mut found);
    let signals = open_signals(path, producers, &mut found);
    let mut pass = Pass {
        path,
        table: rows.as_ref(),
        sidecar: sidecar.as_ref(),
        signals,
        decode: !options.quick,
        found: &mut found,
        damaged: 0,
        table_problem: None,
        sidecar_problem: None,
        keys: HashSet::new(),
        text: String::new(),
        sample: None,
    };
    let wanted = |extension: &str| !options.quick || !IMAGE_EXTENSIONS.contains(&extension);
    let read = loader::shards::visit(path, wanted, |member| {
        stop.check()?;
        pass.member(&member);
        Ok::<_, Error>(())
    });
    let has_end = match read {
        Ok(has_end) => has_end,
        Err(error @ Error::Interrupted(_)) => return Err(error),
        Err(error) => {
            found.problems.push(error.to_string());
            return Ok(found);
        }
    };
    pass.end();
    let stats_path = shards::stats_path(path);
    let stats = match self::read(&stats_path) {
        // Shards of other tools have neither table nor statistics.
        Ok(None) if !table_exists => {
            if !has_end {
                found.problems.push(format!("{}: {WITHOUT_END}", path.display()));
            }
            return Ok(found);
        }
        Ok(None) => None,
        Ok(Some(bytes)) => match serde_json::from_slice::<ShardStats>(&bytes) {
            Ok(stats) => Some(stats),
            Err(error) => {
                found.problems.push(format!("{}: damaged: {error}", stats_path.display()));
                None
            }
        },
        Err(problem) => {
            found.problems.push(problem);
            None
        }
    };
    match (&table, stats) {
        (Some(table), Some(stats)) => {
            found.problems.extend(
                verify_stats(&stats, table, ours)
                    .err()
                    .map(|problem| format!("{}: {problem}", stats_path.display())),
            );
        }
        (None, Some(_)) if !table_exists => {
            let line = format!("{} (the table of this shard) does not exist", table_path.display());
            found.problems.push(line);
        }
        _ => {}
    }
    Ok(found)
}

/// A file's bytes; `None` if it does not exist.
fn read(path: &Location) -> Result<Option<Bytes>, String> {
    match storage::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if storage::is_missing(&error) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Compares the shard's files with `NNNNN.sha256`, if it exists.
fn compare_sums(path: &Location, options: Options, found: &mut Found) -> Result<(), String> {
    let sums_path = shards::sums_path(path);
    let Some(sums) = sums::read(&sums_path).map_err(|error| error.to_string())? else { return Ok(()) };
    for (name, expected) in sums.iter() {
        if name.contains('/') {
            return Err(format!(
                "{}: names {name:?}, which is not a file of its folder",
                sums_path.display()
            ));
        }
        let file = path.with_file_name(name);
        let is_tar = shards::stem(&file).is_some();
        found.summed |= is_tar;
        if is_tar && options.quick {
            continue;
        }
        found.checksums += 1;
        let problem = match sums::of_file(&file) {
            Ok(sum) if sum == expected => continue,
            Ok(_) => format!("damaged: its SHA-256 is not the one in {}", sums_path.display()),
            Err(error) => error.to_string(),
        };
        found.problems.push(format!("{}: {problem}", file.display()));
    }
    Ok(())
}

/// The shard's sidecar, if there is one that fits the shard.
fn open_sidecar(path: &Location, found: &mut Found) -> Option<Sidecar> {
    let sidecar_path = shards::sidecar_path(path);
    let bytes = match read(&sidecar_path) {
        Ok(bytes) => bytes?,
        Err(problem) => {
            found.problems.push(problem);
            return None;
        }
    };
    found.sidecar = Some(true);
    match Sidecar::from_bytes(&sidecar_path.as_name(), bytes) {
        Ok(sidecar) => {
            found.sidecar = Some(sidecar.metadata.version > OLDEST_VERSION);
            Some(sidecar)
        }
        Err(error) => {
            found.problems.push(error.to_string());
            None
        }
    }
}

/// The signals next to the shard that are not damaged.
fn open_signals(path: &Location, producers: &[String], found: &mut Found) -> Vec<OpenSignals> {
    let mut open = Vec::new();
    for producer in producers {
        match OpenSignals::of(path, producer) {
            Ok(signals) => open.extend(signals),
            Err(problem) => found.problems.push(problem),
        }
    }
    found.signals = open.len() as u64;
    open
}

/// The rows of a table that describe samples in the tar, by key.
struct Table<'a> {
    rows: HashMap<&'a str, &'a Record>,
    successes: usize,
}

impl<'a> Table<'a> {
    fn of(records: &'a Records) -> Self {
        let successes = || records.rows.iter().filter(|record| record.success);
        Self {
            rows: successes().map(|record| (record.key.as_str(), record)).collect(),
            successes: successes().count(),
        }
    }
}

/// The members of one sample that were read so far.
#[derive(Default)]
struct Sample {
    key: String,
    /// Place among [`IMAGE_EXTENSIONS`], offset and length of its image.
    image: Option<(usize, u64, u64)>,
    caption: Vec<u8>,
    has_caption: bool,
    /// Those in the sidecar's field of the JSON, or why there are none.
    field: Option<Result<Vec<String>, SampleError>>,
}

impl Sample {
    /// The captions that a sidecar describes.
    fn tagged(&self, field: Option<&str>) -> StoredCaptions<'_> {
        match (field, &self.field) {
            (None, _) => StoredCaptions::Text(Some(&self.caption)),
            (Some(_), Some(Err(problem))) => StoredCaptions::Unreadable(problem),
            (Some(_), Some(Ok(captions))) => StoredCaptions::Field(captions),
            (Some(_), None) => StoredCaptions::Field(&[]),
        }
    }
}

/// The state of the pass over a tar.
struct Pass<'a> {
    path: &'a Location,
    table: Option<&'a Table<'a>>,
    sidecar: Option<&'a Sidecar>,
    signals: Vec<OpenSignals>,
    decode: bool,
    found: &'a mut Found,
    /// Damaged samples so far.
    damaged: usize,
    table_problem: Option<String>,
    sidecar_problem: Option<String>,
    keys: HashSet<String>,
    /// A buffer.
    text: String,
    sample: Option<Sample>,
}

impl Pass<'_> {
    fn member(&mut self, member: &Visited<'_>) {
        if member.first {
            self.end_sample();
            self.sample = Some(Sample { key: member.key.to_owned(), ..Sample::default() });
        }
        let Some(sample) = &mut self.sample else { return };
        let place = IMAGE_EXTENSIONS.iter().position(|extension| *extension == member.extension);
        let problem = if let Some(place) = place {
            let image = (place, member.offset, member.length);
            sample.image = sample.image.filter(|found| found.0 < place).or(Some(image));
            self.image(member)
        } else if member.extension == CAPTION_EXTENSION {
            sample.caption = member.data.to_vec();
            sample.has_caption = true;
            let text = std::str::from_utf8(member.data).err();
            if let Some(error) = text {
                let line = format!("the caption of sample {} is not UTF-8 ({error})", member.key);
                self.found.notes.push(format!("{}: {line}", self.path.display()));
            }
            None
        } else if member.extension == "json" {
            let field = self.sidecar.and_then(|sidecar| sidecar.metadata.field.as_deref());
            sample.field = field.map(|field| shards::field_captions(member.data, field));
            self.json(member).err()
        } else {
            None
        };
        if let Some(problem) = problem {
            self.damage(&problem);
        }
    }

    fn damage(&mut self, problem: &str) {
        self.damaged += 1;
        if self.damaged <= NAMED {
            self.found.problems.push(format!("{}: {problem}", self.path.display()));
        }
    }

    /// What is wrong with an image.
    fn image(&mut self, member: &Visited<'_>) -> Option<String> {
        if !self.decode {
            return None;
        }
        let key = member.key;
        self.found.images += 1;
        if let Err(problem) = image::check(member.data) {
            return Some(format!("the image of sample {key} is damaged: {problem}"));
        }
        let record = self.table?.rows.get(key)?;
        let (kind, expected) = record.hash.as_ref()?;
        // The hash is that of the original file, which is stored unchanged where no size was noted.
        if Hash::named(kind).and_then(|kind| kind.of(member.data)).as_ref() == Some(expected) {
            self.found.hashes += 1;
        } else if record.sizes.is_none() {
            return Some(format!("the image of sample {key} does not have the hash in the table"));
        }
        None
    }

    fn json(&self, member: &Visited<'_>) -> Result<(), String> {
        let key = member.key;
        let value: Value = loader::json::parse(member.data)
            .map_err(|error| format!("the JSON of sample {key} is damaged: {error}"))?;
        let Some(record) = self.table.and_then(|table| table.rows.get(key)) else { return Ok(()) };
        let differs = |name: &str, expected: Option<&str>| {
            let found = value.get(name).and_then(Value::as_str);
            found.zip(expected).is_some_and(|(found, expected)| found != expected)
        };
        let fields =
            [("key", Some(key)), ("caption", record.caption.as_deref()), ("url", Some(record.url.as_str()))];
        match fields.into_iter().find(|(name, expected)| differs(name, *expected)) {
            Some((name, _)) => Err(format!("the JSON of sample {key} has another {name} than the table")),
            None => Ok(()),
        }
    }

    /// Compares a sample, all of whose members have been read, with the table and the sidecar.
    fn end_sample(&mut self) {
        let Some(sample) = self.sample.take() else { return };
        let position = self.found.samples as u32;
        self.found.samples += 1;
        if sample.image.is_none() {
            self.damage(&format!("sample {} has no image", sample.key));
        }
        if let (Some(table), None) = (self.table, &self.table_problem) {
            self.table_problem = compare_row(table, &sample);
        }
        if let (Some(sidecar), None) = (self.sidecar, &self.sidecar_problem) {
            let captions = sample.tagged(sidecar.metadata.field.as_deref());
            let other = if sidecar.has_captions(position, captions.check()) == Some(false) {
                Some("was made from other captions than those in the tar")
            } else if !describes(sidecar, position, &sample.key, captions, &mut self.text) {
                Some("describes other samples than the tar")
            } else {
                None
            };
            self.sidecar_problem =
                other.map(|what| format!("{what}, starting with {}: run `ingest tag` again", sample.key));
        }
        for signals in &mut self.signals {
            signals.compare(position, &sample.key);
        }
        self.keys.insert(sample.key);
    }

    /// Compares what only the whole tar tells.
    fn end(mut self) {
        self.end_sample();
        let samples = self.found.samples;
        if self.damaged > NAMED {
            let more = self.damaged - NAMED;
            self.found.problems.push(format!("{}: {more} more damaged samples", self.path.display()));
        }
        let table = shards::table_path(self.path);
        if let Some(rows) = self.table
            && (rows.successes as u64 != samples || self.keys.len() as u64 != samples)
        {
            let problem =
                format!("has {} successful rows, but the tar has {samples} samples", rows.successes);
            self.table_problem = Some(problem);
        }
        self.found
            .problems
            .extend(self.table_problem.map(|problem| format!("{}: {problem}", table.display())));
        let length = storage::length(self.path).map_err(|error| error.to_string());
        let ended =
            self.signals.into_iter().filter_map(|signals| signals.end(self.path, &length, samples as u32));
        self.found.problems.extend(ended);
        let Some(sidecar) = self.sidecar else { return };
        let sidecar_path = shards::sidecar_path(self.path);
        let problem = length
            .and_then(|bytes| {
                sidecar
                    .refuse_unless_for(&self.path.as_name(), bytes, samples as u32)
                    .map_err(|error| error.to_string())
            })
            .err()
            .or_else(|| self.sidecar_problem.map(|problem| format!("{}: {problem}", sidecar_path.display())));
        self.found.problems.extend(problem);
    }
}

/// What differs between a sample and its row of the table.
fn compare_row(table: &Table<'_>, sample: &Sample) -> Option<String> {
    let key = &sample.key;
    let Some(record) = table.rows.get(key.as_str()) else {
        return Some(format!("sample {key} of the tar has no successful row"));
    };
    let image = sample.image.map(|(_, offset, length)| (offset, length));
    if record.location.is_some() && record.location != image {
        return Some(format!("wrong offset or length of the image of sample {key}"));
    }
    if let Some(caption) = &record.caption
        && sample.has_caption
        && sample.caption != caption.as_bytes()
    {
        return Some(format!("the caption of sample {key} differs from the one in the tar"));
    }
    None
}

fn verify_stats(stats: &ShardStats, table: &Records, ours: bool) -> Result<(), String> {
    let successes = table.rows.iter().filter(|record| record.success).count() as u64;
    if stats.successes != successes {
        return Err(format!("declares {} successes, the table has {successes}", stats.successes));
    }
    // img2dataset also counts rows that it dropped, so the table may have fewer rows.
    let rows = table.rows.len() as u64;
    if stats.count < rows {
        return Err(format!("declares {} samples, the table has {rows}", stats.count));
    }
    if !ours {
        return Ok(());
    }
    let mut causes: BTreeMap<&str, u64> = BTreeMap::new();
    let mut by_status = [0; 4];
    for record in &table.rows {
        let cause = record.error_message.as_deref().filter(|_| !record.success);
        *causes.entry(cause.unwrap_or(Status::Success.name())).or_default() += 1;
        match Status::of_name(&record.status) {
            Status::Success => {}
            Status::FailedToRead => by_status[0] += 1,
            Status::FailedToDownload => by_status[1] += 1,
            Status::FailedToResize => by_status[2] += 1,
            Status::Removed => by_status[3] += 1,
        }
    }
    let declared = stats.status_dict.iter().map(|(cause, count)| (cause.as_str(), *count)).collect();
    let same = stats.count == rows
        && by_status
            == [stats.failed_to_read, stats.failed_to_download, stats.failed_to_resize, stats.removed]
        && causes == declared;
    if same { Ok(()) } else { Err("its counts are not those of the table".to_owned()) }
}
