//! The columns of a sidecar as Parquet stores them: texts by their numbers in a dictionary, numbers by their differences. Parquet's
//! own writer of Arrow arrays takes twice as long, because it first needs the arrays, and looks up every text of every row, also
//! where it can only be a new one or that of the row before.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::Result;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use std::hash::{BuildHasher, Hasher};

/// Rows per page.
const PAGE: usize = 20_480;

/// Zstandard level: higher levels are slower and hardly make the files smaller.
const ZSTD_LEVEL: i32 = 3;

/// Bytes of the smallest and the largest text that are stored in the footer; longer ones are left out.
const RANGE: usize = 256;

/// Bytes of the length of a text in a dictionary page.
const LENGTH: usize = 4;

/// A text column of a row group: each value once, and its number in every row.
#[derive(Default)]
pub(super) struct Texts {
    /// The values as in a dictionary page: each after its length.
    values: Vec<u8>,
    /// Where in `values` the text of each value is.
    places: Vec<(u32, u32)>,
    /// The values by the low bits of their hashes, or in the next free slot. At most half of the slots are used.
    slots: Vec<Slot>,
    hasher: foldhash::fast::RandomState,
    rows: Vec<u32>,
}

/// Where a value is found. All that is compared is here and in front of the text, because each look elsewhere waits for memory.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u32,
    /// Start of the text; 0, which none has, if the slot is free.
    start: u32,
    number: u32,
}

impl Texts {
    /// Adds a row with any text, which is likely to have this number. Returns its number.
    pub(super) fn push_likely(&mut self, text: &str, likely: Option<u32>) -> u32 {
        match likely {
            Some(number) if self.value(number) == text.as_bytes() => {
                self.rows.push(number);
                number
            }
            _ => self.push(text),
        }
    }

    /// Adds a row with any text. Returns its number.
    pub(super) fn push(&mut self, text: &str) -> u32 {
        if self.places.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text.as_bytes());
        let hash = hasher.finish() as u32;
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.start == 0 {
                let number = self.places.len() as u32;
                self.push_new(text);
                self.slots[at] = Slot { hash, start: self.places[number as usize].0, number };
                return number;
            }
            if slot.hash == hash && self.is_at(slot.start as usize, text) {
                self.rows.push(slot.number);
                return slot.number;
            }
            at = (at + 1) & mask;
        }
    }

    /// Whether the value that starts here is this text.
    fn is_at(&self, start: usize, text: &str) -> bool {
        self.values[start - LENGTH..start] == (text.len() as u32).to_le_bytes()
            && self.values[start..].starts_with(text.as_bytes())
    }

    /// Adds a row with a text that no other row has, or that need not be found again.
    pub(super) fn push_new(&mut self, text: &str) {
        self.rows.push(self.places.len() as u32);
        self.values.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.places.push((self.values.len() as u32, text.len() as u32));
        self.values.extend_from_slice(text.as_bytes());
    }

    /// Adds a row with the text of the row before.
    pub(super) fn push_last(&mut self) {
        self.rows.extend(self.rows.last().copied());
    }

    /// Number of bytes of the different texts.
    pub(super) fn bytes(&self) -> usize {
        self.values.len()
    }

    fn value(&self, number: u32) -> &[u8] {
        let (start, length) = self.places[number as usize];
        &self.values[start as usize..(start + length) as usize]
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(1 << 10);
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); size]);
        for slot in old.into_iter().filter(|slot| slot.start > 0) {
            let mut at = slot.hash as usize & (size - 1);
            while self.slots[at].start > 0 {
                at = (at + 1) & (size - 1);
            }
            self.slots[at] = slot;
        }
    }

    fn clear(&mut self) {
        self.values.clear();
        self.places.clear();
        self.slots.fill(Slot::default());
        self.rows.clear();
    }
}

/// Makes column chunks.
pub(super) struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    /// The page before it is compressed.
    plain: Vec<u8>,
}

/// A column chunk as a row group takes it.
pub(super) type Chunk = (Bytes, ColumnCloseResult);

