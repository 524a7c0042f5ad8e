//! The concept vocabulary.

use std::sync::Arc;

use concepts::sidecar::MentionRow;
use concepts::{Matching, canonical};
use pyo3::prelude::*;
use pyo3::types::PyType;
use storage::Location;

use crate::error::python;

#[pyclass(frozen, module = "simzss_data")]
pub(crate) struct Bank {
    pub(crate) bank: Arc<concepts::Bank>,
    pub(crate) matching: Matching,
}

#[pymethods]
impl Bank {
    #[new]
    #[pyo3(signature = (names, matching = "longest"))]
    fn new(names: Vec<String>, matching: &str) -> PyResult<Self> {
        let bank = Arc::new(concepts::Bank::from_names(names).map_err(python)?);
        Ok(Self { bank, matching: matching.parse().map_err(python)? })
    }

    #[staticmethod]
    #[pyo3(signature = (path, matching = "longest"))]
    fn from_file(path: std::path::PathBuf, matching: &str) -> PyResult<Self> {
        let location = Location::from(path);
        crate::waiting::check_remote([&location])?;
        let bytes = storage::read(&location).map_err(python)?;
        let bank = concepts::Bank::from_bytes(&location.as_name(), &bytes).map_err(python)?;
        Ok(Self { bank: Arc::new(bank), matching: matching.parse().map_err(python)? })
    }

    #[getter]
    fn names(&self) -> Vec<String> {
        self.bank.names().to_vec()
    }

    #[getter]
    fn matching(&self) -> String {
        self.matching.to_string()
    }

    fn __len__(&self) -> usize {
        self.bank.len()
    }

    fn __repr__(&self) -> String {
        format!("Bank({} names, matching={:?})", self.bank.len(), self.matching.to_string())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyType>, (Vec<String>, String)) {
        let this = slf.get();
        (slf.get_type(), (this.names(), this.matching()))
    }

    /// The label of a phrase, its concept and the lemma of its head; `None` if no name matches.
    #[pyo3(signature = (phrase, concept = None, head = None))]
    fn find(&self, phrase: &str, concept: Option<&str>, head: Option<&str>) -> Option<u32> {
        let phrase = canonical(phrase);
        let last = phrase.rsplit(' ').next().unwrap_or_default();
        let end = phrase.len() as u32;
        let row = MentionRow {
            key: "",
            sample: 0,
            caption: 0,
            phrase: &phrase,
            concept: concept.unwrap_or(&phrase),
            head: head.unwrap_or(last),
            phrase_span: 0..end,
            concept_span: 0..end,
            tags: "",
        };
        self.bank.find(self.matching, &row).map(|(label, _)| label)
    }
}
