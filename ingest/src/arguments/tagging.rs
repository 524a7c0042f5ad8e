//! Options of `ingest tag`: the captions, the tagger, the output.

use clap::{Args, ValueHint};
use concepts::TaggerKind;
use ingest::Error;
use ingest::rows::{self, Format, Wanted, Where};
use ingest::tag::Tables;
use program::location;
use storage::Location;

use super::ShardWork;

#[derive(Args)]
pub(crate) struct Tag {
    /// Shards to tag: a folder, a .tar, .tar.zst or .tar.gz file, or a name with a brace list such as {00000..00009}.tar. Any
    /// WebDataset shard with .txt captions works.
    #[arg(conflicts_with_all = ["text", "table"], value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) shards: Option<Location>,
    /// Text file with one caption per line ("-" for standard input). Prints one JSON object per line instead of writing
    /// sidecars: {"text", "mentions": [{phrase, concept, head, start, end, ..}]}. Positions are in characters of "text", the
    /// normalised caption.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["table", "index", "count"], value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) text: Option<Location>,
    /// Which captions of a shard are tagged: `txt`, or `json:FIELD`, a text or a list of texts in a field of the .json members,
    /// such as several captions of an image or new ones. The mentions of each caption are kept apart.
    #[arg(long, value_name = "SOURCE", default_value = "txt", conflicts_with_all = ["text", "table"])]
    pub(crate) captions: CaptionSource,
    /// Part-of-speech tagger: perceptron, brill or nlprule (nlprule needs its data, see tools/nlprule-data.sh).
    #[arg(long, default_value_t)]
    pub(crate) tagger: TaggerKind,
    /// Make all sidecars again, also those that are up to date.
    #[arg(long, conflicts_with = "text")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) work: ShardWork,
    #[command(flatten, next_help_heading = "Tables of captions")]
    pub(crate) tables: TableCaptions,
}

/// Where the captions of a shard are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CaptionSource {
    Text,
    Field(String),
}

impl CaptionSource {
    /// The field of the `.json` members.
    pub(crate) fn field(&self) -> Option<&str> {
        match self {
            Self::Text => None,
            Self::Field(field) => Some(field),
        }
    }
}

impl std::str::FromStr for CaptionSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "txt" => Ok(Self::Text),
            Some(("json", field)) if !field.is_empty() => Ok(Self::Field(field.to_owned())),
            _ => {
                Err("expected txt, or json:FIELD with the name of a field, such as json:captions".to_owned())
            }
        }
    }
}

/// Options for captions without images.
#[derive(Args)]
pub(crate) struct TableCaptions {
    /// Table of captions; no images are needed: parquet, csv, tsv, json (also COCO captions), jsonl, or txt with one caption
    /// per line (also .gz and .zst), or a folder of such files. Writes numbered sidecars and captions.json to --out.
    #[arg(long, value_name = "INPUT", requires = "out", value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) table: Option<Location>,
    /// Folder or address for the sidecars of --table. If it holds sidecars of the same table, the run is resumed.
    #[arg(long, requires = "table", value_parser = location(), value_hint = ValueHint::AnyPath)]
    pub(crate) out: Option<Location>,
    /// Format of the table [default: from the file extension]
    #[arg(long, requires = "table")]
    pub(crate) input_format: Option<Format>,
    /// Column of captions: text, or lists of texts [default: caption, captions or text, in upper or lower case]
    #[arg(long, requires = "table", value_name = "COLUMN")]
    pub(crate) caption_col: Option<String>,
    /// Column of sample keys [default: the number of the caption in the whole input, from 0, with nine digits]
    #[arg(long, requires = "table", value_name = "COLUMN")]
    pub(crate) key_col: Option<String>,
    /// Rows of the table per sidecar.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) part_size: u32,
}

impl TableCaptions {
    /// The tables of `input` and the folder of their sidecars.
    pub(crate) fn tables(&self, input: &Location, out: &Location, force: bool) -> Result<Tables, Error> {
        let wanted = Wanted {
            place: Where::Nowhere,
            url: None,
            caption: self.caption_col.clone(),
            no_captions: false,
            extra: self.key_col.iter().cloned().collect(),
            hash: None,
            boxes: None,
            splits: Vec::new(),
        };
        let files = rows::files(input, self.input_format)?;
        Ok(Tables { files, wanted, out: out.to_owned(), part_size: self.part_size, force })
    }
}
