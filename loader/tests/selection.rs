//! Selections: only their samples are loaded, as often as their weights say, in an order that processes and resuming do not
//! change; and files that do not fit the shards are refused.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use loader::shards::selection::{self, Metadata, Rule, SelectionFile, ShardOfSelection};
use loader::shards::{Archive, Index};
use loader::{CropKind, Loader, Position, Settings};
use parquet::arrow::ArrowWriter;
use storage::Location;

use crate::common::{identity, settings, with, write_shards, write_table};

/// Writes a selection as another program would: with other types, in any order, and without metadata.
fn by_hand(path: &Path, rows: &[(&str, i64, f64)]) {
    let columns: [(&str, ArrayRef); 3] = [
        ("weight", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2)))),
        ("sample", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)))),
        ("shard", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)))),
    ];
    write_columns(path, columns.to_vec());
}

fn write_columns(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn selecting(settings: Settings, file: &Path) -> Settings {
    with(settings, |s| s.options.selection = Some(file.into()))
}

/// How often each (shard, sample) comes in an epoch.
fn times(settings: Settings, epoch: u64) -> BTreeMap<(usize, usize), usize> {
    let loader = Loader::open(settings).unwrap();
    let steps = loader.steps_per_epoch() as usize;
    let mut times = BTreeMap::new();
    for batch in loader.batches(Position { epoch, step: 0 }).take(steps) {
        let batch = batch.unwrap();
        assert!(batch.counters.skipped.is_empty());
        (0..batch.size).for_each(|row| *times.entry(identity(&batch, row)).or_default() += 1);
    }
    times
}

#[test]
fn samples_come_as_often_as_their_weights_say() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[6, 5, 4], |_, _| None);
    let file = folder.path().join("selection.parquet");
    by_hand(
        &file,
        &[
            ("00002.tar", 3, 3.0),
            ("00000.tar", 4, 1.0),
            ("00000.tar", 1, 2.0),
            ("00001", 0, 0.5),
            ("00001", 2, 0.5),
            ("00002", 0, 0.0),
        ],
    );
    let settings = selecting(settings(shards, 1), &file);
    let loader = Loader::open(settings.clone()).unwrap();
    assert_eq!((loader.samples(), loader.shard_samples()), (7, &[6, 5, 4][..]));
    let mut drawn = BTreeMap::new();
    for epoch in 0..40 {
        let mut times = times(settings.clone(), epoch);
        assert_eq!(times.values().sum::<usize>(), 7);
        assert_eq!(times.remove(&(0, 1)), Some(2));
        assert_eq!(times.remove(&(0, 4)), Some(1));
        assert_eq!(times.remove(&(2, 3)), Some(3));
        // One of the two halves.
        assert_eq!(times.len(), 1);
        *drawn.entry(*times.keys().next().unwrap()).or_insert(0) += 1;
    }
    // 20 of 40 expected, with a standard deviation of 3.2.
    assert_eq!(drawn.keys().copied().collect::<Vec<_>>(), [(1, 0), (1, 2)]);
    assert!((7..=33).contains(&drawn[&(1, 0)]), "{drawn:?}");
}

#[test]
fn ranks_and_resuming_do_not_change_the_order() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[30, 25, 40], |_, _| None);
    let file = folder.path().join("selection.parquet");
    let rows: Vec<(String, i64, f64)> = (0..95)
        .filter(|n| n % 3 != 1)
        .map(|n| {
            let (shard, sample) =
                [(0, n), (1, n - 30), (2, n - 55)][usize::from(n >= 30) + usize::from(n >= 55)];
            (format!("{shard:05}.tar"), sample, f64::from(n as u32 % 7) / 2.0)
        })
        .collect();
    by_hand(
        &file,
        &rows.iter().map(|(shard, sample, weight)| (shard.as_str(), *sample, *weight)).collect::<Vec<_>>(),
    );
    let of = |rank, world_size, from| {
        let settings = with(selecting(settings(shards.clone(), 8), &file), |s| {
            (s.options.streams, s.options.window) = (8, 5);
            (s.rank, s.world_size) = (rank, world_size);
        });
        let loader = Loader::open(settings).unwrap();
        loader.batches(from).take(20).map(|batch| batch.unwrap().keys).collect::<Vec<_>>()
    };
    let start = Position::default();
    let whole = of(0, 1, start);
    for world in [2, 4] {
        let ranks: Vec<_> = (0..world).map(|rank| of(rank, world, start)).collect();
        let joined: Vec<Vec<String>> =
            (0..20).map(|batch| ranks.iter().flat_map(|keys| keys[batch].clone()).collect()).collect();
        assert_eq!(joined, whole);
    }
    let later = of(0, 1, Position { epoch: 0, step: 7 });
    assert_eq!(later[..13], whole[7..]);
}

