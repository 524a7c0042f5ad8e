//! Prints rows to standard output: as a table for people, as CSV or as one JSON object per line for programs.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Seek, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::csv;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json;
use arrow::json::writer::LineDelimited;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches_with_options;
use disk::foreign_files::visible_lines;
use program::printable_json;

/// Maximum rows of a table. They are kept in memory, as the column widths depend on all of them.
const TABLE_ROWS: usize = 1000;

const SPOOL: &str = "cannot keep rows in the folder of temporary files; free some space, or set TMPDIR";

/// Output format of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, at most the first 1000 rows
    Table,
    /// Comma-separated values with a header line; lists as text
    Csv,
    /// One JSON object per line
    Json,
}

/// Prints the rows of one query.
pub(crate) struct Printer {
    format: Format,
    schema: SchemaRef,
    /// The rows kept for a table.
    kept: Vec<RecordBatch>,
    /// Where the text of the other formats waits for the last row, if it has to.
    spool: Option<File>,
    printed: Printed,
}

/// The result of printing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printed {
    pub(crate) rows: usize,
    /// False if the query has more rows than were printed.
    pub(crate) complete: bool,
}

impl Printer {
    /// With a file for the text, nothing is printed before the last row has come.
    pub(crate) fn new(format: Format, schema: SchemaRef, spool: Option<File>) -> Self {
        Self { format, schema, kept: Vec::new(), spool, printed: Printed { rows: 0, complete: true } }
    }

    /// Prints or keeps more rows; returns `Break` when no more are needed.
    pub(crate) fn print(&mut self, batch: &RecordBatch) -> Result<ControlFlow<()>> {
        let text = match self.format {
            Format::Table => {
                let room = TABLE_ROWS - self.printed.rows;
                self.kept.push(batch.slice(0, batch.num_rows().min(room)));
                self.printed.rows += batch.num_rows().min(room);
                self.printed.complete = batch.num_rows() <= room;
                return Ok(self.more());
            }
            Format::Csv => for_terminal(csv_text(batch, self.printed.rows == 0)?),
            Format::Json => printable_json(&String::from_utf8_lossy(&json_text(batch)?)).into_bytes(),
        };
        match &mut self.spool {
            Some(spool) => spool.write_all(&text).context(SPOOL)?,
            None => self.printed.complete = write(&text)?,
        }
        self.printed.rows += batch.num_rows();
        Ok(self.more())
    }

    fn more(&self) -> ControlFlow<()> {
        if self.printed.complete { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Prints what was kept.
    pub(crate) fn finish(mut self) -> Result<Printed> {
        let Printed { rows, complete } = self.printed;
        match self.format {
            Format::Table => {
                let options = FormatOptions::new().with_null("NULL");
                let kept = if rows == 0 { vec![RecordBatch::new_empty(self.schema)] } else { self.kept };
                let mut text = pretty_format_batches_with_options(&kept, &options)?.to_string();
                text += &match (rows, complete) {
                    (1, true) => "\n(1 row)\n".to_owned(),
                    (rows, true) => format!("\n({rows} rows)\n"),
                    (rows, false) => {
                        format!("\n(only the first {rows} rows; --format csv or json prints all)\n")
                    }
                };
                write(visible_lines(&text).as_bytes())?;
            }
            Format::Csv if rows == 0 => {
                write(&csv_text(&RecordBatch::new_empty(self.schema), true)?)?;
            }
            Format::Csv | Format::Json => {
                if let Some(mut spool) = self.spool.take() {
                    spool.rewind().context(SPOOL)?;
                    self.printed.complete = open(io::copy(&mut spool, &mut io::stdout().lock()))?;
                }
            }
        }
        Ok(self.printed)
    }
}

/// The values of CSV are for programs, unless a terminal would obey them.
fn for_terminal(text: Vec<u8>) -> Vec<u8> {
    if !io::stdout().is_terminal() {
        return text;
    }
    visible_lines(&String::from_utf8_lossy(&text)).into_owned().into_bytes()
}

/// Writes to standard output; returns whether the pipe is still open.
fn write(text: &[u8]) -> Result<bool> {
    open(io::stdout().lock().write_all(text))
}

/// Whether the pipe is still open, from the result of writing to it.
fn open<T>(written: io::Result<T>) -> Result<bool> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        other => Ok(other.map(|_| true)?),
    }
}

fn csv_text(batch: &RecordBatch, header: bool) -> Result<Vec<u8>, ArrowError> {
    let mut text = Vec::new();
    csv::WriterBuilder::new().with_header(header).build(&mut text).write(&flat(batch)?)?;
    Ok(text)
}

fn json_text(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer =
        json::WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

/// Converts lists and structures to text, as CSV has no nested values.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let column: ArrayRef = if field.data_type().is_nested() {
            let options = FormatOptions::new();
            let formatter = ArrayFormatter::try_new(column, &options)?;
            let text =
                (0..column.len()).map(|row| column.is_valid(row).then(|| formatter.value(row).to_string()));
            Arc::new(text.collect::<StringArray>())
        } else {
            Arc::clone(column)
        };
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
