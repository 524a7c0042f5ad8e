//! The errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// The error type of this crate. Each message says what went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("{}", disk::files::io_message(path.display(), doing, source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The failed operation: "read" or "write".
        doing: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// A file is damaged, or does not have the expected format.
    #[error("cannot read {}: {what}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// A file cannot be encoded or written.
    #[error("cannot write {}: {what}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        what: String,
    },
    /// A sidecar does not match its shard, for example because the shard was written again.
    #[error("{}: {what}; tag the shard again", path.display())]
    Stale {
        /// The sidecar.
        path: PathBuf,
        /// How the sidecar and the shard differ.
        what: String,
    },
    /// Samples were given to the sidecar writer in the wrong order.
    #[error(
        "{}: sample {sample} ({key}) was written after sample {previous}; samples must come in tar order, each once",
        path.display()
    )]
    Order {
        /// The sidecar being written.
        path: PathBuf,
        /// Position of the sample in its shard.
        sample: u32,
        /// Its key.
        key: String,
        /// Position of the sample written before it.
        previous: u32,
    },
    /// A concept vocabulary has no names, or its file cannot be used.
    #[error("{origin}: {what}")]
    Bank {
        /// The file, or a description of where the names came from.
        origin: String,
        /// What is wrong, and what to do.
        what: &'static str,
    },
    /// A line of a text is not what it should be. The caller knows the file.
    #[error("line {number} {what}")]
    Line {
        /// Number of the line, from 1.
        number: usize,
        /// What is wrong with it.
        what: String,
    },
    /// There is no way of matching with this name.
    #[error("there is no matching {0:?}; choose one of strict, longest")]
    UnknownMatching(String),
    /// There is no tagger with this name.
    #[error("there is no tagger {0:?}; choose one of {known}", known = crate::TaggerKind::names())]
    UnknownTagger(String),
    /// The data of a tagger is missing or damaged.
    #[error("tagger {tagger}: {what}")]
    Tagger {
        /// Name of the tagger.
        tagger: String,
        /// What is wrong, and what to do.
        what: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), doing, source }
    }

    pub(crate) fn table(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::Table { path: path.to_owned(), what: what.to_string() }
    }

    pub(crate) fn write(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::Write { path: path.to_owned(), what: what.to_string() }
    }
}
