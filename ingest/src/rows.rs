//! Input tables as a stream of rows: parquet, csv, tsv, json, jsonl, txt and COCO captions files, one file or a folder of
//! them. They are never held in memory as a whole, except JSON documents whose rows are in several lists: COCO captions files,
//! Karpathy's, and objects with a list per column.
//!
//! A row that cannot be used (not UTF-8, no URL, not JSON) is still a row: it carries its [`Problem`] to the shard's
//! table, so that every line of the input is accounted for.

mod annotated;
mod coco;
mod columns;
mod delimited;
mod document;
mod input;
mod json;
mod karpathy;
mod lines;
mod pairs;
mod parquet;
mod remote;

use std::borrow::Cow;
use std::fs;
use std::io::{BufRead, BufReader, Read};

use concepts::checksums::sha256;
use disk::foreign_files::without_byte_order_mark;
use serde_json::Value;
use storage::Location;

pub use self::annotated::Region;
pub(crate) use self::annotated::regions;
pub use self::columns::{RESERVED, Wanted, Where};
pub use self::input::Input;
pub(crate) use self::input::Inputs;
pub(crate) use self::parquet::{kind, plain_value};
pub(crate) use self::remote::{ends, stream};
use crate::error::Error;
use crate::problem::Problem;

/// One row of an input: one caption and its image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// URL, or path of a local file relative to the image folder. Empty when the input has none.
    pub url: String,
    /// The caption, unchanged; None when it is null or missing.
    pub caption: Option<String>,
    /// Values of the additional columns, in the order of [`Rows::extra`].
    pub extra: Vec<Value>,
    /// Expected hash of the image file, in lower-case hexadecimal.
    pub hash: Option<String>,
    /// Regions of the image to blur.
    pub boxes: Vec<Region>,
    /// Why the row cannot be used.
    pub problem: Option<Problem>,
    /// Of a sample that is not to be used: what is left of it.
    pub removed: Option<Removed>,
}

/// What is kept of the texts of a removed sample, so that it can be recognised: the SHA-256 of each, hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Of the URL in UTF-8.
    pub url_sha256: Option<String>,
    /// Of the caption in UTF-8, if there was one.
    pub caption_sha256: Option<String>,
}

impl Row {
    /// What is stored of the row of a sample that is not to be used: no text, only hashes.
    pub(crate) fn without_texts(&self) -> Self {
        let removed = Removed {
            url_sha256: Some(sha256(public_url(&self.url).as_bytes())),
            caption_sha256: self.caption.as_ref().map(|caption| sha256(caption.as_bytes())),
        };
        let extra = vec![Value::Null; self.extra.len()];
        Self { extra, hash: self.hash.clone(), removed: Some(removed), ..Self::default() }
    }

    /// The row as it is stored: a user name and password in the URL are needed to download the image, but not by those to whom
    /// the dataset is given.
    pub(crate) fn without_password(&self) -> Cow<'_, Self> {
        match public_url(&self.url) {
            Cow::Borrowed(_) => Cow::Borrowed(self),
            Cow::Owned(url) => Cow::Owned(Self { url, ..self.clone() }),
        }
    }
}

/// A URL without user name and password.
pub(crate) fn public_url(url: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = url.split_once("://") else { return Cow::Borrowed(url) };
    if !scheme.trim_start().chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')) {
        return Cow::Borrowed(url);
    }
    // Web browsers take a backslash for a slash.
    let authority = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => Cow::Owned(format!("{scheme}://{}", &rest[at + 1..])),
        None => Cow::Borrowed(url),
    }
}

/// An additional column, copied into the tables and the per-sample JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// Its name, in the input and in the output.
    pub name: String,
    /// Its type in the output table.
    pub kind: Kind,
}

/// Types of additional columns in the output table. Only parquet inputs are typed; columns of other formats are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 64-bit signed.
    Integer,
    /// 64-bit.
    Float,
    /// True or false.
    Boolean,
    /// Text; other values are written as JSON.
    Text,
}

/// The rows of one input file, in its order.
pub trait Rows: Send {
    /// The additional columns.
    fn extra(&self) -> &[Extra];

    /// Whether the input has captions at all.
    fn captioned(&self) -> bool {
        true
    }

    /// Next row; None at the end.
    fn next_row(&mut self) -> Result<Option<Row>, Error>;

    /// Skips up to `count` rows; returns how many there were.
    fn skip(&mut self, count: usize) -> Result<usize, Error> {
        for skipped in 0..count {
            if self.next_row()?.is_none() {
                return Ok(skipped);
            }
        }
        Ok(count)
    }

    /// Number of rows, if the format declares it.
    fn total(&self) -> Option<u64> {
        None
    }
}

/// Format of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated, with a header (without one if the first line is a URL and a caption).
    Csv,
    /// Tab-separated, with or without a header as csv.
    Tsv,
    /// An array of objects, or concatenated objects; `ingest shard` and `ingest tag` also read COCO captions files.
    Json,
    /// One JSON object per line.
    Jsonl,
    /// One URL per line, without captions; for `ingest tag --table` one caption per line.
    Txt,
}

