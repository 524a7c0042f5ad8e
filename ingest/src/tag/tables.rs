//! `ingest tag --table`: tags the captions of tables, without images. Writes a numbered sidecar for every `--part-size` rows
//! and, when all are complete, `captions.json` ([`concepts::sidecar::Parts`]).
//!
//! A thread locks the input, reads the rows of a whole part, unlocks the input and tags the rows.

use std::fs;
use std::sync::{Mutex, PoisonError};

use concepts::Extractor;
use concepts::checksums::Checksums;
use concepts::sidecar::{CaptionCheck, CaptionChecks, Cut, Metadata, PARTS, Parts, Table, Writer};
use loader::shards;
use serde_json::Value;
use storage::Location;

use super::{Captions, Existing, SharedProgress, Totals, existing_sidecar};
use crate::dataset::staging::Staging;
use crate::dataset::{publish, sums};
use crate::error::Error;
use crate::parallel::{StopFlag, run_parallel};
use crate::rows::{self, Format, Row, Rows, Wanted};

/// Maximum number of bytes of captions that are read before tagging them. A part with more is tagged while it is read.
const READ_AHEAD: usize = 16 << 20;

/// Number of digits of a row number that is used as a key.
const DIGITS: usize = 9;

/// Tables of captions, and the folder of their sidecars.
#[derive(Debug, Clone)]
pub struct Tables {
    /// The files and their formats.
    pub files: Vec<(Location, Format)>,
    /// Which columns are needed; the first additional column, if any, holds the keys.
    pub wanted: Wanted,
    /// Folder for the sidecars.
    pub out: Location,
    /// Rows per sidecar.
    pub part_size: u32,
    /// Makes all sidecars again.
    pub force: bool,
}

/// The checksums of the sidecars and of `captions.json`.
pub(crate) const SUMS: &str = "captions.sha256";

impl Tables {
    fn cut(&self) -> Cut {
        Cut {
            part_size: self.part_size,
            caption: self.wanted.caption.clone(),
            key: self.wanted.extra.first().cloned(),
        }
    }
}

/// Writes the sidecars of the parts for whose number `owns` is true. Sidecars that match the table and the extractor are
/// kept.
pub fn tag_tables(
    tables: &Tables,
    extractor: &Extractor,
    threads: usize,
    owns: impl Fn(u32) -> bool + Sync,
) -> Result<Totals, Error> {
    prepare(&tables.out)?;
    if tables.files.len() > 1 {
        // Reports a wrong column in the last file now and not hours later.
        for (path, format) in &tables.files {
            rows::open(path, *format, &tables.wanted)?;
        }
    }
    let input = Mutex::new(Input {
        tables,
        parts: Parts::new(&extractor.description(), tables.cut()),
        open: None,
        at: 0,
        number: 0,
        row: 0,
    });
    let progress = SharedProgress::new(Totals::default());
    run_parallel(threads, |stop| work(&input, &progress, stop, extractor, &owns))?;
    let input = input.into_inner().unwrap_or_else(PoisonError::into_inner);
    if input.number == 0 {
        if let Location::Local(out) = &tables.out {
            // Fails if the folder is not empty, which is intended.
            let _ = fs::remove_dir(out);
        }
        let path = tables.files.first().map_or("input".into(), |(path, _)| path.clone());
        return Err(Error::input(path, "no rows, so there are no captions to tag"));
    }
    write_sums(&input)?;
    let path = tables.out.join(PARTS);
    let found = storage::read(&path).ok().and_then(|bytes| Parts::from_bytes(&path.as_name(), &bytes).ok());
    if found.as_ref() != Some(&input.parts) {
        storage::write(&path, input.parts.to_bytes(&path.as_name())?)?;
    }
    let beyond = tables.out.join(Parts::path("".as_ref(), input.number));
    if storage::exists(&beyond)? {
        eprintln!("{beyond}: belongs to another table than the sidecars before it; delete it");
    }
    Ok(progress.finish())
}

