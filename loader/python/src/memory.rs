//! Arrays that go to Python without a copy, and memory that Python lends.

use std::any::Any;
use std::error::Error;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use ::loader::{Allocator, ImageBuffer, Images, RowBuffer};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::waiting::Process;

/// Memory of Rust with a shape. NumPy makes an array of it without a copy (`__array_interface__`), which keeps it alive.
#[pyclass(frozen)]
pub(crate) struct Memory {
    address: usize,
    /// As NumPy writes types, such as `<i8`.
    kind: &'static str,
    shape: Vec<usize>,
    owner: Option<Box<dyn Any + Send + Sync>>,
    process: Process,
}

impl Memory {
    /// Token ids and the like.
    pub(crate) fn signed(values: Vec<i64>, shape: Vec<usize>) -> Self {
        Self::new(values.as_ptr() as usize, "<i8", shape, Box::new(values))
    }

    /// Numbers that are far below 2^31 become signed, because PyTorch has few operations for unsigned ones.
    pub(crate) fn small(values: Vec<u32>) -> Self {
        Self::new(values.as_ptr() as usize, "<i4", vec![values.len()], Box::new(values))
    }

    /// The same for numbers below 2^63.
    pub(crate) fn large(values: Vec<u64>) -> Self {
        Self::new(values.as_ptr() as usize, "<i8", vec![values.len()], Box::new(values))
    }

    pub(crate) fn images(images: Images, shape: Vec<usize>) -> Self {
        Self::new(images.as_ptr() as usize, "|u1", shape, Box::new(images))
    }

    fn new(address: usize, kind: &'static str, shape: Vec<usize>, owner: Box<dyn Any + Send + Sync>) -> Self {
        Self { address, kind, shape, owner: Some(owner), process: Process::this() }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !self.process.is_here() {
            // The pool that the memory would return to is the parent's.
            std::mem::forget(self.owner.take());
        }
    }
}

#[pymethods]
impl Memory {
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("typestr", self.kind)?;
        interface.set_item("shape", PyTuple::new(py, &self.shape)?)?;
        interface.set_item("data", (self.address, false))?;
        Ok(interface)
    }
}

/// Makes the allocator of a loader from a function of Python that takes a number of bytes and returns an object and the address of
/// its memory. What the function raises is left in `raised`.
pub(crate) fn allocator(lend: Py<PyAny>, raised: Arc<Mutex<Option<PyErr>>>) -> Allocator {
    let lend = Arc::new(lend);
    Box::new(move |_| {
        let lent: Box<dyn ImageBuffer> =
            Box::new(Lent { lend: Arc::clone(&lend), raised: Arc::clone(&raised), piece: Mutex::new(None) });
        Ok::<_, Box<dyn Error + Send + Sync>>(lent)
    })
}

/// One object of Python with memory.
struct Piece {
    owner: Py<PyAny>,
    address: usize,
}

/// The images of a batch in memory of Python. Each batch gets new memory, so that Python alone decides when it is used again:
/// PyTorch waits for copies to a GPU that are under way.
pub(crate) struct Lent {
    lend: Arc<Py<PyAny>>,
    raised: Arc<Mutex<Option<PyErr>>>,
    piece: Mutex<Option<Arc<Piece>>>,
}

struct Row {
    piece: Arc<Piece>,
    start: usize,
    bytes: usize,
}

impl AsMut<[u8]> for Row {
    #[expect(unsafe_code, reason = "memory that is known by its address")]
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: `lend` made the memory as large as all rows together, its owner lives as long as the piece, rows do not
        // overlap, and Python sees the memory only when the rows are no more.
        unsafe { slice::from_raw_parts_mut((self.piece.address + self.start) as *mut u8, self.bytes) }
    }
}

impl Lent {
    /// The object of Python that has the images.
    pub(crate) fn take(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let piece = self.piece.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(piece.owner.clone_ref(py))
    }

    fn borrow(&self, bytes: usize) -> PyResult<Arc<Piece>> {
        Python::attach(|py| {
            let (owner, address) = self.lend.bind(py).call1((bytes,))?.extract()?;
            Ok(Arc::new(Piece { owner, address }))
        })
    }
}

impl ImageBuffer for Lent {
    fn lend(&mut self, rows: usize, bytes: usize) -> Vec<Box<dyn RowBuffer>> {
        let piece = match self.borrow(rows * bytes) {
            Ok(piece) => piece,
            Err(error) => {
                *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return Vec::new();
            }
        };
        *self.piece.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&piece));
        let row = |row| Row { piece: Arc::clone(&piece), start: row * bytes, bytes };
        (0..rows).map(|number| Box::new(row(number)) as Box<dyn RowBuffer>).collect()
    }

    fn take_back(&mut self, rows: Vec<Box<dyn RowBuffer>>) {
        drop(rows);
    }

    /// Rust never reads them.
    fn bytes(&self) -> &[u8] {
        &[]
    }
}
