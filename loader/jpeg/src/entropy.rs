//! A faster decoder of Huffman-coded coefficients, which replaces libjpeg's own.
//!
//! Decoding a photo spends most of its time in the entropy-coded segment: for each coefficient that is not zero, a Huffman
//! code of the symbol RRRRSSSS (a run of RRRR zeros, then a value of SSSS bits) and those bits (ITU-T T.81, F.2.2). libjpeg
//! decodes them one by one. Here, one table lookup of the next bits finds up to two coefficients with their values and the
//! end of the block; or, where no values are needed, as many symbols as there are (`codes.rs`). Everything else is
//! libjpeg's: this code is called once per MCU (the blocks of all components for one square of the image) and does what
//! jdhuff.c does there. It handles files with a single scan and without restart markers, which are nearly all files that
//! are not progressive.

use std::ops::Range;
use std::sync::Arc;

use crate::bits::{Bits, Rest, WINDOW};
use crate::codes::{AcCodes, BadCode, Block, DcCodes, Table};

/// Number of tables of each class that a file may have.
pub(crate) const TABLES: usize = 4;
/// Maximum number of components of a scan.
pub(crate) const COMPONENTS: usize = 4;

/// Number of zeros after the segment, so that there is a window at every offset. A refill adds up to 8 bytes more than are
/// taken.
const PADDING: usize = WINDOW + 8;

/// What is said about a component when a scan starts.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Component {
    /// Number of its blocks in an MCU.
    pub(crate) blocks: u32,
    /// Numbers of its tables.
    pub(crate) dc_table: u32,
    pub(crate) ac_table: u32,
    /// Not 0 if only the DC coefficients are needed, as at 1/8 of the size.
    pub(crate) only_dc: u32,
}

/// The only scan of a file, before its first MCU.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    /// From the first byte of the entropy-coded segment to the end of the file.
    pub(crate) data: &'a [u8],
    /// The components, in the order of their blocks in an MCU.
    pub(crate) components: &'a [Component],
    pub(crate) dc_tables: [Option<&'a Table>; TABLES],
    pub(crate) ac_tables: [Option<&'a Table>; TABLES],
    /// Number of MCUs per row.
    pub(crate) columns: u32,
    /// Those of which the coefficients are needed.
    pub(crate) needed_columns: Range<u32>,
}

/// Why an MCU is not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    BadCode,
    /// The segment ended before the MCU did.
    Ended,
}

impl From<BadCode> for Damage {
    #[inline]
    fn from(_: BadCode) -> Self {
        Self::BadCode
    }
}

/// The decoder's state in a scan, and its tables.
pub(crate) struct Entropy {
    /// The entropy-coded segment without stuffed bytes, followed by [`PADDING`] zeros.
    segment: Vec<u8>,
    /// The next bits, and the offset of those after them.
    rest: Rest,
    offset: usize,
    columns: u32,
    needed_columns: Range<u32>,
    /// Of the next MCU.
    column: u32,
    /// The blocks of an MCU.
    kinds: Vec<Kind>,
    /// For each component, the DC coefficient of its last block.
    dc: [i32; COMPONENTS],
    /// Kept from file to file: most have the tables of T.81, annex K, so that nothing has to be made again.
    dc_codes: [Option<Arc<DcCodes>>; TABLES],
    ac_codes: [Option<Arc<AcCodes>>; TABLES],
}

/// What a block is decoded with.
struct Kind {
    component: usize,
    only_dc: bool,
    dc: Arc<DcCodes>,
    ac: Arc<AcCodes>,
}

