//! EXIF tags as JSON text, named as in img2dataset's column ("Image Make", "EXIF `FNumber`", "GPS `GPSLatitude`").

use exif::{Context, In, Tag};
use serde_json::{Map, Value};

use super::exif_block::fields;

/// Longer values are truncated: some cameras embed whole files in them.
const MAX_VALUE_CHARS: usize = 200;
/// Bounds the cost of a malicious header.
const MAX_TAGS: usize = 200;

/// The tags of an EXIF block; `{}` if it cannot be parsed.
pub(super) fn json(block: &[u8]) -> String {
    let mut tags = Map::new();
    // Maker notes and user comments are binary data without a common format.
    let wanted = |tag: Tag| ![Tag::MakerNote, Tag::UserComment].contains(&tag);
    for field in fields(block, MAX_TAGS, wanted) {
        let place = match (field.tag.context(), field.ifd_num) {
            (_, In::THUMBNAIL) => "Thumbnail",
            (Context::Exif, _) => "EXIF",
            (Context::Gps, _) => "GPS",
            (Context::Interop, _) => "Interoperability",
            _ => "Image",
        };
        let value: String = field.display_value().to_string().chars().take(MAX_VALUE_CHARS).collect();
        tags.insert(format!("{place} {}", field.tag), Value::String(value.trim().to_owned()));
    }
    Value::Object(tags).to_string()
}
