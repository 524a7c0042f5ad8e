//! Mentions are chosen, and their tokens found, as in the authors' code (`fixtures/mentions.py`).

use std::fs;
use std::io::Cursor;
use std::sync::Arc;

use concepts::sidecar::{CaptionCheck, Metadata, Writer};
use concepts::{Bank, Extractor, Matching, Mention, TaggerDescription, TaggerKind};
use image::{ImageFormat, RgbImage};
use loader::{CaptionChoice, CaptionSource, Loader, Position};
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

/// Samples with several captions in their JSON, all of them tagged: a row has the mentions of the caption that was drawn for it.
#[test]
fn each_of_several_captions_has_its_own_mentions() {
    let folder = tempfile::tempdir().unwrap();
    let shard = folder.path().join("00000.tar");
    let extractor = Extractor::new(TaggerKind::Perceptron).unwrap();
    let captions = |sample: usize| {
        [format!("a dog and {sample} red cars"), "running".to_owned(), "A cat behind two dogs".to_owned()]
    };
    let mut png = Cursor::new(Vec::new());
    RgbImage::new(4, 4).write_to(&mut png, ImageFormat::Png).unwrap();
    let mut tar = TarFile::create(&shard);
    for sample in 0..8 {
        let json = serde_json::json!({ "captions": captions(sample), "url": "x" }).to_string();
        tar.add(&format!("{sample}.png"), png.get_ref()).add(&format!("{sample}.json"), json.as_bytes());
        tar.add(&format!("{sample}.txt"), b"alternative text");
    }
    tar.finish();
    let description = extractor.description();
    let mut metadata = Metadata::new(&description, &shard, fs::metadata(&shard).unwrap().len());
    metadata.field = Some("captions".to_owned());
    let mut writer = Writer::create(&sidecar_path(&shard), metadata).unwrap();
    for sample in 0..8 {
        let texts = captions(sample);
        writer.check(sample as u32, CaptionCheck::of_all(&texts));
        let canonical = texts.map(|text| concepts::canonical(&text));
        writer.tag(sample as u32, &sample.to_string(), &canonical, &extractor).unwrap();
    }
    writer.finish().unwrap();

    let names = ["dog", "car", "cat"];
    let bank = Arc::new(Bank::from_names(names).unwrap());
    let from = |key: &str, choice| {
        with(settings(vec![shard.clone()], 4), |settings| {
            settings.bank = Some((Arc::clone(&bank), Matching::Strict));
            settings.options.captions = CaptionSource::Json { key: key.to_owned(), choice };
        })
    };
    let mut seen = [0; 3];
    let loader = Loader::open(from("captions", CaptionChoice::Random)).unwrap();
    for batch in loader.batches(Position::default()).take(20) {
        let batch = batch.unwrap();
        for (row, caption) in batch.captions.iter().enumerate() {
            let of_row = batch.mentions.iter().filter(|(at, _)| *at == row);
            let found: Vec<&str> = of_row.map(|(_, mention)| names[mention.label as usize]).collect();
            let (number, expected) = match caption.as_str() {
                "running" => (1, &[][..]),
                caption if caption.starts_with("a dog and") => (0, &["dog", "car"][..]),
                _ => (2, &["cat", "dog"][..]),
            };
            seen[number] += 1;
            assert_eq!(found, expected, "{caption}");
        }
    }
    assert!(seen.iter().all(|&times| times > 5), "{seen:?}");

    // The concepts that only the other captions mention, if they are asked for.
    let asked = with(from("captions", CaptionChoice::Random), |settings| settings.siblings = true);
    for batch in Loader::open(asked).unwrap().batches(Position::default()).take(20) {
        let batch = batch.unwrap();
        assert_eq!(batch.siblings.len(), batch.size);
        for (caption, siblings) in batch.captions.iter().zip(&batch.siblings) {
            let found: Vec<&str> = siblings.iter().map(|&label| names[label as usize]).collect();
            let expected = match caption.as_str() {
                "running" => &["dog", "car", "cat"][..],
                caption if caption.starts_with("a dog and") => &["cat"],
                _ => &["car"],
            };
            assert_eq!(found, expected, "{caption}");
        }
    }

    let error = Loader::open(with(from("captions", CaptionChoice::First), |settings| {
        (settings.siblings, settings.bank) = (true, None);
    }));
    assert!(error.map(drop).unwrap_err().to_string().contains("need a bank"));

    // The mentions are of no other captions.
    let refused = |settings| Loader::open(settings).map(drop).unwrap_err().to_string();
    let other = refused(from("titles", CaptionChoice::First));
    assert!(other.contains("\"captions\"") && other.contains("\"titles\""), "{other}");
    let text = refused(with(from("captions", CaptionChoice::First), |settings| {
        settings.options.captions = CaptionSource::Text;
    }));
    assert!(text.contains("the .txt members"), "{text}");
}
