//! The temporary file of an open shard: samples that are done, and rows that wait for their host. So a shard takes little
//! memory, however long it is open. The file has no name and disappears with the process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Number, Value};

use crate::error::Error;
use crate::image::EncodedImage;
use crate::problem::{Problem, Status};
use crate::request::Request;
use crate::rows::{Removed, Row};
use crate::sample::Sample;
use crate::signals::Language;

/// What becomes of a row: its image, or why there is none.
type Outcome = Result<EncodedImage, Problem>;

/// A file of records, which several threads may write and read.
pub(crate) struct Spool {
    folder: PathBuf,
    file: File,
    length: AtomicU64,
}

/// Where a record is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    start: u64,
    length: usize,
}

impl Spool {
    /// Creates the file in `folder`.
    pub(crate) fn create(folder: &Path) -> Result<Self, Error> {
        let file = tempfile::tempfile_in(folder).map_err(Error::file("write", folder))?;
        Ok(Self { folder: folder.to_owned(), file, length: AtomicU64::new(0) })
    }

    /// Stores a row.
    pub(crate) fn put_row(&self, row: &Row) -> Result<Place, Error> {
        let mut record = Encoder::default();
        record.row(row);
        self.append(&record.0)
    }

    /// The row of [`Spool::put_row`].
    pub(crate) fn row(&self, place: Place) -> Result<Row, Error> {
        self.decode(place, Decoder::row)
    }

    /// Stores a finished sample, without the password of its URL.
    pub(crate) fn put_sample(&self, sample: &Sample) -> Result<Place, Error> {
        let Sample { shard, index, row, request, language, outcome } = sample;
        let mut record = Encoder::default();
        record.number((*shard).into());
        record.number((*index).into());
        record.row(&row.without_password());
        record.request(request);
        record.language(*language);
        record.outcome(outcome);
        self.append(&record.0)
    }

    /// The sample of [`Spool::put_sample`].
    pub(crate) fn sample(&self, place: Place) -> Result<Sample, Error> {
        self.decode(place, |record| {
            Some(Sample {
                shard: record.number()?.try_into().ok()?,
                index: record.number()?.try_into().ok()?,
                row: record.row()?,
                request: record.request()?,
                language: record.language()?,
                outcome: record.outcome()?,
            })
        })
    }

    fn append(&self, record: &[u8]) -> Result<Place, Error> {
        let length = record.len();
        let start = self.length.fetch_add(length as u64, Ordering::Relaxed);
        self.file.write_all_at(record, start).map_err(Error::file("write", &self.folder))?;
        Ok(Place { start, length })
    }

    fn decode<T>(&self, place: Place, decode: impl FnOnce(&mut Decoder) -> Option<T>) -> Result<T, Error> {
        let mut record = vec![0; place.length];
        let read = self.file.read_exact_at(&mut record, place.start);
        read.map_err(Error::file("read", &self.folder))?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a temporary file is damaged");
        decode(&mut Decoder { record, at: 0 }).ok_or_else(damaged).map_err(Error::file("read", &self.folder))
    }
}