impl Encoder {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL)?, plain: Vec::new() })
    }

    /// The chunk of a text column, which is empty afterwards; with the smallest and the largest text if `ranged`.
    pub(super) fn texts(&mut self, column: ColumnDescPtr, texts: &mut Texts, ranged: bool) -> Result<Chunk> {
        let mut chunk = ChunkWriter::new(column);
        if ranged {
            let values = (0..texts.places.len() as u32).map(|number| texts.value(number));
            let range = [values.clone().min(), values.max()].map(|text| text.filter(|it| it.len() <= RANGE));
            if let [Some(min), Some(max)] = range {
                let [min, max] = [min, max].map(|text| Some(ByteArray::from(text.to_vec())));
                chunk.statistics = Some(Statistics::byte_array(min, max, None, Some(0), false));
            }
        }
        let (bytes, num_values) = (texts.values.len(), texts.places.len() as u32);
        let buf = self.zstd.compress(&texts.values)?.into();
        let page = Page::DictionaryPage { buf, num_values, encoding: Encoding::PLAIN, is_sorted: false };
        chunk.page(page, bytes, &[Encoding::PLAIN, Encoding::RLE])?;
        for rows in texts.rows.chunks(PAGE) {
            self.plain.clear();
            numbers_in_dictionary(rows, &mut self.plain);
            self.data_page(&mut chunk, rows, Encoding::RLE_DICTIONARY)?;
        }
        texts.clear();
        chunk.finish()
    }

    /// The chunk of a column of numbers, which is empty afterwards; with the smallest and the largest number if `ranged`.
    pub(super) fn numbers(
        &mut self,
        column: ColumnDescPtr,
        numbers: &mut Vec<u32>,
        ranged: bool,
    ) -> Result<Chunk> {
        let mut chunk = ChunkWriter::new(column);
        if ranged {
            let [min, max] =
                [numbers.iter().min(), numbers.iter().max()].map(|number| number.map(|&it| it as i32));
            chunk.statistics = Some(Statistics::int32(min, max, None, Some(0), false));
        }
        for rows in numbers.chunks(PAGE) {
            self.plain.clear();
            differences(rows, &mut self.plain);
            self.data_page(&mut chunk, rows, Encoding::DELTA_BINARY_PACKED)?;
        }
        numbers.clear();
        chunk.finish()
    }

    fn data_page(&mut self, chunk: &mut ChunkWriter, rows: &[u32], encoding: Encoding) -> Result<()> {
        let page = Page::DataPage {
            buf: self.zstd.compress(&self.plain)?.into(),
            num_values: rows.len() as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        chunk.rows += rows.len() as u64;
        chunk.page(page, self.plain.len(), &[Encoding::RLE, encoding])
    }
}

/// The pages of a column chunk, and what the footer says of them.
struct ChunkWriter {
    column: ColumnDescPtr,
    bytes: TrackedWrite<Vec<u8>>,
    uncompressed: usize,
    dictionary: Option<u64>,
    data: Option<u64>,
    rows: u64,
    encodings: Vec<Encoding>,
    statistics: Option<Statistics>,
}

impl ChunkWriter {
    fn new(column: ColumnDescPtr) -> Self {
        let bytes = TrackedWrite::new(Vec::new());
        let (dictionary, data, encodings, statistics) = (None, None, Vec::new(), None);
        Self { column, bytes, uncompressed: 0, dictionary, data, rows: 0, encodings, statistics }
    }

    fn page(&mut self, page: Page, uncompressed: usize, encodings: &[Encoding]) -> Result<()> {
        let first = if page.is_data_page() { &mut self.data } else { &mut self.dictionary };
        let page = CompressedPage::new(page, uncompressed);
        let written = SerializedPageWriter::new(&mut self.bytes).write_page(page)?;
        first.get_or_insert(written.offset);
        self.uncompressed += written.uncompressed_size;
        self.encodings.extend(encodings.iter().filter(|it| !self.encodings.contains(it)).collect::<Vec<_>>());
        Ok(())
    }

