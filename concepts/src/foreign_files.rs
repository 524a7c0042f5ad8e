//! What programs on other systems leave in text files and folders.

use std::io;
use std::path::Path;

/// What Windows' editors put in front of UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Text without a byte order mark at its start.
pub fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// Reads a UTF-8 file as [`std::fs::read_to_string`] does, without a byte order mark.
///
/// # Errors
/// As [`std::fs::read_to_string`]: the file cannot be read, or it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut text = std::fs::read_to_string(path)?;
    if text.as_bytes().starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(text)
}

/// Whether a file or folder of this name holds macOS' attributes of another file, whose name may well end in `.jpg` or
/// `.tar`: `._photo.jpg` (on drives that are not Apple's) and everything in `__MACOSX` (in zip archives).
pub fn is_apple_double(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "__MACOSX" || name.as_encoded_bytes().starts_with(b"._"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_without_its_byte_order_mark() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (bytes, expected) in [("\u{feff}cat\n", "cat\n"), ("cat\u{feff}", "cat\u{feff}"), ("", "")] {
            std::fs::write(file.path(), bytes).unwrap();
            assert_eq!(read_text(file.path()).unwrap(), expected);
            assert_eq!(without_byte_order_mark(bytes.as_bytes()), expected.as_bytes());
        }
        std::fs::write(file.path(), b"\xff").unwrap();
        assert_eq!(read_text(file.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn apple_double_files_are_told_by_their_names() {
        for (path, expected) in [
            ("a/._b.jpg", true),
            ("__MACOSX", true),
            ("a/_b.jpg", false),
            ("._a/b.jpg", false),
            (".._", false),
        ] {
            assert_eq!(is_apple_double(Path::new(path)), expected, "{path}");
        }
    }
}
