//! The error type of this crate: what stops a run. A failure of a single sample does not stop it; it is a
//! [`Problem`](crate::problem::Problem) in the sample's row of the table.

use std::io;
use std::path::{Path, PathBuf};

/// What stops a run, with the file or option it concerns.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be opened, read or written.
    #[error("{}", file_message(action, path, source))]
    File {
        /// "read", "write", "create".
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The reason given by the operating system.
        source: io::Error,
    },
    /// The contents of an input are not what they should be.
    #[error("{}: {problem}", path.display())]
    Input {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A table has no such column, and the command line names it or should.
    #[error("{} has no {wanted}; its columns are {}: {fix}", path.display(), columns.join(", "))]
    Column {
        /// Which file.
        path: PathBuf,
        /// "column of URLs", "column \"alt\"".
        wanted: String,
        /// The columns that the table has.
        columns: Vec<String>,
        /// What to do.
        fix: String,
    },
    /// The output folder holds shards of another input or other options.
    #[error("{} already holds another dataset ({difference}): choose another folder for --out", folder.display())]
    OtherDataset {
        /// The output folder.
        folder: PathBuf,
        /// What differs.
        difference: String,
    },
    /// A Parquet table cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Parquet {
        /// "read", "write".
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The reason given by the parquet crate.
        source: parquet::errors::ParquetError,
    },
    /// Options that are missing, contradict each other or have impossible values.
    #[error("{0}")]
    Usage(String),
    /// The HTTP client cannot be created, for example because the machine has no root certificates.
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
    /// A thread of this crate panicked; its message is already on standard error.
    #[error(
        "{0} stopped because of a bug in this program; complete shards are kept. Please report the message above"
    )]
    Bug(&'static str),
    /// Ctrl-C or another signal.
    #[error("interrupted; complete shards are kept, run the same command again to resume")]
    Interrupted,
    /// Captions or sidecars.
    #[error(transparent)]
    Concepts(#[from] concepts::Error),
    /// Reading shards.
    #[error(transparent)]
    Loader(#[from] loader::Error),
}

fn file_message(action: &str, path: &Path, source: &io::Error) -> String {
    if action == "read" && source.kind() == io::ErrorKind::NotFound {
        return format!("{} does not exist", path.display());
    }
    format!("cannot {action} {}: {source}", path.display())
}

impl Error {
    /// Whether the command line is wrong, rather than a file or the network.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_) | Self::Column { .. })
    }

    /// `map_err(Error::file("read", path))`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// `map_err(Error::parquet("write", path))`.
    pub(crate) fn parquet<E>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self
    where
        E: Into<parquet::errors::ParquetError>,
    {
        let path = path.to_owned();
        move |source| Self::Parquet { action, path, source: source.into() }
    }

    pub(crate) fn input(path: &Path, problem: impl Into<String>) -> Self {
        Self::Input { path: path.to_owned(), problem: problem.into() }
    }
}

/// Whether the file does not exist (rather than being unreadable).
pub(crate) fn is_missing(error: &loader::Error) -> bool {
    matches!(error, loader::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}
