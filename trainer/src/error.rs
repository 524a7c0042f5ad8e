//! The error type of the trainer's library.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What can go wrong. Every message says where: the file, the option or the rank.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder that does not exist.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file or folder that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file or folder that cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A weights file whose tensors are not the ones the tower needs.
    #[error("{}: {problem}", path.display())]
    Weights {
        /// The weights file.
        path: PathBuf,
        /// Which tensor, and what is wrong with it.
        problem: String,
    },
    /// An image or mask that cannot be encoded.
    #[error("cannot write {}: {source}", path.display())]
    Image {
        /// The image file.
        path: PathBuf,
        /// The encoder's reason.
        source: image::ImageError,
    },
    /// A file or folder that can be read but whose content is not what it must be.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it and how to fix it.
        problem: String,
    },
    /// A setting or command-line option whose value cannot be used. This is wrong use: see [`Error::is_wrong_use`].
    #[error("option `{name}` {problem}")]
    Setting {
        /// The setting's dotted key (`data.size`) or the option (`--size`).
        name: String,
        /// The rest of the sentence: what is wrong and what would be right.
        problem: String,
    },
    /// Other wrong use: an option is missing, or two options exclude each other. See [`Error::is_wrong_use`].
    #[error("{0}")]
    Usage(String),
    /// The user or the job scheduler stopped the work before it was finished.
    #[error("{0}")]
    Interrupted(#[from] storage::Interrupted),
    /// Any other failure, as a full sentence.
    #[error("{0}")]
    Failed(String),
    /// The loss is NaN or infinite.
    #[error(
        "step {step}: the loss is {loss}; lower optimizer.lr, or inspect the batch that begins with the samples {samples}"
    )]
    NotFinite {
        /// The optimizer step, from 1.
        step: u64,
        /// The value.
        loss: f64,
        /// Which batch it was.
        position: loader::Position,
        /// Keys of the batch's first samples.
        samples: String,
    },
    /// The processes (ranks) of a run lost the connection to each other.
    #[error("{problem}")]
    Group {
        /// Which rank, and what happened to it.
        problem: String,
    },
    /// The device cannot be used.
    #[error("device {device}: {problem}")]
    Device {
        /// The device as the user named it.
        device: String,
        /// Why it cannot be used.
        problem: String,
    },
    /// An error from reading shards or batches.
    #[error(transparent)]
    Loader(#[from] loader::Error),
    /// An error from reading or writing files that may be remote.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// An error from reading sidecars or the concept vocabulary.
    #[error(transparent)]
    Concepts(#[from] concepts::Error),
    /// libtorch returned an error.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
    /// libtorch returned an error in a function of the C++ shim.
    #[error(transparent)]
    Shim(#[from] crate::torch::ShimError),
}

impl Error {
    /// Whether the command line or the settings have to be changed. The program then ends with exit code 2 instead of 1.
    pub fn is_wrong_use(&self) -> bool {
        matches!(self, Self::Setting { .. } | Self::Usage(_))
    }

    /// The work was stopped; `left` says what was not done.
    pub(crate) fn interrupted(left: impl Into<String>) -> Self {
        storage::Interrupted::new(left).into()
    }
}

/// libtorch's messages carry a C++ stack trace after their first line.
fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Attaches the path to an I/O error while reading: `fs::read(path).map_err(reading(path))`.
pub(crate) fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| match source.kind() {
        ErrorKind::NotFound => Error::Missing { path: path.to_owned() },
        _ => Error::Read { path: path.to_owned(), source },
    }
}

/// Attaches the path to an I/O error while writing: `fs::write(path, text).map_err(writing(path))`.
pub(crate) fn writing(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Write { path: path.to_owned(), source }
}

/// Attaches the path to an error of an image encoder.
pub(crate) fn encoding(path: &Path) -> impl FnOnce(image::ImageError) -> Error + '_ {
    move |source| Error::Image { path: path.to_owned(), source }
}

/// The result type of the library.
pub type Result<T> = std::result::Result<T, Error>;
