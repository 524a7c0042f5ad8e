//! Reads the table of a shard, written by ingest or by img2dataset (which has no offsets and lengths).

use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::error::Error;

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
    /// Of the kind that the table has; for a failed sample the expected hash.
    pub(crate) hash: Option<String>,
    /// Offset and length of the image in the tar.
    pub(crate) location: Option<(u64, u64)>,
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
pub(crate) fn read(path: &Path) -> Result<Records, Error> {
    let bytes = loader::source::read(path)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(Error::parquet("read", path))?;
    let schema = builder.schema().clone();
    for needed in ["key", "status", "url"] {
        if schema.index_of(needed).is_err() {
            return Err(Error::input(path, format!("not the table of a shard: it has no column {needed:?}")));
        }
    }
    let extra: Vec<(String, DataType)> = schema
        .fields()
        .iter()
        .filter(|field| !crate::rows::RESERVED.contains(&field.name().as_str()))
        .map(|field| (field.name().clone(), field.data_type().clone()))
        .collect();
    let mut rows = Vec::new();
    for batch in builder.build().map_err(Error::parquet("read", path))? {
        let batch = batch.map_err(Error::parquet("read", path))?;
        rows.extend(records(&batch, &extra));
    }
    Ok(Records { extra, captioned: schema.index_of("caption").is_ok(), rows })
}

fn records(batch: &RecordBatch, extra: &[(String, DataType)]) -> Vec<Record> {
    let column = |name: &str, to: &DataType| {
        batch.column_by_name(name).and_then(|column| arrow_cast::cast(column, to).ok())
    };
    let texts = |name: &str| column(name, &DataType::Utf8);
    let text = |column: &Option<ArrayRef>, row: usize| {
        let column = column.as_ref()?.as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let sizes =
        ["width", "height", "original_width", "original_height"].map(|name| column(name, &DataType::Int32));
    let locations = ["offset", "length"].map(|name| column(name, &DataType::Int64));
    let [keys, statuses, messages, urls, captions, exifs] =
        ["key", "status", "error_message", "url", "caption", "exif"].map(texts);
    let hashes = ["md5", "sha256", "sha512"].into_iter().find_map(texts);
    let carried: Vec<Option<&ArrayRef>> = extra.iter().map(|(name, _)| batch.column_by_name(name)).collect();
    (0..batch.num_rows())
        .map(|row| {
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
            Record {
                key: text(&keys, row).unwrap_or_default(),
                success: status == "success",
                status,
                error_message: text(&messages, row),
                url: text(&urls, row).unwrap_or_default(),
                caption: text(&captions, row),
                sizes: four(),
                exif: text(&exifs, row),
                hash: text(&hashes, row),
                location: location(&locations[0]).zip(location(&locations[1])),
                extra: carried
                    .iter()
                    .map(|column| column.map_or(Value::Null, |column| crate::rows::plain_value(column, row)))
                    .collect(),
            }
        })
        .collect()
}