#[test]
fn copies_of_a_sample_have_different_crops() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[4], |_, _| {
        let gradient = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 0]));
        let mut png = std::io::Cursor::new(Vec::new());
        gradient.write_to(&mut png, image::ImageFormat::Png).unwrap();
        Some(png.into_inner())
    });
    let file = folder.path().join("selection.parquet");
    by_hand(&file, &[("00000", 2, 3.0)]);
    let settings = with(selecting(settings(shards, 3), &file), |s| {
        (s.options.crop, s.options.scale) = (CropKind::Random, [0.1, 1.0]);
    });
    let batch = Loader::open(settings).unwrap().batches(Position::default()).next().unwrap().unwrap();
    let pixels: Vec<&[u8]> = batch.images.chunks(batch.images.len() / 3).collect();
    assert!(pixels[0] != pixels[1] && pixels[1] != pixels[2] && pixels[0] != pixels[2]);
}

#[test]
fn a_file_that_does_not_fit_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[3, 4], |_, _| None);
    let file = folder.path().join("selection.parquet");
    let refused = || {
        let error = Loader::open(selecting(settings(shards.clone(), 1), &file)).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot use the selection ") && error.contains("selection.parquet"),
            "{error}"
        );
        error
    };
    for (rows, problem) in [
        (&[("00007.tar", 0, 1.0)][..], "it is of the shard 00007.tar, which is not among the shards"),
        (&[("00000.tar", 3, 1.0)], "it has sample 3 of 00000.tar, which has 3 samples, numbered from 0"),
        (&[("00000.tar", -1, 1.0)], "a value of the column sample is missing, negative or too large"),
        (&[("00000.tar", 1, 1.0), ("00000", 1, 1.0)], "00000.tar twice"),
        (&[("00000.tar", 1, -1.0)], "a weight is -1, but weights are 0 to 1000"),
        (&[("00000.tar", 1, f64::NAN)], "a weight is NaN"),
        (&[("00000.tar", 1, 2000.0)], "a weight is 2000"),
    ] {
        by_hand(&file, rows);
        let error = refused();
        assert!(error.contains(problem), "{error}");
    }
    by_hand(&file, &[("00000.tar", 1, 1.0); 8]);
    assert!(refused().contains("it has 8 rows, but the shards have only 7 samples"));
    let text = || Arc::new(StringArray::from(vec!["00000.tar"])) as ArrayRef;
    let number = || Arc::new(Int64Array::from(vec![0])) as ArrayRef;
    write_columns(&file, vec![("shard", text()), ("key", text())]);
    assert!(refused().contains("a selection has the columns shard (text), sample (an integer)"));
    write_columns(&file, vec![("shard", text()), ("sample", number()), ("score", number())]);
    assert!(refused().contains("it has a column score"));
    fs::write(&file, b"PAR1, or not").unwrap();
    refused();
    // A selection of nothing.
    by_hand(&file, &[("00000.tar", 1, 0.0)]);
    let error = Loader::open(selecting(settings(shards.clone(), 1), &file)).unwrap_err().to_string();
    assert!(error.contains("have 0 samples"), "{error}");
}

/// Two folders with shards of the same name.
#[test]
fn shards_are_told_apart_by_their_folders() {
    let folder = tempfile::tempdir().unwrap();
    let mut shards = Vec::new();
    for name in ["a", "b"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        shards.extend(write_shards(&folder.path().join(name), &[3], |_, _| None));
    }
    let locations: Vec<Location> = shards.iter().map(Location::from).collect();
    assert_eq!(selection::names(&locations), ["a/00000.tar", "b/00000.tar"]);
    let file = folder.path().join("selection.parquet");
    by_hand(&file, &[("00000.tar", 1, 1.0)]);
    let error = Loader::open(selecting(settings(shards.clone(), 1), &file)).unwrap_err().to_string();
    assert!(error.contains("with as much of their path as tells them apart"), "{error}");
    by_hand(&file, &[("b/00000.tar", 1, 1.0), ("a/00000", 2, 1.0)]);
    let loader = Loader::open(selecting(settings(shards, 2), &file)).unwrap();
    let mut samples = loader.batches(Position::default()).next().unwrap().unwrap().samples;
    samples.sort_unstable();
    assert_eq!(samples, [2, 3 + 1]);
}

