//! Samples that a table lists, or that a query returns.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use loader::shards::selection::SelectionFile;
use serde_json::Value;
use storage::Location;

use crate::sql;

/// Samples, by the name of their shard.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) by_sample: BTreeMap<String, Vec<u32>>,
    pub(super) by_key: BTreeMap<String, Vec<String>>,
}

/// Reads a selection, whose weights do not count, of shards with so many samples.
pub(super) fn read(file: &Location, samples: u64) -> Result<Rows> {
    let mut rows = Rows::default();
    SelectionFile::open(file, samples)?.visit(|run| {
        rows.by_sample.entry(run.shard.to_owned()).or_default().extend_from_slice(run.samples);
        Ok(())
    })?;
    Ok(rows)
}

/// Has `tools sql` answer a query over the shards.
///
/// # Errors
/// It cannot; or a row is not `shard` with `key` or `sample`.
pub(super) fn query(query: &str, shards: &Location) -> Result<Rows> {
    let mut command = sql::program();
    command.args(["--format", "json"]).arg(query).arg(shards.as_text().context("the path is not UTF-8")?);
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| sql::not_started(error, &command))?;
    let output = child.stdout.take().context("the query has no output")?;
    let mut rows = Rows::default();
    let read = || -> Result<()> {
        for line in BufReader::new(output).lines() {
            rows.add(&line?)?;
        }
        Ok(())
    };
    let read = read();
    if read.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    read?;
    if !status.success() {
        bail!("the query of --where failed (see above)");
    }
    Ok(rows)
}

impl Rows {
    /// Adds a row that `tools sql` printed.
    fn add(&mut self, line: &str) -> Result<()> {
        let row: Value = serde_json::from_str(line).context("the query of --where has an unreadable row")?;
        let other = |row: &Value| {
            let columns: Vec<&String> = row.as_object().into_iter().flat_map(serde_json::Map::keys).collect();
            let columns: Vec<&str> = columns.into_iter().map(String::as_str).collect();
            anyhow::anyhow!(
                "the query of --where must return the columns shard and key, or shard and sample, without nulls; it returns {}",
                columns.join(", ")
            )
        };
        let fields = row.as_object().ok_or_else(|| other(&row))?;
        let shard = fields.get("shard").and_then(Value::as_str).ok_or_else(|| other(&row))?;
        if fields.len() != 2 {
            return Err(other(&row));
        }
        if let Some(key) = fields.get("key").and_then(Value::as_str) {
            self.by_key.entry(shard.to_owned()).or_default().push(key.to_owned());
        } else {
            let sample = fields.get("sample").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
            self.by_sample.entry(shard.to_owned()).or_default().push(sample.ok_or_else(|| other(&row))?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_query() {
        let mut rows = Rows::default();
        rows.add(r#"{"shard":"00000","key":"000000003"}"#).unwrap();
        rows.add(r#"{"shard":"00001","sample":7}"#).unwrap();
        assert_eq!(rows.by_key["00000"], ["000000003"]);
        assert_eq!(rows.by_sample["00001"], [7]);
        for line in [
            r#"{"shard":"00000"}"#,
            r#"{"shard":null,"key":"a"}"#,
            r#"{"shard":"00000","key":"a","url":"b"}"#,
            r#"{"shard":"00000","sample":-1}"#,
            r#"{"key":"a","sample":1}"#,
        ] {
            let error = rows.add(line).unwrap_err().to_string();
            assert!(error.contains("must return the columns shard and key"), "{error}");
        }
    }
}
