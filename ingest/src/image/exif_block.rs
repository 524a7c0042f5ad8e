//! Reads the fields of an EXIF block. The crate that names and prints them reads blocks too, but without limits: many fields
//! that share one value of a megabyte become gigabytes. Here the number of entries and the length of a value are limited, not
//! the time, so that a block has the same fields on every machine.

use exif::{Context, Field, In, Rational, SRational, Tag, Value};

/// Maximum number of entries that are looked at, over all directories.
const MAX_ENTRIES: usize = 4096;
/// Maximum number of directories in a chain: image, thumbnail, and some that nobody uses.
const MAX_CHAIN: u16 = 8;
/// Only as many numbers or characters of a value are read; no more of it is printed.
const MAX_NUMBERS: usize = 512;

/// The first `most` fields whose tag is `wanted`, as far as the block can be read.
pub(super) fn fields(block: &[u8], most: usize, wanted: impl Fn(Tag) -> bool) -> Vec<Field> {
    let little = block.starts_with(b"II*\0");
    if block.len() < 8 || !little && !block.starts_with(b"MM\0*") {
        return Vec::new();
    }
    let mut reader =
        Reader { block, little, wanted, most, left: MAX_ENTRIES, seen: Vec::new(), fields: Vec::new() };
    let mut next = reader.long(4);
    for number in 0..MAX_CHAIN {
        match next {
            Some(at) if at != 0 => next = reader.directory(at as usize, Context::Tiff, number),
            _ => break,
        }
    }
    reader.fields
}

struct Reader<'a, Wanted> {
    block: &'a [u8],
    /// Whether the least significant byte of a number comes first.
    little: bool,
    wanted: Wanted,
    most: usize,
    /// Number of entries that may still be looked at.
    left: usize,
    /// Places of the directories so far; none is read twice.
    seen: Vec<usize>,
    fields: Vec<Field>,
}

impl<Wanted: Fn(Tag) -> bool> Reader<'_, Wanted> {
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes: [u8; N] = self.block.get(at..at.checked_add(N)?)?.try_into().ok()?;
        if !self.little {
            bytes.reverse();
        }
        Some(bytes)
    }

    fn short(&self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn long(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    /// Reads a directory and those that it contains; returns the place of the next one. Entries that cannot be read are
    /// passed over.
    fn directory(&mut self, at: usize, context: Context, number: u16) -> Option<u32> {
        let count = usize::from(self.short(at)?);
        if self.seen.contains(&at) {
            return None;
        }
        self.seen.push(at);
        let end = at + 2 + 12 * count;
        for entry in (at + 2..end).step_by(12) {
            if self.block.len() < entry + 12 || self.fields.len() >= self.most {
                return None;
            }
            self.left = self.left.checked_sub(1)?;
            let tag = Tag(context, self.short(entry)?);
            let Some(value) = self.value(entry) else { continue };
            let inside = match tag {
                Tag::ExifIFDPointer => Context::Exif,
                Tag::GPSInfoIFDPointer => Context::Gps,
                Tag::InteropIFDPointer => Context::Interop,
                _ => {
                    if (self.wanted)(tag) {
                        self.fields.push(Field { tag, ifd_num: In(number), value });
                    }
                    continue;
                }
            };
            // Contexts do not contain themselves, and no directory is read twice, so this ends.
            if let Some(place) = value.get_uint(0) {
                self.directory(place as usize, inside, number);
            }
        }
        self.long(end)
    }

    /// The value of an entry: tag, type, count, and the value or its place.
    fn value(&self, entry: usize) -> Option<Value> {
        let (kind, count) = (self.short(entry + 2)?, self.long(entry + 4)?);
        let size = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 => 4,
            5 | 10 | 12 => 8,
            _ => return Some(Value::Unknown(kind, count, entry as u32 + 8)),
        };
        let length = size * count as usize;
        let at = if length <= 4 { entry + 8 } else { self.long(entry + 8)? as usize };
        self.block.get(at..at.checked_add(length)?)?;
        let numbers = (0..(count as usize).min(MAX_NUMBERS)).map(|number| at + size * number);
        let bytes = numbers.clone().map(|at| self.block[at]);
        let short = |at| self.bytes(at).map_or(0, u16::from_le_bytes);
        let long = |at| self.bytes(at).map_or(0, u32::from_le_bytes);
        Some(match kind {
            1 => Value::Byte(bytes.collect()),
            2 => Value::Ascii(texts(&bytes.collect::<Vec<u8>>())),
            3 => Value::Short(numbers.map(short).collect()),
            4 => Value::Long(numbers.map(long).collect()),
            5 => Value::Rational(numbers.map(|at| Rational { num: long(at), denom: long(at + 4) }).collect()),
            6 => Value::SByte(bytes.map(|byte| byte as i8).collect()),
            7 => Value::Undefined(bytes.collect(), at as u32),
            8 => Value::SShort(numbers.map(|at| short(at) as i16).collect()),
            9 => Value::SLong(numbers.map(|at| long(at) as i32).collect()),
            10 => Value::SRational(
                numbers.map(|at| SRational { num: long(at) as i32, denom: long(at + 4) as i32 }).collect(),
            ),
            11 => Value::Float(numbers.map(|at| f32::from_bits(long(at))).collect()),
            _ => Value::Double(
                numbers.map(|at| f64::from_bits(self.bytes(at).map_or(0, u64::from_le_bytes))).collect(),
            ),
        })
    }
}

