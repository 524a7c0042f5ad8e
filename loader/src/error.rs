//! Everything that can stop the loader. A single broken sample does not: it is replaced and counted.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },

    /// A name that stands for no shard.
    #[error("{}: {problem}", input.display())]
    Input {
        /// The name as it was given.
        input: PathBuf,
        /// Why it cannot be used.
        problem: String,
    },

    /// The archive itself is damaged, or ends too early.
    #[error("shard {}: {problem}; download or write it again", shard.display())]
    Archive {
        /// The archive.
        shard: PathBuf,
        /// What is damaged, and where in the archive.
        problem: String,
    },

    /// The shard is not the one that was opened first.
    #[error("shard {}: {problem}", shard.display())]
    Changed {
        /// The archive.
        shard: PathBuf,
        /// What happened, and what to do.
        problem: &'static str,
    },

    /// A file beside the shard (table, statistics) cannot be read or speaks of another shard.
    #[error("{}: {problem}", path.display())]
    Companion {
        /// The file beside the shard.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },

    /// A bank was given, but the shard has no sidecar with its mentions.
    #[error("shard {} has no sidecar {}; run `ingest tag` on its folder", shard.display(), sidecar.display())]
    NoSidecar {
        /// The shard.
        shard: PathBuf,
        /// Where the sidecar should be.
        sidecar: PathBuf,
    },

    /// The sidecar cannot be read, or was written for another shard.
    #[error("shard {}: {source}", shard.display())]
    Sidecar {
        /// The shard.
        shard: PathBuf,
        /// The refusal.
        source: concepts::Error,
    },

    /// The set does not fill one batch.
    #[error(
        "the shards hold {samples} samples, fewer than one batch of {batch_size}; give more shards or a smaller batch"
    )]
    TooFewSamples {
        /// Samples in all shards.
        samples: u64,
        /// Samples of a global batch.
        batch_size: usize,
    },

    /// Streams cannot be dealt evenly to the ranks.
    #[error(
        "{world_size} ranks cannot share {streams} streams evenly (the greatest common divisor of the {wanted} \
         streams asked for and the batch of {batch_size}); choose a batch size that is a multiple of the ranks, \
         and ranks that divide the streams"
    )]
    Ranks {
        /// Ranks of the run.
        world_size: usize,
        /// Streams in use.
        streams: usize,
        /// Streams asked for.
        wanted: usize,
        /// Samples of a global batch.
        batch_size: usize,
    },

    /// Settings that make no sense.
    #[error("{0}")]
    Settings(String),

    /// Sample after sample of a stream is broken: the set is, and replacing would only hide it.
    #[error(
        "shard {}: all of {tries} samples in a row are broken, the last one {key}: {cause}; `ingest verify` \
         names what is damaged",
        shard.display()
    )]
    Broken {
        /// The shard of the last one.
        shard: PathBuf,
        /// Its key.
        key: String,
        /// How many were tried.
        tries: usize,
        /// Why the last one is broken.
        cause: String,
    },

    /// The consumer's memory for a batch cannot be had, or is not what was asked for.
    #[error("no memory for the images of a batch: {0}")]
    Slot(String),

    /// No thread could be started, or all have ended.
    #[error("the loader's threads cannot be started: {0}")]
    Threads(io::Error),
}

impl Error {
    /// For `map_err`: an input-output error at `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn archive(shard: &Path, problem: impl Into<String>) -> Self {
        Self::Archive { shard: shard.to_owned(), problem: problem.into() }
    }

    pub(crate) fn companion(path: &Path, problem: impl Into<String>) -> Self {
        Self::Companion { path: path.to_owned(), problem: problem.into() }
    }
}
