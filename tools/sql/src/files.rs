//! A table of Parquet files, with an additional column `shard` where each file belongs to a shard. Its columns are those of
//! all files, by name.

use std::fmt::Display;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow};
use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use concepts::tables::{Checked, guarded, load};
use datafusion::catalog::Session;
use datafusion::common::ScalarValue;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::object_store::path::Path as ObjectPath;
use datafusion::physical_plan::ExecutionPlan;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use storage::Location;

use crate::distributed;
use crate::remote::{self, OpenFile};
use crate::shards::Shard;

/// One file, and the shard it belongs to, if any.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) path: Location,
    pub(crate) shard: Option<Shard>,
}

/// Returns an error for a file that does not match its shard.
pub(crate) type Check = fn(&Location, &Shard) -> Result<()>;

/// The files of a table.
#[derive(Debug)]
pub(crate) struct ParquetFiles {
    parts: Vec<Part>,
    /// Whether the files are read through [`remote`].
    is_remote: bool,
    check: Option<Check>,
    schema: TableSchema,
    /// Set after all files were found to match their shards.
    checked: OnceLock<()>,
}

impl ParquetFiles {
    /// Reads the columns of all files. Whether they match their shards is checked when a query reads the table.
    pub(crate) fn open(parts: Vec<Part>, check: Option<Check>) -> Result<Self> {
        let first = parts.first().context("a table without files")?;
        let is_remote = parts.iter().any(|part| part.path.is_remote());
        let schema = |part: &Part| match &part.path {
            Location::Local(path) if !is_remote => schema_of(path),
            location => remote_schema_of(location),
        };
        let schemas = if is_remote {
            remote::for_each(&parts, schema)?
        } else {
            parts.iter().map(schema).collect::<Result<_>>()?
        };
        let mut schemas = schemas.into_iter();
        let mut file_schema = schemas.next().context("a table without files")?;
        for (part, schema) in parts[1..].iter().zip(schemas) {
            file_schema = united(&file_schema, &schema).with_context(|| {
                let (path, first) = (&part.path, &first.path);
                format!("{path} and {first} cannot be one table; query them separately")
            })?;
        }
        let file_schema = Arc::new(file_schema);
        let shard = first.shard.iter().map(|_| Arc::new(Field::new("shard", DataType::Utf8View, false)));
        let partition: Vec<_> = shard.collect();
        let schema = TableSchema::builder(file_schema).with_table_partition_cols(partition).build();
        Ok(Self { parts, is_remote, check, schema, checked: OnceLock::new() })
    }

    fn check(&self) -> Result<()> {
        if self.checked.get().is_some() {
            return Ok(());
        }
        let one = |part: &Part| {
            if let (Some(check), Some(shard)) = (self.check, &part.shard) {
                check(&part.path, shard)?;
            }
            match &part.path {
                Location::Local(path) if !self.is_remote => refuse_damaged(path),
                _ => Ok(()),
            }
        };
        if self.is_remote {
            remote::for_each(&self.parts, one)?;
        } else {
            self.parts.iter().try_for_each(one)?;
        }
        let _ = self.checked.set(());
        Ok(())
    }

    /// The files in groups of consecutive ones, one group for each of the engine's threads. If workers read them, with names
    /// by which these find them.
    fn groups(&self, threads: usize, by_workers: bool) -> Result<Vec<FileGroup>> {
        let mut files = Vec::with_capacity(self.parts.len());
        for Part { path, shard } in &self.parts {
            let (place, bytes) = match path {
                Location::Local(_) if by_workers => {
                    let file = OpenFile::open(path)?;
                    (distributed::name(path, &file), file.len())
                }
                Location::Local(path) if !self.is_remote => {
                    (ObjectPath::from_filesystem_path(path)?, fs::metadata(path)?.len())
                }
                location => {
                    let file = remote::files().open(location)?;
                    let name =
                        if by_workers { distributed::name(location, &file) } else { remote::name(location) };
                    (name, file.len())
                }
            };
            let mut file = PartitionedFile::new("", bytes);
            file.object_meta.location = place;
            let shard = shard.iter().map(|shard| ScalarValue::Utf8View(Some(shard.name.clone())));
            files.push(file.with_partition_values(shard.collect()));
        }
        let each = files.len().div_ceil(threads.max(1)).max(1);
        Ok(files.chunks(each).map(|chunk| FileGroup::new(chunk.to_vec())).collect())
    }
}

