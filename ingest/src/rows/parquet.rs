//! Parquet tables, read a batch of rows at a time. Text is read as bytes and checked here, so that a caption that is not
//! UTF-8 fails its own row and not the whole file. A text that many rows share is copied for one row at a time.

use std::fmt::Display;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::display::array_value_to_string;
use arrow_schema::{DataType, FieldRef, Schema};
use concepts::tables::{self, Batches, Checked, TableError, guarded};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{ConvertedType, Type as Physical};
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{FileMetaData, ParquetMetaData};
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};
use serde_json::Value;
use storage::Location;

use super::columns::Found;
use super::remote::Table;
use super::{Extra, ImageRows, Kind, Row, Rows, Wanted, text};
use crate::error::Error;
use crate::problem::Problem;

/// Rows decoded at a time: large enough to be fast, small enough to use little memory.
const BATCH: usize = 1024;

pub(super) struct ParquetRows {
    path: Location,
    table: Table,
    metadata: ArrowReaderMetadata,
    /// Positions of the columns to read in the table's schema.
    columns: Vec<usize>,
    /// Positions of the columns in a batch, which has only those that are read.
    places: Found,
    extra: Vec<Extra>,
    total: usize,
    /// Table rows returned or skipped.
    position: usize,
    /// None until rows are needed, and after rows were skipped.
    reader: Option<Batches>,
    /// The rows that were decoded last, and the next of them.
    batch: Option<(RecordBatch, usize)>,
    /// The rest of the rows that the one before becomes.
    image: ImageRows,
    /// Whether a table row can become several rows, so that skipping must read them.
    lists: bool,
}

impl ParquetRows {
    pub(super) fn open(path: &Location, wanted: &Wanted) -> Result<Self, Error> {
        let table = Table::open(path)?;
        let unreadable = |problem: &dyn Display| Error::input(path, format!("not a parquet file: {problem}"));
        let metadata = tables::load(&table).map_err(|error| unreadable(&error))?;
        let metadata = guarded(|| text_as_bytes(metadata.metadata())).map_err(|error| unreadable(&error))?;
        let metadata = metadata.map_err(|error| unreadable(&error))?;
        let fields = metadata.schema().fields();
        let names: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
        let found = wanted.find(path, &names)?;
        let lists = found.caption.is_some_and(|index| fields[index].data_type().is_list());
        for index in [found.url, found.caption].into_iter().flatten() {
            let inner = match fields[index].data_type() {
                DataType::List(inner) | DataType::LargeList(inner) if Some(index) != found.url => {
                    inner.data_type()
                }
                kind => kind,
            };
            // A column without any value has the type null.
            if !matches!(inner, DataType::BinaryView | DataType::Null) {
                let problem = format!("column {:?} has type {inner}, not text", names[index]);
                let given = if Some(index) == found.url { &wanted.url } else { &wanted.caption };
                // Wrong use if the command line chose the column, a wrong file if it was found by its usual name.
                return Err(match given {
                    Some(_) => Error::Usage(format!("{}: {problem}", path.display())),
                    None => Error::input(path, problem),
                });
            }
        }
        let extra = wanted
            .extra
            .iter()
            .zip(&found.extra)
            .map(|(name, &index)| Extra { name: name.clone(), kind: kind(fields[index].data_type()) })
            .collect();
        let mut columns: Vec<usize> =
            found.url.into_iter().chain(found.caption).chain(found.extra.iter().copied()).collect();
        columns.sort_unstable();
        columns.dedup();
        // Every column that was found is among those that are read.
        let place = |index: usize| columns.binary_search(&index).unwrap_or(0);
        let places = Found {
            url: found.url.map(place),
            caption: found.caption.map(place),
            extra: found.extra.iter().map(|&index| place(index)).collect(),
        };
        let total = usize::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
        Ok(Self {
            path: path.to_owned(),
            table,
            metadata,
            columns,
            places,
            extra,
            total,
            position: 0,
            reader: None,
            batch: None,
            image: ImageRows::default(),
            lists,
        })
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, Error> {
        let reader = if let Some(reader) = &mut self.reader {
            reader
        } else {
            let (table, metadata) = (Checked::of_others(self.table.clone()), self.metadata.clone());
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(table, metadata);
            let mask = ProjectionMask::roots(builder.parquet_schema(), self.columns.iter().copied());
            let builder = builder.with_projection(mask).with_batch_size(BATCH).with_offset(self.position);
            self.reader.insert(Batches::build(builder).map_err(|problem| damaged(&self.path, &problem))?)
        };
        reader.next().transpose().map_err(|problem| damaged(&self.path, &problem))
    }

    /// What one row of a batch becomes.
    fn rows_of(&self, batch: &RecordBatch, row: usize) -> ImageRows {
        let mut problem = None;
        let mut check = |value: Option<(String, bool)>, what: &str| {
            value.map(|(text, valid)| {
                if !valid {
                    problem = Some(Problem::read(format!("{what} is not UTF-8")));
                }
                text
            })
        };
        let url = self.places.url.and_then(|place| bytes(batch.column(place), row).map(text));
        let url = check(url, "URL").unwrap_or_default();
        let mut captions = Vec::new();
        if let Some(column) = self.places.caption.map(|place| batch.column(place)) {
            if let Some(list) = list(column, row) {
                for at in 0..list.len() {
                    captions.push(check(bytes(&list, at).map(text), "caption"));
                }
            } else {
                captions.push(check(bytes(column, row).map(text), "caption"));
            }
        }
        let extra = self.places.extra.iter().zip(&self.extra);
        let extra = extra.map(|(&place, extra)| value(batch.column(place), extra.kind, row)).collect();
        ImageRows::new(Row { url: url.trim().to_owned(), extra, problem, ..Row::default() }, captions)
    }
}

impl Rows for ParquetRows {
    fn extra(&self) -> &[Extra] {
        &self.extra
    }

