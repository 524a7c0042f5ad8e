//! JSON: one object per line, an array of objects, concatenated objects, a list of objects inside an object, or one object
//! with a list per column. Each object is a row; one with a list of captions becomes one row per caption.

use std::collections::{HashSet, VecDeque};
use std::io::BufRead;

use serde_json::{Map, Value};
use storage::Location;

use super::{Extra, ImageRows, MAX_LINE_BYTES, Row, Rows, Wanted, document, next_line, reader, text};
use crate::error::Error;
use crate::problem::Problem;

pub(super) struct JsonRows {
    path: Location,
    from: Box<dyn BufRead + Send>,
    layout: Layout,
    url: Option<String>,
    caption: Option<String>,
    extra: Vec<Extra>,
    line: Vec<u8>,
    /// Of [`Layout::Columns`]: the names and the values that are left.
    columns: Vec<(String, std::vec::IntoIter<Value>)>,
    /// Rows that were read ahead: those before the first usable object, and those of an object with several captions.
    queued: VecDeque<ImageRows>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Lines,
    Array {
        first: bool,
    },
    Stream,
    /// One object with a list per column.
    Columns,
}

/// One object of the file, or why a line is not an object.
enum Record {
    /// With a problem if it is not valid UTF-8.
    Object(Map<String, Value>, Option<Problem>),
    /// The line cannot be parsed, so the whole line takes the place of the URL.
    Broken(String, Problem),
}

impl JsonRows {
    pub(super) fn open_lines(path: &Location, wanted: &Wanted) -> Result<Self, Error> {
        Self::open(path, reader(path)?, Layout::Lines, Vec::new(), wanted)
    }

    pub(super) fn open_values(path: &Location, wanted: &Wanted) -> Result<Self, Error> {
        let mut from = reader(path)?;
        let layout = match peek(path, from.as_mut())? {
            Some(b'[') => {
                from.consume(1);
                Layout::Array { first: true }
            }
            Some(b'{') => Layout::Stream,
            None => return Err(Error::input(path, "the file is empty: it has no rows")),
            Some(_) => {
                return Err(Error::input(path, "not JSON objects: it begins with neither \"[\" nor \"{\""));
            }
        };
        Self::open(path, from, layout, Vec::new(), wanted)
    }

    /// The objects of the list that is the value of `key` in the document's first object, as in RedCaps.
    pub(super) fn open_list(path: &Location, key: &str, wanted: &Wanted) -> Result<Self, Error> {
        let mut from = reader(path)?;
        skip_into(path, from.as_mut(), key)?;
        Self::open(path, from, Layout::Array { first: true }, Vec::new(), wanted)
    }

    /// The rows of one object with a list per column, as in SBU, or with an object per column, as pandas' `to_json` writes by
    /// default.
    pub(super) fn open_columns(path: &Location, wanted: &Wanted) -> Result<Self, Error> {
        let document: Map<String, Value> = loader::json::parse(&document::whole(path)?).map_err(|error| {
            Error::input(path, format!("not one JSON object with a list per column: {error}"))
        })?;
        let mut columns = Vec::new();
        for (name, values) in document {
            let values = match values {
                Value::Array(values) => values,
                Value::Object(values) => values.into_iter().map(|(_, value)| value).collect(),
                _ => continue,
            };
            columns.push((name, values.into_iter()));
        }
        let lengths: Vec<usize> = columns.iter().map(|(_, values)| values.len()).collect();
        if lengths.iter().any(|&length| length != lengths[0]) {
            let names: Vec<String> =
                columns.iter().map(|(name, values)| format!("{name} {}", values.len())).collect();
            let problem = format!("its columns have different numbers of values: {}", names.join(", "));
            return Err(Error::input(path, problem));
        }
        Self::open(path, Box::new(std::io::empty()), Layout::Columns, columns, wanted)
    }

