//! `ingest tag`: which captions, which tagger, where the sidecars go.

use std::path::{Path, PathBuf};

use clap::Args;
use concepts::TaggerKind;
use ingest::Error;
use ingest::rows::{self, Format, Wanted, Where};
use ingest::tag::Tables;

use super::PartArguments;

#[derive(Args)]
pub(crate) struct Tag {
    /// Folder of shards (or a tar, or names with brace lists such as {00000..00009}.tar).
    #[arg(required_unless_present_any = ["text", "table"], conflicts_with_all = ["text", "table"])]
    pub(crate) shards: Option<PathBuf>,
    /// File of captions, one a line ("-": standard input); prints one JSON object a line instead of writing sidecars:
    /// {"text", "mentions": [{phrase, concept, head, start, end, ..}]}, offsets in characters of the canonical text.
    #[arg(long, value_name = "FILE", conflicts_with = "table")]
    pub(crate) text: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) captions: Captions,
    /// brill, perceptron or nlprule.
    #[arg(long, default_value_t)]
    pub(crate) tagger: TaggerKind,
    /// Threads [default: all cores]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) part: PartArguments,
    /// Prints one JSON object with the counts as the last line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Captions without pictures.
#[derive(Args)]
pub(crate) struct Captions {
    /// Table of captions, no pictures needed: parquet, csv, tsv, json (COCO's, too), jsonl, or txt with one caption a
    /// line (also .gz, .zst), or a folder of such files. Writes numbered sidecars, and captions.json, to --out.
    #[arg(long, value_name = "INPUT", requires = "out")]
    pub(crate) table: Option<PathBuf>,
    /// Folder for the sidecars of --table; a finished or interrupted run of the same table is continued there.
    #[arg(long, requires = "table")]
    pub(crate) out: Option<PathBuf>,
    /// How the table is written [default: by its name]
    #[arg(long, requires = "table")]
    pub(crate) input_format: Option<Format>,
    /// Column of captions, text or lists of texts [default: caption, captions or text, whatever its case]
    #[arg(long, requires = "table")]
    pub(crate) caption_col: Option<String>,
    /// Column of keys [default: the key is the caption's number in the whole input, from 0, in nine digits]
    #[arg(long, requires = "table")]
    pub(crate) key_col: Option<String>,
    /// Rows of the table a sidecar.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) part_size: u32,
}

impl Captions {
    /// The tables of `input` and where their sidecars go.
    pub(crate) fn tables(&self, input: &Path, out: &Path) -> Result<Tables, Error> {
        let wanted = Wanted {
            place: Where::Nowhere,
            url: None,
            caption: self.caption_col.clone(),
            no_captions: false,
            extra: self.key_col.iter().cloned().collect(),
            hash: None,
            boxes: None,
        };
        let files = rows::files(input, self.input_format)?;
        Ok(Tables { files, wanted, out: out.to_owned(), part_size: self.part_size })
    }
}
