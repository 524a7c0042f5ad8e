//! Local images and input tables: the contents of the shards, and the errors for invalid input.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::common::{
    Server, code, contents, encoded, error_line, errors, gradient, ingest, jpeg, members, respond, summary,
    table,
};
use image::ImageFormat;
use serde_json::Value;

fn run(folder: &Path, input: &str, more: &[&str]) -> std::process::Output {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (input, out) = (path(input), path("out"));
    let mut arguments = vec!["shard", &input, "--out", &out, "--json"];
    arguments.extend(more);
    ingest(&arguments)
}

/// A folder with `images/a.jpg` (100 x 50), `images/sub/b.png` (30 x 60, grey), `images/c.webp` (40 x 40).
fn images() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    fs::create_dir_all(images.join("sub")).unwrap();
    fs::write(images.join("a.jpg"), jpeg(100, 50, 1)).unwrap();
    let mut grey = std::io::Cursor::new(Vec::new());
    image::DynamicImage::from(gradient(30, 60, 2)).to_luma8().write_to(&mut grey, ImageFormat::Png).unwrap();
    fs::write(images.join("sub/b.png"), grey.into_inner()).unwrap();
    fs::write(images.join("c.webp"), encoded(&gradient(40, 40, 3), ImageFormat::WebP)).unwrap();
    folder
}

#[test]
fn captions_stay_with_their_images_and_the_table_has_the_offsets() {
    let folder = images();
    let images = folder.path().join("images");
    let lines = [
        r#"{"file": "a.jpg", "captions": ["A first one.", "A second, “quoted” one."], "licence": 4}"#,
        r#"{"file": "sub/b.png", "captions": ["Grey."], "licence": {"name": "cc"}}"#,
        r#"{"file": "missing.jpg", "captions": ["Nobody"]}"#,
        r#"{"file": "../secret.jpg", "captions": ["Escapes"]}"#,
        r"not json",
        r#"{"file": "c.webp", "captions": ["Third."], "licence": null}"#,
    ];
    let mut text = lines.join("\n").into_bytes();
    text.extend(b"\n{\"file\": \"a.jpg\", \"captions\": [\"Not UTF-8 \xff\"]}\n");
    fs::write(folder.path().join("list.jsonl"), text).unwrap();
    let more = ["--images", images.to_str().unwrap(), "--resize-mode", "keep_ratio", "--image-size", "32"];
    let more = [&more[..], &["--save-additional-columns", "licence", "--shard-size", "100"]].concat();
    let output = run(folder.path(), "list.jsonl", &more);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let out = folder.path().join("out");

    let rows = table(&out.join("00000.parquet"));
    let statuses: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (row["status"].as_str(), row.get("error_message").map_or("", String::as_str)))
        .collect();
    assert_eq!(
        statuses,
        [
            ("success", ""),
            ("success", ""),
            ("success", ""),
            ("failed_to_read", "file not found"),
            ("failed_to_read", "path is outside the image folder"),
            ("failed_to_read", "line is not JSON"),
            ("success", ""),
            ("failed_to_read", "line is not UTF-8"),
        ]
    );
    assert_eq!(rows[7]["caption"], "Not UTF-8 \u{fffd}");
    assert_eq!(rows[7]["url"], "a.jpg");

    let tar = out.join("00000.tar");
    let bytes = fs::read(&tar).unwrap();
    let members = members(&tar);
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..3], ["0000000.jpg", "0000000.json", "0000000.txt"]);
    assert_eq!(names.len(), 4 * 3);
    assert_eq!(String::from_utf8_lossy(&members[5].1), "A second, “quoted” one.");
    let good: Vec<_> = rows.iter().filter(|row| row["status"] == "success").collect();
    for (row, sample) in good.iter().zip(members.chunks(3)) {
        assert_eq!(sample[0].0, format!("{}.jpg", row["key"]));
        let (offset, length): (usize, usize) =
            (row["offset"].parse().unwrap(), row["length"].parse().unwrap());
        assert_eq!(bytes[offset..offset + length], sample[0].1);
        let json: Value = serde_json::from_slice(&sample[1].1).unwrap();
        assert_eq!(json["caption"], row["caption"].as_str());
        assert_eq!(json["sha256"], row["sha256"].as_str());
        let stored = image::load_from_memory(&sample[0].1).unwrap();
        assert_eq!(stored.width().to_string(), row["width"]);
        assert_eq!(stored.height().to_string(), row["height"]);
    }
    // 100 x 50 with the shorter side resized to 32.
    assert_eq!((good[0]["width"].as_str(), good[0]["height"].as_str()), ("64", "32"));
    assert_eq!((good[0]["original_width"].as_str(), good[0]["original_height"].as_str()), ("100", "50"));
    let json: Value = serde_json::from_slice(&members[1].1).unwrap();
    assert_eq!(json["licence"], 4);
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    let order = "licence caption url key status error_message width height original_width original_height exif sha256";
    assert_eq!(keys, order.split(' ').collect::<Vec<_>>());
    assert!(
        image::load_from_memory(&members[6].1).unwrap().color() == image::ColorType::L8,
        "grey stays grey"
    );

    // A second run has nothing to do and changes nothing; a run into an empty folder makes the same bytes.
    let before = contents(&out);
    let again = run(folder.path(), "list.jsonl", &more);
    assert_eq!(summary(&again)["shards_written"], 0);
    let text = errors(&again);
    assert!(text.contains("nothing to do: 1 shard already complete") && !text.contains("/s)"), "{text}");
    assert!(contents(&out) == before);
    fs::remove_dir_all(&out).unwrap();
    run(folder.path(), "list.jsonl", &more);
    assert!(contents(&out) == before);
    assert_eq!(code(&ingest(&["verify", out.to_str().unwrap()])), 0);
}