    /// Finds the columns in the first objects: a key that is null is missing from some files.
    fn open(
        path: &Location,
        from: Box<dyn BufRead + Send>,
        layout: Layout,
        columns: Vec<(String, std::vec::IntoIter<Value>)>,
        wanted: &Wanted,
    ) -> Result<Self, Error> {
        /// A file whose first hundred lines are not objects is not a jsonl file.
        const LOOKED_AT: usize = 100;
        let mut rows = Self {
            path: path.to_owned(),
            from,
            layout,
            url: None,
            caption: None,
            extra: wanted.extra_text(),
            line: Vec::new(),
            columns,
            queued: VecDeque::new(),
        };
        let (mut names, mut known) = (Vec::new(), HashSet::new());
        let mut records = Vec::new();
        let mut missing = None;
        while records.len() < LOOKED_AT
            && let Some(record) = rows.next_record()?
        {
            if let Record::Object(object, _) = &record {
                names.extend(object.keys().filter(|key| known.insert((*key).clone())).cloned());
                match wanted.find(path, &names) {
                    Ok(found) => {
                        rows.url = found.url.map(|index| names[index].clone());
                        rows.caption = found.caption.map(|index| names[index].clone());
                        for (column, index) in rows.extra.iter_mut().zip(found.extra) {
                            column.name.clone_from(&names[index]);
                        }
                        records.push(record);
                        rows.queued = records.into_iter().map(|record| rows.rows(record)).collect();
                        return Ok(rows);
                    }
                    Err(error) => missing = Some(error),
                }
            }
            records.push(record);
        }
        Err(missing.unwrap_or_else(|| {
            let problem = match (layout, records.is_empty()) {
                (_, true) => "the file is empty: it has no rows",
                (Layout::Lines, _) => "not a jsonl file: no line is a JSON object",
                _ => "not JSON: none of its objects can be parsed",
            };
            Error::input(path, problem)
        }))
    }

    fn next_record(&mut self) -> Result<Option<Record>, Error> {
        if self.layout == Layout::Lines {
            while next_line(&self.path, self.from.as_mut(), &mut self.line)? {
                if !self.line.trim_ascii().is_empty() {
                    return Ok(Some(parse_line(&self.line)));
                }
            }
            return Ok(None);
        }
        if self.layout == Layout::Columns {
            let mut object = Map::new();
            for (name, values) in &mut self.columns {
                let Some(value) = values.next() else { return Ok(None) };
                object.insert(name.clone(), value);
            }
            return Ok((!object.is_empty()).then_some(Record::Object(object, None)));
        }
        let malformed = |what: &str| Error::input(&self.path, what);
        let mut next = peek(&self.path, self.from.as_mut())?;
        if let Layout::Array { first } = &mut self.layout {
            match next {
                Some(b']') => return Ok(None),
                Some(b',') if !*first => {
                    self.from.consume(1);
                    next = peek(&self.path, self.from.as_mut())?;
                }
                Some(_) if *first => {}
                Some(_) => return Err(malformed("invalid JSON: no comma between two objects of the array")),
                None => return Err(malformed("the file is truncated: its array has no end")),
            }
            *first = false;
        }
        match next {
            None if self.layout == Layout::Stream => return Ok(None),
            Some(b'{') => {}
            _ => return Err(malformed("not a list of JSON objects: one element is not an object")),
        }
        read_object(&self.path, self.from.as_mut(), &mut self.line)?;
        Ok(Some(parse_line(&self.line)))
    }

    fn rows(&self, record: Record) -> ImageRows {
        let (object, mut problem) = match record {
            Record::Object(object, problem) => (object, problem),
            Record::Broken(line, problem) => {
                let extra = vec![Value::Null; self.extra.len()];
                let row = Row { url: line, extra, problem: Some(problem), ..Row::default() };
                return ImageRows::new(row, Vec::new());
            }
        };
        let url = match self.url.as_ref().and_then(|name| object.get(name)) {
            Some(Value::String(url)) => url.trim().to_owned(),
            Some(Value::Null) | None => String::new(),
            Some(other) => {
                let name = self.url.as_deref().unwrap_or_default();
                problem = Some(Problem::read(format!("{name:?} is not text")));
                other.to_string()
            }
        };
        let mut captions = Vec::new();
        match self.caption.as_ref().and_then(|name| object.get(name)) {
            Some(Value::Array(list)) => {
                for caption in list {
                    captions.push(caption_text(caption, &mut problem));
                }
            }
            Some(caption) => captions.push(caption_text(caption, &mut problem)),
            None => {}
        }
        let extra =
            self.extra.iter().map(|column| object.get(&column.name).cloned().unwrap_or_default()).collect();
        ImageRows::new(Row { url, extra, problem, ..Row::default() }, captions)
    }
}

