//! The Rust part of the Python package `simzss_data`. Everything here is what Python cannot do itself: it turns arguments into
//! those of the libraries, waits without holding the interpreter's lock, and hands results over without copying them. What a
//! Python user sees is in `python/simzss_data/`.
//!
//! From the top down, each file uses only those below it: `batches`, `samples`, `tagging`, `sidecars`, `statistics`, `loader`;
//! `bank`, `arrow`; `memory`; `waiting`; `error`. Unsafe code is in `memory` (the address of memory that Python lends) and in
//! `arrow/capsules` (the C interface of Arrow).

mod arrow;
mod bank;
mod batches;
mod error;
mod loader;
mod memory;
mod samples;
mod sidecars;
mod statistics;
mod tagging;
mod waiting;

/// What the Python files of the package import.
#[pyo3::pymodule]
mod _simzss_data {
    #[pymodule_export]
    use crate::arrow::{Array, Table};
    #[pymodule_export]
    use crate::bank::Bank;
    #[pymodule_export]
    use crate::batches::Batches;
    #[pymodule_export]
    use crate::error::Error;
    #[pymodule_export]
    use crate::loader::{Loader, list_shards};
    #[pymodule_export]
    use crate::memory::Memory;
    #[pymodule_export]
    use crate::samples::Samples;
    #[pymodule_export]
    use crate::sidecars::{read_mentions, write_sidecar};
    #[pymodule_export]
    use crate::statistics::statistics;
    #[pymodule_export]
    use crate::tagging::tag;
    #[pymodule_export]
    use crate::waiting::stop_waiting;
}
