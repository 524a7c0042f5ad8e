//! The errors of this crate.

use std::io;

use crate::Location;

/// The error type of this crate. Each message says what went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("{}", disk::files::io_message(path, doing, source))]
    Io {
        /// The file or folder.
        path: Location,
        /// The failed operation: "read", "write", "list", "create", "lock" or "remove".
        doing: &'static str,
        /// The reason. Its kind is `NotFound` for a missing file, remote or not, and `Interrupted` if the program was asked to
        /// stop.
        source: io::Error,
    },

    /// An address that cannot be used, or a folder that cannot be used for this.
    #[error("{input}: {problem}")]
    Input {
        /// The address or path as it was given.
        input: Location,
        /// Why it cannot be used, and what to do.
        problem: String,
    },

    /// A file is shorter than it should be, or became shorter while it was read.
    #[error("cannot read {path}: {problem}; download or write it again")]
    Truncated {
        /// The file.
        path: Location,
        /// Where it ends.
        problem: String,
    },

    /// A file has changed since it was opened.
    #[error("{path} {problem}")]
    Changed {
        /// The file.
        path: Location,
        /// What happened, and what to do.
        problem: String,
    },

    /// The limit of a [`Cache`](crate::Cache) is too small.
    #[error("{0}")]
    Settings(String),

    /// A thread panicked.
    #[error("the threads of the loader cannot be started, or have ended: {0}")]
    Threads(io::Error),
}

impl Error {
    /// For `map_err`: `path` cannot be read.
    pub(crate) fn read(path: impl Into<Location>) -> impl FnOnce(io::Error) -> Self {
        Self::io(path, "read")
    }

    /// For `map_err`: `path` cannot be written.
    pub(crate) fn write(path: impl Into<Location>) -> impl FnOnce(io::Error) -> Self {
        Self::io(path, "write")
    }

    /// For `map_err`: an operation on `path` failed; `doing` is its verb. An error of this crate inside an I/O error, as a
    /// [`Reader`](crate::Reader) returns it, stays as it is.
    pub(crate) fn io(path: impl Into<Location>, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| error.downcast().unwrap_or_else(|source| Self::Io { path: path.into(), doing, source })
    }

    pub(crate) fn truncated(path: &Location, problem: impl Into<String>) -> Self {
        Self::Truncated { path: path.clone(), problem: problem.into() }
    }

    pub(crate) fn input(input: &Location, problem: impl Into<String>) -> Self {
        Self::Input { input: input.clone(), problem: problem.into() }
    }
}

/// Whether an operation failed because there is no such file.
pub fn is_missing(error: &Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error, Error::Io { source, .. } if matches!(source.kind(), NotFound | NotADirectory))
}

/// Whether an operation failed because the server or the file system does not have it.
pub fn is_unsupported(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::Unsupported)
}
