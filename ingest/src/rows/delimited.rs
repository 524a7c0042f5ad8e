//! Comma- and tab-separated tables. The first line is the header, unless it is a URL and a caption in either order (as in
//! CC3M and CC12M): then it is the first row, and the column with the URL is the column of URLs.

use std::collections::VecDeque;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use csv::{ByteRecord, Reader, ReaderBuilder};
use serde_json::Value;

use super::columns::Found;
use super::{Extra, Row, Rows, Wanted, Where, reader, text};
use crate::error::Error;
use crate::sample::Problem;

pub(super) struct DelimitedRows {
    path: PathBuf,
    from: Reader<Box<dyn BufRead + Send>>,
    found: Found,
    extra: Vec<Extra>,
    /// Number of fields in the first line.
    fields: usize,
    record: ByteRecord,
    /// The first line, if it is a row.
    queued: VecDeque<ByteRecord>,
}

impl DelimitedRows {
    pub(super) fn open(path: &Path, delimiter: u8, wanted: &Wanted) -> Result<Self, Error> {
        let mut from = Self::reader(path, delimiter, true)?;
        let mut first = ByteRecord::new();
        if !from.read_byte_record(&mut first).map_err(|error| csv_error(path, &error))? {
            return Err(Error::input(path, "the file is empty: it has no rows and no header"));
        }
        let names: Vec<String> = first.iter().map(|field| text(field.trim_ascii()).0).collect();
        let mut queued = VecDeque::new();
        let found = match headerless(&names) {
            Some(found) if wanted.place != Where::Local && wanted.url.is_none() => {
                if let Some(name) = wanted.extra.first().or(wanted.caption.as_ref()) {
                    return Err(Error::Usage(format!(
                        "{} has no column {name:?}: it has no header, its first line is a URL and a caption",
                        path.display()
                    )));
                }
                // These files do not use quoting: a quote character in a caption must not merge it with the next lines.
                from = Self::reader(path, delimiter, delimiter != b'\t')?;
                if from.read_byte_record(&mut first).map_err(|error| csv_error(path, &error))? {
                    queued.push_back(first.clone());
                }
                found
            }
            _ => wanted.find(path, &names)?,
        };
        Ok(Self {
            path: path.to_owned(),
            from,
            found,
            extra: wanted.extra_text(),
            fields: first.len(),
            record: ByteRecord::new(),
            queued,
        })
    }

    fn reader(path: &Path, delimiter: u8, quoting: bool) -> Result<Reader<Box<dyn BufRead + Send>>, Error> {
        let mut builder = ReaderBuilder::new();
        builder.delimiter(delimiter).has_headers(false).flexible(true).quoting(quoting);
        Ok(builder.from_reader(reader(path)?))
    }

    fn row(&self, record: &ByteRecord) -> Row {
        let field = |index: usize| record.get(index).map(text);
        let mut problem = None;
        if record.len() != self.fields {
            let (has, header) = (record.len(), self.fields);
            problem = Some(Problem::read(format!("row has {has} fields, header has {header}")));
        }
        let mut take = |value: Option<(String, bool)>, what: &str| {
            let (text, valid) = value.unwrap_or((String::new(), true));
            if !valid && problem.is_none() {
                problem = Some(Problem::read(format!("{what} is not UTF-8")));
            }
            text
        };
        let url =
            self.found.url.map_or_else(String::new, |index| take(field(index), "URL").trim().to_owned());
        let caption = self.found.caption.map(|index| take(field(index), "caption"));
        let extra = self
            .found
            .extra
            .iter()
            .zip(&self.extra)
            .map(|(&index, column)| Value::String(take(field(index), &column.name)))
            .collect();
        Row { url, caption, extra, problem, ..Row::default() }
    }
}

/// The columns of a table without a header: two fields, of which exactly one is a URL.
fn headerless(first: &[String]) -> Option<Found> {
    let is_url = |field: &String| field.starts_with("http://") || field.starts_with("https://");
    match first {
        [one, other] if is_url(one) && !is_url(other) => {
            Some(Found { url: Some(0), caption: Some(1), extra: vec![] })
        }
        [one, other] if is_url(other) && !is_url(one) => {
            Some(Found { url: Some(1), caption: Some(0), extra: vec![] })
        }
        _ => None,
    }
}

fn csv_error(path: &Path, error: &csv::Error) -> Error {
    Error::input(path, format!("cannot parse this table: {error}"))
}

impl Rows for DelimitedRows {
    fn extra(&self) -> &[Extra] {
        &self.extra
    }

    fn captioned(&self) -> bool {
        self.found.caption.is_some()
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        if let Some(record) = self.queued.pop_front() {
            return Ok(Some(self.row(&record)));
        }
        let read = self.from.read_byte_record(&mut self.record);
        if !read.map_err(|error| csv_error(&self.path, &error))? {
            return Ok(None);
        }
        Ok(Some(self.row(&self.record)))
    }
}
