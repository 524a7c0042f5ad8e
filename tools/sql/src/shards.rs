//! The table `shards`: one row per shard, read from small files only when a query uses the table.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use concepts::sidecar::Sidecar;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures_util::stream;
use loader::shard;
use serde::Deserialize;

/// A shard and its name in queries.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
}

/// Produces the rows of `shards`.
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

    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn batch(&self) -> Result<RecordBatch, DataFusionError> {
        let mut numbers = [const { Vec::new() }; 4];
        let mut bytes = Vec::with_capacity(self.shards.len());
        for Shard { path, .. } in &self.shards {
            let stats = stats(&shard::stats_path(path))?;
            let sidecar = shard::sidecar_path(path);
            let tagged = if sidecar.exists() { Some(Sidecar::read_metadata(&sidecar)) } else { None };
            let tagged = tagged.transpose().map_err(|error| DataFusionError::External(error.into()))?;
            let row = [
                stats.as_ref().map(|stats| stats.count),
                stats.as_ref().map(|stats| stats.successes),
                tagged.as_ref().map(|tagged| tagged.mentions as i64),
                tagged.as_ref().map(|tagged| i64::from(tagged.captions_without_mention)),
            ];
            for (column, number) in numbers.iter_mut().zip(row) {
                column.push(number);
            }
            bytes.push(fs::metadata(path).map_err(|error| unreadable(path, &error))?.len() as i64);
        }
        let names = StringViewArray::from_iter_values(self.shards.iter().map(|shard| &shard.name));
        let [count, successes, mentions, without] =
            numbers.map(|column| Arc::new(Int64Array::from(column)) as ArrayRef);
        let bytes: ArrayRef = Arc::new(Int64Array::from(bytes));
        Ok(RecordBatch::try_new(
            self.schema(),
            vec![Arc::new(names), count, successes, mentions, without, bytes],
        )?)
    }
}

impl PartitionStream for ShardRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.batch();
        Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::iter([rows])))
    }
}

/// The statistics of a shard; `None` if the file does not exist.
fn stats(path: &Path) -> Result<Option<Stats>, DataFusionError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(path, &error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| unreadable(path, &error))
}

pub(crate) fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> DataFusionError {
    DataFusionError::External(format!("cannot read {}: {error}", path.display()).into())
}
