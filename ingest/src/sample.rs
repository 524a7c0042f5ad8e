//! One sample on its way from a row of the input to a row of a shard's table.

use crate::rows::Row;

/// How an attempt at a sample ended; the first word of img2dataset's vocabulary, and one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// In the tar.
    Success,
    /// The input's row cannot be used, or its local file cannot be read.
    FailedToRead,
    /// The picture did not arrive.
    FailedToDownload,
    /// What arrived cannot be decoded, resized or encoded, or a filter turned it away.
    FailedToResize,
}

impl Status {
    /// As written in tables and per-sample JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::FailedToRead => "failed_to_read",
            Self::FailedToDownload => "failed_to_download",
            Self::FailedToResize => "failed_to_resize",
        }
    }

    /// The reverse; a name that is not known is a failed download, as in img2dataset.
    pub fn of_name(name: &str) -> Self {
        let all = [Self::Success, Self::FailedToRead, Self::FailedToResize];
        all.into_iter().find(|status| status.name() == name).unwrap_or(Self::FailedToDownload)
    }
}

/// The bytes that arrived are not those that the row speaks of.
pub(crate) const HASH_MISMATCH: &str = "hash mismatch";

/// Why a sample is not in its shard. The cause is one of few texts, so that causes can be counted: it never holds the
/// URL, an address or a number that differs from sample to sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which step failed.
    pub status: Status,
    /// What happened, in the words that `error_message` and the counts by cause use.
    pub cause: String,
}

impl Problem {
    /// The row or file cannot be read.
    pub fn read(cause: impl Into<String>) -> Self {
        Self { status: Status::FailedToRead, cause: cause.into() }
    }

    /// Whether all that is wrong is that some text is not UTF-8; the rest of the row is as it should be.
    pub fn is_encoding(&self) -> bool {
        self.status == Status::FailedToRead && self.cause.ends_with("is not UTF-8")
    }

    /// The picture did not arrive.
    pub fn download(cause: impl Into<String>) -> Self {
        Self { status: Status::FailedToDownload, cause: cause.into() }
    }

    /// The picture cannot be used.
    pub fn resize(cause: impl Into<String>) -> Self {
        Self { status: Status::FailedToResize, cause: cause.into() }
    }
}

/// An encoded picture, ready for the tar.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// Pixels, as stored.
    pub width: u32,
    /// Pixels, as stored.
    pub height: u32,
    /// Pixels before resizing, upright.
    pub original_width: u32,
    /// Pixels before resizing, upright.
    pub original_height: u32,
    /// Tags and values as one JSON text.
    pub exif: String,
    /// Of the original file's bytes, in hexadecimal; None where none is kept.
    pub hash: Option<String>,
}

/// A finished attempt.
#[derive(Debug)]
pub struct Sample {
    /// Which shard it belongs to.
    pub shard: u32,
    /// Its place in the shard's part of the input, from 0.
    pub index: u32,
    /// The input's row.
    pub row: Row,
    /// The picture, or why there is none.
    pub outcome: Result<Picture, Problem>,
}
