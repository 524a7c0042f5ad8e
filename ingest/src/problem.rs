//! Why a sample is not in its shard.

/// The status of a sample: those of img2dataset, `failed_to_read` and `removed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The image is in the tar.
    Success,
    /// The row of the input is invalid, or its local file cannot be read.
    FailedToRead,
    /// The image could not be downloaded.
    FailedToDownload,
    /// The image cannot be decoded, resized or encoded, or a filter rejected it.
    FailedToResize,
    /// It was taken out of the shard, or was never taken, because it is not to be used. Nothing asks for it again.
    Removed,
}

impl Status {
    /// As written in tables and per-sample JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::FailedToRead => "failed_to_read",
            Self::FailedToDownload => "failed_to_download",
            Self::FailedToResize => "failed_to_resize",
            Self::Removed => "removed",
        }
    }

    /// The status with this name; an unknown name counts as a failed download, as in img2dataset.
    pub fn of_name(name: &str) -> Self {
        let all = [Self::Success, Self::FailedToRead, Self::FailedToResize, Self::Removed];
        all.into_iter().find(|status| status.name() == name).unwrap_or(Self::FailedToDownload)
    }
}

/// Cause of a row without a sample: it was removed from its shard.
pub(crate) const REMOVED: &str = "removed";

/// The same: it was on the list of a download.
pub(crate) const DENIED: &str = "on the list of --deny";

/// Cause of failure: the image file has another hash than its row says.
pub(crate) const HASH_MISMATCH: &str = "hash mismatch";

/// Why a sample is not in its shard. The cause is one of a small set of texts, so that causes can be counted: it never
/// contains a URL, an address or a number that differs between samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which step failed.
    pub status: Status,
    /// The text for `error_message` and for the counts by cause.
    pub cause: String,
}

impl Problem {
    /// The row or file cannot be read.
    pub fn read(cause: impl Into<String>) -> Self {
        Self { status: Status::FailedToRead, cause: cause.into() }
    }

    /// Whether the only problem is that some text is not UTF-8; the rest of the row is valid.
    pub fn is_encoding(&self) -> bool {
        self.status == Status::FailedToRead && self.cause.ends_with("is not UTF-8")
    }

    /// The image could not be downloaded.
    pub fn download(cause: impl Into<String>) -> Self {
        Self { status: Status::FailedToDownload, cause: cause.into() }
    }

    /// The sample is not to be used.
    pub(crate) fn removed(cause: impl Into<String>) -> Self {
        Self { status: Status::Removed, cause: cause.into() }
    }

    /// The image cannot be decoded, resized or encoded, or was rejected.
    pub fn resize(cause: impl Into<String>) -> Self {
        Self { status: Status::FailedToResize, cause: cause.into() }
    }
}
