//! Why a Parquet file cannot be used.

/// Why a Parquet file cannot be used, as part of a sentence: the caller adds the file and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// It is not a Parquet file, or it is damaged.
    #[error("{0}")]
    Damaged(String),
    /// It claims to have, or needs to be read, more than a file of its size can.
    #[error("{0}")]
    TooLarge(String),
    /// It is a sound Parquet file, but its columns, rows or footer are not what they should be.
    #[error("{0}")]
    Content(String),
}

impl TableError {
    pub(crate) fn damaged(problem: impl std::fmt::Display) -> Self {
        Self::Damaged(problem.to_string())
    }

    pub(crate) fn too_large(problem: impl Into<String>) -> Self {
        Self::TooLarge(problem.into())
    }

    pub(crate) fn content(problem: impl std::fmt::Display) -> Self {
        Self::Content(problem.to_string())
    }
}
