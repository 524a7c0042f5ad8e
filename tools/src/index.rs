//! `tools index`: writes the index of a folder of shards ([`loader::shards::set_index`]).

use anyhow::{Result, bail};
use clap::ValueHint;
use loader::shards::describe;
use loader::shards::set_index::{INDEX, SetIndex};
use program::{Outcome, location};
use serde_json::json;
use storage::Location;

use crate::each::each;
use crate::input;

/// Write the index of a folder of shards, so that training starts fast
///
/// Reads the table of every shard (or the headers of its tar) and the footer of its sidecar, and writes DIR/index.parquet:
/// samples, size and hashes of each shard. With it, a training asks for one file before its first batch instead of one or
/// more a shard. `ingest` and `tools stats` write it too; run this for shards of other tools, or after shards were changed.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of shards, on disk or at an address such as s3://bucket/shards
    #[arg(value_name = "DIR", value_parser = location(), value_hint = ValueHint::AnyPath)]
    shards: Location,
    /// Number of shards that are read at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// Print a summary as one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let folder = &arguments.shards;
    input::must_exist(folder)?;
    if !input::is_folder(folder) {
        bail!("{folder} is no folder; give the folder of the shards, in which {INDEX} is written");
    }
    let shards = input::shards(folder)?;
    let described =
        each(shards.len(), arguments.threads as usize, "indexing", |shard| Ok(describe(&shards[shard])?))?;
    let names = shards.iter().map(|shard| shard.file_name().into_owned());
    let index = SetIndex { shards: names.zip(described).collect() };
    index.write(folder)?;
    let samples: u64 = index.shards.values().map(|shard| u64::from(shard.samples)).sum();
    let tagged = index.shards.values().filter(|shard| shard.sidecar.is_some()).count();
    let (path, count) = (folder.join(INDEX), index.shards.len());
    crate::screen(&format!("{path}: {count} shards, {tagged} with a sidecar, {samples} samples\n"))?;
    if arguments.json {
        program::print_json(&json!({"shards": count, "tagged": tagged, "samples": samples}))?;
    }
    Ok(Outcome::Done)
}
