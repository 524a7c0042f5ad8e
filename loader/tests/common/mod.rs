//! Small datasets for tests.

// Each test program uses only some of this.
#![allow(dead_code)]

pub(crate) mod server;

use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use image::{ImageFormat, Rgb, RgbImage};
use loader::shards;
use loader::shards::Archive;
use loader::{Batch, CropKind, Settings};
use parquet::arrow::ArrowWriter;
use storage::Location;

/// Writes a tar.
pub(crate) struct TarFile(tar::Builder<File>);

impl TarFile {
    pub(crate) fn create(path: &Path) -> Self {
        Self(tar::Builder::new(File::create(path).unwrap()))
    }

    pub(crate) fn add(&mut self, name: &str, data: &[u8]) -> &mut Self {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        self.0.append_data(&mut header, name, data).unwrap();
        self
    }

    pub(crate) fn finish(mut self) {
        self.0.finish().unwrap();
    }
}

/// An image of one colour, which encodes shard and sample.
pub(crate) fn image_of(shard: usize, sample: usize) -> Vec<u8> {
    let colour = Rgb([shard as u8, (sample / 256) as u8, (sample % 256) as u8]);
    let mut png = Vec::new();
    RgbImage::from_pixel(8, 6, colour).write_to(&mut Cursor::new(&mut png), ImageFormat::Png).unwrap();
    png
}

pub(crate) fn key_of(shard: usize, sample: usize) -> String {
    format!("{shard:05}{sample:04}")
}

/// Writes shards with `counts` samples each, with captions; `change` may replace a sample's image.
pub(crate) fn write_shards(
    folder: &Path,
    counts: &[usize],
    change: impl Fn(usize, usize) -> Option<Vec<u8>>,
) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (shard, &count) in counts.iter().enumerate() {
        let path = folder.join(format!("{shard:05}.tar"));
        let mut tar = TarFile::create(&path);
        for sample in 0..count {
            let key = key_of(shard, sample);
            let image = change(shard, sample).unwrap_or_else(|| image_of(shard, sample));
            tar.add(&format!("{key}.png"), &image).add(
                &format!("{key}.txt"),
                format!("A photo  of sample {sample} of shard {shard}").as_bytes(),
            );
        }
        tar.finish();
        paths.push(path);
    }
    paths
}

/// The files next to a shard on this disk.
pub(crate) fn table_path(shard: &Path) -> PathBuf {
    shards::table_path(&shard.into()).as_name()
}

pub(crate) fn stats_path(shard: &Path) -> PathBuf {
    shards::stats_path(&shard.into()).as_name()
}

pub(crate) fn sidecar_path(shard: &Path) -> PathBuf {
    shards::sidecar_path(&shard.into()).as_name()
}

/// Settings with some other values.
pub(crate) fn with(mut settings: Settings, change: impl FnOnce(&mut Settings)) -> Settings {
    change(&mut settings);
    settings
}

pub(crate) fn settings<S: Into<Location>>(shards: Vec<S>, batch_size: usize) -> Settings {
    with(Settings::new(shards, batch_size), |s| {
        s.options.threads = 2;
        (s.options.size, s.options.crop) = (4, CropKind::Centre);
    })
}

/// (shard, sample) of a row, decoded from its pixels.
pub(crate) fn identity(batch: &Batch, row: usize) -> (usize, usize) {
    let pixels = batch.images.len() / batch.size;
    let pixel = &batch.images[row * pixels..][..3];
    (pixel[0].into(), usize::from(pixel[1]) * 256 + usize::from(pixel[2]))
}

/// Everything in a batch except its times.
pub(crate) fn content(batch: &Batch) -> impl PartialEq + std::fmt::Debug + use<> {
    let Batch { position, size, images, keys, samples, captions, tokens, mentions, counters, .. } =
        batch.clone();
    (position, size, images, keys, samples, captions, tokens, mentions, counters.skipped, counters.bytes)
}

/// Changes the bytes of a file.
#[allow(dead_code)]
pub(crate) fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Writes a table as `ingest` does: one row per success, with a failure before each. `shift` is added to the offsets.
pub(crate) fn write_table(shard: &Path, shift: i64) {
    let samples = Archive::open(shard).unwrap().samples().unwrap();
    let (mut keys, mut status, mut captions, mut offsets, mut lengths) =
        (vec![], vec![], vec![], vec![], vec![]);
    for sample in &samples {
        let image = sample.image().unwrap();
        keys.extend([format!("x{}", sample.key), sample.key.clone()]);
        status.extend(["failed_to_download", "success"]);
        captions.extend([None, Some(format!("from the table: {}", sample.key))]);
        offsets.extend([None, Some(image.offset as i64 + shift)]);
        lengths.extend([None, Some(image.length as i64)]);
    }
    let columns: [(&str, ArrayRef); 5] = [
        ("caption", Arc::new(StringArray::from(captions))),
        ("key", Arc::new(StringArray::from(keys))),
        ("status", Arc::new(StringArray::from(status))),
        ("offset", Arc::new(Int64Array::from(offsets))),
        ("length", Arc::new(Int64Array::from(lengths))),
    ];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(table_path(shard)).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let stats = format!("{{\"count\": {}, \"successes\": {}}}", samples.len() * 2, samples.len());
    fs::write(stats_path(shard), stats).unwrap();
}
