//! Errors of the libraries as Python exceptions.

use std::io::ErrorKind;

use pyo3::PyErr;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyPermissionError, PyValueError};

pyo3::create_exception!(
    simzss_data,
    Error,
    pyo3::exceptions::PyException,
    "Data that is damaged, or does not belong together."
);

/// What every error of the libraries can be turned into.
pub(crate) trait IntoPython {
    fn into_python(self) -> PyErr;
}

fn io(kind: ErrorKind, message: String) -> PyErr {
    match kind {
        ErrorKind::NotFound | ErrorKind::NotADirectory => PyFileNotFoundError::new_err(message),
        ErrorKind::PermissionDenied => PyPermissionError::new_err(message),
        _ => PyOSError::new_err(message),
    }
}

impl IntoPython for storage::Error {
    fn into_python(self) -> PyErr {
        let message = self.to_string();
        match self {
            Self::Io { source, .. } => io(source.kind(), message),
            Self::Input { .. } | Self::Settings(_) => PyValueError::new_err(message),
            _ => Error::new_err(message),
        }
    }
}

impl IntoPython for concepts::Error {
    fn into_python(self) -> PyErr {
        let message = self.to_string();
        match self {
            Self::Io { source, .. } => io(source.kind(), message),
            Self::Bank { .. }
            | Self::UnknownMatching(_)
            | Self::UnknownTagger(_)
            | Self::Tagger { .. }
            | Self::Order { .. } => PyValueError::new_err(message),
            _ => Error::new_err(message),
        }
    }
}

impl IntoPython for ::loader::Error {
    fn into_python(self) -> PyErr {
        let message = self.to_string();
        match self {
            Self::Storage(error) => error.into_python(),
            Self::NoSidecar { .. } => PyFileNotFoundError::new_err(message),
            Self::Input { .. } | Self::TooFewSamples { .. } | Self::Ranks { .. } | Self::Settings(_) => {
                PyValueError::new_err(message)
            }
            _ => Error::new_err(message),
        }
    }
}

impl IntoPython for arrow_schema::ArrowError {
    fn into_python(self) -> PyErr {
        PyValueError::new_err(self.to_string())
    }
}

/// For `map_err`.
pub(crate) fn python(error: impl IntoPython) -> PyErr {
    error.into_python()
}
