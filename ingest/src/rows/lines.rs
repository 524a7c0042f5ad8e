//! Text files: one URL per line or, if only captions are needed, one caption per line (empty lines are empty captions).

use std::io::BufRead;
use storage::Location;

use super::{Extra, Row, Rows, Wanted, Where, next_line, reader, text};
use crate::error::Error;
use crate::problem::Problem;

pub(super) struct TextRows {
    path: Location,
    from: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    /// Whether the lines are captions.
    captions: bool,
}

impl TextRows {
    pub(super) fn open(path: &Location, wanted: &Wanted) -> Result<Self, Error> {
        if let Some(name) = wanted.extra.first().or(wanted.caption.as_ref()).or(wanted.url.as_ref()) {
            return Err(Error::Usage(format!(
                "{} has no column {name:?}: a txt file has one text per line and no columns; use csv or jsonl",
                path.display()
            )));
        }
        let captions = wanted.place == Where::Nowhere;
        Ok(Self { path: path.to_owned(), from: reader(path)?, line: Vec::new(), captions })
    }
}

impl Rows for TextRows {
    fn extra(&self) -> &[Extra] {
        &[]
    }

    fn captioned(&self) -> bool {
        self.captions
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        while next_line(&self.path, self.from.as_mut(), &mut self.line)? {
            if self.captions {
                let (caption, valid) = text(&self.line);
                let problem = (!valid).then(|| Problem::read("caption is not UTF-8"));
                return Ok(Some(Row { caption: Some(caption), problem, ..Row::default() }));
            }
            let (url, valid) = text(self.line.trim_ascii());
            if url.is_empty() {
                continue;
            }
            let problem = (!valid).then(|| Problem::read("URL is not UTF-8"));
            return Ok(Some(Row { url, problem, ..Row::default() }));
        }
        Ok(None)
    }
}