impl Entropy {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            segment: Vec::new(),
            rest: Rest::default(),
            offset: 0,
            columns: 0,
            needed_columns: 0..0,
            column: 0,
            kinds: Vec::new(),
            dc: [0; COMPONENTS],
            dc_codes: Default::default(),
            ac_codes: Default::default(),
        })
    }

    /// Prepares for the MCUs of a scan. Returns the number of bytes of its segment; or none if libjpeg has to decode it,
    /// because a table cannot be used or there is not enough memory.
    ///
    /// When the scan started, libjpeg checked its parameters and tables, and rejected what it cannot decode.
    pub(crate) fn start(&mut self, scan: &Scan) -> Option<usize> {
        // Without a scan if this fails; their memory serves the next file.
        let mut kinds = std::mem::take(&mut self.kinds);
        kinds.clear();
        for (number, component) in scan.components.iter().take(COMPONENTS).enumerate() {
            let (dc, ac) = (component.dc_table as usize, component.ac_table as usize);
            let dc = codes(self.dc_codes.get_mut(dc)?, scan.dc_tables[dc]?, DcCodes::table, DcCodes::new)?;
            let ac = codes(self.ac_codes.get_mut(ac)?, scan.ac_tables[ac]?, AcCodes::table, AcCodes::new)?;
            for _ in 0..component.blocks {
                let only_dc = component.only_dc != 0;
                kinds.push(Kind { component: number, only_dc, dc: dc.clone(), ac: ac.clone() });
            }
        }
        let taken = unstuff(scan.data, &mut self.segment)?;
        self.rest = Rest::default();
        self.offset = 0;
        self.columns = scan.columns;
        self.needed_columns = scan.needed_columns.clone();
        self.column = 0;
        self.kinds = kinds;
        self.dc = [0; COMPONENTS];
        Some(taken)
    }

    /// Ends the last scan.
    pub(crate) fn forget(&mut self) {
        self.kinds.clear();
    }

    /// Whether a scan has been prepared for.
    #[cfg(test)]
    pub(crate) fn has_scan(&self) -> bool {
        !self.kinds.is_empty()
    }

    /// Decodes an MCU into `blocks`, which are zero; none if it is not needed.
    pub(crate) fn decode(&mut self, blocks: Option<&mut [&mut Block]>) -> Result<(), Damage> {
        let needed = self.needed_columns.contains(&self.column);
        self.column = if self.column + 1 < self.columns { self.column + 1 } else { 0 };
        match blocks {
            Some(blocks) if needed => self.read(blocks),
            // Columns next to the requested region, which libjpeg decodes and ignores.
            _ => self.skip(),
        }
    }

    fn read(&mut self, blocks: &mut [&mut Block]) -> Result<(), Damage> {
        let mut bits = Bits::new(self.rest, window(&self.segment, self.offset)?);
        for (kind, block) in self.kinds.iter().zip(blocks) {
            let dc = &mut self.dc[kind.component % COMPONENTS];
            // In a damaged file the sum may overflow.
            *dc = dc.wrapping_add(kind.dc.difference(&mut bits)?);
            block[0] = *dc as i16;
            if kind.only_dc {
                kind.ac.skip(&mut bits)?;
            } else {
                kind.ac.read(&mut bits, block)?;
            }
        }
        let rest = bits.rest();
        self.advance(rest)
    }

    fn skip(&mut self) -> Result<(), Damage> {
        let mut bits = Bits::new(self.rest, window(&self.segment, self.offset)?);
        for kind in &self.kinds {
            let dc = &mut self.dc[kind.component % COMPONENTS];
            *dc = dc.wrapping_add(kind.dc.difference(&mut bits)?);
            kind.ac.skip(&mut bits)?;
        }
        let rest = bits.rest();
        self.advance(rest)
    }

    fn advance(&mut self, (rest, bytes): (Rest, usize)) -> Result<(), Damage> {
        let offset = self.offset + bytes;
        if 8 * offset - rest.count() > 8 * (self.segment.len() - PADDING) {
            return Err(Damage::Ended);
        }
        (self.rest, self.offset) = (rest, offset);
        Ok(())
    }
}

/// The codes of a table: the last ones, if they are of the same table.
fn codes<T>(
    last: &mut Option<Arc<T>>,
    table: &Table,
    table_of: fn(&T) -> &Table,
    make: fn(&Table) -> Option<T>,
) -> Option<Arc<T>> {
    if last.as_ref().is_none_or(|last| table_of(last) != table) {
        *last = make(table).map(Arc::new);
    }
    last.clone()
}

/// The bytes from an offset on. It is inside the segment, so that there are as many.
fn window(segment: &[u8], offset: usize) -> Result<&[u8; WINDOW], Damage> {
    segment.get(offset..).and_then(<[u8]>::first_chunk).ok_or(Damage::Ended)
}

/// Copies the entropy-coded segment that `data` begins with, up to the next marker, without the zero after each byte 0xFF
/// and with [`PADDING`] zeros at the end. Returns its length in `data`; none if there is not enough memory.
fn unstuff(data: &[u8], segment: &mut Vec<u8>) -> Option<usize> {
    segment.clear();
    segment.try_reserve(data.len() + PADDING).ok()?;
    let mut rest = data;
    loop {
        let plain = memchr::memchr(0xFF, rest).unwrap_or(rest.len());
        segment.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        // However many 0xFF before it.
        let zero = rest.iter().take_while(|&&byte| byte == 0xFF).count();
        if rest.get(zero) != Some(&0) {
            break;
        }
        segment.push(0xFF);
        rest = &rest[zero + 1..];
    }
    segment.extend_from_slice(&[0; PADDING]);
    Some(data.len() - rest.len())
}
