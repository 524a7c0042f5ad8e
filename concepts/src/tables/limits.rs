//! What a Parquet file may claim, compared with its own size:
//!
//! | claim | at most |
//! |---|---|
//! | elements of a list and bytes of a text in the footer or in a page header | the bytes that are left of it |
//! | rows, values of a column | [`ROWS_PER_BYTE`] per byte of the file, and [`ROWS`] more |
//! | values of all columns together | [`ROWS_PER_BYTE`] per byte of the file, and [`ROWS`] more, once and per column |
//! | start and length of a column chunk | the size of the file |
//! | uncompressed size of a page | [`PAGE_FACTOR`] times its compressed size, and [`PAGE`] more |
//! | uncompressed size of all pages together | [`PAGE_FACTOR`] times the size of the file, and [`PAGES`] more |
//! | values of a dictionary | the uncompressed size of its page |
//! | bytes of a value of fixed length | [`FIXED_LENGTH`] |
//! | groups of columns inside one another | [`SCHEMA_DEPTH`] |
//!
//! Readers that keep several rows count them with a [`Budget`], because a dictionary can repeat a long text in every row, and
//! rows that are all the same take next to nothing in the file.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};

use super::error::TableError;
use super::thrift::{Found, walk};

/// Rows per byte of a file. A column in which every row has the same value takes next to nothing, but each table of ours has
/// a key in every row.
pub(super) const ROWS_PER_BYTE: u64 = 64;
/// The same of a table that has no such column.
pub(super) const REPETITIVE_ROWS_PER_BYTE: u64 = 4096;
/// Rows of any file.
pub(super) const ROWS: u64 = 1 << 16;
/// Uncompressed bytes per compressed byte of a page.
pub(super) const PAGE_FACTOR: u64 = 1000;
/// Uncompressed bytes of any page.
pub(super) const PAGE: u64 = 16 << 20;
/// Uncompressed bytes of all pages that one reader of any file reads, one after another.
pub(super) const PAGES: u64 = 256 << 20;
/// Bytes of a value of fixed length.
pub(super) const FIXED_LENGTH: i64 = 1 << 16;
/// Nesting of column groups.
pub(super) const SCHEMA_DEPTH: usize = 64;
/// Bytes that a reader keeps, per byte of the file.
pub(super) const KEPT_FACTOR: u64 = 1000;
/// Bytes that a reader keeps of any file.
pub(super) const KEPT: u64 = 64 << 20;
/// Bytes that keeping a value takes beside those of its text: pointers, and what the allocator adds.
pub(super) const VALUE: u64 = 64;

/// A file ends with the length of its footer (4 bytes) and `PAR1`.
const TRAILER: usize = 8;
/// Field numbers of the footer and of page headers in parquet.thrift.
const SCHEMA: &[i16] = &[2];
const TYPE_LENGTH: &[i16] = &[2, 2];
const CHILDREN: &[i16] = &[2, 5];
const UNCOMPRESSED_SIZE: &[i16] = &[2];
const COMPRESSED_SIZE: &[i16] = &[3];
const ENCODINGS: [&[i16]; 2] = [&[5, 2], &[8, 4]];
const DICTIONARY_VALUES: &[i16] = &[7, 1];
/// Encodings of text (`DELTA_LENGTH_BYTE_ARRAY`, `DELTA_BYTE_ARRAY`) whose data say how many values to allocate.
const DELTA_TEXT: [i64; 2] = [6, 7];

/// How many bytes a reader of a file may still keep.
#[derive(Debug, Clone)]
pub struct Budget(u64);

impl Budget {
    /// For a file of this many bytes: 1,000 times as many, and 64 MiB more.
    pub fn for_file(bytes: u64) -> Self {
        Self(bytes.saturating_mul(KEPT_FACTOR).saturating_add(KEPT))
    }

    /// Counts a text that is kept, or another value as the text "".
    pub fn keep(&mut self, text: &str) -> Result<(), TableError> {
        self.keep_bytes(text.len() as u64 + VALUE)
    }

    /// Counts rows of this many bytes.
    pub fn keep_rows(&mut self, rows: usize, bytes: usize) -> Result<(), TableError> {
        self.keep_bytes((rows as u64).saturating_mul(bytes as u64))
    }

    fn keep_bytes(&mut self, bytes: u64) -> Result<(), TableError> {
        let problem = || TableError::too_large("its rows take more memory than a file of its size can need");
        self.0 = self.0.checked_sub(bytes).ok_or_else(problem)?;
        Ok(())
    }
}