#[test]
fn coco_files_give_one_sample_per_caption() {
    let folder = images();
    let coco = serde_json::json!({
        "info": {"description": "a test"},
        "licenses": [],
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "c.webp"}],
        "annotations": [
            {"id": 1, "image_id": 9, "caption": "Third.\n"},
            {"id": 2, "image_id": 7, "caption": "First."},
            {"id": 3, "image_id": 8, "caption": "Of no image."},
            {"id": 4, "image_id": 9, "caption": "Third again."},
        ],
    });
    fs::write(folder.path().join("captions.json"), coco.to_string()).unwrap();
    let images = folder.path().join("images");
    let more = ["--images", images.to_str().unwrap(), "--save-additional-columns", "image_id"];
    let output = run(folder.path(), "captions.json", &more);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let rows = table(&folder.path().join("out/00000.parquet"));
    let captions: Vec<&str> = rows.iter().map(|row| row["caption"].as_str()).collect();
    assert_eq!(captions, ["Third.", "First.", "Of no image.", "Third again."]);
    assert_eq!(rows[2]["error_message"], "the annotation's image is not in the file");
    assert_eq!((rows[0]["image_id"].as_str(), rows[1]["url"].as_str()), ("9", "a.jpg"));
    assert_eq!(summary(&output)["successes"], 3);
}

