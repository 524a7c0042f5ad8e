//! `ingest tag --table`: captions straight from tables, without pictures; a numbered sidecar for every so many rows, and
//! `captions.json` when all is done ([`concepts::sidecar::Parts`]).
//!
//! A thread reads the rows of a whole part while it holds the input, lets go of it and tags them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use concepts::Extractor;
use concepts::sidecar::{Cut, Metadata, Parts, RowsOfTable, Table, Writer};
use loader::shard;
use serde_json::Value;

use super::{Board, Captions, Found, Stop, Totals, found, together};
use crate::error::Error;
use crate::rows::{self, Format, Row, Rows, Wanted};

/// Bytes of captions that are read ahead of tagging; captions so long that a part has more are tagged as they come.
const READ_AHEAD: usize = 16 << 20;

/// Digits of a row's number where it is the key.
const DIGITS: usize = 9;

/// Tables of captions, and where their sidecars go.
#[derive(Debug, Clone)]
pub struct Tables {
    /// The files and how they are written.
    pub files: Vec<(PathBuf, Format)>,
    /// Which columns matter; the first carried column, if any, holds the keys.
    pub wanted: Wanted,
    /// Folder for the sidecars.
    pub out: PathBuf,
    /// Rows a sidecar.
    pub part_size: u32,
}

impl Tables {
    fn cut(&self) -> Cut {
        Cut {
            part_size: self.part_size,
            caption: self.wanted.caption.clone(),
            key: self.wanted.extra.first().cloned(),
        }
    }
}

/// Writes the sidecars of the parts that `owns`, by number. Those that match the table and the extractor are left alone.
pub fn tag_tables(
    tables: &Tables,
    extractor: &Extractor,
    threads: usize,
    owns: impl Fn(u32) -> bool + Sync,
) -> Result<Totals, Error> {
    prepare(&tables.out)?;
    if tables.files.len() > 1 {
        // A wrong column in the last file must not come to light a day later.
        for (path, format) in &tables.files {
            rows::open(path, *format, &tables.wanted)?;
        }
    }
    let input = Mutex::new(Input {
        tables,
        parts: Parts::new(&extractor.description(), tables.cut()),
        open: None,
        number: 0,
        row: 0,
    });
    let board = Board::new(Totals::default());
    together(threads, |stop| work(&input, &board, stop, extractor, &owns))?;
    let input = input.into_inner().unwrap_or_else(PoisonError::into_inner);
    if Parts::read(&tables.out).ok().flatten().as_ref() != Some(&input.parts) {
        input.parts.write(&tables.out)?;
    }
    let beyond = Parts::path(&tables.out, input.number);
    if beyond.exists() {
        eprintln!("{}: belongs to another table than the parts before it; delete it", beyond.display());
    }
    Ok(board.finish())
}

fn prepare(out: &Path) -> Result<(), Error> {
    fs::create_dir_all(out).map_err(Error::file("create", out))?;
    for entry in fs::read_dir(out).map_err(Error::file("read", out))? {
        if shard::stem(&entry.map_err(Error::file("read", out))?.path()).is_some() {
            let problem = "holds shards, whose sidecars have the same names: choose another folder for --out";
            return Err(Error::input(out, problem));
        }
    }
    Ok(())
}

/// One thread: part after part until the tables end.
fn work(
    input: &Mutex<Input<'_>>,
    board: &Board,
    stop: &Stop,
    extractor: &Extractor,
    owns: &impl Fn(u32) -> bool,
) -> Result<(), Error> {
    let mut captions = Captions::new(extractor);
    let mut rows = Vec::new();
    loop {
        stop.check()?;
        let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(metadata) = input.next_part()? else { return Ok(()) };
        let path = Parts::path(&input.tables.out, input.number);
        if !owns(input.number) {
            input.skip()?;
            continue;
        }
        let before = match found(&path, &metadata)? {
            Found::Current(metadata) => {
                let rows = input.skip()?;
                if rows != metadata.samples as usize {
                    let said = metadata.samples;
                    let problem =
                        format!("has {said} captions, the table {rows} there: delete it and run again");
                    return Err(Error::input(&path, problem));
                }
                board.found(&metadata);
                continue;
            }
            before => before,
        };
        let mut whole = input.read(&mut rows, 0)?;
        if rows.is_empty() {
            continue;
        }
        let mut part = Part { writer: Writer::create(&path, metadata)?, row: input.row, unreadable: 0 };
        while !whole {
            // So much text that it must not pile up: the others wait.
            part.tag(&mut rows, &mut captions, stop)?;
            whole = input.read(&mut rows, part.writer.samples())?;
        }
        input.end_part(part.writer.samples() as usize + rows.len());
        drop(input);
        part.tag(&mut rows, &mut captions, stop)?;
        let unreadable = part.unreadable;
        let metadata = part.writer.finish()?;
        board.tagged(&path, &metadata, &before, captions.take_not_utf8());
        board.update(0, |totals| totals.unreadable_rows += unreadable);
    }
}

