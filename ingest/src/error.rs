//! The crate's one error: what stops a run. What goes wrong with a single sample never does; it is a
//! [`Problem`](crate::sample::Problem) in that sample's row.

use std::io;
use std::path::{Path, PathBuf};

/// What stops a run, always with the file or setting it is about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be opened, read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// "read", "write", "create".
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// An input's contents are not what its name promises.
    #[error("{}: {problem}", path.display())]
    Input {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The column that holds URLs, files or captions is not there.
    #[error("{} has no {wanted}; its columns are {}: {mend}", path.display(), columns.join(", "))]
    Column {
        /// Which file.
        path: PathBuf,
        /// "column of URLs", "column \"alt\"".
        wanted: String,
        /// The columns there are.
        columns: Vec<String>,
        /// What to do.
        mend: String,
    },
    /// The output folder holds shards of another input or other settings.
    #[error("{} already holds another set ({difference}): choose another folder for --out", folder.display())]
    AnotherSet {
        /// The output folder.
        folder: PathBuf,
        /// What differs.
        difference: String,
    },
    /// Parquet tables that cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Parquet {
        /// "read", "write".
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The parquet crate's reason.
        source: parquet::errors::ParquetError,
    },
    /// Arguments that make no sense.
    #[error("{0}")]
    Usage(String),
    /// The HTTP client cannot be made, as when the machine has no root certificates.
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
    /// A thread of our own panicked; what it said is on standard error already.
    #[error(
        "{0} stopped by a mistake in this program; finished shards are kept, please report what it said above"
    )]
    Bug(&'static str),
    /// Ctrl-C.
    #[error("stopped; finished shards are kept, run the same command again to continue")]
    Interrupted,
    /// Captions or sidecars.
    #[error(transparent)]
    Concepts(#[from] concepts::Error),
    /// Reading shards.
    #[error(transparent)]
    Loader(#[from] loader::Error),
}

impl Error {
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
