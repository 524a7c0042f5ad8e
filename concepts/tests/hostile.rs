//! Parquet files that claim more than they have: an error, no panic, and no memory for what they claim.

use std::fs;
use std::sync::Arc;

use arrow_array::{ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray, UInt32Array};
use bytes::Bytes;
use concepts::sidecar::Sidecar;
use concepts::statistics::Counts;
use concepts::tables::{Table, Texts};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};

/// The most memory that this process had at a time, also reserved and not used, bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// What the test's threads may need besides.
const SLACK: u64 = 1 << 30;

/// A table with the columns of a sidecar and one mention per row, in sample 0.
fn sidecar(rows: usize, phrase: &str, samples: u64, properties: WriterPropertiesBuilder) -> Bytes {
    // Without a copy per row.
    let text = |text: &str| -> ArrayRef {
        let values = Arc::new(StringArray::from(vec![text]));
        Arc::new(DictionaryArray::new(Int32Array::from(vec![0; rows]), values))
    };
    let number = |number: usize| Arc::new(UInt32Array::from(vec![number as u32; rows])) as ArrayRef;
    let columns = [
        ("key", text("k")),
        ("sample", number(0)),
        ("phrase", text(phrase)),
        ("concept", text("x")),
        ("head", text("x")),
        ("phrase_start", number(0)),
        ("phrase_end", number(phrase.len())),
        ("concept_start", number(0)),
        ("concept_end", number(phrase.len())),
        ("tags", text("NN")),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let about = format!(
        r#"{{"version":1,"tagger":"t","tagger_hash":"0","grammar":1,"canonical":2,"shard":"0.tar","shard_bytes":10240,
        "samples":{samples},"captions_without_mention":0,"mentions":{rows}}}"#
    );
    let about = KeyValue::new("concepts".to_owned(), about);
    let properties = properties.set_key_value_metadata(Some(vec![about])).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

fn zstd() -> WriterPropertiesBuilder {
    WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()))
}

fn open(bytes: Bytes) -> Result<Sidecar, String> {
    Sidecar::from_bytes("0.concepts.parquet".as_ref(), bytes).map_err(|error| error.to_string())
}

/// 17 GB before.
#[test]
fn a_number_of_samples_takes_no_memory() {
    let before = peak();
    let opened = open(sidecar(2, "dog", u64::from(u32::MAX), zstd())).unwrap();
    let error = opened.refuse_unless_for("0.tar".as_ref(), 10_240, 2).unwrap_err().to_string();
    assert!(error.contains("was made from 4294967295 samples, but 0.tar has 2"), "{error}");
    assert_eq!((opened.mentions(0).count(), opened.mentions(u32::MAX).count()), (2, 0));
    let mut counts = Counts::new();
    counts.add_shard(&opened);
    assert_eq!(counts.totals().samples_without_mention, 4_294_967_294);
    assert!(peak() - before < SLACK, "{} bytes", peak() - before);
}

/// A text of 1 MB, which takes a few bytes compressed, in each of 4,000 rows: 4 GB if every row had its own copy.
#[test]
fn a_long_text_that_repeats_takes_its_memory_once() {
    let phrase = "x".repeat(1 << 20);
    // The limit for pages of dictionaries lets it in.
    let bytes = sidecar(4000, &phrase, 1, zstd().set_dictionary_page_size_limit(64 << 20));
    assert!(bytes.len() < 100_000, "{}", bytes.len());
    let before = peak();
    let opened = open(bytes).unwrap();
    assert_eq!(opened.mentions(0).count(), 4000);
    assert!(peak() - before < SLACK, "{} bytes", peak() - before);
}

/// Page headers, dictionaries and lists that claim gigabytes.
#[test]
fn no_claim_of_a_damaged_file_is_believed() {
    let bytes = sidecar(60, "two dogs", 1, zstd());
    let before = peak();
    let mut errors = 0;
    // Another bit of each byte, and each bit of some.
    let bits = (0..8 * bytes.len()).step_by(9);
    let flips = bits.len();
    for bit in bits {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        errors += usize::from(open(damaged.into()).is_err());
    }
    println!("{errors} of {flips} damaged files were refused");
    assert!(errors > flips / 4);
    assert!(peak() - before < SLACK, "{} bytes", peak() - before);
}

/// The data of these encodings say how much memory to reserve.
#[test]
fn text_in_differences_is_not_read() {
    for encoding in [Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY] {
        let properties = zstd().set_dictionary_enabled(false).set_column_encoding("tags".into(), encoding);
        let error = open(sidecar(3, "dog", 1, properties)).unwrap_err();
        assert!(error.contains("encoding other than PLAIN"), "{error}");
    }
}

#[test]
fn an_embedded_arrow_schema_is_not_read() {
    let bytes = sidecar(3, "dog", 1, zstd());
    let text = b"ARROW:schema";
    let key = bytes.windows(text.len()).position(|window| window == text).unwrap();
    // The text after it is the schema in base64, whose first bytes are sizes.
    let start = key + text.len() + 4;
    for at in start..start + 100 {
        let mut damaged = bytes.to_vec();
        damaged[at] = if damaged[at] == b'A' { b'/' } else { b'A' };
        assert_eq!(open(damaged.into()).unwrap().mentions(0).count(), 3, "{at}");
    }
}

#[test]
fn more_rows_than_a_file_can_have_are_refused() {
    // A column of one value per row takes a few bytes for millions of them.
    let rows = 20_000_000;
    let batch =
        RecordBatch::try_from_iter([("a", Arc::new(UInt32Array::from(vec![7; rows])) as ArrayRef)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(zstd().build())).unwrap();
    writer.write(&batch).unwrap();
    let bytes: Bytes = writer.into_inner().unwrap().into();
    assert!(bytes.len() < 100_000, "{}", bytes.len());
    let error = Table::open(bytes, Texts::Views).unwrap_err().to_string();
    assert!(error.contains("claims 20000000 rows"), "{error}");
}
