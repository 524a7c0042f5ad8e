//! The errors that stop the loader. A single broken sample is not one: it is replaced and counted.

use std::io;
use std::path::{Path, PathBuf};

/// The error type of this crate. Each message says what went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("{}", concepts::files::io_message(path, doing, source))]
    Io {
        /// The file or folder, or its URL.
        path: PathBuf,
        /// The failed operation: "read", "write" or "remove".
        doing: &'static str,
        /// The reason.
        source: io::Error,
    },

    /// An input that cannot be used as a list of shards.
    #[error("{}: {problem}", input.display())]
    Input {
        /// The input as it was given.
        input: PathBuf,
        /// Why it cannot be used, and what to do.
        problem: String,
    },

    /// The tar file is damaged or truncated.
    #[error("cannot read shard {}: {problem}; download or write it again", shard.display())]
    Archive {
        /// Path of the shard.
        shard: PathBuf,
        /// What is damaged, and where in the tar.
        problem: String,
    },

    /// A file, mostly a shard, has changed since it was opened, or since something was computed from it.
    #[error("{} {problem}", path.display())]
    Changed {
        /// Path or URL of the file.
        path: PathBuf,
        /// What happened, and what to do.
        problem: String,
    },

    /// A file next to a shard (its Parquet table, `_stats.json` or sidecar) cannot be read or belongs to another shard.
    #[error("cannot use {}: {problem}", path.display())]
    Companion {
        /// The file next to the shard.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },

    /// A concept vocabulary was given, but a shard has no sidecar with its mentions.
    #[error("shard {} has no sidecar {}; run `ingest tag` on its folder", shard.display(), sidecar.display())]
    NoSidecar {
        /// The shard.
        shard: PathBuf,
        /// Path at which the sidecar should be.
        sidecar: PathBuf,
    },

    /// The sidecar cannot be read, or it was written for another shard.
    #[error("shard {}: {source}", shard.display())]
    Sidecar {
        /// The shard.
        shard: PathBuf,
        /// The reason.
        source: concepts::Error,
    },

    /// Sidecars count offsets in captions that another version of the rules has normalised.
    #[error(
        "{} of {of} sidecars were made when captions were normalised by other rules (version {} is needed), so their \
         offsets may be wrong: {}; run `ingest tag` on {}",
        shards.len(),
        concepts::CANONICAL_VERSION,
        some(shards),
        folders(shards)
    )]
    Outdated {
        /// Their shards.
        shards: Vec<PathBuf>,
        /// Number of shards in all.
        of: usize,
    },

    /// The dataset has fewer samples than one batch.
    #[error(
        "the shards hold {samples} samples, fewer than one batch of {batch_size}; give more shards or a smaller batch"
    )]
    TooFewSamples {
        /// Number of samples in all shards.
        samples: u64,
        /// Number of samples in a global batch.
        batch_size: usize,
    },

    /// The number of ranks does not divide the number of streams.
    #[error(
        "{world_size} ranks cannot share {streams} streams evenly ({streams} is the greatest common divisor of the \
         {wanted} streams asked for and the batch size {batch_size}); choose a batch size that is a multiple of the \
         number of ranks, and a number of ranks that divides the streams"
    )]
    Ranks {
        /// Number of ranks of the run.
        world_size: usize,
        /// Number of streams in use.
        streams: usize,
        /// Number of streams asked for.
        wanted: usize,
        /// Number of samples in a global batch.
        batch_size: usize,
    },

    /// A setting is out of range, or settings contradict each other.
    #[error("{0}")]
    Settings(String),

    /// Many samples in a row are broken. The dataset is then damaged as a whole, and replacing samples would only hide
    /// it.
    #[error(
        "shard {}: {tries} samples in a row are broken, the last one is {key}: {cause}; run `ingest verify` to list \
         what is damaged",
        shard.display()
    )]
    Broken {
        /// Path of the shard with the last of them.
        shard: PathBuf,
        /// Key of the last one.
        key: String,
        /// Number of samples tried.
        tries: usize,
        /// What is wrong with the last one.
        cause: String,
    },

    /// A thread of the loader panicked.
    #[error(
        "shard {}: a thread of the loader panicked while it {doing}: {problem}; this is an error in the program, please report it; \
         to continue, leave the shard out",
        shard.display()
    )]
    Panicked {
        /// The shard.
        shard: PathBuf,
        /// What the thread did, with the sample.
        doing: String,
        /// The message of the panic.
        problem: String,
    },

    /// The image buffer of a batch cannot be allocated, or has the wrong size ([`crate::slot`]).
    #[error("cannot allocate the images of a batch: {0}")]
    Slot(String),

    /// A thread could not be started, or all of them have ended.
    #[error("the threads of the loader cannot be started, or have ended: {0}")]
    Threads(io::Error),
}

/// The sidecars of the first shards, and how many there are besides.
fn some(shards: &[PathBuf]) -> String {
    const NAMED: usize = 5;
    let mut names: Vec<String> = shards
        .iter()
        .take(NAMED)
        .map(|shard| crate::shard::sidecar_path(shard).display().to_string())
        .collect();
    if shards.len() > NAMED {
        names.push(format!("{} more", shards.len() - NAMED));
    }
    names.join(", ")
}

/// The folders of the shards.
fn folders(shards: &[PathBuf]) -> String {
    let mut folders: Vec<String> = shards
        .iter()
        .map(|shard| shard.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
        .map(|folder| folder.display().to_string())
        .collect();
    folders.dedup();
    folders.join(" and on ")
}

impl Error {
    /// For `map_err`: `path` cannot be read.
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        Self::io(path, "read")
    }

    /// For `map_err`: `path` cannot be written.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        Self::io(path, "write")
    }

    /// For `map_err`: an operation on `path` failed; `doing` is its verb.
    pub(crate) fn io<'a>(path: &'a Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self + 'a {
        Self::own_or(move |source| Self::Io { path: path.to_owned(), doing, source })
    }

    /// For `map_err` where a [`Reader`](crate::source::Reader) may be below another reader: its own error, or `other`.
    pub(crate) fn own_or<'a>(
        other: impl FnOnce(io::Error) -> Self + 'a,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |error| error.downcast().unwrap_or_else(other)
    }

    pub(crate) fn archive(shard: &Path, problem: impl Into<String>) -> Self {
        Self::Archive { shard: shard.to_owned(), problem: problem.into() }
    }

    pub(crate) fn companion(path: &Path, problem: impl Into<String>) -> Self {
        Self::Companion { path: path.to_owned(), problem: problem.into() }
    }
}
