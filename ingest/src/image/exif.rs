//! EXIF tags as one JSON text, in the naming of img2dataset's column ("Image Make", "EXIF `FNumber`", "GPS `GPSLatitude`").

use exif::{Context, In, Reader, Tag};
use serde_json::{Map, Value};

/// Values longer than this are cut: makers hide whole files in them.
const LONGEST: usize = 200;
/// Bounds what a hostile header can cost.
const MOST_TAGS: usize = 200;

/// `{}` when the block cannot be read.
pub(super) fn json(block: &[u8]) -> String {
    let mut tags = Map::new();
    let mut reader = Reader::new();
    reader.continue_on_error(true);
    let parsed = reader.read_raw(block.to_vec()).or_else(|error| error.distill_partial_result(|_| ()));
    if let Ok(parsed) = parsed {
        // Maker notes and comments are binary to everyone but their maker.
        let wanted = |tag: Tag| ![Tag::MakerNote, Tag::UserComment].contains(&tag);
        for field in parsed.fields().filter(|field| wanted(field.tag)).take(MOST_TAGS) {
            let place = match (field.tag.context(), field.ifd_num) {
                (_, In::THUMBNAIL) => "Thumbnail",
                (Context::Exif, _) => "EXIF",
                (Context::Gps, _) => "GPS",
                (Context::Interop, _) => "Interoperability",
                _ => "Image",
            };
            let value: String = field.display_value().to_string().chars().take(LONGEST).collect();
            tags.insert(format!("{place} {}", field.tag), Value::String(value.trim().to_owned()));
        }
    }
    Value::Object(tags).to_string()
}
