//! Truncated and modified input tables give rows or an error, never a panic, and never an endless number of rows. (The fuzz
//! target `table` tests the same with random bytes.)

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use ingest::rows::{Format, Wanted, Where, open};

const ROWS: usize = 40;

fn wanted() -> Wanted {
    Wanted {
        place: Where::Web,
        url: None,
        caption: None,
        no_captions: false,
        extra: vec!["similarity".to_owned(), "faces".to_owned()],
        hash: Some("md5".to_owned()),
        boxes: Some("faces".to_owned()),
        splits: Vec::new(),
    }
}

/// The same rows in every format: name and bytes.
fn tables() -> Vec<(&'static str, Format, Vec<u8>)> {
    let text = |number: usize| format!("caption {number}, \"quoted\" — ünïcode");
    let url = |number: usize| format!("https://example.org/{number}.jpg");
    let boxes = "[[0.1, 0.2, 0.3, 0.4]]";
    let objects: Vec<serde_json::Value> = (0..ROWS)
        .map(|number| {
            serde_json::json!({
                "url": url(number), "caption": text(number), "similarity": 0.25, "faces": boxes, "md5": "00ff",
            })
        })
        .collect();
    let lines: String = objects.iter().map(|object| format!("{object}\n")).collect();
    let delimited = |separator: &str| {
        let names = ["url", "caption", "similarity", "faces", "md5"].join(separator);
        let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let rows: String = (0..ROWS)
            .map(|number| {
                let fields =
                    [url(number), quote(&text(number)), "0.25".to_owned(), quote(boxes), "00ff".to_owned()];
                fields.join(separator) + "\n"
            })
            .collect();
        format!("{names}\n{rows}").into_bytes()
    };
    let strings = |value: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..ROWS).map(value)))
    };
    let batch = RecordBatch::try_from_iter([
        ("url", strings(&url)),
        ("caption", strings(&text)),
        ("similarity", Arc::new(Float64Array::from(vec![0.25; ROWS])) as ArrayRef),
        ("faces", strings(&|_| boxes.to_owned())),
        ("md5", strings(&|_| "00ff".to_owned())),
    ])
    .unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    vec![
        ("t.parquet", Format::Parquet, writer.into_inner().unwrap()),
        ("t.csv", Format::Csv, delimited(",")),
        ("t.tsv", Format::Tsv, delimited("\t")),
        ("t.json", Format::Json, serde_json::to_vec(&objects).unwrap()),
        ("t.jsonl", Format::Jsonl, lines.clone().into_bytes()),
        ("t.jsonl.zst", Format::Jsonl, zstd::encode_all(lines.as_bytes(), 1).unwrap()),
    ]
}

/// Number of rows read before the end or the first error.
fn read(path: &Path, format: Format) -> Option<usize> {
    let mut rows = open(&path.into(), format, &wanted()).ok()?;
    assert_eq!(rows.extra().len(), 2);
    let mut count = 0;
    while let Ok(Some(row)) = rows.next_row() {
        assert_eq!(row.extra.len(), 2);
        count += 1;
        assert!(count <= 10 * ROWS, "{}: too many rows", path.display());
    }
    Some(count)
}

#[test]
fn damaged_tables_give_rows_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format, whole) in tables() {
        let path = folder.path().join(name);
        let check = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read(&path, format)
        };
        assert_eq!(check(&whole), Some(ROWS), "{name}");
        for length in (0..whole.len()).step_by(whole.len() / 100 + 1) {
            let rows = check(&whole[..length]);
            assert!(rows.unwrap_or(0) <= ROWS, "{name} truncated to {length} bytes");
        }
        for at in (0..whole.len()).step_by(whole.len() / 300 + 1) {
            for change in [0xff, 0x01, 0x80] {
                let mut changed = whole.clone();
                changed[at] ^= change;
                check(&changed);
            }
        }
    }
}
