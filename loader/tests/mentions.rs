//! Mentions are chosen, and their tokens found, as in the authors' code (`fixtures/mentions.py`).

use std::fs;
use std::io::Cursor;
use std::sync::Arc;

use concepts::sidecar::{Metadata, Writer};
use concepts::{Bank, Matching, Mention, TaggerDescription};
use image::{ImageFormat, RgbImage};
use loader::{Loader, Position};
use serde_json::Value;

use crate::common::{TarFile, settings, sidecar_path, with};

fn list(value: &Value) -> Vec<Value> {
    value.as_array().unwrap().clone()
}

/// The mentions that a sidecar would have: phrases in their order in the caption.
fn given(caption: &str, phrases: &[Value]) -> Vec<Mention> {
    let mut from = 0;
    let mut mentions = Vec::new();
    for phrase in phrases {
        let [phrase, noun, head, lemma] = [0, 1, 2, 3].map(|i| phrase[i].as_str().unwrap());
        // The fixture has the phrase in spaCy's words.
        let phrase = phrase.replace(" - ", "-");
        let start = from + caption[from..].find(&phrase).unwrap_or_else(|| panic!("{phrase} in {caption}"));
        from = start + phrase.len();
        let words = if noun.is_empty() { head.to_owned() } else { format!("{noun} {head}") };
        mentions.push(Mention {
            phrase: start..from,
            concept_span: from - words.len()..from,
            head_span: from - head.len()..from,
            concept: if noun.is_empty() { lemma.to_owned() } else { format!("{noun} {lemma}") },
            head: lemma.to_owned(),
            tags: "NN".to_owned(),
        });
    }
    mentions
}

#[test]
fn mentions_are_chosen_as_in_the_released_code() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/mentions.json")).unwrap();
    let captions = list(&fixture["captions"]);
    let folder = tempfile::tempdir().unwrap();
    let shard = folder.path().join("00000.tar");
    let mut tar = TarFile::create(&shard);
    let mut png = Cursor::new(Vec::new());
    RgbImage::new(4, 4).write_to(&mut png, ImageFormat::Png).unwrap();
    for (sample, case) in captions.iter().enumerate() {
        tar.add(&format!("{sample:05}.png"), png.get_ref());
        tar.add(&format!("{sample:05}.txt"), case["text"].as_str().unwrap().as_bytes());
    }
    tar.finish();
    let tagger = TaggerDescription { name: "by hand".to_owned(), hash: String::new(), grammar: 1 };
    let metadata = Metadata::new(&tagger, &shard, fs::metadata(&shard).unwrap().len());
    let mut writer = Writer::create(&sidecar_path(&shard), metadata).unwrap();
    for (sample, case) in captions.iter().enumerate() {
        let canonical = concepts::canonical(case["text"].as_str().unwrap());
        let mentions = given(&canonical, &list(&case["phrases"]));
        writer.push(sample as u32, &format!("{sample:05}"), &canonical, &mentions).unwrap();
    }
    writer.finish().unwrap();

    let names: Vec<String> = serde_json::from_value(fixture["bank"].clone()).unwrap();
    let settings = with(settings(vec![shard], captions.len()), |s| {
        s.bank = Some((Arc::new(Bank::from_names(&names).unwrap()), Matching::Strict));
        s.context = 77;
        s.options.max_mentions = 32;
        s.options.max_mention_tokens = 15;
    });
    let loader = Loader::open(settings).unwrap();
    let batch = loader.batches(Position::default()).next().unwrap().unwrap();
    for row in 0..batch.size {
        let case = &captions[batch.samples[row] as usize];
        let found: Vec<Value> = batch
            .mentions
            .of_row(row)
            .map(|m| serde_json::json!([m.positions.start, m.positions.end, names[m.label as usize]]))
            .collect();
        assert_eq!(found, list(&case["kept"]), "{}", case["text"]);
    }
}
