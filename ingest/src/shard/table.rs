//! `NNNNN.parquet`: one row per sample, including failed ones, with the columns of img2dataset and the `offset` and `length`
//! of the image's bytes in the (uncompressed) tar; of downloads, what the requests taught.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use crate::image::EncodedImage;
use crate::image::Hash;
use crate::problem::{Problem, Status};
use crate::request::Request;
use crate::rows::{Extra, Kind, Row};

/// One row to write.
pub(crate) struct Line<'a> {
    pub(crate) row: &'a Row,
    pub(crate) key: &'a str,
    pub(crate) request: &'a Request,
    pub(crate) outcome: Result<&'a EncodedImage, &'a Problem>,
    /// Offset and length in the tar.
    pub(crate) location: Option<(u64, u64)>,
}

enum Carried {
    Integer(Int64Builder),
    Float(Float64Builder),
    Boolean(BooleanBuilder),
    Text(StringBuilder),
}

impl Carried {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Integer => Self::Integer(Int64Builder::new()),
            Kind::Float => Self::Float(Float64Builder::new()),
            Kind::Boolean => Self::Boolean(BooleanBuilder::new()),
            Kind::Text => Self::Text(StringBuilder::new()),
        }
    }

    fn push(&mut self, value: &Value) {
        match self {
            Self::Integer(column) => column.append_option(value.as_i64()),
            Self::Float(column) => column.append_option(value.as_f64()),
            Self::Boolean(column) => column.append_option(value.as_bool()),
            Self::Text(column) => match value {
                Value::Null => column.append_null(),
                Value::String(text) => column.append_value(text),
                other => column.append_value(other.to_string()),
            },
        }
    }

    fn finish(mut self) -> ArrayRef {
        match &mut self {
            Self::Integer(column) => Arc::new(column.finish()),
            Self::Float(column) => Arc::new(column.finish()),
            Self::Boolean(column) => Arc::new(column.finish()),
            Self::Text(column) => Arc::new(column.finish()),
        }
    }
}

/// Columns of a shard's table, filled row by row.
pub(crate) struct Table {
    carried: Vec<(String, Carried)>,
    caption: Option<StringBuilder>,
    url: StringBuilder,
    key: StringBuilder,
    status: StringBuilder,
    error_message: StringBuilder,
    sizes: [Int32Builder; 4],
    exif: StringBuilder,
    /// Its name and values. A failed sample has the expected hash, so that a retry can check it.
    hash: Option<(&'static str, StringBuilder)>,
    offset: Int64Builder,
    length: Int64Builder,
    requests: Option<Requests>,
    /// SHA-256 of the URLs and captions of removed samples; the columns are there only if there is one.
    removed: [StringBuilder; 2],
    has_removed: bool,
}

/// The columns of what requests taught.
struct Requests {
    fetched: TimestampMillisecondBuilder,
    texts: [StringBuilder; 4],
}

impl Table {
    /// `requests`: whether there are columns of what requests taught.
    pub(crate) fn new(extra: &[Extra], captioned: bool, hash: Hash, requests: bool) -> Self {
        let requests = requests
            .then(|| Requests { fetched: TimestampMillisecondBuilder::new(), texts: Default::default() });
        Self {
            carried: extra.iter().map(|extra| (extra.name.clone(), Carried::new(extra.kind))).collect(),
            caption: captioned.then(StringBuilder::new),
            url: StringBuilder::new(),
            key: StringBuilder::new(),
            status: StringBuilder::new(),
            error_message: StringBuilder::new(),
            sizes: Default::default(),
            exif: StringBuilder::new(),
            hash: hash.column().map(|name| (name, StringBuilder::new())),
            offset: Int64Builder::new(),
            length: Int64Builder::new(),
            requests,
            removed: Default::default(),
            has_removed: false,
        }
    }

