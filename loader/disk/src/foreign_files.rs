//! What programs on other systems, and people who mean harm, leave in text files and folders.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
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

/// Whether a file or folder of a dataset's folder is no part of the dataset: what programs hide (`.thumbnails`,
/// `.ipynb_checkpoints`), and macOS' attributes.
pub fn is_hidden_entry(path: &Path) -> bool {
    is_apple_double(path) || path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Opens a regular file. A pipe or a device, which may have no end or keep the program waiting for ever, is an error.
///
/// # Errors
/// As [`File::open`], or of the kind [`io::ErrorKind::InvalidInput`] if this is not a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // O_NONBLOCK of Linux: opening a pipe does not wait for its other end. Regular files ignore it.
    let file = File::options().read(true).custom_flags(0o4000).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Reads a regular file of at most `most` bytes.
///
/// # Errors
/// As [`open_regular`], or of the kind [`io::ErrorKind::FileTooLarge`].
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {most} bytes")));
    }
    Ok(bytes)
}

/// Text from a dataset or a server, to be shown to a person: control characters, which a terminal obeys, and characters that
/// hide or set the direction of text are replaced by their code, `⟨U+001B⟩`.
pub fn visible(text: &str) -> Cow<'_, str> {
    shown(text, &[])
}

/// The same for whole messages: line breaks and tabs are kept.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    shown(text, &['\n', '\t'])
}

/// Whether a character must not reach a terminal or a page.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn shown<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let hidden = |c: char| is_hidden(c) && !kept.contains(&c);
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "⟨U+{:04X}⟩", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
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
    fn what_a_terminal_obeys_is_shown_as_its_code() {
        // ECMA-48: ESC [ and its one-character form, U+009B, begin a control sequence; ESC ] sets the title.
        let text = "a\u{1b}[31mred\u{9b}0m \u{202e}txt\ttab\nline\r";
        assert_eq!(visible(text), "a⟨U+001B⟩[31mred⟨U+009B⟩0m ⟨U+202E⟩txt⟨U+0009⟩tab⟨U+000A⟩line⟨U+000D⟩");
        assert_eq!(visible_lines(text), "a⟨U+001B⟩[31mred⟨U+009B⟩0m ⟨U+202E⟩txt\ttab\nline⟨U+000D⟩");
        assert!(matches!(visible("a dog, 犬, ein Hund"), Cow::Borrowed(_)));
    }

    #[test]
    fn special_files_are_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (file, pipe) = (folder.path().join("file"), folder.path().join("pipe"));
        std::fs::write(&file, b"12345").unwrap();
        assert_eq!(read_regular(&file, 5).unwrap(), b"12345");
        assert_eq!(read_regular(&file, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        // Nobody writes to the pipe.
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), folder.path(), Path::new("/dev/zero")] {
            assert_eq!(read_regular(path, 5).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path:?}");
        }
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
        for (path, expected) in [
            ("a/.thumbnails", true),
            ("__MACOSX", true),
            ("a/._b.jpg", true),
            (".a/b.jpg", false),
            ("b.jpg", false),
        ] {
            assert_eq!(is_hidden_entry(Path::new(path)), expected, "{path}");
        }
    }
}
