//! Writing Parquet files, which appear complete or not at all.

use std::path::Path;

use anyhow::{Context, Result};
use arrow_array::RecordBatch;
use disk::files::AtomicFile;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// The bytes of a Parquet file with one record batch.
pub(crate) fn bytes(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties()))?;
    writer.write(batch)?;
    Ok(writer.into_inner()?)
}

fn properties() -> WriterProperties {
    WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build()
}

/// Writes one record batch as a Parquet file.
pub(crate) fn write(path: &Path, batch: &RecordBatch) -> Result<()> {
    let written = || -> Result<()> {
        let file = AtomicFile::create(path)?;
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties()))?;
        writer.write(batch)?;
        writer.into_inner()?.commit()?;
        Ok(())
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}