/// The tables, read in turns by the threads.
struct Input<'a> {
    tables: &'a Tables,
    /// What was read so far; the last table may be open.
    parts: Parts,
    open: Option<Box<dyn Rows>>,
    /// Number of the next part, and of its first row in the whole input.
    number: u32,
    row: u64,
}

impl Input<'_> {
    /// What the next part's footer will say, counts aside; none at the end. The part may turn out to have no rows.
    fn next_part(&mut self) -> Result<Option<Metadata>, Error> {
        if self.open.is_none() {
            let Some((path, format)) = self.tables.files.get(self.parts.tables.len()) else {
                return Ok(None);
            };
            self.open = Some(rows::open(path, *format, &self.tables.wanted)?);
            let bytes = fs::metadata(path).map_err(Error::file("read", path))?.len();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.parts.tables.push(Table { name, bytes, rows: 0 });
        }
        let table = self.parts.tables.last();
        Ok(table.map(|table| Metadata {
            version: self.parts.version,
            tagger: self.parts.tagger.clone(),
            tagger_hash: self.parts.tagger_hash.clone(),
            grammar: self.parts.grammar,
            shard: table.name.clone(),
            shard_bytes: table.bytes,
            rows: Some(RowsOfTable { first: self.row, cut: self.parts.cut.clone() }),
            samples: 0,
            captions_without_mention: 0,
            mentions: 0,
        }))
    }

    /// Reads on in the part of which `have` rows were taken. Returns whether that is all of it.
    fn read(&mut self, rows: &mut Vec<Row>, have: u32) -> Result<bool, Error> {
        let mut bytes = 0;
        let Some(open) = &mut self.open else { return Ok(true) };
        while have as usize + rows.len() < self.tables.part_size as usize {
            if bytes >= READ_AHEAD {
                return Ok(false);
            }
            let Some(row) = open.next_row()? else {
                self.open = None;
                return Ok(true);
            };
            bytes += row.caption.as_ref().map_or(0, String::len);
            rows.push(row);
        }
        Ok(true)
    }

    /// Passes over a part; returns the number of its rows.
    fn skip(&mut self) -> Result<usize, Error> {
        let size = self.tables.part_size as usize;
        let Some(open) = &mut self.open else { return Ok(0) };
        let rows = open.skip(size)?;
        if rows < size {
            self.open = None;
        }
        self.end_part(rows);
        Ok(rows)
    }

    fn end_part(&mut self, rows: usize) {
        if let Some(table) = self.parts.tables.last_mut() {
            table.rows += rows as u64;
        }
        self.row += rows as u64;
        self.number += u32::from(rows > 0);
    }
}

/// A sidecar in the making.
struct Part {
    writer: Writer,
    /// Of its first row in the whole input.
    row: u64,
    unreadable: u64,
}

impl Part {
    fn tag(&mut self, rows: &mut Vec<Row>, captions: &mut Captions<'_>, stop: &Stop) -> Result<(), Error> {
        for row in rows.drain(..) {
            stop.check()?;
            let key = match row.extra.into_iter().next() {
                None | Some(Value::Null) => {
                    format!("{:0DIGITS$}", self.row + u64::from(self.writer.samples()))
                }
                Some(Value::String(key)) => key,
                Some(other) => other.to_string(),
            };
            let mut caption = row.caption.unwrap_or_default();
            match row.problem {
                Some(problem) if problem.is_encoding() => captions.not_utf8 += 1,
                // What stands where the caption should be may be anything.
                Some(_) => {
                    self.unreadable += 1;
                    caption.clear();
                }
                None => {}
            }
            captions.tag(&mut self.writer, &key, caption.as_bytes())?;
        }
        Ok(())
    }
}
