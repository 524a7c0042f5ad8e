//! The table of one shard: what has become of its images, and from which state of the shard's own table they were asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{StringBuilder, TimestampMillisecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use concepts::tables::{Table, TableError, Texts};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use storage::Location;

use super::{Fate, Outcome};
use crate::error::Error;
use crate::rewrite::tables::texts;
use crate::shard::records::Record;

/// The key of [`Of`] in the footer, as JSON.
const FOOTER_KEY: &str = "refresh";
const VERSION: u32 = 1;
const BATCH: usize = 8192;

/// What a table is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Of {
    version: u32,
    /// The shard's name.
    shard: String,
    /// The SHA-256 of the shard's table when its images were asked for.
    table_sha256: String,
}

impl Of {
    pub(super) fn new(shard: &str, table_sha256: String) -> Self {
        Self { version: VERSION, shard: shard.to_owned(), table_sha256 }
    }
}

/// The bytes of a table: a row for each image that was asked for.
pub(super) fn encode(
    of: &Of,
    asked: &[Arc<Record>],
    outcomes: &[Option<Outcome>],
) -> Result<Bytes, ParquetError> {
    let rows = rows(&of.shard, asked, outcomes)?;
    let json = serde_json::to_string(of).map_err(|e| ParquetError::External(e.into()))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(concat!("ingest ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new(FOOTER_KEY.to_owned(), json)]))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
    writer.write(&rows)?;
    writer.into_inner().map(Bytes::from)
}

/// The counts in the table at `path`, if it is of this state of the shard; `None` if it is of another, or not there.
///
/// # Errors
/// The file is not such a table, so that it must not be replaced; or it cannot be read.
pub(super) fn counts(path: &Location, of: &Of) -> Result<Option<BTreeMap<Fate, u64>>, Error> {
    let bytes = match storage::read(path) {
        Ok(bytes) => bytes,
        Err(error) if storage::is_missing(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let foreign = |problem: &dyn std::fmt::Display| {
        let problem = format!(
            "is not a table of `ingest refresh` ({problem}), so it is not replaced: give another --out"
        );
        Error::input(path, problem)
    };
    let table = Table::open(bytes, Texts::Views).map_err(|problem| foreign(&problem))?;
    let pairs = table.footer().key_value_metadata().into_iter().flatten();
    let mut values = pairs.filter(|pair| pair.key == FOOTER_KEY).filter_map(|pair| pair.value.as_deref());
    let footer = values.next().ok_or_else(|| foreign(&format!("its footer has no key {FOOTER_KEY:?}")))?;
    if serde_json::from_str::<Of>(footer).ok().as_ref() != Some(of) {
        return Ok(None);
    }
    count(table).map_err(|problem| foreign(&problem))
}

fn count(table: Table<Bytes>) -> Result<Option<BTreeMap<Fate, u64>>, TableError> {
    let mut counts = BTreeMap::new();
    for batch in table.batches(Some(&["status"]), BATCH)? {
        let batch = batch?;
        for name in texts(&batch, "status").into_iter().flatten() {
            let fate = Fate::ALL.into_iter().find(|fate| name == Some(fate.name()));
            let fate = fate.ok_or_else(|| TableError::Content(format!("it has the status {name:?}")))?;
            *counts.entry(fate).or_default() += 1;
        }
    }
    Ok(Some(counts))
}

fn rows(
    shard: &str,
    asked: &[Arc<Record>],
    outcomes: &[Option<Outcome>],
) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let [mut shards, mut keys, mut fates, mut causes, mut final_urls, mut etags, mut modified, mut opt_outs] =
        std::array::from_fn(|_| StringBuilder::new());
    let mut fetched = TimestampMillisecondBuilder::new();
    for (record, outcome) in asked.iter().zip(outcomes) {
        let Some(Outcome { fate, cause, request }) = outcome else { continue };
        shards.append_value(shard);
        keys.append_value(&record.key);
        fates.append_value(fate.name());
        causes.append_option(cause.as_deref());
        final_urls.append_option(request.final_url.as_deref());
        fetched.append_option(request.fetched);
        etags.append_option(request.etag.as_deref());
        modified.append_option(request.last_modified.as_deref());
        opt_outs.append_option(request.opt_outs.as_deref());
    }
    let columns: [(&str, ArrayRef); 9] = [
        ("shard", Arc::new(shards.finish())),
        ("key", Arc::new(keys.finish())),
        ("status", Arc::new(fates.finish())),
        ("error_message", Arc::new(causes.finish())),
        ("final_url", Arc::new(final_urls.finish())),
        ("fetched", Arc::new(fetched.finish())),
        ("etag", Arc::new(etags.finish())),
        ("last_modified", Arc::new(modified.finish())),
        ("opt_outs", Arc::new(opt_outs.finish())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
}
