//! Arrow data from and for other libraries of Python, by Arrow's C interface in capsules.

mod capsules;
mod objects;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchIterator, RecordBatchReader};
use arrow_schema::{ArrowError, DataType, Field, SchemaRef};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyList};

use crate::error::python;

pub(crate) use capsules::{chunks, offers_arrow};

/// An array.
#[pyclass(frozen, module = "simzss_data")]
pub(crate) struct Array(pub(crate) ArrayRef);

impl Array {
    fn field(&self) -> Field {
        Field::new("", self.0.data_type().clone(), true)
    }
}

#[pymethods]
impl Array {
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        capsules::schema(py, &self.field())
    }

    /// `requested_schema` may be ignored, by Arrow's rules.
    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Py<PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        drop(requested_schema);
        capsules::array(py, &self.0, &self.field())
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __repr__(&self) -> String {
        format!("<simzss_data.Array of {} x {}>", self.0.len(), self.0.data_type())
    }

    /// A column of an array of structs.
    fn __getitem__(&self, name: &str) -> PyResult<Self> {
        let column = self.0.as_struct_opt().and_then(|array| array.column_by_name(name));
        column.map(|column| Self(Arc::clone(column))).ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    fn to_pylist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        objects::list(py, &self.0)
    }
}

/// Makes the batches of a table, from the first one.
type Batches = Box<dyn Fn() -> PyResult<Box<dyn RecordBatchReader + Send>> + Send + Sync>;

/// A table, which may be read piece by piece while it is used.
#[pyclass(frozen, module = "simzss_data")]
pub(crate) struct Table {
    schema: SchemaRef,
    batches: Batches,
}

impl Table {
    pub(crate) fn streamed(schema: SchemaRef, batches: Batches) -> Self {
        Self { schema, batches }
    }

    pub(crate) fn of(batch: RecordBatch) -> Self {
        let schema = batch.schema();
        let batches = move || -> PyResult<Box<dyn RecordBatchReader + Send>> {
            let batches = [Ok::<_, ArrowError>(batch.clone())];
            Ok(Box::new(RecordBatchIterator::new(batches, batch.schema())))
        };
        Self { schema, batches: Box::new(batches) }
    }
}

#[pymethods]
impl Table {
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        capsules::schema(py, &Field::new("", DataType::Struct(self.schema.fields().clone()), false))
    }

    /// `requested_schema` may be ignored, by Arrow's rules.
    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        drop(requested_schema);
        capsules::stream(py, (self.batches)()?)
    }

    fn __repr__(&self) -> String {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        format!("<simzss_data.Table of {}>", columns.join(", "))
    }

    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// The rows as dicts.
    fn to_pylist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let rows = PyList::empty(py);
        for batch in (self.batches)()? {
            let batch = batch.map_err(python)?;
            let columns: PyResult<Vec<_>> =
                batch.columns().iter().map(|column| objects::list(py, column)).collect();
            let columns = columns?;
            for row in 0..batch.num_rows() {
                let dict = PyDict::new(py);
                for (field, column) in self.schema.fields().iter().zip(&columns) {
                    dict.set_item(field.name(), column.get_item(row)?)?;
                }
                rows.append(dict)?;
            }
        }
        Ok(rows)
    }
}
