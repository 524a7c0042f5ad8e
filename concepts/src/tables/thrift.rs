//! Walks through a structure in Thrift's compact protocol, in which Parquet's footers and page headers are stored, without
//! keeping anything. What it claims (sizes of texts, lists and maps) is compared with the bytes that are left.

use std::io::Read;

use super::error::TableError;

/// Structures inside one another. Parquet's own have fewer than ten.
const MAX_DEPTH: usize = 32;

/// Something found on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole number.
    Number(i64),
    /// A list with this many elements begins.
    List(u64),
    /// An element of a list begins.
    Element,
}

/// Is called with the numbers of the fields around what was found.
pub(super) type Visit<'a> = dyn FnMut(&[i16], Found) -> Result<(), TableError> + 'a;

/// Reads one structure from `input`, which has at most `left` bytes, and calls `visit` with everything found and the numbers of
/// the fields around it.
pub(super) fn walk(input: impl Read, left: u64, visit: &mut Visit<'_>) -> Result<(), TableError> {
    Walk { input, left, visit, path: Vec::new(), depth: 0 }.structure()
}

struct Walk<'a, 'b, R> {
    input: R,
    left: u64,
    visit: &'a mut Visit<'b>,
    path: Vec<i16>,
    depth: usize,
}

impl<R: Read> Walk<'_, '_, R> {
    fn structure(&mut self) -> Result<(), TableError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TableError::too_large(format!(
                "its structures are nested more than {MAX_DEPTH} deep"
            )));
        }
        let mut id: i16 = 0;
        loop {
            let head = self.byte()?;
            let kind = head & 0x0f;
            if kind == 0 {
                self.depth -= 1;
                return Ok(());
            }
            id = match head >> 4 {
                0 => self.number()? as i16,
                delta => id.wrapping_add(i16::from(delta)),
            };
            self.path.push(id);
            // The value of a boolean field is part of its head.
            if kind > 2 {
                self.value(kind)?;
            }
            self.path.pop();
        }
    }

    fn value(&mut self, kind: u8) -> Result<(), TableError> {
        match kind {
            1..=3 => self.byte().map(drop),
            4..=6 => {
                let number = self.number()?;
                (self.visit)(&self.path, Found::Number(number))
            }
            7 => self.skip(8),
            8 => {
                let bytes = self.varint()?;
                self.skip(bytes)
            }
            9 | 10 => {
                let head = self.byte()?;
                let size = match head >> 4 {
                    15 => self.varint()?,
                    size => u64::from(size),
                };
                self.claim(size)?;
                (self.visit)(&self.path, Found::List(size))?;
                for _ in 0..size {
                    (self.visit)(&self.path, Found::Element)?;
                    self.value(head & 0x0f)?;
                }
                Ok(())
            }
            11 => {
                let size = self.varint()?;
                self.claim(size)?;
                let kinds = if size > 0 { self.byte()? } else { 0 };
                for _ in 0..size {
                    self.value(kinds >> 4)?;
                    self.value(kinds & 0x0f)?;
                }
                Ok(())
            }
            12 => self.structure(),
            other => Err(TableError::damaged(format!("it has a value of the unknown kind {other}"))),
        }
    }

    /// An element takes at least one byte.
    fn claim(&self, elements: u64) -> Result<(), TableError> {
        if elements <= self.left {
            return Ok(());
        }
        let left = self.left;
        Err(TableError::too_large(format!(
            "it claims a list of {elements} elements, but only {left} bytes are left"
        )))
    }

    fn byte(&mut self) -> Result<u8, TableError> {
        let early = || TableError::damaged("it ends early");
        let mut byte = [0];
        self.left = self.left.checked_sub(1).ok_or_else(early)?;
        self.input.read_exact(&mut byte).map_err(|_| early())?;
        Ok(byte[0])
    }

    fn skip(&mut self, bytes: u64) -> Result<(), TableError> {
        let problem =
            || TableError::too_large(format!("it claims a text of {bytes} bytes, which it does not have"));
        self.left = self.left.checked_sub(bytes).ok_or_else(problem)?;
        let skipped = std::io::copy(&mut self.input.by_ref().take(bytes), &mut std::io::sink());
        if skipped.is_ok_and(|skipped| skipped == bytes) { Ok(()) } else { Err(problem()) }
    }

    fn varint(&mut self) -> Result<u64, TableError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(TableError::damaged("it has a number of more than 64 bits"))
    }

    fn number(&mut self) -> Result<i64, TableError> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8]) -> Result<Vec<(Vec<i16>, Found)>, TableError> {
        let mut all = Vec::new();
        walk(bytes, bytes.len() as u64, &mut |path, found| {
            all.push((path.to_vec(), found));
            Ok(())
        })?;
        Ok(all)
    }

    /// Bytes written by hand from the specification of the protocol.
    #[test]
    fn structures_lists_and_numbers_are_found() {
        // 1: i32 = -3; 2: true; 4: list of two structures { 5: i32 = 64 }, the second of which is empty; 20: text "ab"
        let bytes =
            [0x15, 0x05, 0x11, 0x29, 0x2c, 0x55, 0x80, 0x01, 0x00, 0x00, 0x08, 0x28, 0x02, b'a', b'b', 0x00];
        let expected = [
            (vec![1], Found::Number(-3)),
            (vec![4], Found::List(2)),
            (vec![4], Found::Element),
            (vec![4, 5], Found::Number(64)),
            (vec![4], Found::Element),
        ];
        assert_eq!(found(&bytes).unwrap(), expected);
        for length in 0..bytes.len() {
            assert!(found(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn claims_beyond_the_end_are_refused() {
        // 1: list of 2^28 numbers; 1: text of 2^28 bytes; 1: map of 2^28.
        for kind in [[0x19, 0xf5], [0x18, 0x80], [0x1b, 0x80]] {
            let bytes = [&kind[..], &[0x80, 0x80, 0x80, 0x80, 0x01, 0x00]].concat();
            assert!(found(&bytes).unwrap_err().to_string().contains("claims"), "{kind:x?}");
        }
        let nested = [0x1c; 100];
        assert!(found(&nested).unwrap_err().to_string().contains("nested"));
    }
}
