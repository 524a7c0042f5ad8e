//! Arrow's C interface in capsules: <https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html>.

#![expect(unsafe_code, reason = "the C interface of Arrow is one of pointers")]

use std::ffi::CStr;
use std::ptr;

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type, to_ffi};
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{Array, ArrayRef, RecordBatchReader, make_array};
use arrow_schema::{ArrowError, DataType, Field};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::error::python;

const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";
const STREAM: &CStr = c"arrow_array_stream";

/// A capsule with a type.
pub(super) fn schema<'py>(py: Python<'py>, field: &Field) -> PyResult<Bound<'py, PyCapsule>> {
    PyCapsule::new_with_value(py, FFI_ArrowSchema::try_from(field).map_err(python)?, SCHEMA)
}

/// Capsules with the type and the content of an array.
pub(super) fn array<'py>(
    py: Python<'py>,
    array: &ArrayRef,
    field: &Field,
) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
    let (content, _) = to_ffi(&array.to_data()).map_err(python)?;
    Ok((schema(py, field)?, PyCapsule::new_with_value(py, content, ARRAY)?))
}

/// A capsule with batches.
pub(super) fn stream(
    py: Python<'_>,
    batches: Box<dyn RecordBatchReader + Send>,
) -> PyResult<Bound<'_, PyCapsule>> {
    PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(batches), STREAM)
}

/// Whether an object is Arrow data.
pub(crate) fn offers_arrow(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(object.hasattr("__arrow_c_array__")? || object.hasattr("__arrow_c_stream__")?)
}

/// The array of an object, or its pieces. Only the buffers' addresses are taken over, no content is copied.
pub(crate) fn chunks(object: &Bound<'_, PyAny>) -> PyResult<Vec<ArrayRef>> {
    if object.hasattr("__arrow_c_array__")? {
        let (schema, array): (Bound<'_, PyCapsule>, Bound<'_, PyCapsule>) =
            object.call_method0("__arrow_c_array__")?.extract()?;
        let (schema, array) = (pointer(&schema, SCHEMA)?, pointer(&array, ARRAY)?);
        // SAFETY: capsules of these names hold these structures, by Arrow's rules. They are moved out: what stays in the capsule
        // is marked as released.
        let (schema, array) = unsafe { (FFI_ArrowSchema::from_raw(schema), FFI_ArrowArray::from_raw(array)) };
        return Ok(vec![import(array, &type_of(&schema)?)?]);
    }
    if !object.hasattr("__arrow_c_stream__")? {
        return Err(PyTypeError::new_err("this is no Arrow data"));
    }
    let capsule: Bound<'_, PyCapsule> = object.call_method0("__arrow_c_stream__")?.extract()?;
    // SAFETY: as above.
    let stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer(&capsule, STREAM)?) };
    pieces(object.py(), stream)
}

/// Reads a stream to its end. Its functions may run code of Python, so the interpreter's lock is kept.
fn pieces(_: Python<'_>, mut stream: FFI_ArrowArrayStream) -> PyResult<Vec<ArrayRef>> {
    let (Some(get_schema), Some(get_next)) = (stream.get_schema, stream.get_next) else {
        return Err(PyValueError::new_err("the Arrow stream was read before"));
    };
    let mut schema = FFI_ArrowSchema::empty();
    // SAFETY: functions of a stream that was not released, and structures for them to fill.
    if unsafe { get_schema(&raw mut stream, &raw mut schema) } != 0 {
        return Err(failed(&mut stream));
    }
    let kind = type_of(&schema)?;
    let mut pieces = Vec::new();
    loop {
        let mut array = FFI_ArrowArray::empty();
        // SAFETY: as above.
        if unsafe { get_next(&raw mut stream, &raw mut array) } != 0 {
            return Err(failed(&mut stream));
        }
        if array.is_released() {
            return Ok(pieces);
        }
        pieces.push(import(array, &kind)?);
    }
}

fn failed(stream: &mut FFI_ArrowArrayStream) -> PyErr {
    let Some(get_last_error) = stream.get_last_error else {
        return PyValueError::new_err("the Arrow stream failed");
    };
    // SAFETY: the function of a stream that was not released; its text lives until the next call.
    let text = unsafe {
        let text = get_last_error(ptr::from_mut(stream));
        if text.is_null() { "unknown".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    PyValueError::new_err(format!("the Arrow stream failed: {text}"))
}

fn type_of(schema: &FFI_ArrowSchema) -> PyResult<DataType> {
    DataType::try_from(schema).map_err(python)
}

fn import(array: FFI_ArrowArray, kind: &DataType) -> PyResult<ArrayRef> {
    if array.is_released() {
        return Err(PyValueError::new_err("the Arrow data was taken before"));
    }
    // SAFETY: an array that was not released, of this type.
    let data = unsafe { from_ffi_and_data_type(array, kind.clone()) }.map_err(python)?;
    // Another library made it: offsets and UTF-8 are checked.
    data.validate_full().map_err(|error: ArrowError| {
        PyValueError::new_err(format!("the Arrow data is not valid: {error}"))
    })?;
    Ok(make_array(data))
}

fn pointer<T>(capsule: &Bound<'_, PyCapsule>, name: &'static CStr) -> PyResult<*mut T> {
    let pointer = capsule.pointer_checked(Some(name));
    let wrong = |_| PyTypeError::new_err(format!("the capsule has no {}", name.to_string_lossy()));
    pointer.map(|pointer| pointer.as_ptr().cast()).map_err(wrong)
}