impl Format {
    const ALL: [(&'static str, Self); 7] = [
        ("parquet", Self::Parquet),
        ("csv", Self::Csv),
        ("tsv", Self::Tsv),
        ("json", Self::Json),
        ("jsonl", Self::Jsonl),
        ("ndjson", Self::Jsonl),
        ("txt", Self::Txt),
    ];

    /// From the file extension, ignoring `.gz` and `.zst`.
    pub fn of(path: &Location) -> Option<Self> {
        let name = path.file_name().to_ascii_lowercase();
        let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
        let (stem, extension) = name.rsplit_once('.')?;
        // Files such as `.parquet` and `_tmp-part.csv` are no inputs.
        if stem.is_empty() || stem.starts_with(['.', '_']) {
            return None;
        }
        Self::ALL.iter().find(|(known, _)| *known == extension).map(|(_, format)| *format)
    }
}

/// The input files: `input` itself, or the tables of a folder in sorted order.
pub fn files(input: &Location, format: Option<Format>) -> Result<Vec<(Location, Format)>, Error> {
    let is_folder = match input {
        // Only its name distinguishes a remote file from a remote folder.
        Location::Remote(_) => format.or_else(|| Format::of(input)).is_none(),
        Location::Local(path) => {
            let about = fs::metadata(path).map_err(Error::file("read", input))?;
            if !about.is_dir() && !about.is_file() {
                let problem =
                    "is a pipe or a device, which can be read only once: save its contents to a file first";
                return Err(Error::input(input, problem));
            }
            about.is_dir()
        }
    };
    if !is_folder {
        let format = format.or_else(|| Format::of(input)).ok_or_else(|| {
            Error::Usage(format!(
                "{}: the file extension is not parquet, csv, tsv, json, jsonl or txt (with or without .gz or .zst): \
                 give --input-format",
                input.display()
            ))
        })?;
        return Ok(vec![(input.to_owned(), format)]);
    }
    let mut found = Vec::new();
    for path in storage::list(input)? {
        if let Some(its) = Format::of(&path)
            && (path.is_remote() || path.is_local_file())
            && format.is_none_or(|wanted| wanted == its)
        {
            found.push((path, its));
        }
    }
    found.sort();
    let Some((_, first)) = found.first() else {
        return Err(Error::input(input, "no parquet, csv, tsv, json, jsonl or txt files in this folder"));
    };
    if let Some((path, _)) = found.iter().find(|(_, format)| format != first) {
        return Err(Error::Usage(format!(
            "{}: the folder holds tables of several formats, for example {}: choose one with --input-format",
            input.display(),
            path.display()
        )));
    }
    Ok(found)
}

/// Opens an input file and finds its columns.
pub fn open(path: &Location, format: Format, wanted: &Wanted) -> Result<Box<dyn Rows>, Error> {
    if wanted.hash.is_none() && wanted.boxes.is_none() {
        return open_plain(path, format, wanted);
    }
    let rows = open_plain(path, format, &annotated::wanted_of_reader(wanted))?;
    Ok(Box::new(annotated::AnnotatedRows::new(rows, wanted)))
}

fn open_plain(path: &Location, format: Format, wanted: &Wanted) -> Result<Box<dyn Rows>, Error> {
    if !wanted.splits.is_empty() && format != Format::Json {
        return Err(karpathy::no_splits(path));
    }
    Ok(match format {
        Format::Parquet => Box::new(parquet::ParquetRows::open(path, wanted)?),
        Format::Csv => Box::new(delimited::DelimitedRows::open(path, b',', wanted)?),
        Format::Tsv => Box::new(delimited::DelimitedRows::open(path, b'\t', wanted)?),
        Format::Jsonl => Box::new(json::JsonRows::open_lines(path, wanted)?),
        Format::Json => open_json(path, wanted)?,
        Format::Txt => Box::new(lines::TextRows::open(path, wanted)?),
    })
}

/// Opens a JSON document, whose first object says what it holds.
fn open_json(path: &Location, wanted: &Wanted) -> Result<Box<dyn Rows>, Error> {
    let keys = document::first_keys(path)?;
    let list = |name: &str| keys.iter().any(|key| key.name == name && key.value == b'[');
    if list("images") && !list("annotations") && wanted.place != Where::Web {
        return Ok(Box::new(karpathy::KarpathyRows::open(path, wanted)?));
    }
    if !wanted.splits.is_empty() {
        return Err(karpathy::no_splits(path));
    }
    // RedCaps: the list has the URLs and the captions.
    if list("annotations") && !list("images") && wanted.place != Where::Local {
        return Ok(Box::new(json::JsonRows::open_list(path, "annotations", wanted)?));
    }
    if coco::is_coco(path, wanted)? {
        return Ok(Box::new(coco::CocoRows::open(path, wanted)?));
    }
    // Of columns that are missing, the reader of rows tells.
    let names: Vec<String> = keys.iter().map(|key| key.name.clone()).collect();
    if let Ok(found) = wanted.find(path, &names)
        && found.url.is_some_and(|column| matches!(keys[column].value, b'[' | b'{'))
    {
        return Ok(Box::new(json::JsonRows::open_columns(path, wanted)?));
    }
    Ok(Box::new(json::JsonRows::open_values(path, wanted)?))
}

/// Opens a folder of images, whose captions are in `.txt` files of the same name; they are read only if `captioned`.
pub fn open_pairs(folder: &Location, captioned: bool) -> Result<Box<dyn Rows>, Error> {
    Ok(Box::new(pairs::PairRows::open(folder, captioned)?))
}

/// A file's bytes: decompressed if its name ends in .gz or .zst, without a UTF-8 byte order mark.
fn reader(path: &Location) -> Result<Box<dyn BufRead + Send>, Error> {
    const BUFFER: usize = 1 << 16;
    let file = BufReader::with_capacity(BUFFER, remote::stream(path)?);
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    let mut reader: Box<dyn BufRead + Send> = if extension == "gz" {
        Box::new(BufReader::with_capacity(BUFFER, flate2::bufread::MultiGzDecoder::new(file)))
    } else if extension == "zst" {
        let mut file = file;
        let start = file.fill_buf().map_err(Error::file("read", path))?;
        if let Some(window) = zstd_window(start).filter(|&window| window > MAX_WINDOW_BYTES) {
            let (window, most) = (window >> 20, MAX_WINDOW_BYTES >> 20);
            let problem = format!(
                "to decompress it takes a window of {window} MiB, more than {most} MiB: compress it again without --long"
            );
            return Err(Error::input(path, problem));
        }
        let decoder = zstd::Decoder::with_buffer(file).map_err(Error::file("read", path))?;
        Box::new(BufReader::with_capacity(BUFFER, decoder))
    } else {
        Box::new(file)
    };
    let start = reader.fill_buf().map_err(Error::file("read", path))?;
    if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
        return Err(Error::input(path, "encoded as UTF-16: save it as UTF-8"));
    }
    let mark = start.len() - without_byte_order_mark(start).len();
    reader.consume(mark);
    Ok(reader)
}

