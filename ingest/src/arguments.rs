//! The command line: the commands here, the options that several of them share in the modules below.

mod columns;
mod curation;
mod images;
mod network;
mod output;
mod tagging;

use clap::{Args, Parser, Subcommand, ValueHint};
use program::location;
use storage::Location;

pub(crate) use self::columns::Columns;
pub(crate) use self::curation::{Prune, Refresh, Reshard};
pub(crate) use self::images::ImageOptions;
pub(crate) use self::network::{Denied, Network};
pub(crate) use self::output::{Output, RunArguments, ShardWork, threads};
pub(crate) use self::tagging::Tag;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong use, 3 finished with more failed samples than --max-failures
allows. `ingest COMMAND --help` lists the options of a command.";

const DOWNLOAD: &str = "\
Examples:
  ingest download laion.parquet --out shards --image-size 512 --resize-mode center_crop
  ingest download lists --url-col link --caption-col text --out s3://bucket/shards

Files per shard:
  00000.tar         images (.jpg), captions (.txt) and metadata (.json), in the order of the input
  00000.parquet     one row per URL: status, error_message, sizes, hash, what the request taught
  00000.hash.parquet  one row per sample: perceptual hash of the image, language of the caption
  00000.sha256      checksums of these three, for `ingest verify` and `sha256sum -c`
  00000_stats.json  counts, written last: it marks the shard as complete

Run the same command again to resume an interrupted run. `ingest retry` repeats failed downloads.
Exit codes: 0 done, 1 failed (also if every sample failed), 2 wrong use, 3 finished with more
failed samples than --max-failures allows.";

const SHARD: &str = "\
Examples:
  ingest shard captions_val2017.json --images val2017 --out shards    # COCO captions
  ingest shard dataset_coco.json --images coco --split test --out s   # Karpathy's splits
  ingest shard table.csv --images photos --out shards                 # columns: file, caption
  ingest shard photos --out shards                                    # photo.jpg next to photo.txt
  ingest shard photos --no-captions --out shards                      # images alone

The files of a shard are those of `ingest download`. Run the same command again to resume an
interrupted run.
Exit codes: 0 done, 1 failed (also if every sample failed), 2 wrong use, 3 finished with more
failed samples than --max-failures allows.";

const TAG: &str = "\
Examples:
  ingest tag shards                                  # sidecars next to the shards
  ingest tag --table laion.parquet --out sidecars    # captions without images
  echo 'two dogs on a wooden bench' | ingest tag --text -

The sidecar 00000.concepts.parquet has one row per mention: the noun phrase and its concept, with
their positions in the normalised caption (damaged characters repaired, HTML entities decoded, white
space collapsed, lower case, as CLIP's tokenizer does). All captions are compared with what the
sidecar was made from: sidecars that are up to date are kept, the others are replaced.";

const HASH: &str = "\
Examples:
  ingest hash /data/cc3m
  ingest hash 's3://bucket/shards/{00000..00331}.tar' --index 0 --count 4

The file 00000.hash.parquet has one row per sample: phash_trimmed, the 64-bit hash that imagehash.phash
of Python gives for the image without its white border; language, the most likely language of the
caption (ISO 639-3), and language_confidence. `ingest download` and `ingest shard` write the file with
each shard; there the column is phash, of the original image.";

const RESHARD: &str = "\
Examples:
  ingest reshard shards --selection selection.parquet --out selected
  ingest reshard '/data/cc3m/{00000..00331}.tar' --out s3://bucket/mixed --shuffle --samples-per-shard 5000

Samples keep their keys and bytes. What every shard has goes along: rows of tables, mentions, signals; new checksums and
counts are written. Sidecars or signals that only some shards have are left out, which is said. Failed and removed rows are
not taken along. The same command gives the same bytes; run it again to resume.";

const PRUNE: &str = "\
Examples:
  ingest prune shards --urls takedowns.txt
  ingest prune shards --keys refreshed --status gone,opted_out

Shards with such samples are written again without them: tar, table, sidecar, signals, checksums and counts, all at once.
The row of a removed sample stays in the table with the status `removed`, its key, and the hashes of its image, URL and
caption; `ingest retry` and `ingest refresh` do not ask for it. Selections, statistics, feature caches and runs that were
made from the shards before are not changed: make them again.";

const REFRESH: &str = "\
Example:
  ingest refresh shards --out refreshed
  ingest prune shards --keys refreshed --status gone,opted_out

Requests are conditional where the table has an ETag or a Last-Modified, so that unchanged images are not sent again.
Otherwise the hash of the image is compared with the table's.";

const VERIFY: &str = "\
Compares the checksums in NNNNN.sha256, decodes every image, reads every .json, and compares each
sample with the table, the sidecar and the signals. Shards without checksums, such as those of other tools, can
have damage that shows nowhere: a flipped bit in a JPEG may only change its pixels.
Exit codes: 0 nothing is damaged, 1 something is damaged, 2 wrong use.";

/// Turns lists of image URLs and local image folders into WebDataset shards, and finds the concepts in their captions.
#[derive(Parser)]
#[command(name = "ingest", version, about, long_about = None, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Download the images of a URL list into shards.
    #[command(after_help = DOWNLOAD)]
    Download(Box<Download>),
    /// Pack local images into shards.
    #[command(after_help = SHARD)]
    Shard(Box<Shard>),
    /// Find the concepts in captions and write them to sidecar files (NNNNN.concepts.parquet).
    #[command(after_help = TAG)]
    Tag(Tag),
    /// Compute perceptual hashes of images and languages of captions of shards that others made (NNNNN.hash.parquet).
    #[command(after_help = HASH)]
    Hash(Hash),
    /// Download the failed samples of complete shards again.
    Retry(Box<Retry>),
    /// Write selected samples of shards into new shards, with all that belongs to them.
    #[command(after_help = RESHARD)]
    Reshard(Reshard),
    /// Remove samples from shards (take-downs), so that nothing of them is left.
    #[command(after_help = PRUNE)]
    Prune(Prune),
    /// Ask for every downloaded image again: unchanged, changed, gone or opted out, as tables.
    #[command(after_help = REFRESH)]
    Refresh(Box<Refresh>),
    /// Check shards, tables, statistics, sidecars and signals, and list what is damaged.
    #[command(after_help = VERIFY)]
    Verify(Verify),
}

