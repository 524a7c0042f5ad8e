//! Compares the evaluation code with other implementations, which `tests/fixtures/evaluation/make.py` and
//! `tests/fixtures/protocols/make.py` list.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use crate::wave::{fill, wave};
use image::RgbImage;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};
use trainer::Silent;
use trainer::data::{frozen_tower, read_image};
use trainer::device::Precision;
use trainer::evaluation::confusion::{Confusion, IGNORED};
use trainer::evaluation::masks::{self, Conversion, without_background};
use trainer::evaluation::published_datasets::Background;
use trainer::evaluation::segmentation::{DecisionSettings, evaluate};
use trainer::evaluation::{SegmentationDataset, published_datasets, retrieval};
use trainer::inference::class_vectors::{ClassVectors, ComparedWith, class_vectors};
use trainer::inference::classes;
use trainer::inference::labels::{Rule, bytes, decide, upsample};
use trainer::inference::model::{ClipSettings, DenseFiles, Model, Vision};
use trainer::inference::opencv;
use trainer::inference::pamr::Pamr;
use trainer::inference::segmenter::Segmenter;
use trainer::inference::window::{Resize, Window};
use trainer::settings::VisionSettings;
use trainer::towers::{
    Activation, Dense, Embedding, FrozenVision, PositionResize, TextShape, TextTower, VisionHead,
    VisionShape, VisionTower, unit,
};
use trainer::weights;

/// Both sides compute in float32.
const TOLERANCE: f64 = 2e-5;

fn fixture(name: &str) -> Value {
    fixture_in("evaluation", name)
}

fn fixture_in(folder: &str, name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(folder).join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn int(value: &Value) -> i64 {
    value.as_i64().unwrap()
}

fn ints(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(int).collect()
}

/// The same numbers as `draws` in make.py.
pub(crate) fn draws(count: usize, seed: u32) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    (0..count).map(|_| next()).collect()
}

fn close(name: &str, found: &Tensor, expected: &Value, tolerance: f64) {
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(found.numel(), expected.len(), "{name}: size");
    let error = (found.reshape([-1]).to_kind(Kind::Double) - Tensor::from_slice(&expected)).abs().max();
    let error = error.double_value(&[]);
    eprintln!("{name}: the largest difference is {error:.1e}");
    assert!(error < tolerance, "{name}: off by {error:e}");
}

fn same_scores(name: &str, confusion: &Confusion, case: &Value) {
    for (score, found) in [
        ("miou", confusion.mean_iou()),
        ("accuracy", confusion.pixel_accuracy()),
        ("mean_accuracy", confusion.mean_accuracy()),
    ] {
        assert!((found - case[score].as_f64().unwrap()).abs() < 1e-12, "{name}: {score} is {found}");
    }
}

#[test]
fn the_confusion_matrix_is_torchmetrics() {
    let case = &fixture("cases.json")["confusion"];
    let (classes, size) = (int(&case["classes"]) as u32, int(&case["size"]) as usize);
    let mut confusion = Confusion::new(classes as usize);
    for seed in 0..3 {
        let label =
            |draw: u32| if draw % (classes + 1) == classes { IGNORED } else { (draw % (classes + 1)) as u8 };
        let truth: Vec<u8> = draws(size, seed).into_iter().map(label).collect();
        let predicted: Vec<u8> =
            draws(size, 100 + seed).into_iter().map(|draw| (draw % (classes - 1)) as u8).collect();
        confusion.add(&truth, &predicted);
    }
    let counts: Vec<i64> = confusion.counts().iter().map(|&count| count as i64).collect();
    assert_eq!(counts, ints(&case["counts"]));
    assert_eq!(confusion.ignored(), case["ignored"].as_u64().unwrap());
    same_scores("random", &confusion, case);
}

/// The folder of real test data, if it exists.
fn real_data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if !folder.exists() {
        println!("skipped: no real masks in {}", folder.display());
        return None;
    }
    Some(folder)
}