/// Writes the checksums of the parts that are there; other jobs may still make theirs.
fn write_sums(input: &Input<'_>) -> Result<(), Error> {
    let out = &input.tables.out;
    let mut checksums = Checksums::default();
    for number in 0..input.number {
        let part = out.join(Parts::path("".as_ref(), number));
        if storage::exists(&part)? {
            let name = part.file_name().into_owned();
            checksums.set(&name, sums::of_file(&part)?);
        }
    }
    checksums.set(PARTS, concepts::checksums::sha256(&input.parts.to_bytes(&out.join(PARTS).as_name())?));
    let path = out.join(SUMS);
    if sums::read(&path).ok().flatten().as_ref() == Some(&checksums) {
        return Ok(());
    }
    sums::write(&path, &checksums)
}

fn prepare(out: &Location) -> Result<(), Error> {
    storage::create_folder(out)?;
    for path in storage::list(out)? {
        if shards::stem(&path).is_some() {
            let problem =
                "holds shards, whose sidecars would have the same names: choose another folder for --out";
            return Err(Error::input(out, problem));
        }
    }
    publish::recover(out)
}

/// The work of one thread: one part after another, until the tables end.
fn work(
    input: &Mutex<Input<'_>>,
    progress: &SharedProgress,
    stop: &StopFlag,
    extractor: &Extractor,
    owns: &impl Fn(u32) -> bool,
) -> Result<(), Error> {
    let mut captions = Captions::new(extractor);
    let mut rows = Texts::default();
    let staging = Staging::new(&input.lock().unwrap_or_else(PoisonError::into_inner).tables.out)?;
    loop {
        stop.check()?;
        let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(metadata) = input.next_part()? else { return Ok(()) };
        let path = input.tables.out.join(Parts::path("".as_ref(), input.number));
        if !owns(input.number) {
            input.skip()?;
            continue;
        }
        let before = match existing_sidecar(&path, &metadata)? {
            Existing::Current(found) if !input.tables.force => {
                if input.compare(&path, &found, &mut rows)? {
                    progress.already_tagged(&found);
                    continue;
                }
                // The rows have been read past; they are read again.
                input.back()?;
                Existing::Stale
            }
            before => before,
        };
        let mut whole = input.read(&mut rows, 0)?;
        if rows.len() == 0 {
            continue;
        }
        let writer = Writer::create(&staging.path(&path), metadata)?;
        let mut part = Part { writer, row: input.row, unreadable: 0 };
        while !whole {
            // Too much text to hold in memory: tag it while the input is locked and the other threads wait.
            part.tag(&mut rows, &mut captions, stop)?;
            whole = input.read(&mut rows, part.writer.samples())?;
        }
        input.end_part(part.writer.samples() as usize + rows.len());
        drop(input);
        part.tag(&mut rows, &mut captions, stop)?;
        let unreadable = part.unreadable;
        let metadata = part.writer.finish()?;
        staging.deliver(&path)?;
        progress.tagged(&path, &metadata, &before, captions.take_not_utf8());
        progress.update(0, |totals| totals.unreadable_rows += unreadable);
    }
}

/// The tables, read by one thread at a time.
struct Input<'a> {
    tables: &'a Tables,
    /// The tables read so far; the last one may be open.
    parts: Parts,
    open: Option<Box<dyn Rows>>,
    /// First row of the next part in its table.
    at: usize,
    /// Number of the next part, and number of its first row in the whole input.
    number: u32,
    row: u64,
}

