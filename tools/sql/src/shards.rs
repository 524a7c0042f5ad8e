//! The table `shards`: one row per shard, read from small files only when a query uses the table.

use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use concepts::sidecar::{Metadata, Sidecar};
use datafusion::catalog::Session;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use loader::shards::{sidecar_path, stats_path};
use serde::Deserialize;
use storage::{Location, is_missing};

use crate::remote;

/// A shard and its name in queries.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    pub(crate) path: Location,
    pub(crate) name: String,
}

/// The table `shards`.
#[derive(Debug)]
pub(crate) struct ShardRows {
    shards: Vec<Shard>,
    schema: SchemaRef,
}

/// The fields read from `NNNNN_stats.json`.
#[derive(Debug, Deserialize)]
struct Stats {
    count: i64,
    successes: i64,
}

impl ShardRows {
    pub(crate) fn new(shards: Vec<Shard>) -> Self {
        let mut fields = vec![Field::new("shard", DataType::Utf8View, false)];
        // Null where another tool wrote the shard, or where it has not been tagged.
        for name in ["count", "successes", "mentions", "captions_without_mention"] {
            fields.push(Field::new(name, DataType::Int64, true));
        }
        fields.push(Field::new("bytes", DataType::Int64, false));
        Self { shards, schema: Arc::new(Schema::new(fields)) }
    }

    fn batch(&self) -> Result<RecordBatch, DataFusionError> {
        let mut numbers = [const { Vec::new() }; 4];
        let mut bytes = Vec::with_capacity(self.shards.len());
        let is_remote = self.shards.iter().any(|shard| shard.path.is_remote());
        let about = if is_remote {
            remote::for_each(&self.shards, about)
        } else {
            self.shards.iter().map(about).collect()
        };
        for (stats, tagged, size) in
            about.map_err(|error| DataFusionError::External(format!("{error:#}").into()))?
        {
            let row = [
                stats.as_ref().map(|stats| stats.count),
                stats.as_ref().map(|stats| stats.successes),
                tagged.as_ref().map(|tagged| tagged.mentions as i64),
                tagged.as_ref().map(|tagged| i64::from(tagged.captions_without_mention)),
            ];
            for (column, number) in numbers.iter_mut().zip(row) {
                column.push(number);
            }
            bytes.push(size as i64);
        }
        let names = StringViewArray::from_iter_values(self.shards.iter().map(|shard| &shard.name));
        let [count, successes, mentions, without] =
            numbers.map(|column| Arc::new(Int64Array::from(column)) as ArrayRef);
        let bytes: ArrayRef = Arc::new(Int64Array::from(bytes));
        Ok(RecordBatch::try_new(
            Arc::clone(&self.schema),
            vec![Arc::new(names), count, successes, mentions, without, bytes],
        )?)
    }
}

#[async_trait]
impl TableProvider for ShardRows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// The rows as a part of the plan, so that they reach every machine that does it.
    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let rows = vec![vec![self.batch()?]];
        Ok(MemorySourceConfig::try_new_exec(&rows, Arc::clone(&self.schema), projection.cloned())?)
    }
}

/// The statistics of a shard, the footer of its sidecar, and its size; `None` for files that do not exist.
fn about(shard: &Shard) -> Result<(Option<Stats>, Option<Metadata>, u64)> {
    let path = &shard.path;
    let sidecar = sidecar_path(path);
    let tagged = if storage::exists(&sidecar)? { Some(metadata(&sidecar)?) } else { None };
    Ok((stats(&stats_path(path))?, tagged, storage::length(path)?))
}

/// The footer of a sidecar.
pub(crate) fn metadata(path: &Location) -> Result<Metadata> {
    if let Location::Local(path) = path {
        return Ok(Sidecar::read_metadata(path)?);
    }
    let file = remote::files().open(path)?;
    let read = |whole| Ok(Sidecar::metadata_at_end(&path.as_name(), &file.end(whole)?, file.len())?);
    read(false).or_else(|_: anyhow::Error| read(true))
}

fn stats(path: &Location) -> Result<Option<Stats>> {
    match storage::read(path) {
        Ok(text) => {
            let stats = serde_json::from_slice(&text);
            Ok(Some(stats.with_context(|| format!("cannot read {path}"))?))
        }
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
