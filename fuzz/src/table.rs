//! Any bytes as an input table: the first byte selects the format, the second the requested columns.

use ingest::rows::{Format, Wanted, Where, open};

use crate::scratch;

const FORMATS: [(&str, Format); 9] = [
    ("t.parquet", Format::Parquet),
    ("t.csv", Format::Csv),
    ("t.tsv", Format::Tsv),
    ("t.json", Format::Json),
    ("t.jsonl", Format::Jsonl),
    ("t.txt", Format::Txt),
    ("t.csv.gz", Format::Csv),
    ("t.jsonl.zst", Format::Jsonl),
    ("t.json.gz", Format::Json),
];
/// Maximum number of rows read, because a few bytes of a compressed file can be endless rows.
const ENOUGH: usize = 100_000;

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let [format, choice, bytes @ ..] = bytes else { return };
    let (name, format) = FORMATS[usize::from(*format) % FORMATS.len()];
    let given = |bit: u8, name: &str| (choice & (1 << bit) != 0).then(|| name.to_owned());
    let boxes = given(4, "boxes");
    let wanted = Wanted {
        place: if choice & 1 == 0 { Where::Web } else { Where::Local },
        url: given(1, "a"),
        caption: given(2, "b"),
        no_captions: choice & 0b1000 != 0,
        extra: given(5, "c").into_iter().chain(boxes.clone()).collect(),
        hash: given(6, "hash"),
        boxes,
        splits: given(7, "test").into_iter().collect(),
    };
    let file = scratch::file(name, bytes);
    let path = file.path().into();
    let Ok(mut rows) = open(&path, format, &wanted) else { return };
    assert_eq!(rows.extra().len(), wanted.extra.len());
    let mut count = 0;
    while let Ok(Some(row)) = rows.next_row() {
        assert_eq!(row.extra.len(), wanted.extra.len());
        assert!(row.caption.is_none() || rows.captioned());
        count += 1;
        if count == ENOUGH {
            return;
        }
    }
    // Skipping counts the same rows.
    if let Ok(mut again) = open(&path, format, &wanted) {
        let passed = again.skip(ENOUGH);
        assert!(passed.is_err() || passed.is_ok_and(|passed| passed >= count), "{count} rows");
    }
}
