//! `trainer eval classification` and `retrieval`, from their options to their files.

use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;
use serde_json::{Value, json};

use crate::eval_command::{HEADS, clip, photo, run, text};

/// A WebDataset shard: (key, extension, bytes).
fn shard(path: &Path, members: &[(String, &str, Vec<u8>)]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    for (key, extension, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{key}.{extension}"), bytes.as_slice()).unwrap();
    }
    tar.finish().unwrap();
}

fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// The same twelve images of three classes in both layouts: WebDataset, and one folder per class.
fn classified(root: &Path) -> (PathBuf, PathBuf) {
    let (shards, folders) = (root.join("wds_animals"), root.join("animals"));
    for part in 0..2u32 {
        let members: Vec<(String, &str, Vec<u8>)> = (6 * part..6 * part + 6)
            .flat_map(|number| {
                let key = format!("s{number:04}");
                let class = (number % 3).to_string().into_bytes();
                [(key.clone(), "cls", class), (key, "png", png(&photo(number, 40 + number, 36)))]
            })
            .collect();
        shard(&shards.join(format!("test/{part}.tar")), &members);
    }
    fs::write(shards.join("test/nshards.txt"), "2\n").unwrap();
    fs::write(shards.join("classnames.txt"), "cat\ndog\ngreat white shark\n").unwrap();
    fs::write(shards.join("zeroshot_classification_templates.txt"), "a photo of a {c}.\nthe {c}\n").unwrap();
    for number in 0..12 {
        let folder = folders.join("val").join(["n1", "n2", "n3"][number as usize % 3]);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{number:02}.png")), png(&photo(number, 40 + number, 36))).unwrap();
    }
    fs::write(folders.join("classnames.txt"), "cat\ndog\ngreat white shark\n").unwrap();
    (shards, folders)
}

#[test]
fn both_layouts_of_classified_images_score_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (clip(folder.path()), folder.path().join("out"));
    let (shards, folders) = classified(folder.path());
    let templates = folder.path().join("templates.txt");
    fs::write(&templates, "a photo of a {}.\nthe {}\n").unwrap();
    let data = [&["classification", "--clip", text(&model)], &HEADS[..], &["--data"]].concat();
    let own = run(&[&data[..], &[text(&shards), "--out", text(&out)]].concat()).unwrap();
    let both = [text(&shards), text(&folders), "--templates", text(&templates), "--batch", "5"];
    let both = run(&[&data[..], &both].concat()).unwrap();
    assert_eq!(own["results"][0]["protocol"]["templates"], "of the dataset");
    assert_eq!(own["results"][0]["protocol"]["vectors"], "caption");
    assert_eq!(own["results"][0]["scores"]["images"], 12);
    assert_eq!(own["results"][0]["scores"]["top5"], 1.0, "three classes are all among the first five");
    for score in ["top1", "top5", "mean_per_class"] {
        let first = &own["results"][0]["scores"][score];
        assert_eq!(first, &both["results"][0]["scores"][score], "{score}");
        assert_eq!(first, &both["results"][1]["scores"][score], "{score}");
        assert_eq!(first, &both["mean"][score]);
    }
    // The classes have the same size, so the mean over classes is the mean over images.
    let (top1, mean) = (&own["mean"]["top1"], &own["mean"]["mean_per_class"]);
    assert!((top1.as_f64().unwrap() - mean.as_f64().unwrap()).abs() < 1e-12);
    assert!(
        fs::read_to_string(out.join("table.md"))
            .unwrap()
            .contains("| SimZSS [p] | COCO Captions | 24.3 | 26.1 |")
    );

    for set in [&shards, &folders] {
        let error = run(&[&data[..], &[text(set), "--split", "train"]].concat()).unwrap_err();
        assert!(error.contains("train does not exist"), "{error}");
    }
    fs::write(shards.join("test/nshards.txt"), "3\n").unwrap();
    let error = run(&[&data[..], &[text(&shards)]].concat()).unwrap_err();
    assert!(error.contains("nshards.txt") && error.contains("3 shards"), "{error}");
    fs::write(shards.join("test/nshards.txt"), "2\n").unwrap();
    fs::write(shards.join("classnames.txt"), "cat\ndog\n").unwrap();
    let error = run(&[&data[..], &[text(&shards)]].concat()).unwrap_err();
    assert!(error.contains("s0002") && error.contains("class 2"), "{error}");
    fs::write(shards.join("dataset_type.txt"), "multilabel\n").unwrap();
    let error = run(&[&data[..], &[text(&shards)]].concat()).unwrap_err();
    assert!(error.contains("multilabel"), "{error}");
}

