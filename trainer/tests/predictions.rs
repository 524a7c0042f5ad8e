//! `trainer eval segmentation --predictions`: label maps in every layout score exactly as the run that made them.

use std::fs;
use std::path::{Path, PathBuf};

use image::{GrayImage, Luma};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::eval_command::{HEADS, clip, run, text, voc};

const IMAGES: usize = 4;

/// The scores of label maps.
fn score(data: &Path, maps: &Path, more: &[&str]) -> Result<Value, String> {
    let arguments = ["segmentation", "--dataset", "voc20", "--data", text(data), "--predictions", text(maps)];
    let mut scores = run(&[&arguments, more].concat())?;
    scores["scores"]["images_per_second"] = Value::Null;
    Ok(scores)
}

/// The label maps in `from`, by name: width, height, values.
fn maps(from: &Path) -> Vec<(String, u32, u32, Vec<u8>)> {
    let mut files: Vec<PathBuf> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &PathBuf| {
        let map = image::open(path).unwrap().to_luma8();
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), map.width(), map.height(), map.into_raw())
    };
    files.iter().map(read).collect()
}

fn write(folder: &Path, name: &str, (width, height): (u32, u32), value: impl Fn(usize) -> u8) {
    fs::create_dir_all(folder).unwrap();
    let map = GrayImage::from_fn(width, height, |x, y| Luma([value((y * width + x) as usize)]));
    map.save(folder.join(format!("{name}.png"))).unwrap();
}

#[test]
fn label_maps_in_every_layout_score_as_the_run_that_made_them() {
    let folder = tempfile::tempdir().unwrap();
    let (root, saved) = (folder.path(), folder.path().join("saved"));
    voc(root, IMAGES as u32);
    let model = clip(root);
    let arguments = ["segmentation", "--dataset", "voc20", "--data", text(root), "--clip", text(&model)];
    let save = ["--templates", "simple", "--size", "32", "--save-predictions", text(&saved)];
    let direct = run(&[&arguments, HEADS.as_slice(), &save].concat()).unwrap();
    let mut expected = direct["scores"].clone();
    expected["images_per_second"] = Value::Null;
    let written = maps(&saved);
    assert_eq!(written.len(), IMAGES);
    assert!(written[0].3.iter().any(|value| *value != written[0].3[0]), "not all the same class");

    let same = score(root, &saved, &[]).unwrap();
    assert_eq!(same["scores"], expected);
    assert_eq!(same["model"]["description"], "saved");
    // One more than the index; in a folder of its own; named as the mask is, by number, or as NumPy files.
    let [from_one, inside, numbered, scores, integers, renamed] =
        ["from-one", "inside", "numbered", "scores", "integers", "renamed"].map(|name| root.join(name));
    let classes = 20;
    for (number, (name, width, height, labels)) in written.iter().enumerate() {
        let size = (*width, *height);
        write(&from_one, name, size, |at| labels[at] + 1);
        write(&inside.join("city"), name, size, |at| labels[at]);
        write(&numbered, &format!("{number:04}"), size, |at| labels[at]);
        write(&renamed, name, size, |at| classes - 1 - labels[at]);
        let values: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
        let values = Tensor::from_slice(&values).reshape([i64::from(*height), i64::from(*width)]);
        fs::create_dir_all(&scores).unwrap();
        fs::create_dir_all(&integers).unwrap();
        let one_hot = values.one_hot(classes.into()).permute([2, 0, 1]).to_kind(Kind::Float).contiguous();
        one_hot.write_npy(scores.join(format!("{name}.npy"))).unwrap();
        values.to_kind(Kind::Uint8).write_npy(integers.join(format!("{name}.npy"))).unwrap();
    }
    let names = root.join("names.txt");
    let reversed: Vec<&str> = direct["classes"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|class| class["class"].as_str().unwrap())
        .collect();
    fs::write(&names, reversed.join("\n")).unwrap();
    for (maps, more) in [
        (&from_one, &["--numbering", "from-one"][..]),
        // The masks of VOC have the background at 0.
        (&from_one, &["--numbering", "masks"]),
        (&inside, &["--system", "another", "--made-with", "windows of 224"]),
        (&numbered, &[]),
        (&scores, &[]),
        (&integers, &[]),
        (&renamed, &["--prediction-classes", text(&names)]),
    ] {
        let found = score(root, maps, more).unwrap();
        assert_eq!(found["scores"], expected, "{}", maps.display());
    }
    let table = root.join("out");
    score(root, &inside, &["--system", "another", "--made-with", "windows of 224", "--out", text(&table)])
        .unwrap();
    let table = fs::read_to_string(table.join("table.md")).unwrap();
    assert!(table.contains("**another** [1]") && table.contains("windows of 224"), "{table}");
    // Without a class a pixel is wrong, but it is not left out.
    let none = root.join("none");
    let everywhere = |folder: &Path, value: u8| {
        for (name, width, height, _) in &written {
            write(folder, name, (*width, *height), |_| value);
        }
    };
    everywhere(&none, 255);
    let none = score(root, &none, &[]).unwrap();
    assert_eq!((&none["scores"]["pixels"], &none["scores"]["miou"]), (&expected["pixels"], &json!(0.0)));

    // What does not fit is refused by name.
    let error = |maps: &Path, more: &[&str]| score(root, maps, more).unwrap_err();
    let beyond = root.join("beyond");
    everywhere(&beyond, 20);
    let refused = error(&beyond, &[]);
    assert!(
        refused.contains("value 20") && refused.contains("(0 to 19)") && refused.contains("--numbering"),
        "{refused}"
    );
    let first = &written[0].0;
    let small = root.join("small");
    for (name, ..) in &written {
        write(&small, name, (32, 32), |_| 0);
    }
    let refused = error(&small, &[]);
    assert!(refused.contains("has 32 x 32 pixels, but its image has"), "{refused}");
    fs::remove_file(small.join(format!("{first}.png"))).unwrap();
    let refused = error(&small, &[]);
    assert!(
        refused.contains(&format!("no label map for 1 of {IMAGES} images")) && refused.contains(first),
        "{refused}"
    );
    fs::write(saved.join(format!("{first}.npy")), "").unwrap();
    let refused = error(&saved, &[]);
    assert!(refused.contains("of the same image"), "{refused}");
    fs::write(&names, "cat\nunicorn\n").unwrap();
    let refused = error(&renamed, &["--prediction-classes", text(&names)]);
    assert!(refused.contains("unicorn") && refused.contains("aeroplane"), "{refused}");
    let refused = error(&renamed, &["--clip", text(&model)]);
    assert!(refused.contains("cannot be used with"), "{refused}");
}