/// Checks the footer of a file of `length` bytes before the library reads it, if it is among the last bytes that `end` has.
pub(super) fn check_end<C: ChunkReader>(end: &C, length: u64) -> Result<(), TableError> {
    let here = end.len();
    let Some(before) = here.checked_sub(TRAILER as u64) else {
        return Err(TableError::damaged("it ends early"));
    };
    let trailer = end.get_bytes(before, TRAILER).map_err(TableError::damaged)?;
    let (size, magic) = trailer.split_at(TRAILER / 2);
    if magic != b"PAR1" {
        return Err(TableError::damaged("it does not end as a Parquet file does"));
    }
    let size = u64::from(u32::from_le_bytes(size.try_into().unwrap_or_default()));
    if size > length.saturating_sub(TRAILER as u64) {
        return Err(TableError::too_large(format!("it claims a footer of {size} bytes, but has {length}")));
    }
    // The caller then reads more.
    let Some(start) = before.checked_sub(size) else { return Ok(()) };
    let footer = end.get_bytes(start, size as usize).map_err(TableError::damaged)?;
    check_structure(&footer)
        .map_err(|problem| TableError::damaged(format!("its footer is damaged: {problem}")))
}

fn check_structure(footer: &[u8]) -> Result<(), TableError> {
    let (mut elements, mut children) = (0, Vec::new());
    walk(footer, footer.len() as u64, &mut |path, found| {
        match (path, found) {
            (SCHEMA, Found::List(size)) => elements = size as i64,
            (SCHEMA, Found::Element) => children.push(0),
            (CHILDREN, Found::Number(number)) => {
                if !(0..elements.max(1)).contains(&number) {
                    return Err(TableError::too_large(format!(
                        "{elements} columns and groups, one of them with {number}"
                    )));
                }
                if let Some(last) = children.last_mut() {
                    *last = number;
                }
            }
            (TYPE_LENGTH, Found::Number(number)) if number > FIXED_LENGTH => {
                return Err(TableError::too_large(format!("a column has values of {number} bytes each")));
            }
            _ => {}
        }
        Ok(())
    })?;
    check_depth(&children)
}

/// `children` has the number of children of each element, in depth-first order.
fn check_depth(children: &[i64]) -> Result<(), TableError> {
    let mut open: Vec<i64> = Vec::new();
    for &count in children {
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        open.push(count);
        while open.last() == Some(&0) {
            open.pop();
        }
        if open.len() > SCHEMA_DEPTH {
            return Err(TableError::too_large(format!(
                "its columns are nested more than {SCHEMA_DEPTH} deep"
            )));
        }
    }
    Ok(())
}

/// Maximum number of rows of a file, and of values in a column.
fn most_rows(length: u64, per_byte: u64) -> u64 {
    length.saturating_mul(per_byte).saturating_add(ROWS)
}

/// Checks the footer of a file of `length` bytes.
pub(super) fn check_footer(
    metadata: &ParquetMetaData,
    length: u64,
    rows_per_byte: u64,
) -> Result<(), TableError> {
    let most_rows = most_rows(length, rows_per_byte);
    let rows = u64::try_from(metadata.file_metadata().num_rows())
        .map_err(|_| TableError::damaged("its number of rows is negative"))?;
    if rows > most_rows {
        return Err(TableError::too_large(format!(
            "it claims {rows} rows, which a file of {length} bytes cannot have"
        )));
    }
    let (mut sum, mut all) = (0_u64, 0_u64);
    for group in metadata.row_groups() {
        let rows = u64::try_from(group.num_rows())
            .map_err(|_| TableError::damaged("a row group has a negative number of rows"))?;
        sum = sum.saturating_add(rows);
        for column in group.columns() {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let end = start.checked_add(column.compressed_size());
            let inside = start >= 0 && column.compressed_size() >= 0;
            if !inside || end.is_none_or(|end| end as u64 > length) {
                let name = column.column_path().string();
                return Err(TableError::too_large(format!(
                    "column {name:?} claims bytes beyond the end of the file"
                )));
            }
            let values = u64::try_from(column.num_values()).unwrap_or(u64::MAX);
            if values > most_rows {
                return Err(TableError::too_large(format!(
                    "a column claims {values} values, which a file of {length} bytes cannot have"
                )));
            }
            all = all.saturating_add(values);
        }
    }
    let columns = metadata.file_metadata().schema_descr().num_columns() as u64;
    if all > most_rows.saturating_add(columns.saturating_mul(ROWS)) {
        return Err(TableError::too_large(format!(
            "its columns claim {all} values, which a file of {length} bytes cannot have"
        )));
    }
    if sum != rows {
        return Err(TableError::too_large(format!("it claims {rows} rows, but its row groups have {sum}")));
    }
    Ok(())
}

