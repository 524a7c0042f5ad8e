//! `ingest retry`: downloads the failed samples of complete shards again. A shard with samples to retry is rewritten as a
//! whole, from its own tar and table and the new downloads.

use std::cell::RefCell;
use std::collections::HashMap;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use loader::shards::Archive;
use loader::shards::signals::{HASH, Signals};
use storage::Location;

use super::{Downloader, Failure};
use crate::dataset::Dataset;
use crate::dataset::staging::Staging;
use crate::dataset::sums;
use crate::deny::Deny;
use crate::error::Error;
use crate::image::EncodedImage;
use crate::pipeline::Totals;
use crate::pipeline::{self, Plan, Resources, Source, Work};
use crate::problem::{DENIED, Problem, REMOVED, Status};
use crate::request::Request;
use crate::rows::{self, Extra, Row, Rows};
use crate::shard::records::{self, Record};
use crate::signals::Hashed;

impl Downloader {
    /// Retries the failures whose cause contains one of `causes`; if `causes` is empty, all temporary failures. Nothing of `deny`
    /// is taken.
    pub fn retry(
        &self,
        dataset: &Dataset,
        causes: &[String],
        deny: Option<&Deny>,
        resources: &Resources,
    ) -> Result<Totals, Error> {
        let mut unchanged = Totals::default();
        let mut shards = Vec::new();
        let mut samples = 0;
        for shard in dataset.finished_shards()? {
            let Some(stats) = dataset.finished(shard)?.filter(|_| dataset.part.owns(shard)) else { continue };
            if stats.status_dict.keys().any(|cause| is_wanted(cause, causes)) {
                samples += stats.count;
                shards.push((shard, stats));
            } else {
                unchanged.finished_shard(&stats);
            }
        }
        // Rows are fed shard by shard, so it is enough to hold the earlier samples of one shard.
        let earlier = RefCell::new(None);
        let mut open = |shard| {
            let (rows, its) = CompleteShard::read(dataset, shard)?;
            earlier.replace(Some(its));
            Ok(Box::new(rows) as Box<dyn Rows>)
        };
        let watch = resources.watch(self.network.fetcher.network())?;
        let plan = Plan {
            what: "retrying",
            total: samples,
            threads: resources.threads,
            queue: None,
            watch,
            deny,
            idle: &|| self.network.is_waiting(),
        };
        let work = Work::Again(&shards, &mut open);
        let mut totals = pipeline::run(dataset, &plan, work, &mut |mut task, workers| {
            let known = match &*earlier.borrow() {
                Some(earlier) => earlier.outcome(task.index, causes)?,
                None => None,
            };
            match known {
                Some((request, Ok(image))) => {
                    task.request = request;
                    let permit = self.start_row(workers)?;
                    workers.submit(task, Source::Processed(image, Some(Box::new(permit))));
                }
                Some((request, Err(problem))) => {
                    task.request = request;
                    workers.submit(task, Source::Failed(problem));
                }
                None => self.submit(task, deny, workers)?,
            }
            Ok(())
        })?;
        totals.add_earlier(&unchanged);
        Ok(totals)
    }
}

/// Whether a failure with this cause is retried.
fn is_wanted(cause: &str, causes: &[String]) -> bool {
    if [REMOVED, DENIED].contains(&cause) {
        return false;
    }
    if causes.is_empty() {
        Failure::is_worth_retrying(cause)
    } else {
        causes.iter().any(|part| cause.contains(part.as_str()))
    }
}

/// The samples of a complete shard.
struct CompleteShard {
    archive: Archive,
    /// Holds the local copy of a remote shard, which is removed with it.
    _staging: Staging,
    records: Vec<Record>,
    /// The perceptual hashes of its images, by their keys; empty if they are not known.
    hashes: HashMap<String, u64>,
}

/// What became of a sample, and what its request taught.
type Outcome = (Request, Result<EncodedImage, Problem>);