    fn captioned(&self) -> bool {
        self.places.caption.is_some()
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        loop {
            if let Some(row) = self.image.next() {
                if !self.lists {
                    self.position += 1;
                }
                return Ok(Some(row));
            }
            if let Some((batch, row)) = self.batch.take().filter(|(batch, row)| *row < batch.num_rows()) {
                self.image = self.rows_of(&batch, row);
                self.batch = Some((batch, row + 1));
                continue;
            }
            let Some(batch) = self.next_batch()? else { return Ok(None) };
            self.batch = Some((batch, 0));
        }
    }

    fn skip(&mut self, count: usize) -> Result<usize, Error> {
        if self.lists {
            for skipped in 0..count {
                if self.next_row()?.is_none() {
                    return Ok(skipped);
                }
            }
            return Ok(count);
        }
        let skipped = count.min(self.total.saturating_sub(self.position));
        self.position += skipped;
        self.reader = None;
        self.batch = None;
        self.image = ImageRows::default();
        Ok(skipped)
    }

    fn total(&self) -> Option<u64> {
        (!self.lists).then_some(self.total as u64)
    }
}

fn damaged(path: &Location, problem: &TableError) -> Error {
    Error::input(path, format!("cannot be read as a parquet file: {problem}"))
}

/// The metadata with text columns declared as bytes, so that invalid UTF-8 does not make the reader reject a whole batch.
fn text_as_bytes(metadata: &ParquetMetaData) -> ParquetResult<ArrowReaderMetadata> {
    let file = metadata.file_metadata();
    let root = without_text(file.schema_descr().root_schema())?;
    let file = FileMetaData::new(
        file.version(),
        file.num_rows(),
        file.created_by().map(str::to_owned),
        // No embedded Arrow schema: it would declare them as text again.
        None,
        Arc::new(SchemaDescriptor::new(root)),
        None,
    );
    let metadata = Arc::new(ParquetMetaData::new(file, metadata.row_groups().to_vec()));
    let read = ArrowReaderMetadata::try_new(Arc::clone(&metadata), ArrowReaderOptions::new())?;
    let fields: Vec<FieldRef> = read.schema().fields().iter().map(with_views).collect();
    ArrowReaderMetadata::try_new(
        metadata,
        ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields))),
    )
}

/// The column with views instead of a copy of the bytes per row.
fn with_views(of: &FieldRef) -> FieldRef {
    let views = match of.data_type() {
        DataType::Binary => DataType::BinaryView,
        DataType::List(inner) => DataType::List(with_views(inner)),
        DataType::LargeList(inner) => DataType::LargeList(with_views(inner)),
        DataType::Struct(inner) => DataType::Struct(inner.iter().map(with_views).collect()),
        DataType::Map(entries, sorted) => DataType::Map(with_views(entries), *sorted),
        _ => return Arc::clone(of),
    };
    Arc::new(of.as_ref().clone().with_data_type(views))
}

