//! Writes and reads the statistics: two Parquet tables and a JSON file.

use std::cmp::Reverse;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, ArrayRef, Float64Array, StringArray, UInt64Array};
use arrow_cast::cast;
use arrow_schema::DataType;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::ChunkReader;

use super::{Counts, PairKey, Totals, VERSION};
use crate::Error;
use crate::files::{AtomicFile, write_atomic};

/// File name of the table of concepts.
pub const CONCEPTS: &str = "concepts.parquet";
/// File name of the table of pairs.
pub const PAIRS: &str = "pairs.parquet";
/// File name of the totals. Written last, so its presence means that the folder is complete.
pub const TOTALS: &str = "stats.json";

/// Key of [`Totals`] as JSON in the footer of both tables, so that a copied table still says what it counts.
pub const FOOTER_KEY: &str = "statistics";

/// Rows per row group.
const ROW_GROUP: usize = 122_880;

impl Counts {
    /// Writes the three files into an existing folder.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let footer = serde_json::to_string(&self.totals()).map_err(|e| Error::write(folder, e))?;
        // Column numbers: by mentions, then by concept; by samples, then by a and b.
        write_table(&folder.join(CONCEPTS), &footer, &[1, 0], self.concept_batches())?;
        write_table(&folder.join(PAIRS), &footer, &[2, 0, 1], self.pair_batches())?;
        let path = folder.join(TOTALS);
        let json = serde_json::to_string_pretty(&self.totals()).map_err(|e| Error::write(&path, e))?;
        write_atomic(&path, (json + "\n").as_bytes()).map_err(Error::io(&path, "write"))
    }

    /// Reads the statistics that [`Counts::write`] wrote.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let open = |name: &str| {
            let path = folder.join(name);
            File::open(&path).map_err(Error::io(&path, "read"))
        };
        let path = folder.join(TOTALS);
        let json = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        Self::from_chunks(folder, &json, open(CONCEPTS)?, open(PAIRS)?)
    }

    /// The same from the bytes of [`TOTALS`], [`CONCEPTS`] and [`PAIRS`]; `folder` is their folder in errors.
    pub fn from_bytes(folder: &Path, [totals, concepts, pairs]: [Bytes; 3]) -> Result<Self, Error> {
        Self::from_chunks(folder, &totals, concepts, pairs)
    }

    fn from_chunks<C: ChunkReader + 'static>(
        folder: &Path,
        totals: &[u8],
        concepts: C,
        pairs: C,
    ) -> Result<Self, Error> {
        let path = folder.join(TOTALS);
        let totals: Totals = serde_json::from_slice(totals).map_err(|e| Error::table(&path, e))?;
        if totals.version != VERSION {
            let what = format!(
                "it has version {}, but this program reads version {VERSION}; count the statistics again",
                totals.version
            );
            return Err(Error::table(&path, what));
        }
        let mut counts = Self { totals, ..Self::default() };
        let path = folder.join(CONCEPTS);
        read_table(&path, concepts, |batch| counts.add_concepts(batch))?;
        if counts.names.len() as u64 != counts.totals.concepts {
            return Err(Error::table(
                &path,
                format!("it does not have the number of concepts in {TOTALS}; count the statistics again"),
            ));
        }
        let path = folder.join(PAIRS);
        read_table(&path, pairs, |batch| counts.add_pairs(batch))?;
        if counts.pairs.len() as u64 != counts.totals.pairs {
            return Err(Error::table(
                &path,
                format!("it does not have the number of pairs in {TOTALS}; count the statistics again"),
            ));
        }
        Ok(counts)
    }

    fn concept_batches(&self) -> impl Iterator<Item = Result<RecordBatch, arrow_schema::ArrowError>> {
        let all = self.concepts();
        let samples = self.totals.samples.max(1) as f64;
        let starts: Vec<usize> = (0..all.len().max(1)).step_by(ROW_GROUP).collect();
        starts.into_iter().map(move |start| {
            let rows = &all[start..(start + ROW_GROUP).min(all.len())];
            let number = |of: fn(&super::ConceptCounts) -> u64| -> ArrayRef {
                Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(_, counts)| of(counts))))
            };
            let share = rows.iter().map(|(_, counts)| counts.samples as f64 / samples);
            let mut shards = ListBuilder::new(StringBuilder::new());
            let mut keys = ListBuilder::new(StringBuilder::new());
            for (_, counts) in rows {
                for (shard, key) in &counts.examples {
                    shards.values().append_value(shard);
                    keys.values().append_value(key);
                }
                shards.append(true);
                keys.append(true);
            }
            RecordBatch::try_from_iter([
                (
                    "concept",
                    Arc::new(StringArray::from_iter_values(rows.iter().map(|(name, _)| name))) as ArrayRef,
                ),
                ("mentions", number(|counts| counts.mentions)),
                ("samples", number(|counts| counts.samples)),
                ("shards", number(|counts| counts.shards)),
                ("share", Arc::new(Float64Array::from_iter_values(share))),
                ("example_shards", Arc::new(shards.finish())),
                ("example_keys", Arc::new(keys.finish())),
            ])
        })
    }

    fn pair_batches(&self) -> impl Iterator<Item = Result<RecordBatch, arrow_schema::ArrowError>> {
        // Names are replaced by their rank in sort order, so that millions of pairs are sorted as numbers.
        let mut by_name: Vec<u32> = (0..self.names.len() as u32).collect();
        by_name.sort_unstable_by_key(|&number| &self.names[number as usize]);
        let mut ranks = vec![0; by_name.len()];
        for (rank, &number) in (0..).zip(&by_name) {
            ranks[number as usize] = rank;
        }
        let mut all: Vec<(Reverse<u64>, u32, u32)> = Vec::with_capacity(self.pairs.len());
        for (pair, &samples) in &self.pairs {
            let (a, b) = pair.numbers();
            let (a, b): (u32, u32) = (ranks[a as usize], ranks[b as usize]);
            all.push((Reverse(samples), a.min(b), a.max(b)));
        }
        all.sort_unstable();
        let starts: Vec<usize> = (0..all.len().max(1)).step_by(ROW_GROUP).collect();
        starts.into_iter().map(move |start| {
            let rows = &all[start..(start + ROW_GROUP).min(all.len())];
            let number = |rank: u32| by_name[rank as usize] as usize;
            let name = |rank: u32| self.names[number(rank)].as_str();
            let count = |rank: u32| self.concepts[number(rank)].samples as f64;
            let pmi = rows.iter().map(|&(Reverse(samples), a, b)| {
                (samples as f64 * self.totals.samples as f64 / (count(a) * count(b))).log2()
            });
            RecordBatch::try_from_iter([
                (
                    "a",
                    Arc::new(StringArray::from_iter_values(rows.iter().map(|row| name(row.1)))) as ArrayRef,
                ),
                ("b", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| name(row.2))))),
                ("samples", Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.0.0)))),
                ("pmi", Arc::new(Float64Array::from_iter_values(pmi))),
            ])
        })
    }

    fn add_concepts(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let names = text(batch, "concept")?;
        let (mentions, samples, shards) =
            (number(batch, "mentions")?, number(batch, "samples")?, number(batch, "shards")?);
        let (example_shards, example_keys) = (lists(batch, "example_shards")?, lists(batch, "example_keys")?);
        for row in 0..batch.num_rows() {
            let number = self.number(names.as_string::<i32>().value(row)) as usize;
            let concept = &mut self.concepts[number];
            concept.mentions = mentions.as_primitive::<UInt64Type>().value(row);
            concept.samples = samples.as_primitive::<UInt64Type>().value(row);
            concept.shards = shards.as_primitive::<UInt64Type>().value(row);
            let pairs = example_shards[row].iter().zip(&example_keys[row]);
            concept.examples = pairs.map(|(shard, key)| (shard.clone(), key.clone())).collect();
        }
        Ok(())
    }

    fn add_pairs(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let (a, b, samples) = (text(batch, "a")?, text(batch, "b")?, number(batch, "samples")?);
        for row in 0..batch.num_rows() {
            let number = |column: &ArrayRef| {
                let name = column.as_string::<i32>().value(row);
                self.numbers.get(name).copied().ok_or_else(|| format!("{name:?} is not in {CONCEPTS}"))
            };
            let (a, b) = (number(&a)?, number(&b)?);
            self.pairs.insert(PairKey::new(a, b), samples.as_primitive::<UInt64Type>().value(row));
        }
        Ok(())
    }
}

