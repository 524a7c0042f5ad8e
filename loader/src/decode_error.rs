//! Why an image file is not decoded.

use std::io;

use image::ImageError;

/// Why an image file is not decoded. The text is part of a sentence, such as "cannot decode FILE: ..".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There is nothing.
    #[error("0 bytes")]
    Empty,
    /// The first bytes are those of no image format.
    #[error("not an image")]
    NotAnImage,
    /// Text that begins with `<`.
    #[error("a web page, not an image")]
    WebPage,
    /// The container of videos.
    #[error("a video, not an image")]
    Video,
    /// A format that is not read, by its name.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// A kind of the format that is not read, such as 12 bits per channel.
    #[error("unsupported variant of the file format")]
    Variant,
    /// Width or height is 0.
    #[error("an image with 0 pixels")]
    NoPixels,
    /// The file ends too early.
    #[error("the file is truncated")]
    Truncated,
    /// The file contradicts its format; the text says how.
    #[error("{0}")]
    Damaged(String),
    /// Over the budget of memory; the text says how.
    #[error("{0}")]
    TooLarge(String),
    /// Over the budget of work; the text says how.
    #[error("{0}")]
    TooMuchWork(String),
    /// The system has no memory left.
    #[error("not enough memory to decode it")]
    Memory,
    /// A region of the image was asked for that it does not have, or a row of another size; the text says which.
    #[error("{0}")]
    Resize(String),
    /// The decoder panicked.
    #[error("the image decoder panicked")]
    Panicked,
}

impl DecodeError {
    /// The kind of failure, without details, so that failures can be counted by their cause.
    pub fn kind(&self) -> String {
        match self {
            Self::Damaged(_) => "damaged".to_owned(),
            Self::TooLarge(_) => "too large".to_owned(),
            Self::TooMuchWork(_) => "too much work to decode".to_owned(),
            Self::NoPixels => "the image has no pixels".to_owned(),
            other => other.to_string(),
        }
    }

    pub(crate) fn of(error: ImageError) -> Self {
        match error {
            ImageError::Unsupported(_) => Self::Variant,
            ImageError::IoError(source) if source.kind() == io::ErrorKind::UnexpectedEof => Self::Truncated,
            ImageError::Limits(error) => Self::TooLarge(format!("an image that is too large: {error}")),
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl From<jpeg::Error> for DecodeError {
    fn from(error: jpeg::Error) -> Self {
        use jpeg::Error;
        match error {
            Error::Truncated => Self::Truncated,
            Error::TooManyPixels { .. } | Error::TooLarge { .. } => Self::TooLarge(error.to_string()),
            Error::TooManyScans { .. } | Error::TooMuchWork { .. } => Self::TooMuchWork(error.to_string()),
            Error::Memory => Self::Memory,
            _ => Self::Damaged(error.to_string()),
        }
    }
}
