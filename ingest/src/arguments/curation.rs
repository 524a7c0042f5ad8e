//! The commands that make other shards of shards, or ask what has become of their images.

use clap::{Args, ValueHint};
use program::location;
use storage::Location;

use super::output::PartArguments;
use super::{Network, ShardWork};

#[derive(Args)]
pub(crate) struct Reshard {
    /// Shards to read: a folder, a .tar, .tar.zst or .tar.gz file, or a name with a brace list such as {00000..00009}.tar; on disk
    /// or at an address. Any WebDataset shard works.
    #[arg(value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) shards: Location,
    /// Take only the samples of this selection, as `tools select` writes it (Parquet with the columns shard, sample and weight).
    /// Weights must be 0 or 1: a tar cannot have a sample several times [default: take all samples]
    #[arg(long, value_name = "FILE", value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) selection: Option<Location>,
    /// Folder for the new shards, or an s3://, gs:// or az:// address. If it holds shards of an earlier run with the same input and
    /// options, that run is resumed. Several processes may make one dataset at the same time.
    #[arg(long, value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) out: Location,
    /// Samples per new shard.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) samples_per_shard: u32,
    /// Mix the samples of 32 shards at a time, which are drawn at random.
    #[arg(long)]
    pub(crate) shuffle: bool,
    /// Seed of --shuffle.
    #[arg(long, default_value_t = 0, requires = "shuffle")]
    pub(crate) seed: u64,
    /// Write .tar.zst (Zstandard) instead of .tar.
    #[arg(long)]
    pub(crate) compress: bool,
    #[command(flatten)]
    pub(crate) work: ShardWork,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("wanted").required(true).args(["keys", "urls"]))]
pub(crate) struct Prune {
    /// Shards to remove samples from: a folder, a shard, or a name with a brace list such as {00000..00009}.tar; on disk or in an
    /// object store.
    #[arg(value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) shards: Location,
    /// List of keys: one per line, or a table (parquet, csv, tsv, json, jsonl) with the columns key and, if keys come in several
    /// shards, shard, or a folder of such tables, as `tools sql` and `ingest refresh` write them. Every key must be that of a row.
    #[arg(long, value_name = "PATH", value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) keys: Option<Location>,
    /// Of the table of --keys, only rows with one of these values in the column status, for example gone,opted_out
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "keys")]
    pub(crate) status: Vec<String>,
    /// List of URLs, or SHA-256 of URLs or of original image files, as for --deny of `ingest download`. What is not in the shards is
    /// passed over. The URL after redirects counts, too.
    #[arg(long, value_name = "FILE", value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) urls: Option<Location>,
    /// Threads [default: all cores]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Print the counts as one JSON object, as the last line of standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Refresh {
    /// Shards with tables (00000.parquet): a folder, a shard, or a name with a brace list such as {00000..00009}.tar; on disk or at
    /// an address.
    #[arg(value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) shards: Location,
    /// Folder for the tables, one Parquet file for each shard: shard, key, status (unchanged, changed, unknown, gone, opted_out or
    /// failed), error_message, and what the request taught. Shards that have theirs there are not asked for again, so that the same
    /// command resumes a run that was stopped.
    #[arg(long, value_name = "FOLDER", value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) out: Location,
    /// Also ask for shards that have their table.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) part: PartArguments,
    /// Print the counts as one JSON object, as the last line of standard output.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten, next_help_heading = "Network")]
    pub(crate) network: Network,
}
