//! The errors that stop the loader. A single broken sample is not one: it is replaced and counted.

use std::io;

use storage::Location;

use crate::decode_error::DecodeError;

/// The error type of this crate. Each message says what went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error(transparent)]
    Storage(storage::Error),

    /// An input that cannot be used as a list of shards.
    #[error("{input}: {problem}")]
    Input {
        /// The input as it was given.
        input: Location,
        /// Why it cannot be used, and what to do.
        problem: String,
    },

    /// The tar file is damaged or truncated.
    #[error("cannot read shard {shard}: {problem}; download or write it again")]
    Archive {
        /// Path of the shard.
        shard: Location,
        /// What is damaged, and where in the tar.
        problem: String,
    },

    /// A file, mostly a shard, has changed since it was opened, or since something was computed from it.
    #[error("{path} {problem}")]
    Changed {
        /// Path or URL of the file.
        path: Location,
        /// What happened, and what to do.
        problem: String,
    },

    /// A file next to a shard (its Parquet table, `_stats.json` or sidecar) cannot be read or belongs to another shard.
    #[error("cannot use {path}: {problem}")]
    Companion {
        /// The file next to the shard.
        path: Location,
        /// What is wrong with it, and what to do.
        problem: String,
    },

    /// A concept vocabulary was given, but a shard has no sidecar with its mentions.
    #[error("shard {shard} has no sidecar {sidecar}; run `ingest tag` on its folder")]
    NoSidecar {
        /// The shard.
        shard: Location,
        /// Path at which the sidecar should be.
        sidecar: Location,
    },

    /// The sidecar cannot be read, or it was written for another shard.
    #[error("shard {shard}: {source}")]
    Sidecar {
        /// The shard.
        shard: Location,
        /// The reason.
        source: concepts::Error,
    },

    /// Sidecars count offsets in captions that another version of the rules has normalised.
    #[error(
        "{} of {of} sidecars were made when captions were normalised by other rules (version {} is needed), so their \
         offsets may be wrong: {}; run `ingest tag` on {}",
        sidecars.len(),
        concepts::CANONICAL_VERSION,
        some(sidecars),
        folders(sidecars)
    )]
    Outdated {
        /// The sidecars.
        sidecars: Vec<Location>,
        /// Number of shards in all.
        of: usize,
    },

    /// A selection cannot be read, or is not one of these shards.
    #[error("cannot use the selection {path}: {problem}")]
    Selection {
        /// Path of the selection.
        path: Location,
        /// What is wrong with it, and what to do.
        problem: String,
    },

    /// The dataset has fewer samples than one batch.
    #[error(
        "the shards, or the selection of them, have {samples} samples, fewer than one batch of {batch_size}; give more samples or a \
         smaller batch"
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
        "shard {shard}: {tries} samples in a row are broken, the last one is {key}: {cause}; run `ingest verify` to list \
         what is damaged"
    )]
    Broken {
        /// Path of the shard with the last of them.
        shard: Location,
        /// Key of the last one.
        key: String,
        /// Number of samples tried.
        tries: usize,
        /// What is wrong with the last one.
        cause: SampleError,
    },

    /// A thread of the loader panicked.
    #[error(
        "shard {shard}: a thread of the loader panicked while it {doing}: {problem}; this is an error in the program, please report it; \
         to continue, leave the shard out"
    )]
    Panicked {
        /// The shard.
        shard: Location,
        /// What the thread did, with the sample.
        doing: String,
        /// The message of the panic.
        problem: String,
    },

    /// The image buffer of a batch cannot be allocated, or has the wrong size ([`crate::ImageBuffer`]).
    #[error("cannot allocate the images of a batch: {0}")]
    Buffer(String),

    /// A thread could not be started, or all of them have ended.
    #[error("the threads of the loader cannot be started, or have ended: {0}")]
    Threads(io::Error),
}

/// What is wrong with a sample that is replaced by another one, as part of a sentence. It stops nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// The shard has no image with its key.
    #[error("it has no image")]
    NoImage,
    /// Its image cannot be decoded.
    #[error(transparent)]
    Image(#[from] DecodeError),
    /// The shard has no caption with its key.
    #[error("it has no caption (no {extension})")]
    NoCaption {
        /// Extension of the member that should hold it.
        extension: &'static str,
    },
    /// Its caption in the shard's table is null.
    #[error("its caption in the table is null")]
    NullCaption,
    /// Its caption has no words.
    #[error("its caption is empty")]
    EmptyCaption,
    /// Its caption is not UTF-8.
    #[error("its caption is not UTF-8")]
    NotUtf8,
    /// Its JSON has no caption; the text says why.
    #[error("{0}")]
    Json(String),
}

/// A file that is shorter than its index says is a damaged shard, and a cache that is too small a wrong setting.
impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::Truncated { path, problem } => Self::Archive { shard: path, problem },
            storage::Error::Changed { path, problem } => Self::Changed { path, problem },
            storage::Error::Settings(problem) => Self::Settings(problem),
            other => Self::Storage(other),
        }
    }
}

/// The first files, and how many there are besides.
fn some(files: &[Location]) -> String {
    const NAMED: usize = 5;
    let mut names: Vec<String> = files.iter().take(NAMED).map(Location::to_string).collect();
    if files.len() > NAMED {
        names.push(format!("{} more", files.len() - NAMED));
    }
    names.join(", ")
}

/// Their folders.
fn folders(files: &[Location]) -> String {
    let folder = |file: &Location| match file.parent() {
        Some(folder) if folder != Location::default() => folder.to_string(),
        _ => ".".to_owned(),
    };
    let mut folders: Vec<String> = files.iter().map(folder).collect();
    folders.dedup();
    folders.join(" and on ")
}

impl Error {
    /// For `map_err`: a file cannot be read.
    pub(crate) fn read(file: &Location) -> impl FnOnce(io::Error) -> Self {
        Self::io(file, "read")
    }

    /// For `map_err`: an operation on a file failed; `doing` is its verb.
    pub(crate) fn io(file: impl Into<Location>, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        Self::own_or(move |source| Self::Storage(storage::Error::Io { path: file.into(), doing, source }))
    }

    /// For `map_err` where a [`storage::Reader`], or a decompressor, may be below another reader: its error, or `other`.
    pub(crate) fn own_or(other: impl FnOnce(io::Error) -> Self) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            let error = match error.downcast::<Self>() {
                Ok(ours) => return ours,
                Err(error) => error,
            };
            error.downcast::<storage::Error>().map_or_else(other, Self::from)
        }
    }

    pub(crate) fn archive(shard: &Location, problem: impl Into<String>) -> Self {
        Self::Archive { shard: shard.clone(), problem: problem.into() }
    }

    pub(crate) fn companion(path: &Location, problem: impl Into<String>) -> Self {
        Self::Companion { path: path.clone(), problem: problem.into() }
    }
}