#[test]
fn real_masks_are_counted_exactly() {
    let Some(data) = real_data() else { return };
    for (name, case) in fixture("real.json")["sets"].as_object().unwrap() {
        let Some(place) = case["masks"].as_str() else { continue };
        let classes = int(&case["classes"]) as usize;
        let conversion = match name.as_str() {
            "coco-stuff171" => Conversion::CocoStuff,
            "coco-object81" => Conversion::CocoObject,
            "ade150" => Conversion::FromOne,
            "camvid11" => Conversion::LastUnlabelled,
            _ => Conversion::Indices,
        };
        let table = match name.as_str() {
            "voc20" | "context59" => without_background(&conversion.table(classes + 1)),
            _ => conversion.table(classes),
        };
        let mut files: Vec<PathBuf> = std::fs::read_dir(data.join(place))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "png"))
            .collect();
        files.sort();
        assert_eq!(files.len() as i64, int(&case["files"]), "{name}");
        let mut confusion = Confusion::new(classes);
        for file in &files {
            let truth = masks::read(file, &table).unwrap().labels;
            let guess = |(at, &label): (usize, &u8)| {
                if at % 3 != 0 && label != IGNORED {
                    label
                } else {
                    ((usize::from(label) + at / 3) % classes) as u8
                }
            };
            let predicted: Vec<u8> = truth.iter().enumerate().map(guess).collect();
            confusion.add(&truth, &predicted);
        }
        let raw: Vec<u8> = confusion.counts().iter().flat_map(|count| count.to_le_bytes()).collect();
        assert_eq!(confusion.pixels(), case["pixels"].as_u64().unwrap(), "{name}");
        assert_eq!(confusion.ignored(), case["ignored"].as_u64().unwrap(), "{name}");
        assert_eq!(sha256(&raw), case["sha256"].as_str().unwrap(), "{name}: the matrix");
        same_scores(name, &confusion, case);
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn class_lists_and_conversions_are_the_published_ones() {
    let sets = &fixture("real.json")["sets"];
    let folder = tempfile::tempdir().unwrap();
    for set in published_datasets::PUBLISHED {
        let names: Vec<String> = set.class_list().into_iter().map(|class| class.name).collect();
        assert_eq!(
            sha256(names.join("\n").as_bytes()),
            sets[set.name]["names_sha256"].as_str().unwrap(),
            "{}",
            set.name
        );
        // A class list of a user is read like ours.
        let path = folder.path().join("classes.txt");
        std::fs::write(&path, names.join("\n")).unwrap();
        assert_eq!(classes::read(&path).unwrap().len(), names.len());
    }
    let cityscapes = Conversion::Cityscapes.table(19);
    for (id, expected) in ints(&sets["cityscapes19"]["label_ids"]).into_iter().enumerate().take(34) {
        assert_eq!(cityscapes[id].map(i64::from), Some(expected), "Cityscapes id {id}");
    }
    let stuff = Conversion::CocoStuff.table(171);
    let used: Vec<u8> = stuff.iter().flatten().copied().filter(|&class| class != IGNORED).collect();
    assert_eq!(used, (0..171).collect::<Vec<u8>>(), "each class once, in order");
    assert_eq!([11, 25, 90, 182].map(|id| stuff[id]), [None; 4], "ids that stand for nothing are refused");
    assert_eq!(Conversion::FromOne.table(150)[150], Some(149));
    assert_eq!(Conversion::FromOne.table(150)[0], Some(IGNORED));
    assert_eq!(Conversion::Indices.table(21)[255], Some(IGNORED), "VOC's borders");
}

#[test]
fn upsampling_is_pytorchs() {
    let case = &fixture("cases.json")["upsampling"];
    let size = ints(&case["size"]);
    let found = upsample(&wave(2 * 5 * 7, 1).view([1, 2, 5, 7]), size[0], size[1]);
    close("up-sampled", &found, &case["values"], 1e-6);
}

/// A model with narrow towers whose weights follow from the formula, in float32 on the CPU.
fn narrow_model() -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    let tower = VisionTower::random(VisionShape { width: 64, depth: 2, patch: 8, grid: 4 }, Device::Cpu);
    fill(&tower.named());
    weights::write(&path, &tower.named()).unwrap();
    let settings =
        VisionSettings { weights: path, position: Some(PositionResize::Timm), ..VisionSettings::default() };
    let vision = frozen_tower::open(&settings, Kind::Float, Device::Cpu).unwrap();
    let text = TextTower::random(TextShape { width: 64, depth: 1, heads: 1, context: 16 }, 64, Device::Cpu);
    fill(&text.named());
    Model {
        vision: Vision::Frozen(Box::new(FrozenVision {
            encoder: vision,
            head: VisionHead::none(Embedding::Class),
        })),
        text,
        kind: Kind::Float,
        vectors: ClassVectors::Caption,
        size: 32,
        description: String::new(),
    }
}

