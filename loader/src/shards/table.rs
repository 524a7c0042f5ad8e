//! The Parquet table of a shard, as far as it says where images are and what their captions are.

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_schema::DataType;
use bytes::Bytes;
use concepts::tables::{Budget, Table, TableError, Texts};
use storage::{Location, is_missing};

use crate::Error;
use crate::shards::table_path;
use crate::shards::tar::{Archive, BLOCK};

/// The columns of a table with image positions.
const COLUMNS: [&str; 5] = ["key", "status", "caption", "offset", "length"];

/// Columns with a hash of the image, of which a table has at most one.
const HASHES: [&str; 3] = ["sha256", "md5", "sha512"];

/// Rows read at a time.
const BATCH: usize = 1024;

/// A row of the shard's Parquet table.
pub(super) struct Row {
    pub(super) key: String,
    /// `None` if it is null.
    pub(super) caption: Option<String>,
    pub(super) hash: Option<String>,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The rows of the samples that are in the tar, in its order; `None` if there is no table, or if the table (for example of
/// another tool) has no image positions. With `archive`, the open shard, they are compared with it.
pub(super) fn read(shard: &Location, archive: Option<&Archive>) -> Result<Option<Vec<Row>>, Error> {
    let path = table_path(shard);
    let Some(file) = if_there(&path)? else { return Ok(None) };
    let unreadable = |e: &dyn std::fmt::Display| {
        Error::companion(
            &path,
            format!("it is not a valid Parquet table: {e}; write the shard again, or remove the table"),
        )
    };
    let table = Table::open(file, Texts::Views).map_err(|e| unreadable(&e))?;
    if !COLUMNS.iter().all(|name| table.has(name)) {
        return Ok(None);
    }
    let mut budget = Budget::for_file(table.bytes());
    let columns: Vec<&str> = COLUMNS.iter().chain(&HASHES).copied().collect();
    let mut rows = Vec::new();
    for batch in table.batches(Some(&columns), BATCH).map_err(|e| unreadable(&e))? {
        batch.and_then(|batch| add_rows(&batch, &mut rows, &mut budget)).map_err(|e| unreadable(&e))?;
    }
    // The rows are in input order, which is the order of the tar. Sorting makes tables in another order usable,
    // too.
    rows.sort_by_key(|row| row.offset);
    let ends = rows.first().into_iter().chain(rows.last());
    for (row, archive) in ends.filter_map(|row| Some((row, archive?))) {
        row.check(archive).map_err(|problem| Error::companion(&path, problem))?;
    }
    Ok(Some(rows))
}

/// The bytes of a file next to a shard, if it exists.
pub(super) fn if_there(path: &Location) -> Result<Option<Bytes>, Error> {
    match storage::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Row {
    /// The table matches the tar if the block before the image is a header with the row's key and length. Checking the
    /// first and the last row is enough to detect the table of another shard, or of an older version of this one.
    fn check(&self, archive: &Archive) -> Result<(), String> {
        let problem = || {
            format!(
                "it does not match its shard: no image of {} at byte {}; write the shard again, or remove the table",
                self.key, self.offset
            )
        };
        let start = self.offset.checked_sub(BLOCK).ok_or_else(problem)?;
        let end = self.offset.checked_add(self.length).ok_or_else(problem)?;
        if end > archive.len() {
            return Err(format!("{}: the shard ends at byte {}", problem(), archive.len()));
        }
        let block = archive.read(start, BLOCK).map_err(|e| e.to_string())?;
        let header = ::tar::Header::from_byte_slice(&block);
        let name = header.path_bytes();
        let named = name.strip_prefix(self.key.as_bytes()).is_some_and(|rest| rest.starts_with(b"."));
        if named && header.entry_size().is_ok_and(|size| size == self.length) {
            Ok(())
        } else {
            Err(problem())
        }
    }
}

/// Adds the rows of a batch whose samples are in the tar.
fn add_rows(batch: &RecordBatch, rows: &mut Vec<Row>, budget: &mut Budget) -> Result<(), TableError> {
    let column = |name: &str, kind: &DataType| -> Result<ArrayRef, TableError> {
        let none = || TableError::Content(format!("no column {name}"));
        let column = batch.column_by_name(name).ok_or_else(none)?;
        cast(column, kind).map_err(|e| TableError::Content(format!("column {name}: {e}")))
    };
    let (text, number) = (DataType::Utf8View, DataType::UInt64);
    let (keys, statuses, captions) =
        (column("key", &text)?, column("status", &text)?, column("caption", &text)?);
    let hashes = HASHES.iter().find_map(|name| column(name, &text).ok());
    let hashes = hashes.as_ref().map(AsArray::as_string_view);
    let (offsets, lengths) = (column("offset", &number)?, column("length", &number)?);
    let (keys, statuses, captions) =
        (keys.as_string_view(), statuses.as_string_view(), captions.as_string_view());
    let (offsets, lengths) = (offsets.as_primitive::<UInt64Type>(), lengths.as_primitive::<UInt64Type>());
    for row in (0..batch.num_rows()).filter(|&row| statuses.is_valid(row) && statuses.value(row) == "success")
    {
        if keys.is_null(row) || offsets.is_null(row) || lengths.is_null(row) {
            let problem = format!("a successful sample without key, offset or length (row {row})");
            return Err(TableError::Content(problem));
        }
        let mut kept = |text: &str| budget.keep(text).map(|()| text.to_owned());
        rows.push(Row {
            key: kept(keys.value(row))?,
            caption: captions.is_valid(row).then(|| kept(captions.value(row))).transpose()?,
            hash: hashes
                .filter(|hashes| hashes.is_valid(row))
                .map(|hashes| kept(hashes.value(row)))
                .transpose()?,
            offset: offsets.value(row),
            length: lengths.value(row),
        });
    }
    Ok(())
}
