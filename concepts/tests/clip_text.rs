//! Compares canonical text and token ids with CLIP's own Python code (`tests/fixtures/text/make.py`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use arrow_array::Array;
use arrow_array::cast::AsArray;
use concepts::{Tokenizer, canonical};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn fixture() -> Value {
    serde_json::from_str(include_str!("../../tests/fixtures/text/captions.json")).unwrap()
}

/// A file of the real data next to the checkout, if it exists.
fn real(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(path);
    if !path.exists() {
        println!("skipped: {} does not exist", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn every_case_is_as_in_python() {
    let tokenizer = Tokenizer::clip();
    for case in fixture()["cases"].as_array().unwrap() {
        let text = canonical(case["raw"].as_str().unwrap());
        assert_eq!(text, case["canonical"].as_str().unwrap(), "{}", case["raw"]);
        let ids: Vec<u32> = tokenizer.encode(&text, 77).ids.into_iter().filter(|id| *id > 0).collect();
        let wanted: Vec<u32> =
            case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(ids, wanted, "{text:?}");
    }
}

fn check(name: &str, captions: &[String]) {
    let tokenizer = Tokenizer::clip();
    let (mut texts, mut ids) = (Sha256::new(), Sha256::new());
    for caption in captions {
        let text = canonical(caption);
        texts.update(text.as_bytes());
        texts.update(b"\n");
        for id in tokenizer.encode(&text, 77).ids {
            ids.update((id as u16).to_le_bytes());
        }
    }
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let wanted = &fixture()[name];
    assert_eq!(captions.len() as u64, wanted["captions"].as_u64().unwrap());
    assert_eq!(hex(&texts.finalize()), wanted["canonical"].as_str().unwrap(), "canonical texts of {name}");
    assert_eq!(hex(&ids.finalize()), wanted["ids"].as_str().unwrap(), "token ids of {name}");
}

#[test]
fn every_coco_caption_is_as_in_python() {
    let Some(path) = real("coco/captions_val2017.json") else { return };
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let captions = file["annotations"].as_array().unwrap().iter();
    let captions: Vec<_> = captions.map(|a| a["caption"].as_str().unwrap().to_owned()).collect();
    check("coco/captions_val2017.json", &captions);
}

#[test]
fn every_web_caption_is_as_in_python() {
    let Some(path) = real("urls/test_10000.parquet") else { return };
    let file = std::fs::File::open(path).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap();
    let mut captions = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let column = batch.column_by_name("TEXT").unwrap().as_string::<i32>();
        captions.extend(
            (0..column.len()).filter(|row| column.is_valid(*row)).map(|row| column.value(row).to_owned()),
        );
    }
    check("urls/test_10000.parquet", &captions);
}