impl Input<'_> {
    /// The footer of the next part without its counts; None at the end. The part may turn out to have no rows.
    fn next_part(&mut self) -> Result<Option<Metadata>, Error> {
        if self.open.is_none() {
            let Some((path, format)) = self.tables.files.get(self.parts.tables.len()) else {
                return Ok(None);
            };
            self.open = Some(rows::open(path, *format, &self.tables.wanted)?);
            self.at = 0;
            let bytes = storage::length(path)?;
            let name = path.file_name().into_owned();
            self.parts.tables.push(Table { name, bytes, rows: 0 });
        }
        Ok(self.parts.tables.last().map(|table| self.parts.footer(table, self.row)))
    }

    /// Reads more rows of the part, of which `have` rows were read before. Returns whether the part is complete.
    fn read(&mut self, rows: &mut Texts, have: u32) -> Result<bool, Error> {
        let Some(open) = &mut self.open else { return Ok(true) };
        while have as usize + rows.len() < self.tables.part_size as usize {
            if rows.text.len() >= READ_AHEAD {
                return Ok(false);
            }
            let Some(row) = open.next_row()? else {
                self.open = None;
                return Ok(true);
            };
            rows.push(row);
        }
        Ok(true)
    }

    /// Whether the next part has the captions that its sidecar was made from; if so, the part is skipped. A sidecar of version
    /// 1 knows only their number.
    fn compare(&mut self, path: &Location, found: &Metadata, rows: &mut Texts) -> Result<bool, Error> {
        if found.captions.is_none() {
            let rows = self.skip()?;
            if rows == found.samples as usize {
                return Ok(true);
            }
            let problem = format!(
                "has {} captions, but the table has {rows} rows in this part: delete it and run again",
                found.samples
            );
            return Err(Error::input(path, problem));
        }
        let mut checks = CaptionChecks::default();
        loop {
            let whole = self.read(rows, checks.samples() as u32)?;
            (0..rows.len()).for_each(|row| checks.push(CaptionCheck::of(rows.caption(row).as_bytes())));
            rows.clear();
            if whole {
                break;
            }
        }
        let same = found.refuse_unless_captions(&path.as_name(), &checks).is_ok();
        if same {
            self.end_part(checks.samples() as usize);
        }
        Ok(same)
    }

    /// Goes back to the first row of the next part.
    fn back(&mut self) -> Result<(), Error> {
        let table = self.parts.tables.len().checked_sub(1).and_then(|last| self.tables.files.get(last));
        let Some((path, format)) = table else { return Ok(()) };
        let mut open = rows::open(path, *format, &self.tables.wanted)?;
        open.skip(self.at)?;
        self.open = Some(open);
        Ok(())
    }

    /// Skips a part; returns the number of its rows.
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
        self.at += rows;
        self.number += u32::from(rows > 0);
    }
}

/// The captions of rows that were read, in one text: a row with all of its fields takes several times the memory.
#[derive(Default)]
struct Texts {
    text: String,
    rows: Vec<TextRow>,
}

struct TextRow {
    /// Where its caption ends.
    end: usize,
    /// If the table has a column of keys, and a key in this row.
    key: Option<String>,
    fault: Option<Fault>,
}

impl Texts {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn push(&mut self, row: Row) {
        let kind = |encoding| if encoding { Fault::NotUtf8 } else { Fault::Unreadable };
        let fault = row.problem.map(|problem| kind(problem.is_encoding()));
        // The caption of an invalid row may be any text.
        if fault != Some(Fault::Unreadable) {
            self.text.push_str(&row.caption.unwrap_or_default());
        }
        let key = row.extra.into_iter().next().and_then(|key| match key {
            Value::Null => None,
            Value::String(key) => Some(key),
            other => Some(other.to_string()),
        });
        self.rows.push(TextRow { end: self.text.len(), key, fault });
    }

    /// The caption of a row as it is tagged.
    fn caption(&self, row: usize) -> &str {
        let start = row.checked_sub(1).map_or(0, |before| self.rows[before].end);
        &self.text[start..self.rows[row].end]
    }

    fn clear(&mut self) {
        self.text.clear();
        self.rows.clear();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    NotUtf8,
    Unreadable,
}

/// A sidecar that is being written.
struct Part {
    writer: Writer,
    /// Number of its first row in the whole input.
    row: u64,
    unreadable: u64,
}

impl Part {
    /// Tags the captions, and removes them.
    fn tag(&mut self, rows: &mut Texts, captions: &mut Captions<'_>, stop: &StopFlag) -> Result<(), Error> {
        for (row, TextRow { key, fault, .. }) in rows.rows.iter().enumerate() {
            stop.check()?;
            match fault {
                Some(Fault::NotUtf8) => captions.not_utf8 += 1,
                Some(Fault::Unreadable) => self.unreadable += 1,
                None => {}
            }
            let mut digits = Digits::default();
            let key = match key {
                Some(key) => key,
                None => digits.of(self.row + u64::from(self.writer.samples())),
            };
            captions.tag_text(&mut self.writer, key, rows.caption(row))?;
        }
        rows.clear();
        Ok(())
    }
}

/// The digits of a number, at least [`DIGITS`]; `format!` takes as long as tagging a word.
#[derive(Default)]
struct Digits([u8; 20]);

impl Digits {
    fn of(&mut self, mut number: u64) -> &str {
        let (mut start, least) = (self.0.len(), self.0.len() - DIGITS);
        while number > 0 || start > least {
            start -= 1;
            self.0[start] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        std::str::from_utf8(&self.0[start..]).unwrap_or_default()
    }
}
