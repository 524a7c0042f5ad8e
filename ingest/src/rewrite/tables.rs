//! Rows of the tables of shards, with whatever columns their tables have.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringViewArray, UInt32Array, new_null_array};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use arrow_select::interleave::interleave_record_batch;
use arrow_select::take::take_record_batch;
use bytes::Bytes;
use concepts::tables::{Budget, Table, TableError, Texts};
use storage::Location;

use crate::error::Error;
use crate::problem::Status;
use crate::shard::table::parquet;

/// A sample of a new shard: the number of its source, and its place there.
pub(crate) type Origin = (usize, usize);

/// Rows read at a time.
const BATCH: usize = 8192;

/// Columns that every table has.
const NEEDED: [&str; 3] = ["url", "key", "status"];

fn damaged(path: &Location, problem: &TableError) -> Error {
    Error::input(path, format!("not the table of a shard: {problem}"))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn content(error: ArrowError) -> TableError {
    TableError::Content(error.to_string())
}

/// The whole table at `path`, or these columns of it, as far as it has them. Texts are `Utf8View`, and every column may have nulls.
///
/// # Errors
/// It cannot be read, or is not the table of a shard: it has no columns `url`, `key` and `status`.
pub(crate) fn read(path: &Location, columns: Option<&[&str]>) -> Result<RecordBatch, Error> {
    parse(storage::read(path)?, columns).map_err(|problem| damaged(path, &problem))
}

fn parse(bytes: Bytes, columns: Option<&[&str]>) -> Result<RecordBatch, TableError> {
    let table = Table::open(bytes, Texts::Views)?;
    if let Some(needed) = NEEDED.iter().find(|name| !table.has(name)) {
        return Err(TableError::Content(format!("it has no column {needed:?}")));
    }
    let wanted = |field: &Arc<Field>| columns.is_none_or(|names| names.contains(&field.name().as_str()));
    let fields: Vec<_> = table.schema().fields().iter().filter(|field| wanted(field)).collect();
    let fields: Vec<Field> =
        fields.into_iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let mut budget = Budget::for_file(table.bytes());
    let mut batches = Vec::new();
    for batch in table.batches(columns, BATCH)? {
        let batch = batch?;
        budget.keep_rows(1, batch.get_array_memory_size())?;
        batches.push(RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec()).map_err(content)?);
    }
    concat_batches(&schema, &batches).map_err(content)
}

/// The names and types of the columns of a table, which may have nulls.
pub(crate) fn schema(path: &Location) -> Result<SchemaRef, Error> {
    let table = Table::open(storage::read(path)?, Texts::Views).map_err(|problem| damaged(path, &problem))?;
    let fields = table.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// The columns of all tables, by name, in the order in which they first come. The names of the tables are for errors.
///
/// # Errors
/// Two columns of the same name have different types, neither of which is that of a column without values.
pub(crate) fn united<'a>(
    tables: impl IntoIterator<Item = (&'a Location, &'a SchemaRef)>,
) -> Result<SchemaRef, Error> {
    let mut fields: Vec<(Field, &Location)> = Vec::new();
    for (path, schema) in tables {
        for field in schema.fields() {
            match fields.iter_mut().find(|(known, _)| known.name() == field.name()) {
                None => fields.push((field.as_ref().clone(), path)),
                Some((known, from)) if *known.data_type() == DataType::Null => {
                    (*known, *from) = (field.as_ref().clone(), path);
                }
                Some((known, from)) => {
                    if ![known.data_type(), &DataType::Null].contains(&field.data_type()) {
                        let problem = format!(
                            "its column {:?} has the type {}, but that of {from} has {}, so the rows do not fit into one table",
                            field.name(),
                            field.data_type(),
                            known.data_type()
                        );
                        return Err(Error::input(path, problem));
                    }
                }
            }
        }
    }
    Ok(Arc::new(Schema::new(fields.into_iter().map(|(field, _)| field).collect::<Vec<_>>())))
}

/// The rows with the columns of `schema`: null where the table has no such column.
pub(crate) fn conform(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let column = |field: &Arc<Field>| match rows.column_by_name(field.name()) {
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    };
    RecordBatch::try_new(Arc::clone(schema), schema.fields().iter().map(column).collect::<Result<_, _>>()?)
}

/// A text column, if there is one of this name and type.
pub(crate) fn texts<'a>(rows: &'a RecordBatch, name: &str) -> Option<&'a StringViewArray> {
    rows.column_by_name(name)?.as_string_view_opt()
}

/// The rows of the samples in the tar, by key.
///
/// # Errors
/// The keys or the statuses are no texts, or a key comes twice.
pub(crate) fn successes<'a>(path: &Location, rows: &'a RecordBatch) -> Result<HashMap<&'a str, u32>, Error> {
    let (Some(keys), Some(statuses)) = (texts(rows, "key"), texts(rows, "status")) else {
        return Err(Error::input(path, "its columns key and status are not texts"));
    };
    let mut found = HashMap::new();
    for (row, (key, status)) in (0..).zip(keys.iter().zip(statuses)) {
        if status != Some(Status::Success.name()) {
            continue;
        }
        let key = key.unwrap_or_default();
        if found.insert(key, row).is_some() {
            return Err(Error::input(path, format!("two successful rows have the key {key:?}")));
        }
    }
    Ok(found)
}

