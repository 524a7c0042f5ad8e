//! EXIF tags as JSON text, named as in img2dataset's column ("Image Make", "EXIF `FNumber`", "GPS `GPSLatitude`").

use exif::{Context, In, Reader, Tag};
use serde_json::{Map, Value};

/// Longer values are truncated: some cameras embed whole files in them.
const MAX_VALUE_CHARS: usize = 200;
/// Bounds the cost of a malicious header.
const MAX_TAGS: usize = 200;

/// The tags of an EXIF block; `{}` if it cannot be parsed.
pub(super) fn json(block: &[u8]) -> String {
    let mut tags = Map::new();
    let mut reader = Reader::new();
    reader.continue_on_error(true);
    let parsed = reader.read_raw(block.to_vec()).or_else(|error| error.distill_partial_result(|_| ()));
    if let Ok(parsed) = parsed {
        // Maker notes and user comments are binary data without a common format.
        let wanted = |tag: Tag| ![Tag::MakerNote, Tag::UserComment].contains(&tag);
        for field in parsed.fields().filter(|field| wanted(field.tag)).take(MAX_TAGS) {
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
    }
    Value::Object(tags).to_string()
}
