//! The one error type of the trainer's library.

use std::path::{Path, PathBuf};

/// What can go wrong, with where it did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
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
    /// A picture or mask that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Image {
        /// The picture.
        path: PathBuf,
        /// What the decoder or encoder said.
        source: image::ImageError,
    },
    /// A file that can be read but does not say what it must.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it and how to mend it.
        problem: String,
    },
    /// A setting without sense: named as in the settings file.
    #[error("setting {name}: {problem}")]
    Setting {
        /// Dotted name.
        name: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The loss is no longer a number.
    #[error("step {step}: the loss is {loss}; lower optimizer.lr, or look at the samples {samples}, ..")]
    NotFinite {
        /// The optimiser step, from 1.
        step: u64,
        /// The value.
        loss: f64,
        /// Which batch it was.
        position: loader::Position,
        /// Keys of the batch's first samples.
        samples: String,
    },
    /// The processes of a run lost each other.
    #[error("{problem}")]
    Group {
        /// Which rank, and what became of it.
        problem: String,
    },
    /// The device cannot be used.
    #[error("device {device}: {problem}")]
    Device {
        /// As asked for.
        device: String,
        /// Why not.
        problem: String,
    },
    /// Shards or batches.
    #[error(transparent)]
    Loader(#[from] loader::Error),
    /// Sidecars or banks.
    #[error(transparent)]
    Concepts(#[from] concepts::Error),
    /// libtorch refused.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
    /// libtorch refused, in a function of the shim.
    #[error(transparent)]
    Shim(#[from] crate::torch::ShimError),
}

/// libtorch's messages carry a C++ stack trace after their first line.
fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Attaches the path to an I/O error: `fs::read(path).map_err(at(path))`.
pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Io { path: path.to_owned(), source }
}

/// Attaches the path to an image error.
pub(crate) fn image_at(path: &Path) -> impl FnOnce(image::ImageError) -> Error + '_ {
    move |source| Error::Image { path: path.to_owned(), source }
}

/// The library's results.
pub type Result<T> = std::result::Result<T, Error>;