/// What the decompressor of Zstandard accepts: the window of `zstd --long` and of every level without it.
const MAX_WINDOW_BYTES: u64 = 128 << 20;

/// The memory for earlier output that decompressing a Zstandard file takes, from the header of its first frame (RFC 8878,
/// section 3.1.1.1). None if the frame is small enough to say its size instead.
fn zstd_window(file: &[u8]) -> Option<u64> {
    let [0x28, 0xB5, 0x2F, 0xFD, descriptor, window, ..] = *file else { return None };
    let single_segment = descriptor & 0x20 != 0;
    let base = 1u64 << (10 + (window >> 3));
    (!single_segment).then(|| base + base / 8 * u64::from(window & 7))
}

/// A longer line (or JSON document) is taken for a binary or malicious file.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// Reads the next line, without its line ending and not necessarily UTF-8; false at the end of the file.
fn next_line(path: &Location, from: &mut dyn BufRead, line: &mut Vec<u8>) -> Result<bool, Error> {
    line.clear();
    let read = from.take(MAX_LINE_BYTES).read_until(b'\n', line).map_err(Error::file("read", path))?;
    if read as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
        return Err(Error::input(path, "not a text table: it has a line of more than 16 MiB"));
    }
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(read > 0)
}

/// The text of a field and whether it is valid UTF-8. Invalid bytes are replaced by U+FFFD.
fn text(bytes: &[u8]) -> (String, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), true),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), false),
    }
}

/// The rows of one image, one for each caption. They are made one at a time, because the captions may be many and what they
/// share may be long.
#[derive(Debug, Default)]
struct ImageRows {
    without_caption: Row,
    captions: std::vec::IntoIter<Option<String>>,
}

impl ImageRows {
    /// An image without captions becomes one row.
    fn new(without_caption: Row, captions: Vec<Option<String>>) -> Self {
        let captions = if captions.is_empty() { vec![None] } else { captions };
        Self { without_caption, captions: captions.into_iter() }
    }
}

impl Iterator for ImageRows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let caption = self.captions.next()?;
        // The last row needs no copy.
        let rest = if self.captions.len() == 0 {
            std::mem::take(&mut self.without_caption)
        } else {
            self.without_caption.clone()
        };
        Some(Row { caption, ..rest })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.captions.size_hint()
    }
}

impl ExactSizeIterator for ImageRows {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_taken_out_of_urls() {
        for (url, expected) in [
            ("https://me:secret@a.example/b.jpg", "https://a.example/b.jpg"),
            ("https://me@a.example", "https://a.example"),
            ("http://me:p@ss@a.example:80?x=@", "http://a.example:80?x=@"),
            (" HTTP://me:secret@a.example/", " HTTP://a.example/"),
            ("https://a.example/@user/b.jpg", "https://a.example/@user/b.jpg"),
            (
                "https://a.example?to=https://me:secret@b.example",
                "https://a.example?to=https://me:secret@b.example",
            ),
            ("a@b.jpg", "a@b.jpg"),
            ("", ""),
        ] {
            assert_eq!(public_url(url), expected, "{url}");
        }
    }
}