fn caption_text(value: &Value, problem: &mut Option<Problem>) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => {
            *problem = Some(Problem::read("caption is not text"));
            Some(other.to_string())
        }
    }
}

fn parse_line(line: &[u8]) -> Record {
    let (lossy, valid) = text(line);
    let problem = (!valid).then(|| Problem::read("line is not UTF-8"));
    match loader::json::parse::<Value>(lossy.as_bytes()) {
        Ok(Value::Object(object)) => Record::Object(object, problem),
        Ok(_) => Record::Broken(lossy, Problem::read("line is not a JSON object")),
        Err(_) => Record::Broken(lossy, problem.unwrap_or_else(|| Problem::read("line is not JSON"))),
    }
}

/// Reads an object from its opening brace, which is next, to its closing one, whatever is between them: an object that is
/// not JSON is then one row that failed.
fn read_object(path: &Location, from: &mut dyn BufRead, object: &mut Vec<u8>) -> Result<(), Error> {
    object.clear();
    let (mut depth, mut in_text, mut escaped) = (0u32, false, false);
    loop {
        let buffer = from.fill_buf().map_err(Error::file("read", path))?;
        if buffer.is_empty() {
            return Err(Error::input(path, "the file is truncated: its last object has no end"));
        }
        let mut end = None;
        for (at, &byte) in buffer.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = in_text,
                b'"' => in_text = !in_text,
                b'{' | b'[' if !in_text => depth += 1,
                b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                end = Some(at + 1);
                break;
            }
        }
        let count = end.unwrap_or(buffer.len());
        object.extend_from_slice(&buffer[..count]);
        from.consume(count);
        if object.len() as u64 > MAX_LINE_BYTES {
            return Err(Error::input(path, "not a table: it has a JSON object of more than 16 MiB"));
        }
        if end.is_some() {
            return Ok(());
        }
    }
}

/// Skips the beginning of an object up to the list that is the value of `key`, and its opening bracket. The list is there.
fn skip_into(path: &Location, from: &mut dyn BufRead, key: &str) -> Result<(), Error> {
    let mut scan = document::Scan::default();
    loop {
        let buffer = from.fill_buf().map_err(Error::file("read", path))?;
        if buffer.is_empty() {
            return Err(Error::input(path, format!("the file is truncated: it has no list {key:?}")));
        }
        let end = buffer.iter().position(|&byte| {
            scan.next(byte);
            byte == b'[' && scan.last_key() == Some(key)
        });
        let count = end.map_or(buffer.len(), |at| at + 1);
        from.consume(count);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// The next byte that is not white space, without consuming it.
fn peek(path: &Location, from: &mut dyn BufRead) -> Result<Option<u8>, Error> {
    loop {
        let buffer = from.fill_buf().map_err(Error::file("read", path))?;
        match buffer.first() {
            None => return Ok(None),
            Some(byte) if byte.is_ascii_whitespace() => from.consume(1),
            Some(byte) => return Ok(Some(*byte)),
        }
    }
}

impl Rows for JsonRows {
    fn extra(&self) -> &[Extra] {
        &self.extra
    }

    fn captioned(&self) -> bool {
        self.caption.is_some()
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        loop {
            while let Some(image) = self.queued.front_mut() {
                if let Some(row) = image.next() {
                    return Ok(Some(row));
                }
                self.queued.pop_front();
            }
            let Some(record) = self.next_record()? else { return Ok(None) };
            self.queued.push_back(self.rows(record));
        }
    }
}
