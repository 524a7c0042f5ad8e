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
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::WriterProperties;

use super::{Counts, OLDEST_VERSION, PairKey, Totals, VERSION};
use crate::Error;
use crate::checksums::{Checksums, Hashing, sha256, sha256_of};
use crate::tables::{Budget, Table, TableError, Texts};
use disk::files::{AtomicFile, write_atomic};

/// File name of the table of concepts.
pub const CONCEPTS: &str = "concepts.parquet";
/// File name of the table of pairs.
pub const PAIRS: &str = "pairs.parquet";
/// File name of the totals. Written last, so its presence means that the folder is complete.
pub const TOTALS: &str = "stats.json";
/// File name of the checksums of these three.
pub const CHECKSUMS: &str = "statistics.sha256";

/// Key of [`Totals`] as JSON in the footer of both tables, so that a copied table still says what it counts.
const FOOTER_KEY: &str = "statistics";

/// Rows per row group.
const ROW_GROUP: usize = 122_880;

impl Counts {
    /// Writes the files into an existing folder.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let footer = serde_json::to_string(&self.totals()).map_err(|e| Error::write(folder, e))?;
        let mut sums = Checksums::default();
        // Column numbers: by mentions, then by concept; by samples, then by a and b.
        sums.set(CONCEPTS, write_table(&folder.join(CONCEPTS), &footer, &[1, 0], self.concept_batches())?);
        sums.set(PAIRS, write_table(&folder.join(PAIRS), &footer, &[2, 0, 1], self.pair_batches())?);
        let path = folder.join(TOTALS);
        let json = serde_json::to_string_pretty(&self.totals()).map_err(|e| Error::write(&path, e))? + "\n";
        sums.set(TOTALS, sha256(json.as_bytes()));
        let checksums = folder.join(CHECKSUMS);
        write_atomic(&checksums, sums.text().as_bytes()).map_err(Error::io(&checksums, "write"))?;
        write_atomic(&path, json.as_bytes()).map_err(Error::io(&path, "write"))
    }

    /// Reads the statistics that [`Counts::write`] wrote. Those of earlier versions have no checksums.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let open = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map(Bytes::from).map_err(Error::io(&path, "read"))
        };
        let path = folder.join(CHECKSUMS);
        let sums = match std::fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::table(&path, error)),
        };
        Self::from_bytes(folder, [open(TOTALS)?, open(CONCEPTS)?, open(PAIRS)?], sums.as_deref())
    }

    /// The same from the bytes of [`TOTALS`], [`CONCEPTS`] and [`PAIRS`], and of [`CHECKSUMS`] if it exists; `folder` is their
    /// folder in errors.
    pub fn from_bytes(
        folder: &Path,
        [totals, concepts, pairs]: [Bytes; 3],
        sums: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let (totals, sums) = read_totals(folder, &totals, sums)?;
        for (name, bytes) in [(CONCEPTS, &concepts), (PAIRS, &pairs)] {
            check_sum(folder, name, &sha256(bytes), sums.as_ref())?;
        }
        let source = totals.source.as_ref().and_then(|source| u128::from_str_radix(source, 16).ok());
        let mut counts = Self { totals: Totals { version: VERSION, ..totals }, source, ..Self::default() };
        let path = folder.join(CONCEPTS);
        read_table(&path, concepts, |batch, budget| counts.add_concepts(batch, budget))?;
        if counts.names.len() as u64 != counts.totals.concepts {
            return Err(Error::table(&path, other_number("concepts")));
        }
        let path = folder.join(PAIRS);
        read_table(&path, pairs, |batch, _| counts.add_pairs(batch))?;
        if counts.pairs.len() as u64 != counts.totals.pairs {
            return Err(Error::table(&path, other_number("pairs")));
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

    fn add_concepts(&mut self, batch: &RecordBatch, budget: &mut Budget) -> Result<(), TableError> {
        let names = text(batch, "concept")?;
        let (mentions, samples, shards) =
            (number(batch, "mentions")?, number(batch, "samples")?, number(batch, "shards")?);
        let example_shards = lists(batch, "example_shards", budget)?;
        let example_keys = lists(batch, "example_keys", budget)?;
        for row in 0..batch.num_rows() {
            let name = names.as_string_view().value(row);
            budget.keep(name)?;
            let number = self.number(name) as usize;
            let concept = &mut self.concepts[number];
            concept.mentions = mentions.as_primitive::<UInt64Type>().value(row);
            concept.samples = samples.as_primitive::<UInt64Type>().value(row);
            concept.shards = shards.as_primitive::<UInt64Type>().value(row);
            let pairs = example_shards[row].iter().zip(&example_keys[row]);
            concept.examples = pairs.map(|(shard, key)| (shard.clone(), key.clone())).collect();
        }
        Ok(())
    }

    fn add_pairs(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        let (a, b, samples) = (text(batch, "a")?, text(batch, "b")?, number(batch, "samples")?);
        for row in 0..batch.num_rows() {
            let number = |column: &ArrayRef| {
                let name = column.as_string_view().value(row);
                let unknown = || TableError::content(format!("{name:?} is not in {CONCEPTS}"));
                self.numbers.get(name).copied().ok_or_else(unknown)
            };
            let (a, b) = (number(&a)?, number(&b)?);
            self.pairs.insert(PairKey::new(a, b), samples.as_primitive::<UInt64Type>().value(row));
        }
        Ok(())
    }
}

/// The concepts of statistics that are mentioned often enough, read without the others: memory is that of these names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mentioned {
    /// The totals of the statistics.
    pub totals: Totals,
    /// The names, sorted.
    pub names: Vec<String>,
}

