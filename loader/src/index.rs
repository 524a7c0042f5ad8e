//! The index of a shard: key, image position and caption of each sample. Takes about 50 bytes per sample, plus the
//! texts.

use std::cell::Cell;
use std::io::{self, BufReader};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_schema::DataType;
use bytes::Bytes;
use concepts::tables::limits::Budget;
use concepts::tables::{Table, Texts};

use crate::cache::Cache;
use crate::caption::CaptionSource;
use crate::identity::{Digest, Identity};
use crate::shard::{stats_path, table_path};
use crate::tar::{Archive, BLOCK, Member, Sample};
use crate::{Error, source};

/// A range of bytes of the tar: offset, length.
type ByteRange = (u64, u64);

/// Key, image and caption of a sample, as found in the tar's headers.
type Located = (String, Option<ByteRange>, Option<ByteRange>);

fn located(sample: &Sample, caption: &str) -> Located {
    let place = |member: &Member| (member.offset, member.length);
    (sample.key.clone(), sample.image().map(place), sample.member(caption).map(place))
}

/// The samples of one shard, in tar order.
#[derive(Debug)]
pub struct Index {
    keys: Strings,
    images: Vec<Option<ByteRange>>,
    captions: Captions,
    /// Whether the tar was read to its end and has no mark there.
    pub(crate) without_end: bool,
    /// Hash of the images' hashes, if the table has them.
    hashes: Option<u64>,
}

#[derive(Debug)]
enum Captions {
    InTar(Vec<Option<ByteRange>>),
    /// The texts, and the samples whose caption is null.
    InTable(Strings, Vec<u32>),
}

/// Where the caption of a sample is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caption<'a> {
    /// In the tar, as (offset, length) in bytes: the text, or the JSON that contains it.
    At(u64, u64),
    /// In the shard's Parquet table: the caption as given, not normalised.
    Text(&'a str),
}

impl Index {
    /// Reads the index of an open shard: from its Parquet table `NNNNN.parquet` if that has the columns `offset` and
    /// `length` of the images, otherwise by one pass over the tar's headers.
    ///
    /// # Errors
    /// The tar or the table is damaged; the table or the `_stats.json` does not match the tar.
    pub fn load(archive: &Archive) -> Result<Self, Error> {
        Self::load_for(archive, &CaptionSource::Text, None)
    }

    /// The same for captions from another member; the result of a pass over the headers is kept in the cache.
    pub(crate) fn load_for(
        archive: &Archive,
        captions: &CaptionSource,
        cache: Option<&Cache>,
    ) -> Result<Self, Error> {
        let extension = captions.extension();
        let without_end = Cell::new(false);
        let located = || -> Result<Vec<Located>, Error> {
            let (samples, has_end) = archive.samples_and_end()?;
            without_end.set(!has_end);
            Ok(samples.iter().map(|sample| located(sample, extension)).collect())
        };
        // The table has positions of the images only.
        let table = if *captions == CaptionSource::Text { Self::from_table(archive)? } else { None };
        let mut index = match (table, cache) {
            (Some(index), _) => index,
            (None, None) => Self::from_places(&located()?),
            (None, Some(cache)) => {
                let version = format!("index 1 {extension}, {}", archive.version());
                let file = cache.get(archive.path(), &version, 0, |to| {
                    serde_json::to_writer(to, &located()?)
                        .map_err(|e| Error::io(archive.path(), "index")(e.into()))
                })?;
                let places: Vec<Located> = serde_json::from_reader(BufReader::new(file))
                    .map_err(|e| Error::read(&cache.folder)(e.into()))?;
                Self::from_places(&places)
            }
        };
        index.without_end = without_end.get();
        if let Some(count) = count_from_stats(archive.path())?
            && count as usize != index.len()
        {
            let problem = format!(
                "it counts {count} samples, but the shard has {}; write the shard again",
                index.len()
            );
            return Err(Error::companion(&stats_path(archive.path()), problem));
        }
        Ok(index)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether the shard has no sample.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Key of the sample at this position; "" beyond the last sample.
    pub fn key(&self, sample: u32) -> &str {
        self.keys.get(sample as usize)
    }

    /// Offset and length in bytes of a sample's image; `None` if the sample has no image.
    pub fn image(&self, sample: u32) -> Option<(u64, u64)> {
        self.images.get(sample as usize).copied().flatten()
    }

    /// A sample's caption; `None` if the sample has no caption.
    pub fn caption(&self, sample: u32) -> Option<Caption<'_>> {
        match &self.captions {
            Captions::InTar(places) => places
                .get(sample as usize)
                .copied()
                .flatten()
                .map(|(offset, length)| Caption::At(offset, length)),
            Captions::InTable(_, missing) if missing.binary_search(&sample).is_ok() => None,
            Captions::InTable(texts, _) => Some(Caption::Text(texts.get(sample as usize))),
        }
    }