#[test]
fn the_sliding_window_is_the_plain_one() {
    let case = &fixture("cases.json")["sliding_window"];
    let [short, side, stride, classes, height, width] =
        ["short", "side", "stride", "classes", "height", "width"].map(|name| int(&case[name]));
    let vectors = unit(&wave((classes * 64) as usize, 9).view([classes, 64]).to_kind(Kind::Float));
    let window = Window { short, long: 0, side, stride, resize: Resize::Float, ..Window::PUBLISHED };
    let segmenter = Segmenter::with_vectors(narrow_model(), vectors, window).unwrap();
    let photo: Vec<u8> =
        draws((height * width * 3) as usize, 5).into_iter().map(|v| (v % 256) as u8).collect();
    let photo = RgbImage::from_raw(width as u32, height as u32, photo).unwrap();

    let scores = segmenter.scores(&photo);
    assert_eq!(scores.size()[1..], ints(&case["resized"])[..]);
    close("logits", &scores.slice(1, 0, None, 5).slice(2, 0, None, 7), &case["logits"], TOLERANCE);
    let labels = bytes(&segmenter.labels(&photo, height, width).slice(0, 0, None, 3).slice(1, 0, None, 4));
    for (at, (found, expected)) in labels.iter().zip(ints(&case["labels"])).enumerate() {
        assert!(expected == 255 || i64::from(*found) == expected, "label {at}");
    }

    // The scores of an image do not depend on the other images in the batch, for any batch size.
    let turned = image::imageops::rotate90(&photo);
    let alone = [&photo, &turned, &photo].map(|image| segmenter.scores(image));
    for batch in [1, 4, 64] {
        let together: Vec<Tensor> = segmenter.scores_of(&[&photo, &turned, &photo], batch).collect();
        assert_eq!(together.len(), 3);
        for (alone, together) in alone.iter().zip(&together) {
            assert!((alone - together).abs().max().double_value(&[]) < TOLERANCE, "batch {batch}");
        }
    }
    assert_eq!(segmenter.windows(&photo), segmenter.windows(&turned));
}

/// The same image as `photo` in protocols/make.py.
pub(crate) fn photo(seed: u32, width: u32, height: u32) -> RgbImage {
    let noise = draws((width * height * 3) as usize, seed);
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([0, 1, 2].map(|channel| {
            let block = ((x / 7) * 53 + (y / 5) * 91 + channel * 37) % 200;
            (block + noise[((y * width + x) * 3 + channel) as usize] % 56) as u8
        }))
    })
}

#[test]
fn resizing_is_opencvs_to_the_last_bit() {
    for case in fixture_in("protocols", "cases.json")["resizing"].as_array().unwrap() {
        let [from, to] = ["from", "to"].map(|name| ints(&case[name]));
        let image = photo(int(&case["seed"]) as u32, from[0] as u32, from[1] as u32);
        let found = opencv::resize(&image, to[0] as u32, to[1] as u32);
        assert_eq!(sha256(&found), case["sha256"].as_str().unwrap(), "{case}");
    }
}

#[test]
fn photos_are_decoded_and_resized_as_by_opencv() {
    let Some(data) = real_data() else { return };
    for case in fixture_in("protocols", "real.json")["photos"].as_array().unwrap() {
        let image = read_image(&data.join("coco/images").join(case["file"].as_str().unwrap())).unwrap();
        assert_eq!(sha256(&image), case["decoded"].as_str().unwrap(), "{case}");
        let (height, width) = Window::PUBLISHED.fit(image.height().into(), image.width().into());
        let found = opencv::resize(&image, width as u32, height as u32);
        assert_eq!(sha256(&found), case["resized"].as_str().unwrap(), "{case}");
    }
}

/// Writes the images and masks of a case in the layout of its dataset. The formats of images are recognized by their content.
fn write_dataset(case: &Value, root: &Path) {
    let (images, masks) = match case["dataset"].as_str().unwrap() {
        "cityscapes19" => ("leftImg8bit/val/ulm/{}_leftImg8bit.png", "gtFine/val/ulm/{}_gtFine_labelIds.png"),
        _ => ("images/val2017/{}.jpg", "annotations/val2017/{}.png"),
    };
    for (number, case) in case["images"].as_array().unwrap().iter().enumerate() {
        let [seed, width, height] = ["seed", "width", "height"].map(|name| int(&case[name]) as u32);
        let mask = case["mask"].as_str().unwrap();
        let mask = (0..mask.len()).step_by(2).map(|i| u8::from_str_radix(&mask[i..i + 2], 16).unwrap());
        let mask = image::GrayImage::from_raw(width, height, mask.collect()).unwrap();
        let image = photo(seed, width, height);
        for (pattern, picture) in
            [(images, image::DynamicImage::from(image)), (masks, image::DynamicImage::from(mask))]
        {
            let path = root.join(pattern.replace("{}", &number.to_string()));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            picture.save_with_format(path, image::ImageFormat::Png).unwrap();
        }
    }
}

