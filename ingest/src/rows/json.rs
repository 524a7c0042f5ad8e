//! JSON: one object per line, an array of objects, or concatenated objects. Each object is a row; one with a list of
//! captions becomes one row per caption.

use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{Extra, MAX_LINE_BYTES, Row, Rows, Wanted, expand, next_line, reader, text};
use crate::error::Error;
use crate::sample::Problem;

pub(super) struct JsonRows {
    path: PathBuf,
    from: Box<dyn BufRead + Send>,
    layout: Layout,
    url: Option<String>,
    caption: Option<String>,
    extra: Vec<Extra>,
    line: Vec<u8>,
    /// Rows that were read ahead: those before the first usable object, and those of an object with several captions.
    queued: VecDeque<Row>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Lines,
    Array { first: bool },
    Stream,
}

/// One object of the file, or why a line is not an object.
enum Record {
    /// With a problem if it is not valid UTF-8.
    Object(Map<String, Value>, Option<Problem>),
    /// The line cannot be parsed, so the whole line takes the place of the URL.
    Broken(String, Problem),
}

impl JsonRows {
    pub(super) fn open_lines(path: &Path, wanted: &Wanted) -> Result<Self, Error> {
        Self::open(path, reader(path)?, Layout::Lines, wanted)
    }

    pub(super) fn open_values(path: &Path, wanted: &Wanted) -> Result<Self, Error> {
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
        Self::open(path, from, layout, wanted)
    }

    /// Finds the columns in the first valid object.
    fn open(
        path: &Path,
        from: Box<dyn BufRead + Send>,
        layout: Layout,
        wanted: &Wanted,
    ) -> Result<Self, Error> {
        let mut rows = Self {
            path: path.to_owned(),
            from,
            layout,
            url: None,
            caption: None,
            extra: wanted.extra_text(),
            line: Vec::new(),
            queued: VecDeque::new(),
        };
        let mut broken = Vec::new();
        while let Some(record) = rows.next_record()? {
            match record {
                Record::Object(object, problem) => {
                    let names: Vec<String> = object.keys().cloned().collect();
                    let found = wanted.find(path, &names)?;
                    rows.url = found.url.map(|index| names[index].clone());
                    rows.caption = found.caption.map(|index| names[index].clone());
                    for (column, index) in rows.extra.iter_mut().zip(found.extra) {
                        column.name.clone_from(&names[index]);
                    }
                    broken.push(Record::Object(object, problem));
                    rows.queued = broken.into_iter().flat_map(|record| rows.rows(record)).collect();
                    return Ok(rows);
                }
                record @ Record::Broken(..) => broken.push(record),
            }
            // A file whose first hundred lines are not objects is not a jsonl file.
            if broken.len() >= 100 {
                break;
            }
        }
        let problem = if broken.is_empty() {
            "the file is empty: it has no rows"
        } else {
            "not a jsonl file: no line is a JSON object"
        };
        Err(Error::input(path, problem))
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
        // The parser stops at the closing brace, so nothing after the object is consumed.
        let mut one = serde_json::Deserializer::from_reader(self.from.as_mut().take(MAX_LINE_BYTES));
        let object = Map::<String, Value>::deserialize(&mut one)
            .map_err(|error| Error::input(&self.path, format!("invalid JSON: {error}")))?;
        Ok(Some(Record::Object(object, None)))
    }

    fn rows(&self, record: Record) -> Vec<Row> {
        let (object, mut problem) = match record {
            Record::Object(object, problem) => (object, problem),
            Record::Broken(line, problem) => {
                let extra = vec![Value::Null; self.extra.len()];
                return vec![Row { url: line, extra, problem: Some(problem), ..Row::default() }];
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
        let extra: Vec<Value> =
            self.extra.iter().map(|column| object.get(&column.name).cloned().unwrap_or_default()).collect();
        expand(&url, captions, &extra, problem.as_ref())
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
    match serde_json::from_str::<Value>(&lossy) {
        Ok(Value::Object(object)) => Record::Object(object, problem),
        Ok(_) => Record::Broken(lossy, Problem::read("line is not a JSON object")),
        Err(_) => Record::Broken(lossy, problem.unwrap_or_else(|| Problem::read("line is not JSON"))),
    }
}

/// The next byte that is not white space, without consuming it.
fn peek(path: &Path, from: &mut dyn BufRead) -> Result<Option<u8>, Error> {
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
            if let Some(row) = self.queued.pop_front() {
                return Ok(Some(row));
            }
            let Some(record) = self.next_record()? else { return Ok(None) };
            let rows = self.rows(record);
            self.queued.extend(rows);
        }
    }
}
