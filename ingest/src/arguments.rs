//! The command line: the commands here, the options that several of them share in the files below.

mod columns;
mod network;
mod output;
mod pictures;
mod tagging;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::columns::Columns;
pub(crate) use self::network::Network;
pub(crate) use self::output::{Output, PartArguments, RunArguments, threads};
pub(crate) use self::pictures::Pictures;
pub(crate) use self::tagging::Tag;

/// Lists of URLs and local sets to WebDataset shards, and the concepts of their captions.
#[derive(Parser)]
#[command(version, about, long_about = None)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Downloads the pictures of a list of URLs into shards.
    Download(Box<Download>),
    /// Packs local pictures into shards.
    Shard(Box<Shard>),
    /// Finds the concepts of captions: a sidecar beside each shard, or numbered ones for a table without pictures.
    Tag(Tag),
    /// Tries the failed samples of finished shards again.
    Retry(Box<Retry>),
    /// Checks shards, tables, statistics and sidecars; names what is broken.
    Verify(Verify),
}

#[derive(Args)]
pub(crate) struct Download {
    /// Table of URLs and captions: parquet, csv, tsv, json, jsonl or txt (also .gz, .zst), or a folder of such files;
    /// also https://, s3:// and gs:// addresses.
    pub(crate) input: PathBuf,
    #[command(flatten)]
    pub(crate) columns: Columns,
    /// Column of URLs [default: url, whatever its case]
    #[arg(long)]
    pub(crate) url_col: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) pictures: Pictures,
    #[command(flatten)]
    pub(crate) network: Network,
}

#[derive(Args)]
pub(crate) struct Shard {
    /// COCO captions json, or a csv, tsv, json, jsonl or parquet table of files and captions, or a folder of pictures
    /// with a .txt beside each. A picture with several captions becomes one sample a caption.
    pub(crate) input: PathBuf,
    /// Folder that the files of a table are in.
    #[arg(long)]
    pub(crate) images: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: Columns,
    /// Column of files [default: file, file_name, filename, image, image_path, filepath or path]
    #[arg(long)]
    pub(crate) file_col: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) pictures: Pictures,
    /// Largest file, in bytes.
    #[arg(long, default_value_t = 50_000_000)]
    pub(crate) max_bytes: u64,
}

#[derive(Args)]
pub(crate) struct Retry {
    /// Folder that `ingest download` made.
    pub(crate) folder: PathBuf,
    /// Only failures whose cause contains one of these texts, such as "timed out", "HTTP Error 503" [default: all but
    /// those that cannot end otherwise]
    #[arg(long, value_delimiter = ',')]
    pub(crate) causes: Vec<String>,
    #[command(flatten)]
    pub(crate) run: RunArguments,
    #[command(flatten)]
    pub(crate) network: Network,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// Folder of shards.
    pub(crate) folder: PathBuf,
    /// Prints one JSON object with the findings as the last line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_option_is_documented() {
        for command in Arguments::command().get_subcommands() {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}