/// Writes values one after another: numbers as 8 bytes, texts with their length before them, options with a number.
#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn text(&mut self, text: Option<&str>) {
        self.number(text.is_some().into());
        if let Some(text) = text {
            self.bytes(text.as_bytes());
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.number(0),
            Value::Bool(yes) => self.number(1 + u64::from(*yes)),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => [3, number].into_iter().for_each(|it| self.number(it)),
                (_, Some(number)) => [4, number as u64].into_iter().for_each(|it| self.number(it)),
                // As bits, because a decimal number may differ in its last one.
                _ => [5, number.as_f64().unwrap_or_default().to_bits()]
                    .into_iter()
                    .for_each(|it| self.number(it)),
            },
            Value::String(text) => {
                self.number(6);
                self.bytes(text.as_bytes());
            }
            Value::Array(values) => {
                self.number(7);
                self.number(values.len() as u64);
                for value in values {
                    self.value(value);
                }
            }
            Value::Object(fields) => {
                self.number(8);
                self.number(fields.len() as u64);
                for (name, value) in fields {
                    self.bytes(name.as_bytes());
                    self.value(value);
                }
            }
        }
    }

    fn problem(&mut self, problem: &Problem) {
        self.bytes(problem.status.name().as_bytes());
        self.bytes(problem.cause.as_bytes());
    }

    fn row(&mut self, row: &Row) {
        let Row { url, caption, extra, hash, boxes, problem, removed } = row;
        self.bytes(url.as_bytes());
        self.text(caption.as_deref());
        self.text(hash.as_deref());
        self.number(extra.len() as u64);
        for value in extra {
            self.value(value);
        }
        self.number(boxes.len() as u64);
        boxes.iter().flatten().for_each(|side| self.number(side.to_bits()));
        self.number(problem.is_some().into());
        if let Some(problem) = problem {
            self.problem(problem);
        }
        self.number(removed.is_some().into());
        if let Some(Removed { url_sha256, caption_sha256 }) = removed {
            self.text(url_sha256.as_deref());
            self.text(caption_sha256.as_deref());
        }
    }

    fn option(&mut self, number: Option<u64>) {
        self.number(number.is_some().into());
        if let Some(number) = number {
            self.number(number);
        }
    }

    fn request(&mut self, request: &Request) {
        let Request { final_url, fetched, etag, last_modified, opt_outs } = request;
        self.option(fetched.map(|time| time as u64));
        for text in [final_url, etag, last_modified, opt_outs] {
            self.text(text.as_deref());
        }
    }

    fn language(&mut self, language: Option<Language>) {
        self.text(language.map(Language::code));
        self.option(language.map(|language| language.confidence.to_bits().into()));
    }

    fn outcome(&mut self, outcome: &Outcome) {
        self.number(outcome.is_ok().into());
        match outcome {
            Ok(image) => {
                let EncodedImage { bytes, width, height, original_width, original_height, exif, hash, phash } =
                    image;
                for side in [width, height, original_width, original_height] {
                    self.number((*side).into());
                }
                self.text(Some(exif));
                self.text(hash.as_deref());
                self.option(*phash);
                self.bytes(bytes);
            }
            Err(problem) => self.problem(problem),
        }
    }
}

/// Reads what [`Encoder`] wrote; None if it is something else.
struct Decoder {
    record: Vec<u8>,
    at: usize,
}

