//! JSON documents: what the first object has, found without holding it in memory; and whole documents.

use std::io::{BufRead, Read};

use loader::shards::most_decompressed;
use storage::{Location, Source};

use super::reader;
use crate::error::Error;

/// A key of the first object.
pub(super) struct Key {
    pub(super) name: String,
    /// The first byte of its value.
    pub(super) value: u8,
}

/// Longer keys, and more of them, are not those of a table.
const MAX_KEY_BYTES: usize = 1 << 10;
const MAX_KEYS: usize = 1 << 12;

/// The keys of the object with which the document begins, in its order; none if it does not begin with an object. Of a
/// document that is damaged, those before the damage.
pub(super) fn first_keys(path: &Location) -> Result<Vec<Key>, Error> {
    let mut from = reader(path)?;
    let mut scan = Scan::default();
    loop {
        let buffer = from.fill_buf().map_err(Error::file("read", path))?;
        if buffer.is_empty() {
            return Ok(scan.keys);
        }
        let count = buffer.len();
        if !buffer.iter().all(|&byte| scan.next(byte)) {
            return Ok(scan.keys);
        }
        from.consume(count);
    }
}

/// Reads a document byte by byte.
#[derive(Default)]
pub(super) struct Scan {
    depth: u32,
    in_text: bool,
    escaped: bool,
    /// The last text at the first level, as it is written.
    text: Vec<u8>,
    /// Whether that text was a key: its colon has been read, its value not.
    after_colon: bool,
    keys: Vec<Key>,
}

impl Scan {
    /// The name of the last key of the first level.
    pub(super) fn last_key(&self) -> Option<&str> {
        self.keys.last().map(|key| key.name.as_str())
    }

    /// Takes the next byte; false when the first object has ended.
    pub(super) fn next(&mut self, byte: u8) -> bool {
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            if self.depth == 1 && self.in_text && self.text.len() < MAX_KEY_BYTES {
                self.text.push(byte);
            }
            return true;
        }
        if byte.is_ascii_whitespace() {
            return true;
        }
        if self.depth == 1 && self.after_colon {
            self.after_colon = false;
            let name =
                serde_json::from_slice(&[b"\"", self.text.as_slice(), b"\""].concat()).unwrap_or_default();
            self.keys.push(Key { name, value: byte });
        }
        match byte {
            b'"' => {
                self.in_text = true;
                self.text.clear();
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b':' if self.depth == 1 => self.after_colon = true,
            _ => {}
        }
        // A document that begins with anything but an object never has a depth, or is a list.
        self.depth > 0 && !(self.depth == 1 && byte == b'[') && self.keys.len() < MAX_KEYS
    }
}

/// A whole document. One that is compressed may not become so large that it must be meant to.
pub(super) fn whole(path: &Location) -> Result<Vec<u8>, Error> {
    let most = most_decompressed(Source::open(path)?.len());
    let mut document = Vec::new();
    reader(path)?
        .take(most.saturating_add(1))
        .read_to_end(&mut document)
        .map_err(Error::file("read", path))?;
    if document.len() as u64 > most {
        return Err(Error::input(path, format!("decompressing it takes more than {most} bytes")));
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(document: &str) -> Vec<(String, char)> {
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), document).unwrap();
        first_keys(&file.path().into())
            .unwrap()
            .into_iter()
            .map(|key| (key.name, char::from(key.value)))
            .collect()
    }

    #[test]
    fn keys_of_the_first_level_are_found() {
        let found = keys(r#" {"a" : [{"x": 1}], "b\u00e9\"": {"y": "}"}, "c": "d", "e":-1} {"f": 2}"#);
        let expected = [("a", '['), ("b\u{e9}\"", '{'), ("c", '"'), ("e", '-')];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)));
        for other in ["[{\"a\": 1}]", "", "text", "{}", "{\"a\""] {
            assert!(keys(other).is_empty(), "{other}");
        }
        assert_eq!(keys("{\"a\": [1, "), [("a".to_owned(), '[')]);
    }
}