/// The rows of these samples, in their order.
///
/// # Errors
/// A sample has no successful row.
pub(crate) fn of_samples(path: &Location, rows: &RecordBatch, keys: &[String]) -> Result<RecordBatch, Error> {
    let of_key = successes(path, rows)?;
    let row = |key: &String| {
        of_key.get(key.as_str()).copied().ok_or_else(|| {
            Error::input(path, format!("sample {key} of the tar has no successful row: see `ingest verify`"))
        })
    };
    let rows_of_keys = keys.iter().map(row).collect::<Result<Vec<u32>, Error>>()?;
    take(path, rows, rows_of_keys)
}

/// These rows of a table.
pub(crate) fn take(path: &Location, rows: &RecordBatch, numbers: Vec<u32>) -> Result<RecordBatch, Error> {
    take_record_batch(rows, &UInt32Array::from(numbers)).map_err(Error::parquet("write", path))
}

/// A table of samples of which there is none: their keys and captions.
pub(crate) fn minimal(
    path: &Location,
    keys: &[String],
    captions: Vec<Option<String>>,
) -> Result<RecordBatch, Error> {
    let texts = |texts: Vec<Option<String>>| Arc::new(StringViewArray::from_iter(texts)) as ArrayRef;
    let columns = [
        ("caption", texts(captions)),
        ("url", texts(vec![None; keys.len()])),
        ("key", texts(keys.iter().cloned().map(Some).collect())),
        ("status", texts(vec![Some(Status::Success.name().to_owned()); keys.len()])),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .map_err(Error::parquet("write", path))
}

/// The columns of [`minimal`].
pub(crate) fn minimal_schema() -> SchemaRef {
    let field = |name| Field::new(name, DataType::Utf8View, true);
    Arc::new(Schema::new(["caption", "url", "key", "status"].map(field).to_vec()))
}

/// The rows of a table of the samples in this order; the sources' rows have the same columns.
///
/// # Errors
/// They cannot be put together.
pub(crate) fn interleaved(
    path: &Location,
    sources: &[&RecordBatch],
    order: &[Origin],
) -> Result<RecordBatch, Error> {
    interleave_record_batch(sources, order).map_err(Error::parquet("write", path))
}

/// The Parquet file of the table of a shard: with the places of the images, offset and length in bytes, where the table has such
/// columns; null for rows without an image.
pub(crate) fn bytes(
    path: &Location,
    rows: &RecordBatch,
    images: impl Iterator<Item = Option<(u64, u64)>>,
) -> Result<Bytes, Error> {
    let (offsets, lengths): (Vec<_>, Vec<_>) =
        images.map(|image| image.map(|(offset, length)| (offset as i64, length as i64)).unzip()).unzip();
    let write = || -> Result<Vec<u8>, parquet::errors::ParquetError> {
        let mut columns = rows.columns().to_vec();
        for (name, values) in [("offset", offsets), ("length", lengths)] {
            if let Ok(place) = rows.schema().index_of(name) {
                columns[place] = cast(&Int64Array::from(values), columns[place].data_type())?;
            }
        }
        parquet(&plain(&RecordBatch::try_new(rows.schema(), columns)?)?)
    };
    write().map(Bytes::from).map_err(Error::parquet("write", path))
}

/// The rows with texts as other programs know them: `Utf8View`, which the embedded Arrow schema would name, is too new for some.
pub(crate) fn plain(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let plain = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8View => field.as_ref().clone().with_data_type(DataType::Utf8),
        _ => field.as_ref().clone(),
    };
    let fields: Vec<Field> = rows.schema().fields().iter().map(plain).collect();
    let columns = fields.iter().zip(rows.columns()).map(|(field, column)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<_, _>>()?;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema_of(fields: &[(&str, DataType)]) -> SchemaRef {
        let fields = fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    #[test]
    fn columns_are_united_by_name() {
        let a = schema_of(&[("key", DataType::Utf8View), ("score", DataType::Null)]);
        let b = schema_of(&[
            ("score", DataType::Float64),
            ("key", DataType::Utf8View),
            ("more", DataType::Int32),
        ]);
        let (first, second) = (Location::from("a"), Location::from("b"));
        let all = united([(&first, &a), (&second, &b)]).unwrap();
        let found: Vec<_> =
            all.fields().iter().map(|field| (field.name().as_str(), field.data_type().clone())).collect();
        let expected = [("key", DataType::Utf8View), ("score", DataType::Float64), ("more", DataType::Int32)];
        assert_eq!(found, expected);
        let c = schema_of(&[("more", DataType::Utf8View)]);
        let error = united([(&first, &b), (&second, &c)]).unwrap_err().to_string();
        assert!(error.starts_with("b: its column \"more\" has the type"), "{error}");
    }
}