/// Resize as OpenCV, windows, PAMR, background by threshold, ids of the masks, scores: all steps together.
#[test]
fn evaluations_of_cityscapes_and_coco_object_score_as_in_python() {
    let cases = fixture_in("protocols", "cases.json");
    for case in cases["evaluations"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        write_dataset(case, folder.path());
        let name = case["dataset"].as_str().unwrap();
        let set = SegmentationDataset::open(name, folder.path(), None).unwrap();
        set.check_complete().unwrap();
        let by_threshold = set.background == Some(Background::Threshold);
        let classes = set.classes.len() - usize::from(by_threshold);
        let vectors = unit(&wave(classes * 64, 9).view([classes as i64, 64])).to_kind(Kind::Float);
        let window = Window {
            short: 24,
            long: 2048,
            side: 24,
            stride: 8,
            resize: Resize::Opencv,
            ..Window::PUBLISHED
        };
        let mut segmenter = Segmenter::with_vectors(narrow_model(), vectors, window).unwrap();
        let iterations = int(&case["pamr"]) as usize;
        segmenter.pamr = (iterations > 0).then(|| Pamr { iterations, dilations: Pamr::DILATIONS.to_vec() });
        let number = |name: &str| case[name].as_f64().unwrap_or(f64::NAN);
        let decision = DecisionSettings {
            threshold: number("threshold"),
            scale: number("scale"),
            batch: 4,
            readers: 2,
            worst: 0,
        };
        let (scores, _) = evaluate(&set, &segmenter, &decision, &Silent, &mut |_, _, _| Ok(())).unwrap();

        assert_eq!(scores.pixels, case["pixels"].as_u64().unwrap(), "{name}");
        assert_eq!(scores.ignored, case["ignored"].as_u64().unwrap(), "{name}");
        let found = [scores.miou, scores.pixel_accuracy, scores.mean_accuracy];
        for (what, found) in ["miou", "pixel_accuracy", "mean_accuracy"].into_iter().zip(found) {
            assert!((found - number(what)).abs() < 1e-9, "{name}, PAMR {iterations}: {what} is {found}");
        }
        for (number, class) in scores.classes.iter().enumerate() {
            let found = [class.iou.unwrap_or(-1.0), class.share];
            let expected = ["ious", "shares"].map(|what| case[what][number].as_f64().unwrap_or(-1.0));
            let apart = (found[0] - expected[0]).abs().max((found[1] - expected[1]).abs());
            assert!(apart < 1e-9, "{name}, PAMR {iterations}: {class:?}, expected {expected:?}");
        }
    }
}

#[test]
fn synonyms_give_a_class_its_best_word() {
    let names = |words: &[&[&str]]| -> Vec<Vec<String>> {
        words.iter().map(|words| words.iter().map(|&word| word.to_owned()).collect()).collect()
    };
    let segmenter = |words: &[&[&str]]| {
        let window =
            Window { short: 32, long: 0, side: 32, stride: 16, resize: Resize::Float, ..Window::PUBLISHED };
        let templates = ["a {}".to_owned()];
        Segmenter::new(narrow_model(), &names(words), &templates, ClassVectors::Caption, window).unwrap()
    };
    let photo = RgbImage::from_fn(40, 40, |x, y| image::Rgb([(x * 6) as u8, (y * 6) as u8, 90]));
    let each = segmenter(&[&["cat"], &["kitten"], &["sofa"]]).scores(&photo);
    let grouped = segmenter(&[&["cat", "kitten"], &["sofa"]]).scores(&photo);
    assert_eq!(grouped.size()[0], 2);
    assert!(grouped.get(0).allclose(&each.get(0).maximum(&each.get(1)), 1e-5, 1e-6, false));
    assert!(grouped.get(1).allclose(&each.get(2), 1e-5, 1e-6, false));
}