/// The texts of an ASCII value, each of which ends with a 0.
fn texts(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut texts: Vec<Vec<u8>> = bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    if texts.last().is_some_and(Vec::is_empty) {
        texts.pop();
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block with one directory of these entries (tag, type, count, value), and `rest` after it.
    fn block(entries: &[(u16, u16, u32, u32)], rest: &[u8]) -> Vec<u8> {
        let mut block = b"II*\0\x08\0\0\0".to_vec();
        block.extend((entries.len() as u16).to_le_bytes());
        for (tag, kind, count, value) in entries {
            block.extend(tag.to_le_bytes());
            block.extend(kind.to_le_bytes());
            block.extend(count.to_le_bytes());
            block.extend(value.to_le_bytes());
        }
        block.extend([0; 4]);
        block.extend(rest);
        block
    }

    /// The crate that prints the fields reads the same from blocks that are not hostile.
    #[test]
    fn fields_are_those_of_the_exif_crate() {
        let start = 8 + 2 + 12 * 12 + 4;
        let entries: Vec<(u16, u16, u32, u32)> = (1..=12).map(|kind| (270 + kind, kind, 3, start)).collect();
        let mut all = block(&entries, b"ab\0cd\0\x01\0\0\x02\x03\x80\xff\x7fabcdefgh12345678");
        for _ in 0..2 {
            let mut theirs = exif::Reader::new();
            theirs.continue_on_error(true);
            let theirs = theirs.read_raw(all.clone()).unwrap();
            let shown = |field: &Field| format!("{} {} {}", field.tag, field.ifd_num, field.display_value());
            let expected: Vec<String> = theirs.fields().map(shown).collect();
            assert_eq!(fields(&all, 200, |_| true).iter().map(shown).collect::<Vec<_>>(), expected);
            assert!(expected.len() > 8);
            // The second time with the thumbnail's directory, which is the block's own rest.
            let (next, end) = (start as usize - 4, all.len() as u32);
            all[next..next + 4].copy_from_slice(&end.to_le_bytes());
            all.extend([1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn repeated_and_endless_fields_are_limited() {
        // 1,000 fields that share one value of a megabyte of zeros.
        let count = 1_000;
        let start = 8 + 2 + 12 * count + 4;
        let entries = vec![(270, 2, 1 << 20, start); count as usize];
        let found = fields(&block(&entries, &vec![0; 1 << 20]), 200, |_| true);
        assert_eq!(found.len(), 200);
        assert!(
            found
                .iter()
                .all(|field| matches!(&field.value, Value::Ascii(texts) if texts.len() <= MAX_NUMBERS))
        );
        // Pointers from every directory to all others, and a directory that follows itself.
        let pointers: Vec<(u16, u16, u32, u32)> = (0..5_000).map(|n| (0x8769, 4, 1, 8 + 12 * n)).collect();
        assert!(fields(&block(&pointers, &[]), 200, |_| true).len() <= 200);
        let mut circle = block(&[(274, 3, 1, 6)], &[]);
        circle[22] = 8;
        assert_eq!(fields(&circle, 200, |_| true).len(), 1);
    }

    #[test]
    fn no_block_makes_it_panic() {
        let whole = block(&[(270, 2, 9, 50), (0x8769, 4, 1, 8), (282, 5, 1, 40)], &[1; 40]);
        for length in 0..whole.len() {
            fields(&whole[..length], 200, |_| true);
        }
        for place in 0..whole.len() {
            for byte in 0..=255 {
                let mut changed = whole.clone();
                changed[place] = byte;
                fields(&changed, 200, |_| true);
            }
        }
        assert!(
            fields(b"", 200, |_| true).is_empty() && fields(b"XX*\0\0\0\0\x08", 200, |_| true).is_empty()
        );
    }
}
