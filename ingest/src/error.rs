//! The error type of this crate: what stops a run. A failure of a single sample does not stop it; it is a
//! [`Problem`](crate::problem::Problem) in the sample's row of the table.

use std::io;
use storage::{Interrupted, Location};

/// What stops a run, with the file or option it concerns.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be opened, read or written.
    #[error("{}", disk::files::io_message(path, action, source))]
    File {
        /// "read", "write", "create".
        action: &'static str,
        /// Which file.
        path: Location,
        /// The reason given by the operating system.
        source: io::Error,
    },
    /// The contents of an input are not what they should be.
    #[error("{path}: {problem}")]
    Input {
        /// Which file.
        path: Location,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A table has no such column, and the command line names it or should.
    #[error("{path} has no {wanted}; its columns are {}: {fix}", columns.join(", "))]
    Column {
        /// Which file.
        path: Location,
        /// "column of URLs", "column \"alt\"".
        wanted: String,
        /// The columns that the table has.
        columns: Vec<String>,
        /// What to do.
        fix: String,
    },
    /// The output folder holds shards of another input or other options.
    #[error("{folder} already holds another dataset ({difference}): choose another folder for --out")]
    OtherDataset {
        /// The output folder.
        folder: Location,
        /// What differs.
        difference: String,
    },
    /// A Parquet table cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Parquet {
        /// "read", "write".
        action: &'static str,
        /// Which file.
        path: Location,
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
    #[error("{0}")]
    Interrupted(#[from] Interrupted),
    /// Captions or sidecars.
    #[error(transparent)]
    Concepts(#[from] concepts::Error),
    /// Reading shards.
    #[error(transparent)]
    Loader(#[from] loader::Error),
    /// Reading or writing files that may be remote.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

impl Error {
    /// Whether the command line is wrong, rather than a file or the network.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_) | Self::Column { .. })
    }

    /// `map_err(Error::file("read", path))`.
    pub(crate) fn file(action: &'static str, path: impl Into<Location>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.into(), source }
    }

    /// `map_err(Error::parquet("write", path))`.
    pub(crate) fn parquet<E>(action: &'static str, path: impl Into<Location>) -> impl FnOnce(E) -> Self
    where
        E: Into<parquet::errors::ParquetError>,
    {
        move |source| Self::Parquet { action, path: path.into(), source: source.into() }
    }

    pub(crate) fn input(path: impl Into<Location>, problem: impl Into<String>) -> Self {
        Self::Input { path: path.into(), problem: problem.into() }
    }

    /// Ctrl-C or another signal.
    pub(crate) fn interrupted() -> Self {
        Interrupted::new("complete shards are kept, run the same command again to resume").into()
    }
}
