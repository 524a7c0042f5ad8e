//! Reads the table of a shard, written by ingest or by img2dataset (which has no offsets and lengths).

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use bytes::Bytes;
use concepts::tables::{Budget, Table, TableError, Texts};
use serde_json::Value;
use storage::Location;

use crate::error::Error;
use crate::problem::Status;
use crate::request::Request;
use crate::rows::Removed;

/// One row of `NNNNN.parquet`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) key: String,
    pub(crate) success: bool,
    pub(crate) status: String,
    pub(crate) error_message: Option<String>,
    pub(crate) url: String,
    /// None also if the table has no captions.
    pub(crate) caption: Option<String>,
    /// Width, height, original width, original height.
    pub(crate) sizes: Option<[u32; 4]>,
    pub(crate) exif: Option<String>,
    /// The hash's kind, which is that of the table, and the hash; for a failed sample the expected hash.
    pub(crate) hash: Option<(&'static str, String)>,
    /// Offset and length of the image in the tar.
    pub(crate) location: Option<(u64, u64)>,
    pub(crate) request: Request,
    /// What is left of a removed sample.
    pub(crate) removed: Option<Removed>,
    /// Values of the additional columns, in the order of [`Records::extra`].
    pub(crate) extra: Vec<Value>,
}

/// A shard's table.
pub(crate) struct Records {
    /// Additional columns and their types.
    pub(crate) extra: Vec<(String, DataType)>,
    pub(crate) captioned: bool,
    pub(crate) rows: Vec<Record>,
}

/// Reads a shard's table.
pub(crate) fn read(path: &Location) -> Result<Records, Error> {
    parse(path, storage::read(path)?)
}

/// The same from the bytes of the table; `path` is its name in errors.
pub(crate) fn parse(path: &Location, bytes: Bytes) -> Result<Records, Error> {
    let damaged = |problem: TableError| Error::input(path, format!("not the table of a shard: {problem}"));
    let table = Table::open(bytes, Texts::Views).map_err(damaged)?;
    for needed in ["key", "status", "url"] {
        if !table.has(needed) {
            return Err(damaged(TableError::Content(format!("it has no column {needed:?}"))));
        }
    }
    let extra: Vec<(String, DataType)> = table
        .schema()
        .fields()
        .iter()
        .filter(|field| !crate::rows::RESERVED.contains(&field.name().as_str()))
        .map(|field| (field.name().clone(), field.data_type().clone()))
        .collect();
    let captioned = table.has("caption");
    let mut budget = Budget::for_file(table.bytes());
    let mut rows = Vec::new();
    for batch in table.batches(None, BATCH).map_err(damaged)? {
        for record in records(&batch.map_err(damaged)?, &extra) {
            record.count(&mut budget).map_err(damaged)?;
            rows.push(record);
        }
    }
    Ok(Records { extra, captioned, rows })
}

/// Rows read at a time.
const BATCH: usize = 1024;

impl Record {
    /// Counts the memory that it takes.
    fn count(&self, budget: &mut Budget) -> Result<(), TableError> {
        let optional = [&self.error_message, &self.caption, &self.exif].into_iter().flatten();
        let hash = self.hash.iter().map(|(_, hash)| hash);
        let texts = [&self.key, &self.status, &self.url].into_iter().chain(optional).chain(hash);
        let request = self.request.texts().into_iter().flatten();
        let removed = self.removed.iter().flat_map(|removed| [&removed.url_sha256, &removed.caption_sha256]);
        let removed = removed.flatten().map(String::as_str);
        texts.map(String::as_str).chain(request).chain(removed).try_for_each(|text| budget.keep(text))?;
        self.extra.iter().try_for_each(|value| count(value, budget))
    }
}

/// Counts the memory that a value of an additional column takes.
fn count(value: &Value, budget: &mut Budget) -> Result<(), TableError> {
    budget.keep(value.as_str().unwrap_or_default())?;
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| count(value, budget)),
        Value::Object(entries) => entries.iter().try_for_each(|(name, value)| {
            budget.keep(name)?;
            count(value, budget)
        }),
        _ => Ok(()),
    }
}

/// The rows of a batch, one by one.
fn records<'a>(batch: &'a RecordBatch, extra: &'a [(String, DataType)]) -> impl Iterator<Item = Record> + 'a {
    let column = |name: &str, to: &DataType| {
        batch.column_by_name(name).and_then(|column| arrow_cast::cast(column, to).ok())
    };
    let texts = |name: &str| column(name, &DataType::Utf8View);
    let text = |column: &Option<ArrayRef>, row: usize| {
        let column = column.as_ref()?.as_string_view();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let sizes =
        ["width", "height", "original_width", "original_height"].map(|name| column(name, &DataType::Int32));
    let locations = ["offset", "length"].map(|name| column(name, &DataType::Int64));
    let fetched = column("fetched", &DataType::Timestamp(TimeUnit::Millisecond, None));
    let requests = ["final_url", "etag", "last_modified", "opt_outs"].map(texts);
    let removed = ["url_sha256", "caption_sha256"].map(texts);
    let [keys, statuses, messages, urls, captions, exifs] =
        ["key", "status", "error_message", "url", "caption", "exif"].map(texts);
    let hashes = ["md5", "sha256", "sha512"].into_iter().find_map(|name| Some((name, texts(name)?)));
    let carried: Vec<Option<&ArrayRef>> = extra.iter().map(|(name, _)| batch.column_by_name(name)).collect();
    (0..batch.num_rows()).map(move |row| {
        let size = |column: &Option<ArrayRef>| {
            let column = column.as_ref()?.as_primitive::<Int32Type>();
            column.is_valid(row).then(|| column.value(row) as u32)
        };
        let location = |column: &Option<ArrayRef>| {
            let column = column.as_ref()?.as_primitive::<Int64Type>();
            column.is_valid(row).then(|| column.value(row) as u64)
        };
        let four = || Some([size(&sizes[0])?, size(&sizes[1])?, size(&sizes[2])?, size(&sizes[3])?]);
        let status = text(&statuses, row).unwrap_or_default();
        let is_removed = status == Status::Removed.name();
        Record {
            key: text(&keys, row).unwrap_or_default(),
            success: status == "success",
            status,
            error_message: text(&messages, row),
            url: text(&urls, row).unwrap_or_default(),
            caption: text(&captions, row),
            sizes: four(),
            exif: text(&exifs, row),
            hash: hashes.as_ref().and_then(|(kind, hashes)| {
                let hashes = hashes.as_string_view();
                hashes.is_valid(row).then(|| (*kind, hashes.value(row).to_owned()))
            }),
            location: location(&locations[0]).zip(location(&locations[1])),
            request: Request {
                final_url: text(&requests[0], row),
                fetched: fetched.as_ref().and_then(|fetched| {
                    let fetched = fetched.as_primitive::<TimestampMillisecondType>();
                    fetched.is_valid(row).then(|| fetched.value(row))
                }),
                etag: text(&requests[1], row),
                last_modified: text(&requests[2], row),
                opt_outs: text(&requests[3], row),
            },
            removed: is_removed.then(|| Removed {
                url_sha256: text(&removed[0], row),
                caption_sha256: text(&removed[1], row),
            }),
            extra: carried
                .iter()
                .map(|column| column.map_or(Value::Null, |column| crate::rows::plain_value(column, row)))
                .collect(),
        }
    })
}
