//! Options that choose the columns of the input.

use clap::Args;
use ingest::Error;
use ingest::rows::{Format, RESERVED, Wanted, Where};

#[derive(Args)]
pub(crate) struct Columns {
    /// Format of the input [default: from the file extension]
    #[arg(long)]
    pub(crate) input_format: Option<Format>,
    /// Column of captions: text, or lists of texts [default: caption, captions,
    /// text or caption_reference_description, in upper or lower case]
    #[arg(long, conflicts_with = "no_captions", value_name = "COLUMN")]
    pub(crate) caption_col: Option<String>,
    /// Make a dataset without captions: no caption column is read, and no .txt files of a folder of images.
    #[arg(long)]
    pub(crate) no_captions: bool,
    /// Columns to copy into the shards' tables and .json files.
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    pub(crate) save_additional_columns: Vec<String>,
    /// Column of expected hashes, of the kind that --compute-hash selects. An image file with another hash counts as
    /// failed (`hash mismatch`).
    #[arg(long, value_name = "COLUMN")]
    pub(crate) verify_hash: Option<String>,
    /// Column of bounding boxes to blur, for example faces: lists of [left, top, right, bottom] as fractions (0 to 1) of
    /// the width and height, or the same as JSON text. The column is also copied into the output.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) blur_bbox_col: Option<String>,
}

impl Columns {
    pub(crate) fn wanted(&self, place: Where, url: Option<&String>) -> Result<Wanted, Error> {
        let mut copied = self.save_additional_columns.iter().chain(&self.blur_bbox_col);
        if let Some(taken) = copied.find(|name| RESERVED.contains(&name.as_str())) {
            let problem = format!(
                "column {taken:?} cannot be copied into the shards: their tables already have a column of that name"
            );
            return Err(Error::Usage(problem));
        }
        let mut extra = self.save_additional_columns.clone();
        extra.extend(self.blur_bbox_col.clone().filter(|boxes| !extra.contains(boxes)));
        Ok(Wanted {
            place,
            url: url.cloned(),
            caption: self.caption_col.clone(),
            no_captions: self.no_captions,
            extra,
            hash: self.verify_hash.clone(),
            boxes: self.blur_bbox_col.clone(),
            splits: Vec::new(),
        })
    }

    /// An option that was given but has a meaning for tables only.
    pub(crate) fn table_option(&self) -> Option<&'static str> {
        [
            ("--input-format", self.input_format.is_some()),
            ("--caption-col", self.caption_col.is_some()),
            ("--save-additional-columns", !self.save_additional_columns.is_empty()),
            ("--verify-hash", self.verify_hash.is_some()),
            ("--blur-bbox-col", self.blur_bbox_col.is_some()),
        ]
        .into_iter()
        .find_map(|(option, given)| given.then_some(option))
    }
}
