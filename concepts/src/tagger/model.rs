//! The format of model files: magic bytes, a version, then little-endian numbers.

use super::Tag;
use crate::Error;

/// The first bytes of a model file; the last of them is the version.
const MAGIC: [u8; 8] = *b"POSTAG\0\x01";

/// Writes a model file.
#[derive(Debug)]
pub(crate) struct ModelWriter(Vec<u8>);

impl ModelWriter {
    /// Starts a model of a kind, e.g. "perceptron".
    pub(crate) fn new(kind: &str) -> Self {
        let mut writer = Self(MAGIC.to_vec());
        writer.text(kind);
        writer
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends a text of less than 256 bytes.
    pub(crate) fn text(&mut self, text: &str) {
        self.u8(text.len() as u8);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a model file. Its errors are [`Error::Tagger`].
#[derive(Debug)]
pub(crate) struct ModelReader<'a> {
    bytes: &'a [u8],
    kind: &'static str,
}

impl<'a> ModelReader<'a> {
    /// Checks the magic bytes, the version and the kind.
    pub(crate) fn new(bytes: &'a [u8], kind: &'static str) -> Result<Self, Error> {
        let mut reader = Self { bytes, kind };
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(reader.damaged("it is not a model of this version"));
        }
        if reader.text()? != kind {
            return Err(reader.damaged(format!("it is not a {kind} model")));
        }
        Ok(reader)
    }

    /// The error of a damaged file.
    pub(crate) fn damaged(&self, what: impl Into<String>) -> Error {
        Error::Tagger { tagger: self.kind.to_owned(), what: what.into() }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (head, tail) =
            self.bytes.split_at_checked(count).ok_or_else(|| self.damaged("it is truncated"))?;
        self.bytes = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn tag(&mut self) -> Result<Tag, Error> {
        match self.u8()? {
            number if usize::from(number) < Tag::COUNT => Ok(Tag(number)),
            _ => Err(self.damaged("it has an invalid tag")),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String, Error> {
        let length = usize::from(self.u8()?);
        let text = self.take(length)?.to_vec();
        String::from_utf8(text).map_err(|_| self.damaged("a text in it is not UTF-8"))
    }

    /// Reads a count of items that take at least `bytes_each` bytes. Rejects counts that exceed the rest of the file,
    /// so that a damaged count cannot allocate much memory.
    pub(crate) fn count(&mut self, bytes_each: usize) -> Result<usize, Error> {
        let count = self.u32()? as usize;
        if count.checked_mul(bytes_each).is_none_or(|bytes| bytes > self.bytes.len()) {
            return Err(self.damaged("it is truncated"));
        }
        Ok(count)
    }
}