impl Mentioned {
    /// Reads the concepts with at least `times` mentions from the open file of [`CONCEPTS`], and from the bytes of [`TOTALS`] and
    /// [`CHECKSUMS`]; `folder` is their folder in errors.
    pub fn read(
        folder: &Path,
        totals: &[u8],
        sums: Option<&[u8]>,
        concepts: &File,
        times: u64,
    ) -> Result<Self, Error> {
        let (totals, sums) = read_totals(folder, totals, sums)?;
        let path = folder.join(CONCEPTS);
        let found = sha256_of(concepts).map_err(Error::io(&path, "read"))?;
        check_sum(folder, CONCEPTS, &found, sums.as_ref())?;
        let file = concepts.try_clone().map_err(Error::io(&path, "read"))?;
        let (mut names, mut rows) = (Vec::new(), 0);
        let read = || -> Result<(), TableError> {
            let table = Table::open(file, Texts::Views)?;
            let mut budget = Budget::for_file(table.bytes());
            for batch in table.batches(Some(&["concept", "mentions"]), BATCH)? {
                let batch = batch?;
                let (concept, mentions) = (text(&batch, "concept")?, number(&batch, "mentions")?);
                rows += batch.num_rows() as u64;
                let mentions = mentions.as_primitive::<UInt64Type>().values();
                for (row, _) in mentions.iter().enumerate().filter(|(_, count)| **count >= times) {
                    let name = concept.as_string_view().value(row);
                    budget.keep(name)?;
                    names.push(name.to_owned());
                }
            }
            Ok(())
        };
        as_statistics(&path, read)?;
        if rows != totals.concepts {
            return Err(Error::table(&path, other_number("concepts")));
        }
        names.sort_unstable();
        Ok(Self { totals, names })
    }
}

fn other_number(of: &str) -> String {
    format!("it does not have the number of {of} in {TOTALS}; count the statistics again")
}

/// The totals and the checksums, from the bytes of their files. Statistics of [`OLDEST_VERSION`] have no checksums.
fn read_totals(
    folder: &Path,
    totals: &[u8],
    sums: Option<&[u8]>,
) -> Result<(Totals, Option<Checksums>), Error> {
    let path = folder.join(CHECKSUMS);
    let parse = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).map_err(|error| Error::table(&path, error))?;
        Checksums::parse(text).map_err(|problem| Error::table(&path, problem))
    };
    let sums = sums.map(parse).transpose()?;
    check_sum(folder, TOTALS, &sha256(totals), sums.as_ref())?;
    let path = folder.join(TOTALS);
    let totals: Totals = serde_json::from_slice(totals).map_err(|e| Error::table(&path, e))?;
    let expects_sums = totals.version > OLDEST_VERSION;
    if !(OLDEST_VERSION..=VERSION).contains(&totals.version) {
        let what = format!(
            "it has version {}, but this program reads versions {OLDEST_VERSION} to {VERSION}; count the \
             statistics again",
            totals.version
        );
        return Err(Error::table(&path, what));
    }
    if expects_sums && sums.is_none() {
        let what = format!("{CHECKSUMS} is missing next to it; count the statistics again");
        return Err(Error::table(&path, what));
    }
    Ok((totals, sums))
}