#[async_trait]
impl TableProvider for ParquetFiles {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Ignores the filters: an optimiser rule of the engine passes them to the source.
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let external = |error: anyhow::Error| DataFusionError::External(format!("{error:#}").into());
        self.check().map_err(external)?;
        let by_workers = distributed::is_used(state.config());
        let groups = self.groups(state.config().target_partitions(), by_workers).map_err(external)?;
        let mut source = ParquetSource::new(self.schema.clone())
            .with_table_parquet_options(state.default_table_options().parquet);
        let mut store = ObjectStoreUrl::local_filesystem();
        if self.is_remote || by_workers {
            store = ObjectStoreUrl::parse(remote::URL)?;
            let files = if by_workers { distributed::files() } else { Arc::clone(remote::files()) };
            state.runtime_env().register_object_store(store.as_ref(), files);
            source = source.with_metadata_size_hint(remote::END);
        }
        let config = FileScanConfigBuilder::new(store, Arc::new(source))
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// A file's columns. Text in dictionaries becomes plain text, as dictionaries only concern storage.
fn schema_of(path: &Path) -> Result<Schema> {
    Ok(plain_schema(&footer_of(path, &open(path)?)?))
}

/// The same of a file at an address.
fn remote_schema_of(path: &Location) -> Result<Schema> {
    let file = remote::files().open(path)?;
    let footer = file
        .footer()
        .and_then(|footer| {
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            Ok(ArrowReaderMetadata::try_new(Arc::new(footer), options)?)
        })
        .with_context(|| format!("{path} is not a readable Parquet file; write it again"))?;
    Ok(plain_schema(&footer))
}

fn plain_schema(footer: &ArrowReaderMetadata) -> Schema {
    Schema::new(footer.schema().fields().iter().map(|field| plain(field)).collect::<Vec<Field>>())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot read {}", path.display()))
}

fn footer_of(path: &Path, file: &File) -> Result<ArrowReaderMetadata> {
    load(file).map_err(|problem| unreadable(path, &problem))
}

/// Checks what the engine, which reads the file by itself, would believe: the Arrow schema in its footer, and sizes of pages.
fn refuse_damaged(path: &Path) -> Result<()> {
    let file = open(path)?;
    let metadata = Arc::clone(footer_of(path, &file)?.metadata());
    let failed = |problem: &dyn Display| unreadable(path, problem);
    guarded(|| ArrowReaderMetadata::try_new(Arc::clone(&metadata), ArrowReaderOptions::new()))
        .map_err(|panic| failed(&panic))?
        .map_err(|error| failed(&error))?;
    guarded(|| Checked::of_others(file).check_pages(&metadata))
        .map_err(|panic| failed(&panic))?
        .map_err(|error| failed(&error))
}

fn unreadable(path: &Path, problem: &dyn Display) -> anyhow::Error {
    anyhow!("{} is not a readable Parquet file ({problem}); write it again", path.display())
}

fn plain(field: &Field) -> Field {
    let text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let kind = match field.data_type() {
        DataType::Dictionary(_, values) if text(values) => DataType::Utf8View,
        kind if text(kind) => DataType::Utf8View,
        other => other.clone(),
    };
    Field::new(field.name(), kind, true)
}

/// The columns of two schemas by name, as DuckDB's `union_by_name` has them: a column that a file lacks is null there, and
/// one that has several types gets a type that holds the values of all.
fn united(first: &Schema, other: &Schema) -> Result<Schema> {
    let mut fields: Vec<Field> = first.fields().iter().map(|field| field.as_ref().clone()).collect();
    for field in other.fields() {
        match fields.iter_mut().find(|known| known.name() == field.name()) {
            None => fields.push(field.as_ref().clone()),
            Some(known) => {
                let kind = common(known.data_type(), field.data_type()).with_context(|| {
                    let (name, here, there) = (field.name(), field.data_type(), known.data_type());
                    format!("column {name} is {here} in one file and {there} in another")
                })?;
                known.set_data_type(kind);
            }
        }
    }
    Ok(Schema::new(fields))
}

/// A type for the values of both: the other one for null, the wider number, text for anything else that can be text.
fn common(a: &DataType, b: &DataType) -> Option<DataType> {
    let signed = |kind: &DataType| kind.is_integer() && *kind != DataType::UInt64;
    match (a, b) {
        _ if a == b => Some(a.clone()),
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        _ if signed(a) && signed(b) => Some(DataType::Int64),
        _ if a.is_numeric() && b.is_numeric() => Some(DataType::Float64),
        _ => {
            [a, b].iter().all(|kind| can_cast_types(kind, &DataType::Utf8View)).then_some(DataType::Utf8View)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_united_by_name() {
        let schema = |columns: &[(&str, DataType)]| {
            Schema::new(
                columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>(),
            )
        };
        let first = schema(&[("a", DataType::Int32), ("b", DataType::Null), ("c", DataType::Int64)]);
        let other = schema(&[
            ("c", DataType::Utf8View),
            ("d", DataType::Boolean),
            ("b", DataType::Float32),
            ("a", DataType::Int64),
        ]);
        let expected = schema(&[
            ("a", DataType::Int64),
            ("b", DataType::Float32),
            ("c", DataType::Utf8View),
            ("d", DataType::Boolean),
        ]);
        assert_eq!(united(&first, &other).unwrap(), expected);
        assert_eq!(common(&DataType::UInt64, &DataType::Int64), Some(DataType::Float64));
        let fields = vec![Field::new("x", DataType::Int64, true)];
        assert_eq!(common(&DataType::Struct(fields.into()), &DataType::Int64), None);
    }
}
