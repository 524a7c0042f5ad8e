//! `ingest retry`: the failed samples of finished shards once more. A shard with anything to try is made again, whole,
//! from its own tar and table and what arrives now.

use std::cell::RefCell;

use loader::tar::Archive;

use super::{Downloader, Failure};
use crate::error::Error;
use crate::pipeline::{self, Plan, Source};
use crate::records::{self, Record};
use crate::rows::{self, Extra, Row, Rows};
use crate::sample::{Picture, Problem, Status};
use crate::set::Set;
use crate::staging::Staging;
use crate::stats::Totals;

impl Downloader {
    /// Tries again the failures whose cause contains one of `causes`; without any, all that could end otherwise.
    pub fn retry(&self, set: &Set, causes: &[String]) -> Result<Totals, Error> {
        let mut left_alone = Totals::default();
        let mut shards = Vec::new();
        let mut samples = 0;
        for shard in set.finished_shards()? {
            let Some(stats) = set.finished(shard)?.filter(|_| set.part.owns(shard)) else { continue };
            if stats.status_dict.keys().any(|cause| is_wanted(cause, causes)) {
                shards.push(shard);
                samples += stats.count;
            } else {
                left_alone.finished_shard(&stats);
            }
        }
        // Rows are fed shard by shard, so one shard's earlier samples are known at a time.
        let earlier = RefCell::new(None);
        let mut inputs = shards.iter().map(|&shard| {
            let (rows, its) = Earlier::read(set, shard)?;
            earlier.replace(Some(its));
            Ok(Box::new(rows) as Box<dyn Rows>)
        });
        let watch = set.watch(self.fetcher.network())?;
        let plan = Plan { what: "retrying", total: samples, shards: Some(&shards), queue: None, watch };
        let mut totals = pipeline::run(set, &plan, &mut inputs, &mut |task, workers| {
            let known = match &*earlier.borrow() {
                Some(earlier) => earlier.outcome(task.index, causes)?,
                None => None,
            };
            match known {
                Some(Ok(picture)) => {
                    let held = self.place().map(|place| Box::new(place) as _);
                    workers.submit(task, Source::Made(picture, held));
                }
                Some(Err(problem)) => workers.submit(task, Source::Failed(problem)),
                None => self.submit(task, workers),
            }
            Ok(())
        })?;
        totals.add_earlier(&left_alone);
        Ok(totals)
    }
}

/// Whether a failure of this cause is tried again.
fn is_wanted(cause: &str, causes: &[String]) -> bool {
    if causes.is_empty() {
        Failure::may_pass(cause)
    } else {
        causes.iter().any(|part| cause.contains(part.as_str()))
    }
}

/// What a finished shard holds.
struct Earlier {
    archive: Archive,
    /// Removed when the shard has been read.
    _staging: Staging,
    records: Vec<Record>,
}

impl Earlier {
    fn read(set: &Set, shard: u32) -> Result<(EarlierRows, Self), Error> {
        let table = records::read(&set.table(shard))?;
        let extra = table
            .extra
            .iter()
            .map(|(name, kind)| Extra { name: name.clone(), kind: rows::kind(kind) })
            .collect();
        let staging = Staging::new(&set.folder)?;
        let archive = Archive::open(&staging.fetch(&set.tar(shard))?)?;
        let blur = set.image.blur.as_ref();
        let boxes = blur.and_then(|name| table.extra.iter().position(|(extra, _)| extra == name));
        let row = |record: &Record| Row {
            url: record.url.clone(),
            caption: record.caption.clone(),
            extra: record.extra.clone(),
            hash: record.hash.clone().filter(|_| !record.success),
            // They could be read when the shard was made; where not, the failure stays.
            boxes: boxes.and_then(|index| rows::regions(&record.extra[index])).unwrap_or_default(),
            problem: None,
        };
        let rows: Vec<Row> = table.rows.iter().map(row).collect();
        let rows = EarlierRows { extra, captioned: table.captioned, rows: rows.into_iter() };
        Ok((rows, Self { archive, _staging: staging, records: table.rows }))
    }

    /// The picture or the failure that stays; None for a sample to try again.
    fn outcome(&self, index: u32, causes: &[String]) -> Result<Option<Result<Picture, Problem>>, Error> {
        let Some(record) = self.records.get(index as usize) else { return Ok(None) };
        if let (Some([width, height, original_width, original_height]), Some((offset, length)), true) =
            (record.sizes, record.place, record.success)
        {
            return Ok(Some(Ok(Picture {
                bytes: self.archive.read(offset, length)?,
                width,
                height,
                original_width,
                original_height,
                exif: record.exif.clone().unwrap_or_default(),
                hash: record.hash.clone(),
            })));
        }
        let cause = record.error_message.clone().unwrap_or_default();
        let status = Status::of_name(&record.status);
        let problem = Problem { status, cause };
        Ok((!is_wanted(&problem.cause, causes)).then_some(Err(problem)))
    }
}

/// The rows of a finished shard's table.
struct EarlierRows {
    extra: Vec<Extra>,
    captioned: bool,
    rows: std::vec::IntoIter<Row>,
}

impl Rows for EarlierRows {
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