    /// Whether the captions are from the shard's table, and not in the tar.
    pub(crate) fn has_captions(&self) -> bool {
        matches!(self.captions, Captions::InTable(..))
    }

    /// What tells this shard from others, as far as the index knows.
    pub fn identity(&self) -> Identity {
        let mut places = Digest::default();
        for (sample, image) in (0..).zip(&self.images) {
            places.text(self.key(sample));
            let (offset, length) = image.unwrap_or_default();
            places.number(offset);
            places.number(length);
        }
        let captions = match &self.captions {
            Captions::InTar(_) => None,
            Captions::InTable(texts, missing) => {
                let mut captions = Digest::default();
                (0..self.len()).for_each(|sample| captions.text(texts.get(sample)));
                for &sample in missing {
                    captions.number(sample.into());
                }
                Some(captions.finish())
            }
        };
        Identity { places: places.finish(), images: self.hashes, captions }
    }

    fn from_places(places: &[Located]) -> Self {
        Self {
            keys: places.iter().map(|(key, ..)| key.as_str()).collect(),
            images: places.iter().map(|&(_, image, _)| image).collect(),
            captions: Captions::InTar(places.iter().map(|&(.., caption)| caption).collect()),
            hashes: None,
            without_end: false,
        }
    }

    fn from_table(archive: &Archive) -> Result<Option<Self>, Error> {
        Self::from_table_of(archive.path(), Some(archive))
    }

    /// From the table of a shard. A compressed shard is not decompressed to compare them.
    pub(crate) fn from_its_table(shard: &Path) -> Result<Option<Self>, Error> {
        if is_compressed(shard) {
            return Self::from_table_of(shard, None);
        }
        Self::from_table(&Archive::open(shard)?)
    }

    /// `None` if there is no table, or if the table (for example of another tool) has no image positions.
    fn from_table_of(shard: &Path, archive: Option<&Archive>) -> Result<Option<Self>, Error> {
        let path = table_path(shard);
        let Some(file) = if_there(&path)? else { return Ok(None) };
        let unreadable = |e: &dyn std::fmt::Display| {
            Error::companion(
                &path,
                format!("it is not a valid Parquet table: {e}; write the shard again, or remove the table"),
            )
        };
        let table = Table::open(file, Texts::Views).map_err(|e| unreadable(&e))?;
        if !COLUMNS.iter().all(|name| table.has(name)) {
            return Ok(None);
        }
        let mut budget = Budget::for_file(table.bytes());
        let columns: Vec<&str> = COLUMNS.iter().chain(&HASHES).copied().collect();
        let mut rows = Vec::new();
        for batch in table.batches(Some(&columns), BATCH).map_err(|e| unreadable(&e))? {
            batch.and_then(|batch| add_rows(&batch, &mut rows, &mut budget)).map_err(|e| unreadable(&e))?;
        }
        // The rows are in input order, which is the order of the tar. Sorting makes tables in another order usable,
        // too.
        rows.sort_by_key(|row| row.offset);
        let ends = rows.first().into_iter().chain(rows.last());
        for (row, archive) in ends.filter_map(|row| Some((row, archive?))) {
            row.check(archive).map_err(|problem| Error::companion(&path, problem))?;
        }
        let hashed = !rows.is_empty() && rows.iter().all(|row| row.hash.is_some());
        let hashes = hashed.then(|| {
            let mut digest = Digest::default();
            rows.iter().filter_map(|row| row.hash.as_deref()).for_each(|hash| digest.text(hash));
            digest.finish()
        });
        let missing = (0..).zip(&rows).filter(|(_, row)| row.caption.is_none()).map(|(sample, _)| sample);
        let captions: Strings = rows.iter().map(|row| row.caption.as_deref().unwrap_or_default()).collect();
        Ok(Some(Self {
            keys: rows.iter().map(|row| row.key.as_str()).collect(),
            images: rows.iter().map(|row| Some((row.offset, row.length))).collect(),
            captions: Captions::InTable(captions, missing.collect()),
            hashes,
            without_end: false,
        }))
    }
}

/// By its name, as for remote files.
fn is_compressed(shard: &Path) -> bool {
    shard.extension().is_some_and(|extension| extension != "tar")
}

/// The columns of a table with image positions.
const COLUMNS: [&str; 5] = ["key", "status", "caption", "offset", "length"];

/// Columns with a hash of the image, of which a table has at most one.
const HASHES: [&str; 3] = ["sha256", "md5", "sha512"];

/// Rows read at a time.
const BATCH: usize = 1024;