    pub(crate) fn push(&mut self, line: &Line<'_>) {
        let &Line { row, key, request, outcome, location } = line;
        for ((_, column), value) in self.carried.iter_mut().zip(&row.extra) {
            column.push(value);
        }
        if let Some(column) = &mut self.caption {
            column.append_option(row.caption.as_deref());
        }
        self.url.append_option(row.removed.is_none().then_some(&row.url));
        self.key.append_value(key);
        self.status.append_value(outcome.map_or_else(|problem| problem.status, |_| Status::Success).name());
        self.error_message.append_option(outcome.err().map(|problem| problem.cause.as_str()));
        let image = outcome.ok();
        let sizes = image.map(|it| [it.width, it.height, it.original_width, it.original_height]);
        for (at, column) in self.sizes.iter_mut().enumerate() {
            column.append_option(sizes.map(|sizes| sizes[at] as i32));
        }
        self.exif.append_option(image.map(|image| image.exif.as_str()));
        if let Some((_, column)) = &mut self.hash {
            let hash = image.map_or(row.hash.as_ref(), |image| image.hash.as_ref());
            column.append_option(hash);
        }
        self.offset.append_option(location.map(|(offset, _)| offset as i64));
        self.length.append_option(location.map(|(_, length)| length as i64));
        let removed = row.removed.as_ref();
        self.has_removed |= removed.is_some();
        let texts = removed.map(|removed| [&removed.url_sha256, &removed.caption_sha256]);
        for (at, column) in self.removed.iter_mut().enumerate() {
            column.append_option(texts.and_then(|texts| texts[at].as_deref()));
        }
        if let Some(columns) = &mut self.requests {
            columns.fetched.append_option(request.fetched);
            for (column, text) in columns.texts.iter_mut().zip(request.texts()) {
                column.append_option(text);
            }
        }
    }

    /// The parquet file.
    pub(crate) fn bytes(mut self) -> Result<Vec<u8>> {
        let mut columns: Vec<(String, ArrayRef)> =
            self.carried.into_iter().map(|(name, column)| (name, column.finish())).collect();
        let mut add = |name: &str, column: ArrayRef| columns.push((name.to_owned(), column));
        if let Some(mut caption) = self.caption {
            add("caption", Arc::new(caption.finish()));
        }
        add("url", Arc::new(self.url.finish()));
        add("key", Arc::new(self.key.finish()));
        add("status", Arc::new(self.status.finish()));
        add("error_message", Arc::new(self.error_message.finish()));
        let [width, height, original_width, original_height] = &mut self.sizes;
        add("width", Arc::new(width.finish()));
        add("height", Arc::new(height.finish()));
        add("original_width", Arc::new(original_width.finish()));
        add("original_height", Arc::new(original_height.finish()));
        add("exif", Arc::new(self.exif.finish()));
        if let Some((name, mut column)) = self.hash {
            add(name, Arc::new(column.finish()));
        }
        add("offset", Arc::new(self.offset.finish()));
        add("length", Arc::new(self.length.finish()));
        if let Some(Requests { mut fetched, texts }) = self.requests {
            let [mut final_url, mut etag, mut last_modified, mut opt_outs] = texts;
            add("final_url", Arc::new(final_url.finish()));
            add("fetched", Arc::new(fetched.finish()));
            add("etag", Arc::new(etag.finish()));
            add("last_modified", Arc::new(last_modified.finish()));
            add("opt_outs", Arc::new(opt_outs.finish()));
        }
        if self.has_removed {
            let [mut url, mut caption] = self.removed;
            add("url_sha256", Arc::new(url.finish()));
            add("caption_sha256", Arc::new(caption.finish()));
        }
        // Always nullable, so that all shards of a dataset have the same schema.
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, column)| (name, column, true)),
        )?;
        parquet(&batch)
    }
}

/// The Parquet file of a table's rows.
pub(crate) fn parquet(rows: &RecordBatch) -> Result<Vec<u8>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(concat!("ingest ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
    writer.write(rows)?;
    writer.into_inner()
}