#[derive(Args)]
pub(crate) struct Download {
    /// Table of URLs and captions: parquet, csv, tsv, json, jsonl or txt (also .gz and .zst), or a folder of such files,
    /// on disk or at an https://, s3://, gs://, az:// or hf:// address.
    #[arg(value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) input: Location,
    #[command(flatten, next_help_heading = "Input columns")]
    pub(crate) columns: Columns,
    /// Column of URLs [default: url, image_url or image_urls, in upper or lower case]
    #[arg(long, value_name = "COLUMN")]
    pub(crate) url_col: Option<String>,
    #[command(flatten, next_help_heading = "Output")]
    pub(crate) output: Output,
    #[command(flatten, next_help_heading = "Images")]
    pub(crate) image: ImageOptions,
    #[command(flatten)]
    pub(crate) denied: Denied,
    #[command(flatten, next_help_heading = "Network")]
    pub(crate) network: Network,
}

#[derive(Args)]
pub(crate) struct Shard {
    /// COCO captions file (.json), Karpathy's split file for COCO or Flickr30k (.json), or a csv, tsv, json, jsonl or parquet
    /// table of image files and captions, or a folder of images, each with its caption in a .txt file of the same name; on disk
    /// or at an address such as s3://bucket/photos. An image with several captions becomes one sample per caption.
    #[arg(value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) input: Location,
    /// Folder or address of the images that a table lists.
    #[arg(long, value_name = "FOLDER", value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) images: Option<Location>,
    #[command(flatten, next_help_heading = "Input columns")]
    pub(crate) columns: Columns,
    /// Column of image files [default: file, file_name, filename, image, image_path, filepath or path]
    #[arg(long, value_name = "COLUMN")]
    pub(crate) file_col: Option<String>,
    /// Splits of Karpathy's file for COCO or Flickr30k (dataset_coco.json) to read, for example train,restval [default: all]
    #[arg(long, value_delimiter = ',', value_name = "SPLITS")]
    pub(crate) split: Vec<String>,
    #[command(flatten, next_help_heading = "Output")]
    pub(crate) output: Output,
    #[command(flatten, next_help_heading = "Images")]
    pub(crate) image: ImageOptions,
    /// Maximum size of an image file, in bytes; larger files count as failed.
    #[arg(long, default_value_t = 50_000_000, value_name = "BYTES")]
    pub(crate) max_bytes: u64,
}

#[derive(Args)]
pub(crate) struct Hash {
    /// Shards to hash: a folder, a .tar, .tar.zst or .tar.gz file, or a name with a brace list such as {00000..00009}.tar. Any
    /// WebDataset shard works.
    #[arg(value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) shards: Location,
    /// Make all files again, also those that are up to date and those that `ingest download` and `ingest shard` made of the
    /// original images.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) work: ShardWork,
}

#[derive(Args)]
pub(crate) struct Retry {
    /// Folder of shards that `ingest download` made.
    #[arg(value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) folder: Location,
    /// Retry only failures whose error_message contains one of these texts, for example "timed out" or "HTTP Error 503"
    /// [default: temporary failures only: timeouts, DNS, refused or broken connections, TLS, skipped hosts, HTTP 408, 425,
    /// 429, 500, 502-504 and 520-524]
    #[arg(long, value_delimiter = ',')]
    pub(crate) causes: Vec<String>,
    #[command(flatten)]
    pub(crate) denied: Denied,
    #[command(flatten, next_help_heading = "Run")]
    pub(crate) run: RunArguments,
    #[command(flatten, next_help_heading = "Network")]
    pub(crate) network: Network,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// Folder of shards, or of the sidecars that `ingest tag --table` wrote, on disk or in an object store.
    #[arg(value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) folder: Location,
    /// Do not read the images: they are not decoded, and the checksums of the tars are not compared.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Threads [default: all cores]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Print the findings as one JSON object, as the last line of standard output.
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