#[test]
fn shards_and_captions_files_retrieve_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (model, images) = (clip(folder.path()), folder.path().join("images"));
    fs::create_dir_all(&images).unwrap();
    let (mut members, mut lines, mut coco) =
        (Vec::new(), String::new(), json!({ "images": [], "annotations": [] }));
    for number in 0..12u32 {
        let name = format!("{number:04}.png");
        let captions: Vec<String> =
            (0..2).map(|i| format!("picture {} of {} things", number * 2 + i, number % 5)).collect();
        let bytes = png(&photo(number, 48, 40));
        fs::write(images.join(&name), &bytes).unwrap();
        members.push((format!("{number:04}"), "png", bytes));
        members.push((format!("{number:04}"), "txt", captions.join("\n").into_bytes()));
        lines += &format!("{}\n", json!({ "file": name, "captions": captions }));
        coco["images"].as_array_mut().unwrap().push(json!({ "id": number, "file_name": name }));
        for caption in &captions {
            coco["annotations"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "image_id": number, "caption": caption }));
        }
    }
    let (set, jsonl, file) =
        (folder.path().join("set"), folder.path().join("c.jsonl"), folder.path().join("c.json"));
    shard(&set.join("test/0.tar"), &members);
    fs::write(&jsonl, lines).unwrap();
    fs::write(&file, coco.to_string()).unwrap();
    let model = [&["retrieval", "--clip", text(&model)], &HEADS[..], &["--data"]].concat();
    let shards = run(&[&model[..], &[text(&set)]].concat()).unwrap();
    assert_eq!((&shards["scores"]["images"], &shards["scores"]["captions"]), (&json!(12), &json!(24)));
    for captions in [&jsonl, &file] {
        let found = run(&[&model[..], &[text(captions), "--images", text(&images)]].concat()).unwrap();
        assert_eq!(found["scores"]["image_to_text"], shards["scores"]["image_to_text"]);
        assert_eq!(found["scores"]["text_to_image"], shards["scores"]["text_to_image"]);
    }
    let first = run(&[&model[..], &[text(&jsonl), "--images", text(&images), "--captions", "1"]].concat());
    assert_eq!(first.unwrap()["scores"]["captions"], 12);
    let error = run(&[&model[..], &[text(&jsonl)]].concat()).unwrap_err();
    assert!(error.contains("images"), "{error}");

    // The same images as Karpathy's test split, and one image of another split that is not there.
    let sentences = |id: &Value| -> Vec<Value> {
        let all = coco["annotations"].as_array().unwrap();
        all.iter()
            .filter(|one| one["image_id"] == *id)
            .map(|one| json!({ "raw": one["caption"], "tokens": [] }))
            .collect()
    };
    let mut karpathy: Vec<Value> = coco["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| {
            let name = &image["file_name"];
            json!({ "filepath": "images", "filename": name, "split": "test", "sentences": sentences(&image["id"]) })
        })
        .collect();
    karpathy.push(json!({ "filepath": "images", "filename": "gone.png", "split": "train", "sentences": [{ "raw": "x" }] }));
    let file = folder.path().join("dataset_coco.json");
    fs::write(&file, json!({ "images": karpathy, "dataset": "coco" }).to_string()).unwrap();
    let above = ["--images", text(folder.path())];
    for more in [&[][..], &["--split", "test"]] {
        let found = run(&[&model[..], &[text(&file)], &above[..], more].concat()).unwrap();
        assert_eq!(found["scores"]["image_to_text"], shards["scores"]["image_to_text"]);
    }
    let error = run(&[&model[..], &[text(&file)], &above[..], &["--split", "val"]].concat()).unwrap_err();
    assert!(error.contains("its splits are test, train"), "{error}");
    let error = run(&[&model[..], &[text(&jsonl)], &above[..], &["--split", "test"]].concat()).unwrap_err();
    assert!(error.contains("--split is for Karpathy"), "{error}");
}
