//! The index of a shard: key, image position and caption of each sample. Takes about 50 bytes per sample, plus the
//! texts.

use std::cell::Cell;
use std::io::BufReader;

use concepts::sidecar::{CaptionCheck, CaptionChecks};
use storage::{Cache, Location};

use crate::Error;
use crate::shards::caption::{CAPTION_EXTENSION, FIELDS_EXTENSION, StoredCaptions, field_captions};
use crate::shards::identity::{Digest, Identity};
use crate::shards::stats_path;
use crate::shards::table::{self, if_there};
use crate::shards::tar::{Archive, Member, Sample};

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
        Self::load_for(archive, None)
    }

    /// The same for captions in a field of the `.json` members, if there is one.
    pub fn load_for(archive: &Archive, field: Option<&str>) -> Result<Self, Error> {
        Self::load_from(archive, if field.is_some() { FIELDS_EXTENSION } else { CAPTION_EXTENSION }, None)
    }

    /// The same for captions in the members of this extension; the result of a pass over the headers is kept in the cache.
    pub(crate) fn load_from(
        archive: &Archive,
        extension: &str,
        cache: Option<&Cache>,
    ) -> Result<Self, Error> {
        let without_end = Cell::new(false);
        let located = || -> Result<Vec<Located>, Error> {
            let (samples, has_end) = archive.samples_and_end()?;
            without_end.set(!has_end);
            Ok(samples.iter().map(|sample| located(sample, extension)).collect())
        };
        // The table has positions of the images only.
        let table = if extension == CAPTION_EXTENSION { Self::from_table(archive)? } else { None };
        let mut index = match (table, cache) {
            (Some(index), _) => index,
            (None, None) => Self::from_places(&located()?),
            (None, Some(cache)) => {
                let version = format!("index 1 {extension}, {}", archive.version());
                let file = cache.get(archive.location(), &version, 0, |to| -> Result<(), Error> {
                    serde_json::to_writer(to, &located()?)
                        .map_err(|e| Error::io(archive.location(), "index")(e.into()))
                })?;
                let places: Vec<Located> = serde_json::from_reader(BufReader::new(file))
                    .map_err(|e| Error::io(&cache.folder, "read")(e.into()))?;
                Self::from_places(&places)
            }
        };
        index.without_end = without_end.get();
        index.refuse_other_count(archive.location())?;
        Ok(index)
    }

    /// Returns an error if the shard's `_stats.json` has another number of samples.
    pub(super) fn refuse_other_count(&self, shard: &Location) -> Result<(), Error> {
        if let Some(count) = count_from_stats(shard)?
            && count as usize != self.len()
        {
            let samples = self.len();
            let problem =
                format!("it counts {count} samples, but the shard has {samples}; write the shard again");
            return Err(Error::companion(&stats_path(shard), problem));
        }
        Ok(())
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

    /// Calls `with` with all captions of a sample, of an index that was loaded for this field.
    ///
    /// # Errors
    /// The shard cannot be read.
    pub fn captions_of<T>(
        &self,
        archive: &Archive,
        sample: u32,
        field: Option<&str>,
        with: impl FnOnce(StoredCaptions<'_>) -> T,
    ) -> Result<T, Error> {
        let stored;
        let raw = match self.caption(sample) {
            Some(Caption::Text(text)) => Some(text.as_bytes()),
            Some(Caption::At(offset, length)) => {
                stored = archive.read(offset, length)?;
                Some(stored.as_slice())
            }
            None => None,
        };
        let Some(field) = field else { return Ok(with(StoredCaptions::Text(raw))) };
        Ok(match field_captions(raw.unwrap_or_default(), field) {
            Ok(texts) => with(StoredCaptions::Field(&texts)),
            Err(problem) => with(StoredCaptions::Unreadable(&problem)),
        })
    }

    /// Whether the captions are from the shard's table, and not in the tar.
    pub(crate) fn has_captions(&self) -> bool {
        matches!(self.captions, Captions::InTable(..))
    }

    /// The checks of the captions, if they are from the shard's table.
    pub(crate) fn caption_checks(&self) -> Option<CaptionChecks> {
        let Captions::InTable(texts, _) = &self.captions else { return None };
        let mut checks = CaptionChecks::default();
        (0..self.len()).for_each(|sample| checks.push(CaptionCheck::of(texts.get(sample).as_bytes())));
        Some(checks)
    }

    /// What distinguishes this shard from others, as far as the index knows.
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
        Self::from_table_of(archive.location(), Some(archive))
    }

    /// From the table of a shard. A compressed shard is not decompressed to compare them.
    pub(crate) fn from_its_table(shard: &Location) -> Result<Option<Self>, Error> {
        if is_compressed(shard) {
            return Self::from_table_of(shard, None);
        }
        Self::from_table(&Archive::open(shard)?)
    }

    /// `None` if there is no table, or if the table (for example of another tool) has no image positions.
    fn from_table_of(shard: &Location, archive: Option<&Archive>) -> Result<Option<Self>, Error> {
        let Some(rows) = table::read(shard, archive)? else { return Ok(None) };
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
fn is_compressed(shard: &Location) -> bool {
    shard.extension().is_some_and(|extension| extension != "tar")
}

/// Number of samples of a shard, from its `_stats.json`; `None` if the shard has no such file.
pub fn count_from_stats(shard: &Location) -> Result<Option<u32>, Error> {
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
