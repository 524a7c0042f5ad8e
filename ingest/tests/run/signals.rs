//! `NNNNN.hash.parquet`: with the shards that `ingest` makes, and by `ingest hash` next to those of others.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{ArrayRef, RecordBatch, UInt64Array};
use image::{GrayImage, ImageFormat, Luma, RgbImage};
use loader::shards::signals::{Metadata, Signals};

use crate::common::{
    Server, code, contents, encoded, error_line, errors, gradient, ingest, respond, summary, table,
};

/// The hashes of a shard, in the order of the tar.
fn hashes(shard: &Path, column: &str) -> Vec<Option<u64>> {
    let signals = Signals::open(shard, "hash", None, None).unwrap();
    signals.columns()[column].as_primitive::<UInt64Type>().iter().collect()
}

fn column(shard: &Path, name: &str) -> Vec<String> {
    let rows = table(&shard.with_file_name("00000.hash.parquet"));
    rows.iter().map(|row| row.get(name).cloned().unwrap_or_default()).collect()
}

/// An image with large features in both directions.
fn picture(width: u32, height: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
        let wave = |a: f64, b: f64| ((a * x + b * y + f64::from(seed)).sin() * 60.0 + 110.0) as u8;
        image::Rgb([wave(9.0, 4.0 + f64::from(seed)), wave(5.0, 11.0), wave(13.0 - f64::from(seed), 3.0)])
    })
}

/// The image in the middle of a white square.
fn padded(image: &RgbImage) -> RgbImage {
    let side = image.width().max(image.height());
    let mut square = RgbImage::from_pixel(side, side, image::Rgb([255; 3]));
    let (left, top) = ((side - image.width()) / 2, (side - image.height()) / 2);
    image::imageops::replace(&mut square, image, left.into(), top.into());
    square
}

/// A tar as other tools write it.
fn foreign(path: &Path, members: &[(&str, Vec<u8>)]) {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    tar.finish().unwrap();
}

const CAPTIONS: [&str; 3] =
    ["A man is riding a horse along the beach", "Ein kleiner Hund schläft auf dem grünen Sofa", ""];

#[test]
fn downloads_and_local_images_have_the_hashes_of_their_originals() {
    let originals: Vec<Vec<u8>> =
        (0..3).map(|seed| encoded(&picture(300 + 40 * seed, 200, seed), ImageFormat::Png)).collect();
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    fs::create_dir(&images).unwrap();
    for (number, (bytes, caption)) in originals.iter().zip(CAPTIONS).enumerate() {
        fs::write(images.join(format!("{number}.png")), bytes).unwrap();
        fs::write(images.join(format!("{number}.txt")), caption).unwrap();
    }
    let served = originals.clone();
    let server = Server::start(move |path, _, stream| match path[1..].parse::<usize>() {
        Ok(number) => respond(stream, "200 OK", &[], &served[number]),
        Err(_) => respond(stream, "404 Not Found", &[], b""),
    });
    let list = folder.path().join("list.csv");
    let lines: Vec<String> = ["/0", "/missing", "/1", "/2"].map(|path| server.url(path)).to_vec();
    let rows: String = lines
        .iter()
        .zip([CAPTIONS[0], "x", CAPTIONS[1], ""])
        .fold(String::from("url,caption\n"), |rows, (url, caption)| rows + &format!("{url},{caption}\n"));
    fs::write(&list, rows).unwrap();
    let (list, images) = (list.to_str().unwrap(), images.to_str().unwrap());
    let make = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let first = if more[0] == "download" { list } else { images };
        let mut arguments = vec![more[0], first, "--out", out.to_str().unwrap(), "--json"];
        arguments.extend(&more[1..]);
        let output = ingest(&arguments);
        assert_eq!(summary(&output)["successes"], 3, "{}", errors(&output));
        let verified = ingest(&["verify", out.to_str().unwrap(), "--json"]);
        assert_eq!(
            (code(&verified), &summary(&verified)["signals"]),
            (0, &1.into()),
            "{}",
            errors(&verified)
        );
        out.join("00000.tar")
    };
    let whole = make("whole", &["shard", "--resize-mode", "no"]);
    let expected = hashes(&whole, "phash");
    assert!(expected.iter().all(Option::is_some));
    let resized = [
        make("padded", &["shard", "--image-size", "128"]),
        make("small", &["shard", "--image-size", "20"]),
        make(
            "cropped",
            &["download", "--allow-private", "--resize-mode", "center_crop", "--image-size", "90"],
        ),
        make(
            "enlarged",
            &["download", "--allow-private", "--resize-mode", "keep_ratio", "--image-size", "400"],
        ),
    ];
    for shard in resized {
        for (hash, expected) in hashes(&shard, "phash").into_iter().zip(&expected) {
            let differ = (hash.unwrap() ^ expected.unwrap()).count_ones();
            assert!(differ <= 2, "{}: {differ} bits", shard.display());
        }
    }
    let cropped = folder.path().join("cropped/00000.tar");
    assert_eq!(column(&cropped, "key"), ["000000000", "000000002", "000000003"]);
    assert_eq!(column(&cropped, "sample"), ["0", "1", "2"]);
    assert_eq!(column(&cropped, "language"), ["eng", "deu", ""]);
    let confidence: Vec<f32> =
        column(&cropped, "language_confidence")[..2].iter().map(|text| text.parse().unwrap()).collect();
    assert!(confidence.iter().all(|confidence| (0.0..=1.0).contains(confidence)), "{confidence:?}");
    let sums = fs::read_to_string(folder.path().join("cropped/00000.sha256")).unwrap();
    assert!(sums.contains("  00000.hash.parquet\n"), "{sums}");
    // They are the ones to keep.
    let output = ingest(&["hash", folder.path().join("cropped").to_str().unwrap(), "--json"]);
    assert_eq!(summary(&output)["hashed"], 0, "{}", errors(&output));
    assert_eq!(errors(&output), "nothing to do: 1 shard already hashed\n");
}