    fn finish(self) -> Result<Chunk> {
        let bytes = Bytes::from(self.bytes.into_inner()?);
        let mut metadata = ColumnChunkMetaData::builder(self.column)
            .set_encodings(self.encodings)
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_num_values(self.rows as i64)
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(self.uncompressed as i64)
            .set_dictionary_page_offset(self.dictionary.map(|offset| offset as i64))
            .set_data_page_offset(self.data.unwrap_or_default() as i64);
        if let Some(statistics) = self.statistics {
            metadata = metadata.set_statistics(statistics);
        }
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: self.rows,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        Ok((bytes, close))
    }
}

/// A page of numbers in a dictionary: the bits per number, and one run of numbers with so many bits each.
fn numbers_in_dictionary(rows: &[u32], page: &mut Vec<u8>) {
    /// Numbers of a group, which is complete in the page.
    const GROUP: usize = 8;
    let bits = bits(rows.iter().copied().max().unwrap_or_default()).max(1);
    page.push(bits as u8);
    let groups = rows.len().div_ceil(GROUP);
    varint((groups as u64) << 1 | 1, page);
    let padding = groups * GROUP - rows.len();
    pack(rows.iter().copied().chain(std::iter::repeat_n(0, padding)), bits, page);
}

/// A page in the encoding `DELTA_BINARY_PACKED`: the first number, then blocks of differences. A block has the smallest
/// difference, and parts with so many bits per number as what is beyond it needs.
fn differences(numbers: &[u32], page: &mut Vec<u8>) {
    const BLOCK: usize = 128;
    const PART: usize = 32;
    varint(BLOCK as u64, page);
    varint((BLOCK / PART) as u64, page);
    varint(numbers.len() as u64, page);
    varint(zigzag(numbers.first().map_or(0, |&first| first as i32)), page);
    let mut differences = [0; BLOCK];
    for (block, before) in numbers.get(1..).unwrap_or_default().chunks(BLOCK).zip(numbers.chunks(BLOCK)) {
        let differences = &mut differences[..block.len()];
        for (difference, (number, before)) in differences.iter_mut().zip(block.iter().zip(before)) {
            *difference = number.wrapping_sub(*before) as i32;
        }
        let smallest = differences.iter().copied().min().unwrap_or_default();
        let beyond = |difference: i32| difference.wrapping_sub(smallest) as u32;
        varint(zigzag(smallest), page);
        let widths = page.len();
        page.extend([0; BLOCK / PART]);
        for (part, differences) in differences.chunks(PART).enumerate() {
            let bits = bits(differences.iter().fold(0, |all, &difference| all | beyond(difference)));
            page[widths + part] = bits as u8;
            let padding = PART - differences.len();
            let numbers = differences.iter().map(|&difference| beyond(difference));
            pack(numbers.chain(std::iter::repeat_n(0, padding)), bits, page);
        }
    }
}

/// How many bits a number needs.
fn bits(number: u32) -> u32 {
    u32::BITS - number.leading_zeros()
}

/// Appends numbers with so many bits each, the lowest bit of the first number first.
fn pack(numbers: impl Iterator<Item = u32>, bits: u32, page: &mut Vec<u8>) {
    let (mut waiting, mut count) = (0_u64, 0);
    numbers.for_each(|number| {
        waiting |= u64::from(number) << count;
        count += bits;
        if count >= u32::BITS {
            page.extend_from_slice(&(waiting as u32).to_le_bytes());
            waiting >>= u32::BITS;
            count -= u32::BITS;
        }
    });
    page.extend_from_slice(&waiting.to_le_bytes()[..count.div_ceil(8) as usize]);
}

/// Appends a number in groups of seven bits, the lowest first; the highest bit of a byte says that more follow.
fn varint(mut number: u64, page: &mut Vec<u8>) {
    while number > 0x7f {
        page.push(number as u8 | 0x80);
        number >>= 7;
    }
    page.push(number as u8);
}

/// Numbers near 0 as small numbers without sign: 0, -1, 1, -2 ..
fn zigzag(number: i32) -> u64 {
    let number = i64::from(number);
    (number << 1 ^ number >> 63) as u64
}