/// Number of samples of a shard, from its `_stats.json`; `None` if the shard has no such file.
pub fn count_from_stats(shard: &Path) -> Result<Option<u32>, Error> {
    let path = stats_path(shard);
    let Some(text) = if_there(&path)? else { return Ok(None) };
    let stats: serde_json::Value = serde_json::from_slice(&text).map_err(|e| {
        Error::companion(&path, format!("it is not a valid JSON object: {e}; write the shard again"))
    })?;
    let count =
        stats.get("successes").and_then(serde_json::Value::as_u64).and_then(|n| u32::try_from(n).ok());
    count
        .map(Some)
        .ok_or_else(|| Error::companion(&path, "it has no count `successes`; write the shard again"))
}

/// The bytes of a file next to a shard, if it exists.
fn if_there(path: &Path) -> Result<Option<Bytes>, Error> {
    match source::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A row of the shard's Parquet table.
struct Row {
    key: String,
    /// `None` if it is null.
    caption: Option<String>,
    hash: Option<String>,
    offset: u64,
    length: u64,
}

impl Row {
    /// The table matches the tar if the block before the image is a header with the row's key and length. Checking the
    /// first and the last row is enough to detect the table of another shard, or of an older version of this one.
    fn check(&self, archive: &Archive) -> Result<(), String> {
        let problem = || {
            format!(
                "it does not match its shard: no image of {} at byte {}; write the shard again, or remove the table",
                self.key, self.offset
            )
        };
        let start = self.offset.checked_sub(BLOCK).ok_or_else(problem)?;
        let end = self.offset.checked_add(self.length).ok_or_else(problem)?;
        if end > archive.len() {
            return Err(format!("{}: the shard ends at byte {}", problem(), archive.len()));
        }
        let block = archive.read(start, BLOCK).map_err(|e| e.to_string())?;
        let header = ::tar::Header::from_byte_slice(&block);
        let name = header.path_bytes();
        let named = name.strip_prefix(self.key.as_bytes()).is_some_and(|rest| rest.starts_with(b"."));
        if named && header.entry_size().is_ok_and(|size| size == self.length) {
            Ok(())
        } else {
            Err(problem())
        }
    }
}

/// Adds the rows of a batch whose samples are in the tar.
fn add_rows(batch: &RecordBatch, rows: &mut Vec<Row>, budget: &mut Budget) -> Result<(), String> {
    let column = |name: &str, kind: &DataType| -> Result<ArrayRef, String> {
        let column = batch.column_by_name(name).ok_or_else(|| format!("no column {name}"))?;
        cast(column, kind).map_err(|e| format!("column {name}: {e}"))
    };
    let (text, number) = (DataType::Utf8View, DataType::UInt64);
    let (keys, statuses, captions) =
        (column("key", &text)?, column("status", &text)?, column("caption", &text)?);
    let hashes = HASHES.iter().find_map(|name| column(name, &text).ok());
    let hashes = hashes.as_ref().map(AsArray::as_string_view);
    let (offsets, lengths) = (column("offset", &number)?, column("length", &number)?);
    let (keys, statuses, captions) =
        (keys.as_string_view(), statuses.as_string_view(), captions.as_string_view());
    let (offsets, lengths) = (offsets.as_primitive::<UInt64Type>(), lengths.as_primitive::<UInt64Type>());
    for row in (0..batch.num_rows()).filter(|&row| statuses.is_valid(row) && statuses.value(row) == "success")
    {
        if keys.is_null(row) || offsets.is_null(row) || lengths.is_null(row) {
            return Err(format!("a successful sample without key, offset or length (row {row})"));
        }
        let mut kept = |text: &str| budget.keep(text).map(|()| text.to_owned());
        rows.push(Row {
            key: kept(keys.value(row))?,
            caption: captions.is_valid(row).then(|| kept(captions.value(row))).transpose()?,
            hash: hashes
                .filter(|hashes| hashes.is_valid(row))
                .map(|hashes| kept(hashes.value(row)))
                .transpose()?,
            offset: offsets.value(row),
            length: lengths.value(row),
        });
    }
    Ok(())
}

/// Many short texts in one allocation.
#[derive(Debug, Default)]
struct Strings {
    text: String,
    ends: Vec<usize>,
}

impl Strings {
    fn get(&self, i: usize) -> &str {
        let start = if i == 0 { 0 } else { self.ends.get(i - 1).copied().unwrap_or(0) };
        self.ends.get(i).and_then(|&end| self.text.get(start..end)).unwrap_or_default()
    }
}

impl<'a> FromIterator<&'a str> for Strings {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let mut strings = Self::default();
        for text in texts {
            strings.text.push_str(text);
            strings.ends.push(strings.text.len());
        }
        strings
    }
}