#[test]
fn a_retry_keeps_hashes_and_a_shard_without_them_stays_without() {
    let up = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let server = Server::start(move |path, _, stream| {
        let number: u32 = path[1..].parse().unwrap();
        if number == 1 && !is_up.load(std::sync::atomic::Ordering::Relaxed) {
            respond(stream, "503 Down", &[], b"");
        } else {
            respond(stream, "200 OK", &[], &encoded(&picture(90, 70, number), ImageFormat::Png));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let (list, out) = (folder.path().join("list.csv"), folder.path().join("out"));
    let rows: String =
        (0..3).map(|number| format!("{},a dog\n", server.url(&format!("/{number}")))).collect();
    fs::write(&list, format!("url,caption\n{rows}")).unwrap();
    let (list, set) = (list.to_str().unwrap(), out.to_str().unwrap());
    let options = ["--image-size", "24", "--retries", "0", "--allow-private"];
    let output = ingest(&[&["download", list, "--out", set], &options[..]].concat());
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let shard = out.join("00000.tar");
    let before = hashes(&shard, "phash");
    assert_eq!(before.len(), 2);
    let without = folder.path().join("without");
    tests::inject::copy(&out, &without);
    up.store(true, std::sync::atomic::Ordering::Relaxed);
    let retry = |set: &Path| ingest(&["retry", set.to_str().unwrap(), "--allow-private", "--json"]);
    assert_eq!(summary(&retry(&out))["successes"], 3);
    let after = hashes(&shard, "phash");
    assert_eq!((after.len(), after[0], after[2]), (3, before[0], before[1]));
    assert!(after[1].is_some_and(|hash| Some(hash) != before[0]));
    let check = |set: &Path| code(&ingest(&["verify", set.to_str().unwrap()]));
    assert_eq!(check(&out), 0);
    // As an earlier version made it: the hash of the small image would be another one.
    fs::remove_file(without.join("00000.hash.parquet")).unwrap();
    assert_eq!(summary(&retry(&without))["successes"], 3);
    assert!(!without.join("00000.hash.parquet").exists());
    assert_eq!(check(&without), 0);
}

#[test]
fn without_perceptual_hashes_there_is_no_file_and_the_tar_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    fs::create_dir(&images).unwrap();
    for number in 0..3 {
        let file = |extension: &str| images.join(format!("{number}.{extension}"));
        fs::write(file("png"), encoded(&picture(300, 200, number), ImageFormat::Png)).unwrap();
        fs::write(file("txt"), CAPTIONS[number as usize]).unwrap();
    }
    let make = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let arguments =
            ["shard", images.to_str().unwrap(), "--out", out.to_str().unwrap(), "--image-size", "140"];
        let output = ingest(&[&arguments[..], more].concat());
        (out, output)
    };
    let (with, _) = make("with", &[]);
    let (without, output) = make("without", &["--no-perceptual-hash"]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let name = "00000.hash.parquet";
    assert!(with.join(name).exists() && !without.join(name).exists());
    let tar = |set: &Path| fs::read(set.join("00000.tar")).unwrap();
    assert!(tar(&with) == tar(&without));
    let check = |set: &Path| code(&ingest(&["verify", set.to_str().unwrap()]));
    assert_eq!(check(&without), 0);
    // Another setting is another dataset, and the file can be made later.
    let (_, output) = make("without", &[]);
    assert!(error_line(&output).contains("image.perceptual_hash"), "{}", errors(&output));
    assert_eq!(summary(&ingest(&["hash", without.to_str().unwrap(), "--json"]))["hashed"], 1);
    assert_eq!((check(&without), hashes(&without.join("00000.tar"), "phash_trimmed").len()), (0, 3));
}

#[test]
fn shards_of_others_are_hashed_without_their_border_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let whole = [picture(120, 70, 1), picture(60, 110, 2), picture(80, 80, 3)];
    let png = |image: &RgbImage| encoded(image, ImageFormat::Png);
    let members = |bordered: bool| -> Vec<(&str, Vec<u8>)> {
        let image = |at: usize| png(&if bordered { padded(&whole[at]) } else { whole[at].clone() });
        vec![
            ("x/a.txt", CAPTIONS[0].into()),
            ("x/a.png", image(0)),
            ("x/b.png", image(1)),
            ("x/c.png", image(2)),
            ("x/c.txt", CAPTIONS[1].into()),
            // A JPEG comes before a PNG, wherever it is; neither can be decoded here.
            ("x/d.png", image(0)),
            ("x/d.jpg", b"\xff\xd8\xff\xe0 no image".to_vec()),
            ("x/e.txt", b"12, 34 \xff!".to_vec()),
        ]
    };
    let (plain, bordered) = (folder.path().join("00000.tar"), folder.path().join("00001.tar"));
    foreign(&plain, &members(false));
    foreign(&bordered, &members(true));
    let path = folder.path().to_str().unwrap();
    let output = ingest(&["hash", path, "--json", "--threads", "2"]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let counts = summary(&output);
    let count = |name: &str| counts[name].as_u64().unwrap();
    assert_eq!([count("shards"), count("hashed"), count("samples")], [2, 2, 10]);
    assert_eq!([count("without_hash"), count("without_language")], [4, 6]);
    let found = hashes(&plain, "phash_trimmed");
    assert!(found[..3].iter().all(Option::is_some) && found[3..] == [None; 2], "{found:?}");
    assert_eq!(hashes(&bordered, "phash_trimmed"), found);
    assert_eq!(column(&plain, "key"), ["x/a", "x/b", "x/c", "x/d", "x/e"]);
    assert_eq!(column(&plain, "language"), ["eng", "", "deu", "", ""]);
    let verified = ingest(&["verify", path, "--quick", "--json"]);
    assert_eq!(summary(&verified)["signals"], 2);
    let problems = errors(&verified);
    assert!(problems.contains("sample x/e has no image") && !problems.contains("parquet"), "{problems}");

    // Nothing to do; then what is damaged, or of another shard, is made again, and with --force everything.
    let before = contents(folder.path());
    let output = ingest(&["hash", path, "--json"]);
    assert_eq!(errors(&output), "nothing to do: 2 shards already hashed\n");
    assert!(contents(folder.path()) == before);
    let target = folder.path().join("00001.hash.parquet");
    let other = fs::read(folder.path().join("00000.hash.parquet")).unwrap();
    for wrong in [b"damaged".to_vec(), other] {
        fs::write(&target, wrong).unwrap();
        let output = ingest(&["hash", path, "--json"]);
        assert_eq!((&summary(&output)["hashed"], &summary(&output)["replaced"]), (&1.into(), &1.into()));
        assert!(errors(&output).contains("00001.hash.parquet: replaced"), "{}", errors(&output));
        assert!(contents(folder.path()) == before);
    }
    assert_eq!(summary(&ingest(&["hash", path, "--json", "--force"]))["hashed"], 2);
    assert!(contents(folder.path()) == before);
    // A process that was killed before it added the checksum.
    fs::remove_file(folder.path().join("00001.sha256")).unwrap();
    assert_eq!(summary(&ingest(&["hash", path, "--json"]))["hashed"], 0);
    assert!(contents(folder.path()) == before);
    // A shard that changed.
    foreign(&bordered, &members(false)[1..]);
    assert_eq!(summary(&ingest(&["hash", bordered.to_str().unwrap(), "--json"]))["replaced"], 1);
    // The parts of several jobs are the whole.
    let part = |index| {
        let output = ingest(&["hash", path, "--json", "--force", "--index", index, "--count", "2"]);
        summary(&output)["hashed"].as_u64().unwrap()
    };
    assert_eq!((part("0"), part("1")), (1, 1));
}

#[test]
fn damaged_shards_are_errors_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let shard = folder.path().join("00000.tar");
    foreign(
        &shard,
        &[("a.png", encoded(&gradient(60, 50, 1), ImageFormat::Png)), ("a.txt", b"a dog".to_vec())],
    );
    let whole = fs::read(&shard).unwrap();
    for length in [0, 100, 700, 1400] {
        fs::write(&shard, &whole[..length]).unwrap();
        let output = ingest(&["hash", shard.to_str().unwrap()]);
        assert_eq!(code(&output), 1, "{length}");
        assert!(error_line(&output).contains("00000.tar"), "{}", errors(&output));
        assert!(!folder.path().join("00000.hash.parquet").exists());
    }
    // An image whose header asks for more memory than any may, and one that is no image.
    let huge = GrayImage::from_pixel(30, 30, Luma([7]));
    let mut bomb = Vec::new();
    huge.write_to(&mut std::io::Cursor::new(&mut bomb), ImageFormat::Bmp).unwrap();
    bomb[18..22].copy_from_slice(&60_000u32.to_le_bytes());
    bomb[22..26].copy_from_slice(&60_000u32.to_le_bytes());
    foreign(&shard, &[("a.bmp", bomb), ("b.jpg", Vec::new()), ("c.gif", b"GIF89a".to_vec())]);
    let output = ingest(&["hash", shard.to_str().unwrap(), "--json"]);
    assert_eq!((code(&output), &summary(&output)["without_hash"]), (0, &3.into()), "{}", errors(&output));
}

#[test]
fn verify_finds_signals_of_other_samples() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set");
    fs::create_dir(&set).unwrap();
    let shard = set.join("00000.tar");
    let png = encoded(&gradient(60, 50, 1), ImageFormat::Png);
    foreign(&shard, &[("a.png", png.clone()), ("b.png", png)]);
    let path = set.to_str().unwrap();
    let write = |keys: [&str; 2], sha256: Option<&str>, producer: &str| {
        let column: ArrayRef = Arc::new(UInt64Array::from(vec![1, 2]));
        let mut metadata = Metadata::new(producer, "a test", shard.as_path()).unwrap();
        metadata.shard_sha256 = sha256.map(|digit| digit.repeat(64));
        let columns = RecordBatch::try_from_iter([("x", column)]).unwrap();
        Signals::new(metadata, keys, columns).unwrap().write(shard.as_path()).unwrap();
    };
    let verified = || {
        let output = ingest(&["verify", path, "--json"]);
        let problems = summary(&output)["problems"].as_array().unwrap().len();
        (problems, errors(&output))
    };
    write(["a", "b"], Some("0"), "mine");
    assert_eq!(verified().0, 0, "{}", verified().1);
    // Only its name is that of signals.
    fs::copy(set.join("00000.mine.parquet"), set.join("00000.other.parquet")).unwrap();
    assert!(verified().1.contains("its footer is that of 00000.mine.parquet"), "{}", verified().1);
    let column: ArrayRef = Arc::new(UInt64Array::from(vec![1, 2]));
    let rows = RecordBatch::try_from_iter([("x", column)]).unwrap();
    let file = fs::File::create(set.join("00000.other.parquet")).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    assert_eq!(verified().0, 0, "{}", verified().1);
    fs::write(set.join("00000.hash.parquet"), "no table").unwrap();
    assert!(
        verified().1.contains("00000.hash.parquet: it is not a valid file of signals"),
        "{}",
        verified().1
    );
    fs::remove_file(set.join("00000.hash.parquet")).unwrap();

    write(["a", "c"], None, "mine");
    assert!(
        verified().1.contains("describes other samples than the tar, starting with b"),
        "{}",
        verified().1
    );
    write(["a", "b"], Some("0"), "mine");
    fs::write(set.join("00000.sha256"), format!("{}  00000.tar\n", "1".repeat(64))).unwrap();
    let (problems, text) = verified();
    assert!(problems == 2 && text.contains("another 00000.tar of the same size"), "{text}");
    fs::remove_file(set.join("00000.sha256")).unwrap();
    ingest(&["hash", path]);
    fs::rename(set.join("00000.hash.parquet"), set.join("00001.hash.parquet")).unwrap();
    assert!(verified().1.contains("00001.hash.parquet: its tar is missing"), "{}", verified().1);
}
