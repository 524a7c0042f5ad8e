//! `ingest tag --text`: reads one caption per line and writes one JSON object per line, in the same order, on all cores.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Condvar, Mutex, PoisonError};

use concepts::{Extractor, canonical_into};
use disk::foreign_files::without_byte_order_mark;
use program::printable_json;
use storage::Location;

use super::Totals;
use crate::error::Error;
use crate::parallel::run_parallel;

/// Bytes per read.
const READ: usize = 1 << 18;

/// Opens the input of `--text`: a file, which may be at an address, or standard input for "-".
pub fn open_text(from: &Location) -> Result<Box<dyn Read + Send>, Error> {
    if *from == Location::from("-") {
        return Ok(Box::new(io::stdin()));
    }
    crate::rows::stream(from)
}

/// Reads one caption per line and writes one JSON object per line: the canonical text (the normalised caption) and its
/// mentions. Positions are in characters (Unicode scalar values) of the canonical text; `start` and `end` are those of the
/// phrase. The lines of one read are answered before the next read, so that another program can wait for each answer.
pub fn tag_text(
    path: &Location,
    from: Box<dyn Read + Send>,
    to: impl Write + Send,
    extractor: &Extractor,
    threads: usize,
) -> Result<Totals, Error> {
    let lines = Mutex::new(Lines { from, rest: Vec::new(), number: 0 });
    let output = Mutex::new(Output { to, turn: 0, failed: false, totals: Totals::default() });
    let turn = Condvar::new();
    let terminal = io::stdout().is_terminal();
    let unwritable = Error::file("write", "standard output");
    let written = run_parallel(threads, |stop| {
        let (mut block, mut canonical, mut json) = (Vec::new(), String::new(), Vec::new());
        loop {
            stop.check()?;
            let next = lines.lock().unwrap_or_else(PoisonError::into_inner).next(&mut block);
            let Some(number) = next.map_err(Error::file("read", path))? else { return Ok(()) };
            json.clear();
            let mut counts = Totals::default();
            let mut made = Ok(());
            let text = if number == 0 { without_byte_order_mark(&block) } else { &block };
            for line in text.split_inclusive(|&byte| byte == b'\n') {
                let raw = String::from_utf8_lossy(line);
                canonical_into(&raw, &mut canonical);
                counts.captions_not_utf8 += u64::from(matches!(raw, std::borrow::Cow::Owned(_)));
                made = made.and_then(|()| write_line(&mut json, &canonical, extractor, &mut counts));
            }
            if terminal && let Ok(text) = std::str::from_utf8(&json) {
                json = printable_json(text).into_bytes();
            }
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            while output.turn != number && !output.failed {
                output = turn.wait(output).unwrap_or_else(PoisonError::into_inner);
            }
            if output.failed {
                return Ok(());
            }
            output.turn += 1;
            let written = made.and_then(|()| output.to.write_all(&json)).and_then(|()| output.to.flush());
            output.failed = written.is_err();
            turn.notify_all();
            written.map_err(Error::file("write", "standard output"))?;
            output.totals.count(&counts);
        }
    });
    written?;
    let mut output = output.into_inner().unwrap_or_else(PoisonError::into_inner);
    output.to.flush().map_err(unwritable)?;
    Ok(output.totals)
}

/// The input, cut into blocks of whole lines.
struct Lines {
    from: Box<dyn Read + Send>,
    /// The beginning of a line whose end has not been read yet.
    rest: Vec<u8>,
    number: u64,
}

impl Lines {
    /// Fills `block` with the next lines; returns its number, or None at the end.
    fn next(&mut self, block: &mut Vec<u8>) -> io::Result<Option<u64>> {
        block.clear();
        block.append(&mut self.rest);
        loop {
            let before = block.len();
            block.resize(before + READ, 0);
            let read = match self.from.read(&mut block[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    block.truncate(before);
                    continue;
                }
                read => read?,
            };
            block.truncate(before + read);
            let last_end = block[before..].iter().rposition(|&byte| byte == b'\n');
            if let Some(last) = last_end {
                self.rest.extend_from_slice(&block[before + last + 1..]);
                block.truncate(before + last + 1);
            }
            if last_end.is_some() || read == 0 && !block.is_empty() {
                self.number += 1;
                return Ok(Some(self.number - 1));
            }
            if read == 0 {
                return Ok(None);
            }
        }
    }
}

/// Restores the order of the blocks.
struct Output<W> {
    to: W,
    /// Number of the next block to write.
    turn: u64,
    failed: bool,
    totals: Totals,
}

/// Appends the line of a caption. Written without a tree of JSON values, which would take longer than the tagging.
fn write_line(to: &mut Vec<u8>, text: &str, extractor: &Extractor, counts: &mut Totals) -> io::Result<()> {
    to.extend_from_slice(b"{\"text\":");
    serde_json::to_writer(&mut *to, text)?;
    to.extend_from_slice(b",\"mentions\":[");
    let mut characters = Characters { text, byte: 0, before: 0, ascii: text.is_ascii() };
    let mut mentions = 0;
    let mut written = Ok(());
    extractor.visit(text, |mention| {
        // Positions in ascending order; phrase, concept and head end at the same place.
        let mut at = |byte| characters.before(byte);
        let (start, concept_start) = (at(mention.phrase.start), at(mention.concept_span.start));
        let (head_start, end) = (at(mention.head_span.start), at(mention.phrase.end));
        let mut mention_line = || -> io::Result<()> {
            to.extend_from_slice(if mentions == 0 { b"{\"phrase\":" } else { b",{\"phrase\":" });
            serde_json::to_writer(&mut *to, text.get(mention.phrase.clone()).unwrap_or_default())?;
            for (name, value) in [("concept", mention.concept), ("head", mention.head)] {
                write_name(to, name);
                serde_json::to_writer(&mut *to, value)?;
            }
            for (name, value) in [
                ("start", start),
                ("end", end),
                ("concept_start", concept_start),
                ("concept_end", end),
                ("head_start", head_start),
                ("head_end", end),
            ] {
                write_name(to, name);
                serde_json::to_writer(&mut *to, &value)?;
            }
            to.push(b'}');
            Ok(())
        };
        if written.is_ok() {
            written = mention_line();
        }
        mentions += 1;
    });
    to.extend_from_slice(b"]}\n");
    counts.captions += 1;
    counts.mentions += mentions;
    counts.captions_without_mention += u64::from(mentions == 0);
    written
}

fn write_name(to: &mut Vec<u8>, name: &str) {
    to.extend_from_slice(b",\"");
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(b"\":");
}

/// Counts the characters before given byte positions, which must be in ascending order.
struct Characters<'a> {
    text: &'a str,
    byte: usize,
    before: usize,
    ascii: bool,
}

impl Characters<'_> {
    fn before(&mut self, byte: usize) -> usize {
        if self.ascii {
            return byte;
        }
        self.before += self.text.get(self.byte..byte).map_or(0, |between| between.chars().count());
        self.byte = byte;
        self.before
    }
}