impl CompleteShard {
    fn read(dataset: &Dataset, shard: u32) -> Result<(CompleteRows, Self), Error> {
        let table = records::read(&dataset.table(shard))?;
        let extra = table
            .extra
            .iter()
            .map(|(name, kind)| Extra { name: name.clone(), kind: rows::kind(kind) })
            .collect();
        let staging = Staging::new(&dataset.folder)?;
        let archive = Archive::open(&staging.fetch(&dataset.tar(shard))?)?;
        let hashes = hashes(&dataset.tar(shard), &dataset.sums(shard), &table.rows);
        let blur = dataset.image.blur.as_ref();
        let boxes = blur.and_then(|name| table.extra.iter().position(|(extra, _)| extra == name));
        let row = |record: &Record| Row {
            url: record.url.clone(),
            caption: record.caption.clone(),
            extra: record.extra.clone(),
            hash: record.hash.as_ref().filter(|_| !record.success).map(|(_, hash)| hash.clone()),
            // Boxes that cannot be parsed made the sample fail when the shard was made, and it stays failed.
            boxes: boxes.and_then(|index| rows::regions(&record.extra[index])).unwrap_or_default(),
            problem: None,
            removed: record.removed.clone(),
        };
        let rows: Vec<Row> = table.rows.iter().map(row).collect();
        let rows = CompleteRows { extra, captioned: table.captioned, rows: rows.into_iter() };
        Ok((rows, Self { archive, _staging: staging, records: table.rows, hashes }))
    }

    /// The stored image, or the failure that stays; None for a sample to retry.
    fn outcome(&self, index: u32, causes: &[String]) -> Result<Option<Outcome>, Error> {
        let Some(record) = self.records.get(index as usize) else { return Ok(None) };
        let request = record.request.clone();
        if let (Some([width, height, original_width, original_height]), Some((offset, length)), true) =
            (record.sizes, record.location, record.success)
        {
            let image = EncodedImage {
                bytes: self.archive.read(offset, length)?,
                width,
                height,
                original_width,
                original_height,
                exif: record.exif.clone().unwrap_or_default(),
                hash: record.hash.as_ref().map(|(_, hash)| hash.clone()),
                phash: self.hashes.get(&record.key).copied(),
            };
            return Ok(Some((request, Ok(image))));
        }
        let cause = record.error_message.clone().unwrap_or_default();
        let status = Status::of_name(&record.status);
        let problem = Problem { status, cause };
        // Removed samples are never asked for, whatever their cause is called.
        let stays = status == Status::Removed || !is_wanted(&problem.cause, causes);
        Ok(stays.then_some((request, Err(problem))))
    }
}

/// The perceptual hashes in the signals of a shard. They are left out where the signals are missing, or not of this shard: `ingest
/// hash` makes others.
fn hashes(tar: &Location, sums_path: &Location, records: &[Record]) -> HashMap<String, u64> {
    let samples = records.iter().filter(|record| record.success).count() as u32;
    let column = Hashed::Original.column();
    let found = Signals::open(tar, HASH, Some(samples), Some(&[column]));
    let is_current = |signals: &Signals| {
        let sums = sums::read(sums_path).ok().flatten().unwrap_or_default();
        let known = signals.metadata.shard_sha256.as_deref();
        sums.get(&tar.file_name()).zip(known).is_none_or(|(sum, known)| sum == known)
    };
    let Some(signals) = found.ok().filter(is_current) else { return HashMap::new() };
    let values = signals.columns().column_by_name(column);
    let Some(values) = values.and_then(|values| values.as_primitive_opt::<UInt64Type>()) else {
        return HashMap::new();
    };
    (0..).zip(values).filter_map(|(sample, hash)| Some((signals.key(sample).to_owned(), hash?))).collect()
}

/// The rows of a complete shard's table.
struct CompleteRows {
    extra: Vec<Extra>,
    captioned: bool,
    rows: std::vec::IntoIter<Row>,
}

impl Rows for CompleteRows {
    fn extra(&self) -> &[Extra] {
        &self.extra
    }

    fn captioned(&self) -> bool {
        self.captioned
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        Ok(self.rows.next())
    }
}
