//! Arrow values as objects of Python, for users without a library for Arrow.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_cast::cast;
use arrow_schema::DataType;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::error::python;

/// The values; `None` for nulls.
pub(super) fn list<'py>(py: Python<'py>, array: &ArrayRef) -> PyResult<Bound<'py, PyList>> {
    match array.data_type() {
        DataType::Utf8 => PyList::new(py, array.as_string::<i32>()),
        DataType::Int32 => PyList::new(py, array.as_primitive::<Int32Type>()),
        DataType::UInt32 => PyList::new(py, array.as_primitive::<UInt32Type>()),
        DataType::UInt64 => PyList::new(py, array.as_primitive::<UInt64Type>()),
        DataType::Float64 => PyList::new(py, array.as_primitive::<Float64Type>()),
        DataType::Dictionary(_, values) => list(py, &cast(array, values).map_err(python)?),
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let values = list(py, lists.values())?;
            let result = PyList::empty(py);
            for (row, bounds) in lists.value_offsets().windows(2).enumerate() {
                if lists.is_null(row) {
                    result.append(py.None())?;
                } else {
                    result.append(values.get_slice(bounds[0] as usize, bounds[1] as usize))?;
                }
            }
            Ok(result)
        }
        DataType::Struct(fields) => {
            let columns: PyResult<Vec<_>> =
                array.as_struct().columns().iter().map(|column| list(py, column)).collect();
            let columns = columns?;
            let result = PyList::empty(py);
            for row in 0..array.len() {
                if array.is_null(row) {
                    result.append(py.None())?;
                    continue;
                }
                let dict = PyDict::new(py);
                for (field, column) in fields.iter().zip(&columns) {
                    dict.set_item(field.name(), column.get_item(row)?)?;
                }
                result.append(dict)?;
            }
            Ok(result)
        }
        other => Err(PyTypeError::new_err(format!("{other} has no equivalent in Python here"))),
    }
}