fn without_text(of: &Type) -> ParquetResult<TypePtr> {
    let info = of.get_basic_info();
    let id = info.has_id().then(|| info.id());
    if of.is_primitive() {
        if of.get_physical_type() != Physical::BYTE_ARRAY || info.converted_type() == ConvertedType::DECIMAL {
            return Ok(Arc::new(of.clone()));
        }
        let builder = Type::primitive_type_builder(info.name(), Physical::BYTE_ARRAY)
            .with_repetition(info.repetition())
            .with_id(id);
        return Ok(Arc::new(builder.build()?));
    }
    let fields = of.get_fields().iter().map(|field| without_text(field)).collect::<ParquetResult<_>>()?;
    let mut builder = Type::group_type_builder(info.name())
        .with_fields(fields)
        .with_converted_type(info.converted_type())
        .with_logical_type(info.logical_type_ref().cloned())
        .with_id(id);
    // Only the root of a schema has no repetition.
    if info.has_repetition() {
        builder = builder.with_repetition(info.repetition());
    }
    Ok(Arc::new(builder.build()?))
}

/// The type of an additional column in the output.
pub(crate) fn kind(of: &DataType) -> Kind {
    match of {
        DataType::Boolean => Kind::Boolean,
        DataType::UInt64 => Kind::Text,
        kind if kind.is_integer() => Kind::Integer,
        kind if kind.is_floating() => Kind::Float,
        _ => Kind::Text,
    }
}

fn bytes(column: &dyn Array, row: usize) -> Option<&[u8]> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::BinaryView => Some(column.as_binary_view().value(row)),
        // In the table of a shard, which is read without `with_views`.
        DataType::Binary => Some(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Some(column.as_binary::<i64>().value(row)),
        _ => None,
    }
}

/// The row's list; None if the column has no lists, or if this one is null, which counts as one missing caption.
fn list(column: &dyn Array, row: usize) -> Option<ArrayRef> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::List(_) => Some(column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Some(column.as_list::<i64>().value(row)),
        _ => None,
    }
}

fn value(column: &dyn Array, kind: Kind, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let one = column.slice(row, 1);
    let cast = |to: &DataType| arrow_cast::cast(&one, to).ok().filter(|cast| !cast.is_null(0));
    match kind {
        Kind::Boolean => Value::Bool(one.as_boolean().value(0)),
        Kind::Integer => cast(&DataType::Int64)
            .map_or(Value::Null, |cast| Value::from(cast.as_primitive::<Int64Type>().value(0))),
        Kind::Float => cast(&DataType::Float64)
            .map_or(Value::Null, |cast| Value::from(cast.as_primitive::<Float64Type>().value(0))),
        Kind::Text => text_or_nested(&one, 0),
    }
}

/// A text, or a list, struct or map of whatever types as JSON.
fn text_or_nested(column: &dyn Array, row: usize) -> Value {
    let all = |items: &ArrayRef| (0..items.len()).map(|item| nested(items, item)).collect();
    match column.data_type() {
        DataType::List(_) => Value::Array(all(&column.as_list::<i32>().value(row))),
        DataType::LargeList(_) => Value::Array(all(&column.as_list::<i64>().value(row))),
        DataType::FixedSizeList(..) => Value::Array(all(&column.as_fixed_size_list().value(row))),
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(column.as_struct().columns());
            Value::Object(
                columns.map(|(field, column)| (field.name().clone(), nested(column, row))).collect(),
            )
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let entry = |entry| {
                let key = match nested(entries.column(0), entry) {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                (key, nested(entries.column(1), entry))
            };
            Value::Object((0..entries.len()).map(entry).collect())
        }
        _ => match bytes(column, row) {
            Some(bytes) => Value::String(text(bytes).0),
            None => array_value_to_string(column, row).map_or(Value::Null, Value::String),
        },
    }
}

/// A value inside another one.
fn nested(column: &dyn Array, row: usize) -> Value {
    value(column, kind(column.data_type()), row)
}

/// A value of an additional column in a shard's table.
pub(crate) fn plain_value(column: &dyn Array, row: usize) -> Value {
    value(column, kind(column.data_type()), row)
}

#[cfg(test)]
mod tests {
    use arrow_array::{BinaryArray, BinaryViewArray, LargeBinaryArray};

    use super::*;

    #[test]
    fn bytes_without_a_declared_encoding_are_texts() {
        let text = Some(b"a dog".as_slice());
        let columns: [&dyn Array; 3] = [
            &BinaryArray::from_iter([text]),
            &LargeBinaryArray::from_iter([text]),
            &BinaryViewArray::from_iter([text]),
        ];
        for column in columns {
            assert_eq!(plain_value(column, 0), Value::from("a dog"), "{}", column.data_type());
        }
    }
}
