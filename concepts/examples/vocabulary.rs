//! Time and memory of a vocabulary from statistics at the size of LAION-400M: a billion mentions of ten million concepts, by Zipf's
//! law with the exponent of COCO's concepts.
//!
//! ```text
//! cargo run --release --example vocabulary -- make FOLDER
//! cargo run --release --example vocabulary -- read FOLDER 1000
//! ```

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use concepts::Bank;
use concepts::checksums::{Checksums, sha256, sha256_of};
use concepts::statistics::{CHECKSUMS, CONCEPTS, Mentioned, TOTALS};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

const CONCEPT_COUNT: u64 = 10_000_000;
const MENTIONS: f64 = 1e9;
const EXPONENT: f64 = 0.96;
/// Rows per row group, as of `tools stats`.
const ROWS: u64 = 122_880;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["make", folder] => make(Path::new(folder)),
        ["read", folder, times] => read(Path::new(folder), times.parse()?),
        _ => Err("usage: make FOLDER | read FOLDER TIMES".into()),
    }
}

fn make(folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let path = folder.join(CONCEPTS);
    let sum: f64 = (1..=CONCEPT_COUNT).map(|rank| (rank as f64).powf(-EXPONENT)).sum();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROWS as usize))
        .build();
    let mut writer = None;
    for first in (0..CONCEPT_COUNT).step_by(ROWS as usize) {
        let ranks = || first..(first + ROWS).min(CONCEPT_COUNT);
        // Words as long as concepts are, and in no order.
        let name = |rank: u64| format!("{:x} concept", rank.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16);
        let mentions = |rank: u64| (MENTIONS * ((rank + 1) as f64).powf(-EXPONENT) / sum).ceil() as u64;
        let counts = || Arc::new(UInt64Array::from_iter_values(ranks().map(mentions))) as ArrayRef;
        let examples = |text: &dyn Fn(u64) -> String| {
            let mut lists = ListBuilder::new(StringBuilder::new());
            for rank in ranks() {
                (0..mentions(rank).min(4))
                    .for_each(|example| lists.values().append_value(text(rank + example)));
                lists.append(true);
            }
            Arc::new(lists.finish()) as ArrayRef
        };
        let batch = RecordBatch::try_from_iter([
            ("concept", Arc::new(StringArray::from_iter_values(ranks().map(name))) as ArrayRef),
            ("mentions", counts()),
            ("samples", counts()),
            ("shards", counts()),
            ("share", Arc::new(Float64Array::from_iter_values(ranks().map(|rank| 1.0 / (rank + 1) as f64)))),
            ("example_shards", examples(&|number| format!("{:05}.tar", number % 41_408))),
            ("example_keys", examples(&|number| format!("{:09}", number * 7))),
        ])?;
        if writer.is_none() {
            let file = File::create(&path)?;
            writer = Some(ArrowWriter::try_new(file, batch.schema(), Some(properties.clone()))?);
        }
        writer.as_mut().ok_or("no file")?.write(&batch)?;
    }
    writer.ok_or("no file")?.close()?;
    let totals = format!(
        "{{\"version\": 2, \"shards\": 41408, \"samples\": 400000000, \"samples_without_mention\": 0, \"mentions\": {MENTIONS}, \
         \"concepts\": {CONCEPT_COUNT}, \"pairs\": 0}}"
    );
    fs::write(folder.join(TOTALS), &totals)?;
    let mut sums = Checksums::default();
    sums.set(TOTALS, sha256(totals.as_bytes()));
    sums.set(CONCEPTS, sha256_of(File::open(&path)?)?);
    fs::write(folder.join(CHECKSUMS), sums.text())?;
    println!("{}: {} bytes", path.display(), fs::metadata(&path)?.len());
    Ok(())
}

fn read(folder: &Path, times: u64) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let (totals, sums) = (fs::read(folder.join(TOTALS))?, fs::read(folder.join(CHECKSUMS))?);
    let concepts = File::open(folder.join(CONCEPTS))?;
    let found = Mentioned::read(folder, &totals, Some(&sums), &concepts, times)?;
    let bank = Bank::from_names(&found.names)?;
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("{} of {} concepts, {:.1?}; {peak}", bank.len(), found.totals.concepts, started.elapsed());
    Ok(())
}