#[test]
fn a_selection_knows_its_shards() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[3, 4], |_, _| None);
    for shard in &shards {
        write_table(shard, 0);
    }
    let file = folder.path().join("selection.parquet");
    let of = |shard: &Path| {
        let index = Index::load(&Archive::open(shard).unwrap()).unwrap();
        ShardOfSelection {
            shard: shard.file_name().unwrap().to_str().unwrap().to_owned(),
            samples: index.len() as u32,
            content: Some(index.identity()),
        }
    };
    let rules = vec![Rule { rule: "by hand".to_owned(), dropped: 4, kept: 3 }];
    let metadata = Metadata::new(shards.iter().map(|shard| of(shard)).collect(), rules);
    selection::write(&Location::from(&file), &metadata, [(1, 3, 1.0), (0, 2, 1.0), (1, 0, 1.0)]).unwrap();
    let mut read = Vec::new();
    let open = SelectionFile::open(&Location::from(&file), 100).unwrap();
    assert_eq!((open.rows(), open.metadata.as_ref()), (3, Some(&metadata)));
    open.visit(|run| {
        read.push((run.shard.to_owned(), run.samples.to_vec(), run.weights.to_vec()));
        Ok(())
    })
    .unwrap();
    let row = |shard: &str, sample| (shard.to_owned(), vec![sample], Vec::new());
    assert_eq!(read, [row("00001.tar", 3), row("00000.tar", 2), row("00001.tar", 0)]);

    let open = |shards: &[std::path::PathBuf]| Loader::open(selecting(settings(shards.to_vec(), 3), &file));
    let first = |loader: Loader| loader.batches(Position::default()).next().unwrap().map(|batch| batch.size);
    assert_eq!(first(open(&shards).unwrap()).unwrap(), 3);
    // A shard that it was not made from.
    fs::copy(&shards[0], folder.path().join("00002.tar")).unwrap();
    let more = [&shards[..], &[folder.path().join("00002.tar")]].concat();
    assert!(open(&more).unwrap_err().to_string().contains("it was not made from"));
    // Another shard under the same name: with another number of samples, and with the same one.
    write_shards(folder.path(), &[5], |_, _| None);
    write_table(&shards[0], 0);
    let error = open(&shards).unwrap_err().to_string();
    assert!(error.contains("it was made when ") && error.contains("had 3 samples, but it has 5"), "{error}");
    write_shards(folder.path(), &[3], |_, sample| Some(vec![0; 300 + sample]));
    write_table(&shards[0], 0);
    let error = first(open(&shards).unwrap()).unwrap_err().to_string();
    assert!(error.contains("has other samples than when the selection"), "{error}");
}

/// Such a file has hundreds of rows per byte.
#[test]
fn a_selection_of_all_samples_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = Location::from(folder.path().join("selection.parquet"));
    const SAMPLES: u32 = 1_000_000;
    let shard =
        |number: u32| ShardOfSelection { shard: format!("{number:05}.tar"), samples: SAMPLES, content: None };
    let metadata = Metadata::new(vec![shard(0), shard(1)], Vec::new());
    let rows = (0..2).flat_map(|shard| (0..SAMPLES).map(move |sample| (shard, sample, 1.0)));
    selection::write(&file, &metadata, rows).unwrap();
    assert!(storage::length(&file).unwrap() < 100_000);
    let mut next = [0; 2];
    let open = |samples| SelectionFile::open(&file, samples);
    open(2_000_000)
        .unwrap()
        .visit(|run| {
            let next = &mut next[usize::from(run.shard == "00001.tar")];
            for &sample in run.samples {
                assert_eq!(sample, *next);
                *next += 1;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(next, [SAMPLES; 2]);
    let error = open(1_999_999).unwrap_err().to_string();
    assert!(error.contains("it has 2000000 rows, but the shards have only 1999999 samples"), "{error}");
}