#[test]
fn class_weights_are_open_clips() {
    let case = &fixture("cases.json")["class_weights"];
    let tower = TextTower::random(TextShape { width: 64, depth: 2, heads: 2, context: 77 }, 48, Device::Cpu);
    fill(&tower.named().into_iter().filter(|(name, _)| name != "logit_scale").collect::<Vec<_>>());
    let names: Vec<String> =
        case["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let templates = trainer::inference::templates::read("imagenet").unwrap();
    assert_eq!(templates.len(), 80);
    let found =
        class_vectors(&tower, &names, &templates, ClassVectors::Caption, ComparedWith::Images, Kind::Float)
            .unwrap();
    close("class weights", &found, &case["weights"], 1e-5);
}

#[test]
fn clips_tower_is_open_clips_and_maskclip_its_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("open_clip_model.safetensors");
    for case in fixture("cases.json")["clip"].as_array().unwrap() {
        let shapes = case["shapes"].as_object().unwrap();
        let images: Vec<(String, Tensor)> = shapes
            .iter()
            .map(|(name, shape)| {
                (name.clone(), Tensor::zeros(ints(shape).as_slice(), (Kind::Float, Device::Cpu)))
            })
            .collect();
        fill(&images);
        let text =
            TextTower::random(TextShape { width: 64, depth: 1, heads: 1, context: 77 }, 48, Device::Cpu);
        let prefixed = images.into_iter().map(|(name, tensor)| (format!("visual.{name}"), tensor));
        weights::write(&path, &text.named().into_iter().chain(prefixed).collect::<Vec<_>>()).unwrap();
        let activation = if case["quick_gelu"] == true { Activation::QuickGelu } else { Activation::Gelu };
        for dense in [Dense::Tokens, Dense::Values] {
            let clip = ClipSettings { activation, vision_heads: Some(1), text_heads: Some(1) };
            let model = Model::open_clip(&path, clip, Precision::Float32, Device::Cpu).unwrap();
            let model = model.with_dense(dense, &DenseFiles::default()).unwrap();
            assert_eq!((model.size, model.vision.patch()), (32, 8));
            let Vision::Clip(vision) = &model.vision else { panic!("a CLIP") };
            for case in case["cases"].as_array().unwrap() {
                let size = int(&case["size"]);
                let pixels =
                    wave((2 * 3 * size * size) as usize, 5).view([2, 3, size, size]).to_kind(Kind::Float);
                let features = tch::no_grad(|| vision.tower.forward(&pixels));
                close(&format!("{size} px, class"), &features.class, &case["class"], TOLERANCE);
                let fifth = features.patches.select(1, 5);
                if dense == Dense::Tokens {
                    close(&format!("{size} px, patch"), &fifth, &case["patch_5"], TOLERANCE);
                } else {
                    close(&format!("{size} px, values"), &fifth, &case["values_5"], TOLERANCE);
                    let mean = features.patches.mean_dim([1i64].as_slice(), false, Kind::Float);
                    close(&format!("{size} px, mean"), &mean, &case["values_mean"], TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn refinement_is_that_of_dilated_convolutions() {
    let case = &fixture("cases.json")["pamr"];
    let (height, width) = (int(&case["height"]), int(&case["width"]));
    let image = wave((3 * height * width) as usize, 2).view([3, height, width]).to_kind(Kind::Float);
    let masks = wave((4 * height * width) as usize, 3).view([4, height, width]) * 3.0;
    let masks = masks.softmax(0, Kind::Double).to_kind(Kind::Float);
    let pamr = Pamr { iterations: int(&case["iterations"]) as usize, dilations: ints(&case["dilations"]) };
    close("refined", &pamr.refine(&image, &masks), &case["masks"], TOLERANCE);
    // The sum of the probabilities stays 1, and the labels follow from them.
    let refined = pamr.refine(&image, &masks);
    assert!(
        (refined.sum_dim_intlist([0i64].as_slice(), false, Kind::Float) - 1.0).abs().max().double_value(&[])
            < 1e-5
    );
    assert_eq!(bytes(&decide(&refined, height, width, Rule::HighestScore)), bytes(&refined.argmax(0, false)));
}

#[test]
fn recalls_are_those_of_topk() {
    let case = &fixture("cases.json")["recalls"];
    let (images, width) = (int(&case["images"]), int(&case["width"]));
    let owners: Vec<usize> = ints(&case["owners"]).into_iter().map(|owner| owner as usize).collect();
    let count = images + owners.len() as i64;
    let vectors = unit(&wave((count * width) as usize, 4).view([count, width]));
    let (by_image, by_text) = retrieval::recalls(
        &vectors.narrow(0, 0, images),
        &vectors.narrow(0, images, owners.len() as i64),
        &owners,
    )
    .unwrap();
    for (name, found) in [("image_to_text", by_image), ("text_to_image", by_text)] {
        let expected: Vec<f64> = case[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        for (found, expected) in [found.r1, found.r5, found.r10].into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{name}: {found} and not {expected}");
        }
    }
}
