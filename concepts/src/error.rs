//! What can go wrong here. Messages say what, where and what to do; paths come with them.

use std::io;
use std::path::{Path, PathBuf};

/// The error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// "read", "write", ..
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A Parquet file is broken, or is not the table it should be.
    #[error("{}: {what}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// A sidecar belongs to another state of its shard.
    #[error("{}: {what}; tag the shard again", path.display())]
    Stale {
        /// The sidecar.
        path: PathBuf,
        /// How sidecar and shard differ.
        what: String,
    },
    /// A sample was handed to the writer out of order.
    #[error("{}: sample {sample} ({key}) after sample {previous}: samples come in tar order, each once", path.display())]
    Order {
        /// The sidecar being written.
        path: PathBuf,
        /// Position of the offending sample in its shard.
        sample: u32,
        /// Its key.
        key: String,
        /// The sample before it.
        previous: u32,
    },
    /// A bank has no names, or its file is unusable.
    #[error("{origin}: {what}")]
    Bank {
        /// The file, or where the names came from.
        origin: String,
        /// What is wrong, and what to do.
        what: &'static str,
    },
    /// No tagger of that name.
    #[error("no tagger is called {0:?}; there are: {known}", known = crate::TaggerKind::names())]
    UnknownTagger(String),
    /// A tagger's data is absent or damaged.
    #[error("tagger {tagger}: {what}")]
    Tagger {
        /// Its name.
        tagger: String,
        /// What is wrong, and what to do.
        what: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, doing, source }
    }

    pub(crate) fn table(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::Table { path: path.to_owned(), what: what.to_string() }
    }
}
