/// Why a JPEG is not decoded or encoded. The text is part of a sentence, such as "cannot read FILE: ..".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file ends too early: it has no end-of-image marker, or not all of its scans.
    #[error("a truncated JPEG")]
    Truncated,
    /// The file contradicts its format, or is of a kind that libjpeg does not decode; the text says how.
    #[error("a damaged JPEG: {0}")]
    Damaged(String),
    /// More pixels than [`Limits::pixels`](crate::Limits::pixels).
    #[error("a JPEG of {width} x {height} pixels, which is too large")]
    TooManyPixels {
        /// Columns of the stored image.
        width: u32,
        /// Rows of the stored image.
        height: u32,
    },
    /// Over [`Limits::memory`](crate::Limits::memory).
    #[error("a JPEG that is too large: decoding it takes more than {} MB", limit >> 20)]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// Over [`Limits::scans`](crate::Limits::scans).
    #[error("a JPEG that is too much work: it has more than {limit} scans")]
    TooManyScans {
        /// Number of scans.
        limit: u32,
    },
    /// Over [`Limits::work`](crate::Limits::work).
    #[error("a JPEG that is too much work: its scans visit more than {} million samples", limit / 1_000_000)]
    TooMuchWork {
        /// Number of samples.
        limit: u64,
    },
    /// The requested region has no pixels, or some outside the image.
    #[error("the requested region is outside the image")]
    Outside,
    /// The system has no memory left.
    #[error("not enough memory for a JPEG")]
    Memory,
    /// Not the pixels of an image that can be encoded.
    #[error(
        "{bytes} bytes are no image of {width} x {height} pixels that a JPEG can hold: sides of 1 to 65,500 pixels, and 1 or \
         3 bytes per pixel"
    )]
    Unencodable {
        /// Number of bytes.
        bytes: usize,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
}
