//! `tools sql`: one SQL query over folders of shards and their statistics, answered by DataFusion.
//!
//! A program of its own, because the engine takes longer to compile than everything else in this workspace together:
//! `tools sql` starts it with the same arguments.

mod engine;
mod files;
mod folder;
mod output;
mod shards;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use loader::program::{self, Outcome};
use serde_json::json;

use engine::Engine;
use folder::Folder;
use output::{Format, Printer};

/// Query shards, mentions and statistics with SQL
///
/// Reads only: SELECT, EXPLAIN, SHOW and DESCRIBE.
#[derive(Debug, Parser)]
#[command(name = "tools sql", bin_name = "tools sql", version, after_long_help = HELP)]
struct Arguments {
    /// One statement
    #[arg(value_name = "QUERY")]
    query: String,
    /// Folders of shards; one may be the folder that `tools stats` wrote [default: the one inside, if there is one]
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Memory the query may use before it goes to temporary files or gives up, in MB
    #[arg(long, value_name = "MB", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(16..))]
    memory: u32,
    /// Print a summary as one line of JSON after the rows
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Tables:
  samples   one row an attempted sample (NNNNN.parquet of complete shards): shard, key, url, caption,
            status, error_message, width, height, original_width, original_height, exif, sha256,
            \"offset\", length, and the columns that were carried through
  mentions  one row a concept mention (NNNNN.concepts.parquet, by `ingest tag`): shard, key, sample,
            phrase, concept, head, phrase_start, phrase_end, concept_start, concept_end, tags
  shards    one row a shard: shard, count (attempted), successes, mentions,
            captions_without_mention, bytes (of the tar)
  concepts  statistics (`tools stats`): concept, mentions, samples, shards, share, example_shards,
            example_keys
  pairs     statistics: a, b, samples, pmi
`shard` is the file name without its ending, 00012; the whole path where two folders have the same.
`DESCRIBE samples` shows the columns of this set.

Examples:
  tools sql \"SELECT concept, mentions, samples FROM concepts
    ORDER BY mentions DESC, concept LIMIT 10\" shards
  tools sql \"SELECT phrase, count(*) AS times FROM mentions WHERE head = 'dog'
    GROUP BY phrase ORDER BY times DESC, phrase LIMIT 10\" shards
  tools sql --format csv \"SELECT error_message, count(*) AS samples FROM samples
    WHERE status <> 'success' GROUP BY error_message ORDER BY samples DESC\" shards

tools/queries.sql has more; they run in DuckDB too, over the views of tools/duckdb.sql.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::run(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<Outcome> {
    let started = Instant::now();
    let folder = Folder::open(&arguments.folders)?;
    let engine = Engine::new(arguments.memory)?;
    let mut rows = engine.query(&arguments.query, &folder)?;
    let mut printer = Printer::new(arguments.format, rows.schema());
    while let Some(batch) = rows.next()? {
        if printer.print(&batch)?.is_break() {
            break;
        }
    }
    let printed = printer.finish()?;
    if arguments.json {
        let columns: Vec<_> = rows
            .schema()
            .fields()
            .iter()
            .map(|field| json!({"name": field.name(), "type": field.data_type().to_string()}))
            .collect();
        program::print_json(&json!({
            "columns": columns,
            "rows": printed.rows,
            "complete": printed.complete,
            "seconds": started.elapsed().as_secs_f64(),
        }))?;
    }
    Ok(Outcome::Done)
}