/// Writes a table whose rows are sorted by the columns `order`: by the first one descending, by the others ascending.
fn write_table(
    path: &Path,
    footer: &str,
    order: &[i32],
    batches: impl Iterator<Item = Result<RecordBatch, arrow_schema::ArrowError>>,
) -> Result<(), Error> {
    let failed = |e: &dyn std::fmt::Display| Error::write(path, e);
    let file = AtomicFile::create(path).map_err(Error::io(path, "write"))?;
    let order = order.iter().enumerate().map(|(place, &column_idx)| SortingColumn {
        column_idx,
        descending: place == 0,
        nulls_first: false,
    });
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_sorting_columns(Some(order.collect()))
        .set_key_value_metadata(Some(vec![KeyValue::new(FOOTER_KEY.to_owned(), footer.to_owned())]))
        .set_created_by(concat!("concepts ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut batches = batches.peekable();
    let schema = match batches.peek() {
        Some(Ok(batch)) => batch.schema(),
        Some(Err(e)) => return Err(failed(e)),
        None => return Err(failed(&"it has no columns")),
    };
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(|e| failed(&e))?;
    for batch in batches {
        writer.write(&batch.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
    }
    writer.into_inner().map_err(|e| failed(&e))?.commit().map_err(Error::io(path, "write"))
}

fn read_table(
    path: &Path,
    chunks: impl ChunkReader + 'static,
    mut add: impl FnMut(&RecordBatch) -> Result<(), String>,
) -> Result<(), Error> {
    let failed =
        |e: &dyn std::fmt::Display| Error::table(path, format!("it is not a table of statistics: {e}"));
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(chunks).and_then(ParquetRecordBatchReaderBuilder::build);
    for batch in reader.map_err(|e| failed(&e))? {
        add(&batch.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
    }
    Ok(())
}

fn column(batch: &RecordBatch, name: &str, kind: &DataType) -> Result<ArrayRef, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("it has no column {name:?}"))?;
    let column = cast(column, kind).map_err(|e| e.to_string())?;
    if column.null_count() > 0 {
        return Err(format!("column {name:?} has nulls or is not {kind}"));
    }
    Ok(column)
}

fn text(batch: &RecordBatch, name: &str) -> Result<ArrayRef, String> {
    column(batch, name, &DataType::Utf8)
}

fn number(batch: &RecordBatch, name: &str) -> Result<ArrayRef, String> {
    column(batch, name, &DataType::UInt64)
}

fn lists(batch: &RecordBatch, name: &str) -> Result<Vec<Vec<String>>, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("it has no column {name:?}"))?;
    let lists = column.as_list_opt::<i32>().ok_or_else(|| format!("column {name:?} is not a list"))?;
    let mut rows = Vec::with_capacity(lists.len());
    for list in lists.iter() {
        let list = list.ok_or_else(|| format!("column {name:?} has nulls"))?;
        let list = cast(&list, &DataType::Utf8).map_err(|e| e.to_string())?;
        rows.push(list.as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect());
    }
    Ok(rows)
}
