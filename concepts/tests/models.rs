//! The embedded models equal, byte for byte, what training on the real data gives. Training takes a minute or two, so this is
//! a test of its own, which `./check --models` runs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use concepts::training::{self, BrillOptions, PerceptronOptions, Sentence};

const BRILL: &[u8] = include_bytes!("../models/brill.bin");
const PERCEPTRON: &[u8] = include_bytes!("../models/perceptron.bin");

/// The sentences that the embedded models are trained on; `None` if the data do not exist.
fn real() -> Option<Vec<Sentence>> {
    let mut sentences = Vec::new();
    let elsewhere = "../../shared/data/pos";
    for (folder, name, times) in [
        (elsewhere, "masc.tsv", 1),
        (elsewhere, "distill_coco.tsv", 1),
        (elsewhere, "distill_laion.tsv", 1),
        ("models/tables", "distill_cc3m.tsv.zst", 1),
        ("models/tables", "marked.tsv.zst", 6),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
        let Ok(mut bytes) = std::fs::read(&path) else {
            assert!(std::env::var_os("CI").is_none(), "{} does not exist", path.display());
            println!("skipped: {} does not exist", path.display());
            return None;
        };
        if folder != elsewhere {
            bytes = zstd::decode_all(&bytes[..]).unwrap();
        }
        let table = training::sentences(&String::from_utf8(bytes).unwrap()).unwrap();
        (0..times).for_each(|_| sentences.extend_from_slice(&table));
    }
    Some(sentences)
}

#[test]
fn brill_is_reproduced_byte_for_byte() {
    let Some(mut sentences) = real() else { return };
    training::retag(&mut sentences, PERCEPTRON).unwrap();
    let model = training::brill(&sentences, BrillOptions::default(), |_, _| {});
    assert!(model == BRILL, "training gives another model, of {} bytes", model.len());
}

#[test]
fn perceptron_is_reproduced_byte_for_byte() {
    let Some(sentences) = real() else { return };
    let model = training::perceptron(&sentences, PerceptronOptions::default(), |_, _| {});
    assert!(model == PERCEPTRON, "training gives another model, of {} bytes", model.len());
}