/// A file whose page headers are checked before the library reads them.
#[derive(Debug, Clone)]
pub struct Checked<C> {
    chunks: Arc<C>,
    delta_text: bool,
    /// Uncompressed bytes of the pages so far.
    uncompressed: Arc<AtomicU64>,
}

impl<C: ChunkReader> Checked<C> {
    /// A file of this project's own formats. Text may not be in the encodings that only others' tables have.
    pub fn of_our_own(chunks: C) -> Self {
        Self { chunks: Arc::new(chunks), delta_text: false, uncompressed: Arc::default() }
    }

    /// A file of any other program.
    pub fn of_others(chunks: C) -> Self {
        Self { chunks: Arc::new(chunks), delta_text: true, uncompressed: Arc::default() }
    }

    /// Checks all page headers, for readers that are not of this project.
    pub fn check_pages(&self, metadata: &ParquetMetaData) -> Result<(), TableError> {
        for column in metadata.row_groups().iter().flat_map(RowGroupMetaData::columns) {
            let (mut start, length) = column.byte_range();
            let end = start + length;
            while start < end {
                let mut reader = self.chunks.get_read(start).map_err(TableError::damaged)?;
                let mut header = VecDeque::new();
                let recorded = Recorded { from: &mut reader, to: &mut header };
                let compressed = self.check(recorded, end - start)?;
                start += header.len() as u64 + compressed;
            }
        }
        Ok(())
    }

    /// Checks a page header, of which `left` bytes can be read at most.
    /// Returns the compressed size of the page.
    fn check(&self, header: impl Read, left: u64) -> Result<u64, TableError> {
        let (mut uncompressed, mut compressed, mut values) = (0, 0, 0);
        walk(header, left, &mut |path, found| {
            let Found::Number(number) = found else { return Ok(()) };
            match path {
                UNCOMPRESSED_SIZE => uncompressed = number,
                COMPRESSED_SIZE => compressed = number,
                DICTIONARY_VALUES => values = number,
                _ if !self.delta_text && ENCODINGS.contains(&path) && DELTA_TEXT.contains(&number) => {
                    let problem = "its text has an encoding other than PLAIN and dictionaries";
                    return Err(TableError::content(problem));
                }
                _ => {}
            }
            Ok(())
        })?;
        let [uncompressed, compressed, values] =
            [uncompressed, compressed, values].map(|number| u64::try_from(number).unwrap_or(u64::MAX));
        if compressed > left || uncompressed > compressed.saturating_mul(PAGE_FACTOR).saturating_add(PAGE) {
            return Err(TableError::too_large(format!(
                "a page of {compressed} bytes claims to have {uncompressed} uncompressed"
            )));
        }
        let all = self.uncompressed.fetch_add(uncompressed, Ordering::Relaxed).saturating_add(uncompressed);
        let length = self.chunks.len();
        if all > length.saturating_mul(PAGE_FACTOR).saturating_add(PAGES) {
            return Err(TableError::too_large(format!(
                "its pages claim to have {all} bytes uncompressed, and the file has {length}"
            )));
        }
        if values > uncompressed {
            return Err(TableError::too_large(format!(
                "a dictionary of {uncompressed} bytes claims to have {values} values"
            )));
        }
        Ok(compressed)
    }
}

impl<C: ChunkReader> Length for Checked<C> {
    fn len(&self) -> u64 {
        self.chunks.len()
    }
}

impl<C: ChunkReader + 'static> ChunkReader for Checked<C> {
    type T = HeaderReader<C>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(HeaderReader {
            file: Self {
                chunks: Arc::clone(&self.chunks),
                uncompressed: Arc::clone(&self.uncompressed),
                delta_text: self.delta_text,
            },
            start: Some(start),
            reader: self.chunks.get_read(start)?,
            read: VecDeque::new(),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.chunks.get_bytes(start, length)
    }
}

/// Reads a page header, which is checked at the first read. (The library also asks for readers at the data of a page, but
/// does not read from them.)
pub struct HeaderReader<C: ChunkReader> {
    file: Checked<C>,
    /// Where the header begins, until it is checked.
    start: Option<u64>,
    reader: C::T,
    /// What was read to check it.
    read: VecDeque<u8>,
}

impl<C: ChunkReader> Read for HeaderReader<C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(start) = self.start.take() {
            let left = self.file.chunks.len().saturating_sub(start);
            let header = Recorded { from: &mut self.reader, to: &mut self.read };
            self.file.check(header, left).map_err(io::Error::other)?;
        }
        if self.read.is_empty() { self.reader.read(buffer) } else { self.read.read(buffer) }
    }
}

