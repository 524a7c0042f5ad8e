//! Which columns of the input matter.

use clap::Args;
use ingest::Error;
use ingest::rows::{Format, RESERVED, Wanted, Where};

#[derive(Args)]
pub(crate) struct Columns {
    /// How the input is written [default: by its name]
    #[arg(long)]
    pub(crate) input_format: Option<Format>,
    /// Column of captions, text or lists of texts [default: caption, captions or text, whatever its case]
    #[arg(long, conflicts_with = "no_captions")]
    pub(crate) caption_col: Option<String>,
    /// Makes a set without captions.
    #[arg(long)]
    pub(crate) no_captions: bool,
    /// Columns carried through to the shards' tables and JSON members.
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    pub(crate) save_additional_columns: Vec<String>,
    /// Column of hashes, of the kind that --compute-hash names, that the pictures' bytes are compared with: others count
    /// as failed (`hash mismatch`).
    #[arg(long, value_name = "COLUMN")]
    pub(crate) verify_hash: Option<String>,
    /// Column of boxes to blur, such as faces: lists of [left, top, right, bottom], each a share (0 to 1) of width or
    /// height, also as JSON in a text column. It is carried through as well.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) blur_bbox_col: Option<String>,
}

impl Columns {
    pub(crate) fn wanted(&self, place: Where, url: Option<&String>) -> Result<Wanted, Error> {
        let mut carried = self.save_additional_columns.iter().chain(&self.blur_bbox_col);
        if let Some(taken) = carried.find(|name| RESERVED.contains(&name.as_str())) {
            let problem =
                format!("column {taken} cannot be carried: shards have a column of that name already");
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
        })
    }
}
