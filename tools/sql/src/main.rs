//! `tools sql`: one SQL query over folders of shards and their statistics, answered by DataFusion.
//!
//! A program of its own, because the engine takes longer to compile than everything else in this workspace together:
//! `tools sql` starts it with the same arguments.

// Without panics; see `tools/program/src/lines.rs`.
#[macro_use(eprintln)]
extern crate program;

#[cfg(feature = "distributed")]
mod distributed;
#[cfg(not(feature = "distributed"))]
#[path = "single.rs"]
mod distributed;
mod engine;
mod files;
mod folder;
mod output;
mod remote;
mod shards;
mod threads;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};
use clap::{CommandFactory, Parser, ValueHint};
use concepts::tables::guarded;
use program::{Outcome, location};
use serde_json::json;
use storage::Location;

use distributed::Workers;
use engine::Engine;
use folder::Folder;
use output::{Format, Printer};

/// Query shards, mentions and statistics with SQL
///
/// Only statements that read data: SELECT, EXPLAIN, SHOW and DESCRIBE. Prints the rows.
#[derive(Debug, Parser)]
#[command(name = "tools sql", bin_name = "tools sql", version, after_long_help = HELP)]
struct Arguments {
    /// One SQL statement
    #[arg(value_name = "QUERY", required_unless_present = "worker")]
    query: Option<String>,
    /// Folders of shards, and optionally the folder that `tools stats` wrote [default: the statistics folder inside one
    /// of them]; on disk or at addresses such as s3://bucket/shards
    #[arg(value_name = "DIR", required_unless_present = "worker", value_parser = location(), value_hint = ValueHint::AnyPath)]
    folders: Vec<Location>,
    /// Output format of the rows
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Maximum memory of the query in MB; beyond it, the query uses temporary files or fails
    #[arg(long, value_name = "MB", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(16..))]
    memory: u32,
    /// Print a summary as one line of JSON after the rows
    #[arg(long)]
    json: bool,
    /// Workers that do the query together, as HOST:PORT; they and this program must read the same files, at the same paths
    /// or addresses
    #[arg(long, value_name = "HOST:PORT,..", value_delimiter = ',')]
    workers: Vec<String>,
    /// Be such a worker, until Ctrl-C or SIGTERM, with --memory for all queries together. Whoever can connect to it can read
    /// all files that it can: use it in a private network only
    #[arg(long, conflicts_with_all = ["query", "folders", "json", "workers"])]
    worker: bool,
    /// Where a worker listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7900", requires = "worker")]
    listen: SocketAddr,
}

const HELP: &str = "\
Tables:
  samples   one row per attempted sample (NNNNN.parquet of complete shards): shard, key, url, caption,
            status, error_message, width, height, original_width, original_height, exif, sha256,
            \"offset\", length, and the columns carried over from the input
  mentions  one row per concept mention (NNNNN.concepts.parquet, by `ingest tag`): shard, key, sample,
            phrase, concept, head, phrase_start, phrase_end, concept_start, concept_end, tags, and caption
            (its number) if samples have several
  hash      one row per sample of the tars (NNNNN.hash.parquet, by `ingest`): shard, key, sample, phash or
            phash_trimmed (perceptual hash), language (ISO 639-3), language_confidence
  score     the same (NNNNN.score.parquet, by `trainer score`): shard, key, sample, similarity,
            mention_similarity. Signals of other programs have the name of their file, too
  shards    one row per shard: shard, count (attempted samples), successes, mentions,
            captions_without_mention, bytes (size of the tar)
  concepts  statistics (by `tools stats`), one row per concept: concept, mentions, samples, shards,
            share, example_shards, example_keys
  pairs     statistics, one row per pair of concepts: a, b, samples (with both), pmi (pointwise
            mutual information, log2)
`shard` is the shard's file name without extension, such as 00012, or its path without extension where
two folders have shards of the same name. `DESCRIBE samples` shows the columns of this dataset.

Examples:
  tools sql \"SELECT concept, mentions, samples FROM concepts
    ORDER BY mentions DESC, concept LIMIT 10\" shards
  tools sql \"SELECT phrase, count(*) AS times FROM mentions WHERE head = 'dog'
    GROUP BY phrase ORDER BY times DESC, phrase LIMIT 10\" shards
  tools sql --format csv \"SELECT error_message, count(*) AS samples FROM samples
    WHERE status <> 'success' GROUP BY error_message ORDER BY samples DESC\" shards

tools/queries.sql has more examples. They also run in DuckDB, with the views of tools/duckdb.sql.";

fn main() -> ExitCode {
    if let Some(code) = pages::requested(|| Arguments::command().name("tools-sql").bin_name("tools-sql")) {
        return code;
    }
    let arguments = Arguments::parse();
    program::run(|| {
        // The engine reads tables by itself, and its libraries panic on some damaged ones.
        let problem =
            |problem| anyhow!("a table cannot be read: {problem}; `ingest verify` names the damaged one");
        guarded(|| run(&arguments)).map_err(problem)?
    })
}

fn run(arguments: &Arguments) -> Result<Outcome> {
    let Some(query) = &arguments.query else {
        return distributed::serve(arguments.listen, arguments.memory);
    };
    let started = Instant::now();
    let workers = Workers::new(&arguments.workers)?;
    // Rows of workers are printed when none of them can fail any more.
    let spool = workers.as_ref().map(|_| distributed::spool()).transpose()?;
    let folder = Folder::open(&arguments.folders)?;
    let engine = Engine::new(arguments.memory, workers)?;
    let mut rows = engine.query(query, &folder)?;
    let mut printer = Printer::new(arguments.format, rows.schema(), spool);
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