/// Keeps what is read.
struct Recorded<'a, R> {
    from: &'a mut R,
    to: &'a mut VecDeque<u8>,
}

impl<R: Read> Read for Recorded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.to.extend(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_may_not_be_nested_without_end() {
        // A root with one group that has one group, and so on.
        assert!(check_depth(&vec![1; SCHEMA_DEPTH]).is_ok());
        assert!(check_depth(&vec![1; SCHEMA_DEPTH + 1]).unwrap_err().to_string().contains("nested"));
        // A root with many columns, or with many groups of one column each.
        let flat: Vec<i64> = std::iter::once(1000).chain(vec![0; 1000]).collect();
        assert!(check_depth(&flat).is_ok());
        let groups: Vec<i64> = std::iter::once(500).chain([1, 0].repeat(500)).collect();
        assert!(check_depth(&groups).is_ok());
    }

    /// A page header written by hand: `(field, number)` in ascending order, some inside a structure.
    fn header(fields: &[(u8, i64)], inside: Option<(u8, &[(u8, i64)])>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut last = 0;
        for &(field, number) in fields {
            bytes.push((field - last) << 4 | 5);
            last = field;
            let mut zigzag = (number << 1) as u64;
            while zigzag > 0x7f {
                bytes.push(zigzag as u8 | 0x80);
                zigzag >>= 7;
            }
            bytes.push(zigzag as u8);
        }
        if let Some((field, inner)) = inside {
            bytes.push((field - last) << 4 | 0x0c);
            bytes.extend(header(inner, None));
        }
        bytes.push(0);
        bytes
    }

    #[test]
    fn page_headers_may_not_claim_more_than_the_page_can_have() {
        let own = Checked::of_our_own(Bytes::new());
        let others = Checked::of_others(Bytes::new());
        let check = |bytes: &[u8]| own.check(bytes, 1 << 40);
        let (most, size) = ((PAGE + 50 * PAGE_FACTOR) as i64, 50);
        assert_eq!(check(&header(&[(1, 0), (2, most), (3, size)], None)), Ok(50));
        let problem = check(&header(&[(1, 0), (2, most + 1), (3, size)], None)).unwrap_err().to_string();
        assert!(problem.contains("a page of 50 bytes claims"), "{problem}");
        // Beyond the end of the file.
        assert!(own.check(header(&[(1, 0), (2, 50), (3, 50)], None).as_slice(), 49).is_err());
        // A dictionary of as many values as it has bytes, and of one more.
        let dictionary = |values| header(&[(1, 2), (2, 90), (3, size)], Some((7, &[(1, values), (2, 0)])));
        assert_eq!(check(&dictionary(90)), Ok(50));
        assert!(check(&dictionary(91)).unwrap_err().to_string().contains("91 values"));
        // DELTA_BYTE_ARRAY in both versions of data pages.
        let data = header(&[(1, 0), (2, 90), (3, size)], Some((5, &[(1, 9), (2, 7)])));
        let second = header(&[(1, 3), (2, 90), (3, size)], Some((8, &[(1, 9), (2, 0), (3, 9), (4, 7)])));
        for page in [data, second] {
            assert!(check(&page).unwrap_err().to_string().contains("encoding"));
            assert_eq!(others.check(page.as_slice(), 1 << 40), Ok(50));
        }
    }

    #[test]
    fn pages_together_may_not_claim_more_than_the_file_can_have() {
        let file = Checked::of_our_own(Bytes::from(vec![0; 1000]));
        let page = header(&[(1, 0), (2, PAGE as i64), (3, 50)], None);
        let most = (PAGES + 1000 * PAGE_FACTOR) / PAGE;
        for _ in 0..most {
            // A reader of a part of the file counts with the others.
            file.get_read(0).unwrap().file.check(page.as_slice(), 50).unwrap();
        }
        assert!(file.check(page.as_slice(), 50).unwrap_err().to_string().contains("and the file has 1000"));
    }

    #[test]
    fn what_is_kept_is_counted() {
        let mut budget = Budget::for_file(0);
        let text = "x".repeat((KEPT / 4 - VALUE) as usize);
        for _ in 0..3 {
            budget.keep(&text).unwrap();
        }
        budget.keep_rows(KEPT as usize / 8, 1).unwrap();
        // Also values without a text.
        for _ in 0..KEPT / 8 / VALUE {
            budget.keep("").unwrap();
        }
        assert!(budget.keep("").unwrap_err().to_string().contains("more memory"));
        assert!(budget.clone().keep_rows(usize::MAX, usize::MAX).is_err());
    }
}
