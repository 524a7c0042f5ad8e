//! Lists that users give: one text per line, or a column of a table in any format of [`rows`], or of all tables in a folder.

use storage::Location;

use crate::error::Error;
use crate::rows::{self, Format, Row, Wanted, Where};

/// Calls `each` with every row of a list: its text, in [`Row::url`], is that of the column `column`, and [`Row::extra`] has those
/// of the columns `more`. In a list without columns, which any file is whose name is not that of a table, the text is the line.
///
/// # Errors
/// The list cannot be read, is not UTF-8 somewhere, or has no such columns ([`Error::Column`]); or that of `each`.
pub(crate) fn visit(
    path: &Location,
    column: &str,
    more: &[&str],
    mut each: impl FnMut(Row) -> Result<(), Error>,
) -> Result<(), Error> {
    for (file, format) in files(path)? {
        let wanted = Wanted {
            place: Where::Web,
            url: (format != Format::Txt).then(|| column.to_owned()),
            caption: None,
            no_captions: true,
            extra: more.iter().map(|&name| name.to_owned()).collect(),
            hash: None,
            boxes: None,
            splits: Vec::new(),
        };
        let mut rows = rows::open(&file, format, &wanted).map_err(named_so)?;
        let mut number = 0u64;
        while let Some(row) = rows.next_row()? {
            number += 1;
            if let Some(problem) = &row.problem {
                return Err(Error::input(&file, format!("row {number}: {}", problem.cause)));
            }
            each(row)?;
        }
    }
    Ok(())
}

fn files(path: &Location) -> Result<Vec<(Location, Format)>, Error> {
    match Format::of(path) {
        Some(format) => Ok(vec![(path.clone(), format)]),
        None if storage::is_folder(path)? => rows::files(path, None).map_err(|error| match error {
            Error::Usage(_) => {
                Error::input(path, "has tables of several formats: give a folder with tables of one")
            }
            error => error,
        }),
        None => Ok(vec![(path.clone(), Format::Txt)]),
    }
}

fn named_so(error: Error) -> Error {
    match error {
        Error::Column { path, wanted, columns, .. } => {
            Error::Column { path, wanted, columns, fix: "name it so".to_owned() }
        }
        error => error,
    }
}

/// Whether the list is one without columns.
///
/// # Errors
/// Those of listing a folder.
pub(crate) fn is_plain(path: &Location) -> Result<bool, Error> {
    Ok(files(path)?.iter().all(|(_, format)| *format == Format::Txt))
}

/// Whether an error says that a list lacks a column.
pub(crate) fn lacks_column(error: &Error) -> bool {
    matches!(error, Error::Column { .. })
}
