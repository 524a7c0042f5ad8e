//! Notices that a remote file is replaced while it is read: otherwise the position of an image in the old file would give
//! bytes of another image of the new one.
//!
//! Every read asks for the entity tag that the file had when it was opened (`If-Match`), and the answer is compared with it
//! as well, because some servers ignore the condition. A server without entity tags, or with weak ones (`W/".."`), for which
//! a condition never holds, is only compared: tag if there is one, otherwise date, and length. Dates are not made a
//! condition, because servers differ in how they round them.

use std::ops::Range;

use object_store::{GetOptions, ObjectMeta};

use super::text_of;

/// One state of a remote file, as it was when the file was opened.
#[derive(Debug, Clone)]
pub(crate) struct Version(ObjectMeta);

impl Version {
    pub(crate) fn new(about: ObjectMeta) -> Self {
        Self(about)
    }

    pub(crate) fn length(&self) -> u64 {
        self.0.size
    }

    /// A text that changes when the file is written again.
    pub(crate) fn text(&self) -> String {
        format!("{} {} {:?}", self.0.size, self.0.last_modified, self.0.e_tag)
    }

    /// A request for a range of this version.
    pub(crate) fn request(&self, range: Range<u64>) -> GetOptions {
        let if_match = self.0.e_tag.clone().filter(|tag| !tag.starts_with(WEAK));
        GetOptions { if_match, range: Some(range.into()), ..GetOptions::default() }
    }

    /// Whether a response describes another version. What it does not say counts as the same.
    pub(crate) fn differs(&self, found: &ObjectMeta) -> bool {
        let same = match (&self.0.e_tag, &found.e_tag) {
            (Some(ours), Some(theirs)) => opaque(ours) == opaque(theirs),
            _ => !is_dated(&self.0) || !is_dated(found) || self.0.last_modified == found.last_modified,
        };
        !same || self.0.size != found.size
    }
}

/// Start of a weak entity tag: the bytes may differ between two answers with this tag.
const WEAK: &str = "W/";

fn opaque(tag: &str) -> &str {
    tag.strip_prefix(WEAK).unwrap_or(tag)
}

/// Whether the server has sent a date; without one, object_store sets 1970.
fn is_dated(about: &ObjectMeta) -> bool {
    about.last_modified.timestamp() != 0
}

/// Whether the server says that the file has no longer the entity tag that was asked for. Within a transfer that is resumed,
/// object_store has no own error for it.
pub(crate) fn is_refused(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Precondition { .. }) || text_of(error).contains("status code: 412 ")
}

/// Whether the server has no such range, or only a part of it, as of a file that has become shorter.
pub(crate) fn lacks_range(error: &object_store::Error) -> bool {
    let text = text_of(error);
    text.contains("status code: 416 ") || (text.contains("Requested ") && text.contains(", got "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(tag: Option<&str>, seconds: i64, size: u64) -> ObjectMeta {
        let last_modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds as u64);
        let e_tag = tag.map(str::to_owned);
        ObjectMeta {
            location: "a.tar".into(),
            last_modified: last_modified.into(),
            size,
            e_tag,
            version: None,
        }
    }

    #[test]
    fn versions_are_compared_by_what_both_sides_know() {
        let cases = [
            (("\"a\"", 9, 5), ("\"a\"", 9, 5), false),
            (("\"a\"", 9, 5), ("\"b\"", 9, 5), true),
            // Equal tags outweigh dates; a copy of the same bytes is the same.
            (("\"a\"", 9, 5), ("\"a\"", 8, 5), false),
            (("W/\"a\"", 9, 5), ("\"a\"", 9, 5), false),
            (("W/\"a\"", 9, 5), ("W/\"b\"", 9, 5), true),
            (("", 9, 5), ("\"b\"", 9, 5), false),
            (("", 9, 5), ("", 8, 5), true),
            (("", 9, 5), ("", 0, 5), false),
            (("", 0, 5), ("", 8, 5), false),
            (("", 0, 5), ("", 0, 4), true),
        ];
        let made = |(tag, seconds, size): (&str, i64, u64)| {
            about(Some(tag).filter(|t| !t.is_empty()), seconds, size)
        };
        for (ours, theirs, expected) in cases {
            assert_eq!(Version::new(made(ours)).differs(&made(theirs)), expected, "{ours:?} {theirs:?}");
        }
        let condition = |tag| Version::new(about(tag, 9, 5)).request(0..1).if_match;
        assert_eq!(condition(Some("\"a\"")).as_deref(), Some("\"a\""));
        assert_eq!(condition(Some("W/\"a\"")), None);
        assert_eq!(condition(None), None);
    }
}