/// An error if a file with this SHA-256 is not the one that the checksums are of.
fn check_sum(folder: &Path, name: &str, sha256: &str, sums: Option<&Checksums>) -> Result<(), Error> {
    if sums.is_none_or(|sums| sums.get(name) == Some(sha256)) {
        return Ok(());
    }
    let what = format!("it does not have the checksum in {CHECKSUMS}; count the statistics again");
    Err(Error::table(&folder.join(name), what))
}

/// Writes a table whose rows are sorted by the columns `order`: by the first one descending, by the others ascending. Returns
/// its SHA-256.
fn write_table(
    path: &Path,
    footer: &str,
    order: &[i32],
    batches: impl Iterator<Item = Result<RecordBatch, arrow_schema::ArrowError>>,
) -> Result<String, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::write(path, e);
    let file = Hashing::new(AtomicFile::create(path).map_err(Error::io(path, "write"))?);
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
    let (file, sha256) = writer.into_inner().map_err(|e| failed(&e))?.finish();
    file.commit().map_err(Error::io(path, "write"))?;
    Ok(sha256)
}

/// Rows read at a time.
const BATCH: usize = 1024;

fn read_table(
    path: &Path,
    bytes: Bytes,
    mut add: impl FnMut(&RecordBatch, &mut Budget) -> Result<(), TableError>,
) -> Result<(), Error> {
    let read = || -> Result<(), TableError> {
        let table = Table::open(bytes, Texts::Views)?;
        let mut budget = Budget::for_file(table.bytes());
        for batch in table.batches(None, BATCH)? {
            add(&batch?, &mut budget)?;
        }
        Ok(())
    };
    as_statistics(path, read)
}

fn as_statistics(path: &Path, read: impl FnOnce() -> Result<(), TableError>) -> Result<(), Error> {
    read().map_err(|problem| Error::table(path, format!("it is not a table of statistics: {problem}")))
}

fn column(batch: &RecordBatch, name: &str, kind: &DataType) -> Result<ArrayRef, TableError> {
    let column = cast(column_of(batch, name)?, kind).map_err(TableError::content)?;
    if column.null_count() > 0 {
        return Err(TableError::content(format!("column {name:?} has nulls or is not {kind}")));
    }
    Ok(column)
}

fn column_of<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, TableError> {
    let none = || TableError::content(format!("it has no column {name:?}"));
    batch.column_by_name(name).ok_or_else(none)
}

fn text(batch: &RecordBatch, name: &str) -> Result<ArrayRef, TableError> {
    column(batch, name, &DataType::Utf8View)
}

fn number(batch: &RecordBatch, name: &str) -> Result<ArrayRef, TableError> {
    column(batch, name, &DataType::UInt64)
}

fn lists(batch: &RecordBatch, name: &str, budget: &mut Budget) -> Result<Vec<Vec<String>>, TableError> {
    let wrong = |what: &str| TableError::content(format!("column {name:?} {what}"));
    let lists = column_of(batch, name)?.as_list_opt::<i32>().ok_or_else(|| wrong("is not a list"))?;
    let mut rows = Vec::with_capacity(lists.len());
    for list in lists.iter() {
        let list = list.ok_or_else(|| wrong("has nulls"))?;
        let list = cast(&list, &DataType::Utf8).map_err(TableError::content)?;
        let texts = list.as_string::<i32>().iter().map(|text| {
            let text = text.unwrap_or_default();
            budget.keep(text).map(|()| text.to_owned())
        });
        rows.push(texts.collect::<Result<_, _>>()?);
    }
    Ok(rows)
}