#[test]
fn folders_of_images_and_texts_need_no_table() {
    let folder = images();
    let images = folder.path().join("images");
    fs::write(images.join("a.txt"), "of a\n").unwrap();
    fs::write(images.join("sub/b.txt"), "of b").unwrap();
    let output = run(folder.path(), "images", &["--compress"]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let rows = table(&folder.path().join("out/00000.parquet"));
    assert_eq!(
        rows.iter().map(|row| row["url"].as_str()).collect::<Vec<_>>(),
        ["a.jpg", "c.webp", "sub/b.png"]
    );
    assert_eq!(rows[0]["caption"], "of a");
    assert_eq!(rows[1]["error_message"], "no caption file (.txt with the same name)");
    let out = folder.path().join("out");
    assert!(out.join("00000.tar.zst").exists());
    assert_eq!(code(&ingest(&["verify", out.to_str().unwrap()])), 0);
}

#[test]
fn a_folder_without_captions_is_an_error_unless_it_is_meant() {
    let folder = images();
    let out = folder.path().join("out");
    for _ in 0..2 {
        let output = run(folder.path(), "images", &[]);
        assert_eq!(code(&output), 1, "{}", errors(&output));
        let line = error_line(&output);
        assert!(
            line.contains("images: none of its 3 images has a caption file")
                && line.contains("--no-captions")
        );
        assert!(!out.exists(), "no output folder");
    }
    let output = run(folder.path(), "images", &["--no-captions"]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(summary(&output)["successes"], 3);
    let names: Vec<String> = members(&out.join("00000.tar")).into_iter().map(|(name, _)| name).collect();
    assert!(names.len() == 6 && names.iter().all(|name| !name.contains(".txt")), "{names:?}");
    assert!(table(&out.join("00000.parquet")).iter().all(|row| !row.contains_key("caption")));
    assert_eq!(code(&ingest(&["verify", out.to_str().unwrap()])), 0);

    // The same folder with captions is another dataset.
    fs::write(folder.path().join("images/a.txt"), "of a").unwrap();
    let output = run(folder.path(), "images", &[]);
    assert_eq!(code(&output), 1, "{}", errors(&output));
    assert!(error_line(&output).contains("already holds another dataset"), "{}", error_line(&output));
}

#[test]
fn a_run_whose_samples_all_fail_is_an_error_and_keeps_no_shards() {
    let folder = images();
    fs::write(folder.path().join("list.csv"), "file,caption\na.jpg,one\nc.webp,two\nc.webp,three\n").unwrap();
    let out = folder.path().join("out");
    let wrong = folder.path().join("images/sub");
    let more = ["--images", wrong.to_str().unwrap(), "--shard-size", "2"];
    let output = run(folder.path(), "list.csv", &more);
    assert_eq!(code(&output), 1, "{}", errors(&output));
    let line = error_line(&output);
    assert!(
        line.contains("every sample failed (0 of 3 succeeded)") && line.contains("file not found (3)"),
        "{line}"
    );
    assert_eq!(summary(&output)["causes"]["file not found"], 3);
    assert!(!out.exists(), "no shards are kept");

    // A limit that is exceeded decides the exit code, and one that is not accepts the failures.
    let limited = |limit: &str| {
        code(&run(folder.path(), "list.csv", &[&more[..], &["--max-failures", limit]].concat()))
    };
    assert_eq!(limited("2"), 3);
    fs::remove_dir_all(&out).unwrap();
    assert_eq!(limited("100%"), 0);
    fs::remove_dir_all(&out).unwrap();

    // With the right folder the same command succeeds.
    let right = folder.path().join("images");
    let output = run(folder.path(), "list.csv", &["--images", right.to_str().unwrap(), "--shard-size", "2"]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!((&summary(&output)["successes"], &summary(&output)["shards_written"]), (&3.into(), &2.into()));
}

#[test]
fn every_table_format_gives_the_same_shards() {
    let folder = images();
    let images = folder.path().join("images");
    let rows =
        [("a.jpg", "one, with a comma"), ("c.webp", "two \"quoted\""), ("sub/b.png", "drei — ünïcode")];
    let objects: Vec<Value> =
        rows.iter().map(|(file, caption)| serde_json::json!({"FILE": file, "Text": caption})).collect();
    let lines: String = objects.iter().map(|object| format!("{object}\n")).collect();
    let quoted = |separator: &str| {
        let line = |(file, caption): &(&str, &str)| {
            format!("{file}{separator}\"{}\"\n", caption.replace('"', "\"\""))
        };
        format!("FILE{separator}Text\n{}", rows.iter().map(line).collect::<String>())
    };
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    // With a byte order mark and CRLF, as Windows editors write it.
    let marked = |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n")).into_bytes();
    let files: [(&str, Vec<u8>); 10] = [
        ("marked.jsonl", marked(&lines)),
        ("marked.csv", marked(&quoted(","))),
        ("t.jsonl", lines.clone().into_bytes()),
        ("t.json", serde_json::to_string_pretty(&objects).unwrap().into_bytes()),
        ("u.json", lines.clone().into_bytes()),
        ("t.csv", quoted(",").into_bytes()),
        ("t.tsv", quoted("\t").into_bytes()),
        ("t.csv.gz", gzip(&quoted(","))),
        ("t.jsonl.zst", zstd::encode_all(lines.as_bytes(), 1).unwrap()),
        ("t.parquet", parquet_table(&rows)),
    ];
    let mut tars = Vec::new();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
        let out = folder.path().join("out");
        let output = run(folder.path(), name, &["--images", images.to_str().unwrap()]);
        assert_eq!(summary(&output)["successes"], 3, "{name}: {}", errors(&output));
        tars.push((name, fs::read(out.join("00000.tar")).unwrap()));
        fs::remove_dir_all(out).unwrap();
    }
    for (name, tar) in &tars {
        assert!(*tar == tars[0].1, "{name}");
    }
}

#[test]
fn a_list_with_a_byte_order_mark_and_crlf_loses_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _, stream| respond(stream, "200 OK", &[], &jpeg(60, 50, 1)));
    let list = folder.path().join("list.txt");
    fs::write(&list, format!("\u{feff}{0}\r\n\r\n{0}\r\n{0}", server.url("/a"))).unwrap();
    let out = folder.path().join("out");
    let arguments = ["download", list.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
    let output = ingest(&[&arguments[..], &["--allow-private"]].concat());
    let counts = summary(&output);
    assert_eq!((&counts["samples"], &counts["successes"]), (&3.into(), &3.into()), "{}", errors(&output));
}

fn parquet_table(rows: &[(&str, &str)]) -> Vec<u8> {
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    let files: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
    let captions: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)));
    let batch = RecordBatch::try_from_iter([("FILE", files), ("Text", captions)]).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn a_caption_that_is_not_utf8_fails_only_its_row_in_parquet_too() {
    let folder = images();
    let mut bytes = parquet_table(&[("a.jpg", "one"), ("c.webp", "SPOILED"), ("sub/b.png", "three")]);
    // The text is in the file unchanged (dictionary page, no compression).
    let places: Vec<usize> =
        bytes.windows(7).enumerate().filter(|(_, w)| w == b"SPOILED").map(|(at, _)| at).collect();
    for at in places {
        bytes[at] = 0xff;
    }
    fs::write(folder.path().join("t.parquet"), bytes).unwrap();
    let images = folder.path().join("images");
    let output = run(folder.path(), "t.parquet", &["--images", images.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(summary(&output)["causes"]["caption is not UTF-8"], 1);
    assert_eq!(summary(&output)["successes"], 2);
}

#[test]
fn invalid_input_gives_one_error_line_and_no_output() {
    let folder = images();
    let root = folder.path();
    let images = root.join("images").to_str().unwrap().to_owned();
    let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
    write("empty.csv", "");
    write("header.csv", "file,caption\n");
    write("columns.csv", "path_to,words\na.jpg,one\n");
    write("not.parquet", "this is no parquet file");
    write("not.json", "[1, 2]");
    write("short.json", r#"[{"file": "a.jpg", "caption": "x"}, {"file"#);
    write("instances.json", r#"{"images": [], "annotations": [{"id": 1, "bbox": []}]}"#);
    write("list.weird", "x");
    write("list.txt", "a.jpg\n");
    write("good.csv", "file,caption\na.jpg,one\n");
    write("plain-file", "");
    fs::write(root.join("wide.csv"), b"\xff\xfef\0i\0l\0e\0,\0").unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe.csv")).status().unwrap().success());
    fs::create_dir(root.join("hollow")).unwrap();
    let out = root.join("out");
    let inside_file = root.join("plain-file/out");
    let (out, inside_file) = (out.to_str().unwrap(), inside_file.to_str().unwrap());
    // Exit code 1: a file is wrong. 2: the command line is wrong.
    let cases: [(&str, &[&str], i32, &str); 20] = [
        ("nowhere.csv", &[], 1, "nowhere.csv does not exist"),
        ("empty.csv", &[], 1, "empty"),
        ("header.csv", &[], 1, "no rows"),
        ("columns.csv", &[], 2, "its columns are path_to, words"),
        ("good.csv", &["--caption-col", "alt"], 2, "no column \"alt\"; its columns are file, caption"),
        ("good.csv", &["--save-additional-columns", "licence"], 2, "licence"),
        ("good.csv", &["--save-additional-columns", "sha256"], 2, "sha256"),
        ("good.csv", &["--encode-quality", "101"], 2, "1 to 100"),
        ("good.csv", &["--index", "3", "--count", "3"], 2, "--index 3"),
        ("not.parquet", &[], 1, "not a parquet file"),
        ("not.json", &[], 1, "not.json"),
        ("short.json", &[], 1, "short.json"),
        ("instances.json", &[], 1, "captions_*.json"),
        ("list.weird", &[], 2, "--input-format"),
        ("list.txt", &["--caption-col", "alt"], 2, "no columns"),
        ("wide.csv", &[], 1, "UTF-16"),
        ("pipe.csv", &[], 1, "a pipe or a device"),
        ("hollow", &[], 1, "hollow"),
        ("good.csv", &["--images", "/nowhere/at/all"], 1, "/nowhere/at/all does not exist"),
        ("good.csv", &["--out", inside_file], 1, "plain-file"),
    ];
    for (input, more, expected, says) in cases {
        let input_path = root.join(input);
        let mut arguments = vec!["shard", input_path.to_str().unwrap()];
        if !more.contains(&"--images") {
            arguments.extend(["--images", &images]);
        }
        if !more.contains(&"--out") {
            arguments.extend(["--out", out]);
        }
        arguments.extend(more);
        let output = ingest(&arguments);
        assert_eq!(code(&output), expected, "{input} {more:?}: {}", errors(&output));
        let line = error_line(&output);
        assert!(line.contains(says), "{input} {more:?}: {line}");
        let left: Vec<_> =
            fs::read_dir(out).map_or(Vec::new(), |entries| entries.map(|e| e.unwrap().file_name()).collect());
        let only_manifest = left.iter().all(|name| name == "ingest.json");
        assert!(only_manifest, "{input}: no partial files: {left:?}");
        let _ = fs::remove_dir_all(out);
    }
    assert_eq!(
        code(&ingest(&["shard", root.join("good.csv").to_str().unwrap(), "--out", out])),
        2,
        "no --images"
    );
    assert_eq!(code(&ingest(&["download"])), 2);
    // Options for tables do not apply to a folder of images.
    let refused = ingest(&["shard", &images, "--out", out, "--caption-col", "text"]);
    assert_eq!(code(&refused), 2);
    assert!(error_line(&refused).contains("--caption-col is for tables"), "{}", error_line(&refused));
}