impl Decoder {
    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.record.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.number()? as usize;
        self.take(length).map(<[u8]>::to_vec)
    }

    fn string(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    #[expect(clippy::option_option, reason = "the outer one says whether the record is what it should be")]
    fn text(&mut self) -> Option<Option<String>> {
        if self.number()? == 0 { Some(None) } else { self.string().map(Some) }
    }

    fn value(&mut self) -> Option<Value> {
        Some(match self.number()? {
            0 => Value::Null,
            kind @ 1..=2 => Value::Bool(kind == 2),
            3 => self.number()?.into(),
            4 => (self.number()? as i64).into(),
            5 => Value::Number(Number::from_f64(f64::from_bits(self.number()?))?),
            6 => Value::String(self.string()?),
            7 => {
                let length = self.number()?;
                Value::Array((0..length).map(|_| self.value()).collect::<Option<_>>()?)
            }
            8 => {
                let length = self.number()?;
                let fields = (0..length).map(|_| Some((self.string()?, self.value()?)));
                Value::Object(fields.collect::<Option<Map<_, _>>>()?)
            }
            _ => return None,
        })
    }

    fn problem(&mut self) -> Option<Problem> {
        Some(Problem { status: Status::of_name(&self.string()?), cause: self.string()? })
    }

    fn row(&mut self) -> Option<Row> {
        let (url, caption, hash) = (self.string()?, self.text()?, self.text()?);
        let length = self.number()?;
        let extra = (0..length).map(|_| self.value()).collect::<Option<_>>()?;
        let length = self.number()?;
        let mut side = || Some(f64::from_bits(self.number()?));
        let boxes = (0..length).map(|_| Some([side()?, side()?, side()?, side()?])).collect::<Option<_>>()?;
        let problem = if self.number()? == 0 { None } else { Some(self.problem()?) };
        let removed = if self.number()? == 0 {
            None
        } else {
            Some(Removed { url_sha256: self.text()?, caption_sha256: self.text()? })
        };
        Some(Row { url, caption, extra, hash, boxes, problem, removed })
    }

    #[expect(clippy::option_option, reason = "as above")]
    fn option(&mut self) -> Option<Option<u64>> {
        if self.number()? == 0 { Some(None) } else { self.number().map(Some) }
    }

    fn request(&mut self) -> Option<Request> {
        let fetched = self.option()?.map(|time| time as i64);
        let [final_url, etag, last_modified, opt_outs] =
            [self.text()?, self.text()?, self.text()?, self.text()?];
        Some(Request { final_url, fetched, etag, last_modified, opt_outs })
    }

    #[expect(clippy::option_option, reason = "as above")]
    fn language(&mut self) -> Option<Option<Language>> {
        match (self.text()?, self.option()?) {
            (Some(code), Some(bits)) => {
                Language::named(&code, f32::from_bits(bits.try_into().ok()?)).map(Some)
            }
            _ => Some(None),
        }
    }

    fn outcome(&mut self) -> Option<Outcome> {
        if self.number()? == 0 {
            return self.problem().map(Err);
        }
        let mut side = || u32::try_from(self.number()?).ok();
        let [width, height, original_width, original_height] = [side()?, side()?, side()?, side()?];
        let (exif, hash, phash, bytes) = (self.text()??, self.text()?, self.option()?, self.bytes()?);
        Some(Ok(EncodedImage { bytes, width, height, original_width, original_height, exif, hash, phash }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::create(folder.path()).unwrap();
        let row = Row {
            url: "http://a/ä".into(),
            caption: Some(String::new()),
            extra: vec![
                json!(null),
                json!([true, false, -1, u64::MAX, 1e300, 0.1 + 0.2, -0.0]),
                json!({"b": {"c": "d\n"}, "a": []}),
            ],
            hash: None,
            boxes: vec![[0.1, 0.2, 0.3, 1.0 / 3.0], [0.0; 4]],
            problem: Some(Problem::read("caption is not UTF-8")),
            removed: Some(Removed { url_sha256: Some("ab".into()), caption_sha256: None }),
        };
        let image = EncodedImage {
            bytes: vec![1, 2, 3],
            width: 4,
            height: 5,
            original_width: u32::MAX,
            original_height: 7,
            exif: "{}".into(),
            hash: Some("00ff".into()),
            phash: Some(u64::MAX - 1),
        };
        let sample = |outcome| Sample {
            shard: 7,
            index: u32::MAX,
            row: row.clone(),
            request: Request {
                final_url: Some("http://b/".into()),
                fetched: Some(-1),
                etag: None,
                last_modified: Some(String::new()),
                opt_outs: Some("noai".into()),
            },
            language: Language::named("eng", 0.25),
            outcome,
        };
        let complete = sample(Ok(image.clone()));
        let bare = Sample {
            request: Request::default(),
            language: None,
            outcome: Ok(EncodedImage { hash: None, phash: None, ..image }),
            ..complete.clone()
        };
        let waiting = spool.put_row(&row).unwrap();
        let empty = spool.put_row(&Row::default()).unwrap();
        let problem = sample(Err(Problem::resize("too small")));
        let places: Vec<_> =
            [&complete, &bare, &problem].map(|sample| spool.put_sample(sample).unwrap()).into();
        assert_eq!(spool.row(waiting).unwrap(), row);
        assert_eq!(spool.row(empty).unwrap(), Row::default());
        for (place, sample) in places.into_iter().zip([&complete, &bare, &problem]) {
            assert_eq!(spool.sample(place).unwrap(), *sample);
        }
        let text = row.extra[2].to_string();
        assert_eq!(spool.row(waiting).unwrap().extra[2].to_string(), text, "fields keep their order");
        assert!(spool.sample(waiting).is_err(), "a row is no sample");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
