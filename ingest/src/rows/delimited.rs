//! Comma- and tab-separated tables. The first line is the header, unless it is a URL and a caption in either order (as in
//! CC3M and CC12M): then it is the first row, and the column with the URL is the column of URLs.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

use csv::{ByteRecord, ReaderBuilder};
use serde_json::Value;
use storage::Location;

use super::columns::Found;
use super::{Extra, MAX_LINE_BYTES, Row, Rows, Wanted, Where, next_line, reader, text};
use crate::error::Error;
use crate::problem::Problem;

pub(super) struct DelimitedRows {
    path: Location,
    from: Records,
    found: Found,
    extra: Vec<Extra>,
    /// Number of fields in the first line.
    fields: usize,
    record: ByteRecord,
    /// The first line, if it is a row.
    queued: VecDeque<ByteRecord>,
}

impl DelimitedRows {
    pub(super) fn open(path: &Location, delimiter: u8, wanted: &Wanted) -> Result<Self, Error> {
        let mut from = Records::open(path, delimiter, true)?;
        let mut first = ByteRecord::new();
        if !from.read(path, &mut first)? {
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
                // Tab-separated files without a header, such as CC3M's, do not use quoting.
                from = Records::open(path, delimiter, false)?;
                if from.read(path, &mut first)? {
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

    fn row(&self, record: &ByteRecord) -> Row {
        let field = |index: usize| record.get(index).map(text);
        let mut problem = self.from.unclosed(record).map(|lines| {
            Problem::read(format!(
                "a quote is opened but never closed: {lines} lines up to the end of the file"
            ))
        });
        if problem.is_none() && record.len() != self.fields {
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

/// The records of a file: lists of fields.
enum Records {
    /// A quoted field may contain line breaks.
    Comma(csv::Reader<CountQuotes>),
    /// A record is a line: captions with a quote at their start are common in these files, and must not swallow the lines
    /// after them.
    Tab { from: Box<dyn BufRead + Send>, line: Vec<u8>, quoting: bool },
}

impl Records {
    /// `quoting`: whether a tab-separated file may have quoted fields.
    fn open(path: &Location, delimiter: u8, quoting: bool) -> Result<Self, Error> {
        let from = reader(path)?;
        if delimiter == b'\t' {
            return Ok(Self::Tab { from, line: Vec::new(), quoting });
        }
        let mut builder = ReaderBuilder::new();
        builder.delimiter(delimiter).has_headers(false).flexible(true);
        Ok(Self::Comma(builder.from_reader(CountQuotes { from, odd: false, ended: false, since: 0 })))
    }

    /// Reads the next record, skipping empty lines; false at the end of the file.
    fn read(&mut self, path: &Location, record: &mut ByteRecord) -> Result<bool, Error> {
        match self {
            Self::Comma(from) => {
                from.get_mut().since = 0;
                from.read_byte_record(record)
                    .map_err(|error| Error::input(path, format!("cannot parse this table: {error}")))
            }
            Self::Tab { from, line, quoting } => {
                while next_line(path, from.as_mut(), line)? {
                    if !line.is_empty() {
                        split_at_tabs(line, *quoting, record);
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// The number of lines of a record that ends with the file inside a quoted field.
    fn unclosed(&self, record: &ByteRecord) -> Option<u64> {
        let Self::Comma(from) = self else { return None };
        let lines = from.position().line().saturating_sub(record.position()?.line());
        let bytes = from.get_ref();
        // The parser ends the field without saying so; quotes come in pairs otherwise.
        (lines > 1 && bytes.ended && bytes.odd).then_some(lines)
    }
}

/// Counts the quotes that pass, and refuses records without end.
struct CountQuotes {
    from: Box<dyn BufRead + Send>,
    /// Whether their number is odd.
    odd: bool,
    ended: bool,
    /// Bytes read since the start of the current record.
    since: u64,
}

impl Read for CountQuotes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.since += count as u64;
        if self.since > MAX_LINE_BYTES {
            let problem = "a row of more than 16 MiB, perhaps because a quote is opened but never closed";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        self.ended |= count == 0 && !buffer.is_empty();
        self.odd = buffer[..count].iter().fold(self.odd, |odd, &byte| odd ^ (byte == b'"'));
        Ok(count)
    }
}

/// Splits a line. A field in quotes may contain tabs, and quotes written twice; a quote that does not close at the end of a
/// field is text.
fn split_at_tabs(line: &[u8], quoting: bool, record: &mut ByteRecord) {
    record.clear();
    let mut rest = line;
    loop {
        let (field, after) = quoting.then(|| quoted(rest)).flatten().unwrap_or_else(|| {
            let (field, after) =
                rest.split_at(rest.iter().position(|&byte| byte == b'\t').unwrap_or(rest.len()));
            (Cow::Borrowed(field), after)
        });
        record.push_field(&field);
        match after.split_first() {
            Some((_, after)) => rest = after,
            None => return,
        }
    }
}

/// The field in quotes at the start of `text` and what follows it: nothing, or a tab and the next fields.
fn quoted(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut field = Vec::new();
    loop {
        let end = rest.iter().position(|&byte| byte == b'"')?;
        field.extend_from_slice(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.first() {
            Some(b'"') => {
                field.push(b'"');
                rest = &rest[1..];
            }
            None | Some(b'\t') => return Some((Cow::Owned(field), rest)),
            Some(_) => return None,
        }
    }
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
        if !self.from.read(&self.path, &mut self.record)? {
            return Ok(None);
        }
        Ok(Some(self.row(&self.record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str, quoting: bool) -> Vec<String> {
        let mut record = ByteRecord::new();
        split_at_tabs(line.as_bytes(), quoting, &mut record);
        record.iter().map(|field| String::from_utf8(field.to_vec()).unwrap()).collect()
    }

    #[test]
    fn quotes_of_tab_separated_lines() {
        for (line, expected) in [
            ("a\tb", vec!["a", "b"]),
            ("a\t", vec!["a", ""]),
            ("\"a\tb\"\tc", vec!["a\tb", "c"]),
            ("\"a \"\"b\"\"\"\tc", vec!["a \"b\"", "c"]),
            ("\"", vec!["\""]),
            ("u\t\"never closed", vec!["u", "\"never closed"]),
            ("u\t\"closed\" too early\tx", vec!["u", "\"closed\" too early", "x"]),
            ("6\" wide\t6\"", vec!["6\" wide", "6\""]),
        ] {
            assert_eq!(split(line, true), expected, "{line}");
        }
        assert_eq!(split("\"a\"\tb", false), ["\"a\"", "b"]);
    }
}
