//! The format of model files: magic bytes, a version, then little-endian numbers.

use super::Tag;

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

/// Reads a model file. Errors say what is wrong with a damaged file.
#[derive(Debug)]
pub(crate) struct ModelReader<'a>(&'a [u8]);

impl<'a> ModelReader<'a> {
    /// Checks the magic bytes, the version and the kind.
    pub(crate) fn new(bytes: &'a [u8], kind: &str) -> Result<Self, String> {
        let mut reader = Self(bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err("it is not a model of this version".to_owned());
        }
        if reader.text()? != kind {
            return Err(format!("it is not a {kind} model"));
        }
        Ok(reader)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (head, tail) = self.0.split_at_checked(count).ok_or("it is truncated")?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, String> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn tag(&mut self) -> Result<Tag, String> {
        match self.u8()? {
            number if usize::from(number) < Tag::COUNT => Ok(Tag(number)),
            _ => Err("it has an invalid tag".to_owned()),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String, String> {
        let length = usize::from(self.u8()?);
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "a text in it is not UTF-8".to_owned())
    }

    /// Reads a count of items that take at least `bytes_each` bytes. Rejects counts that exceed the rest of the file,
    /// so that a damaged count cannot allocate much memory.
    pub(crate) fn count(&mut self, bytes_each: usize) -> Result<usize, String> {
        let count = self.u32()? as usize;
        if count.checked_mul(bytes_each).is_none_or(|bytes| bytes > self.0.len()) {
            return Err("it is truncated".to_owned());
        }
        Ok(count)
    }
}
