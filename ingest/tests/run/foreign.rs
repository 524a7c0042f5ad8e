//! Tables, folders, shards and images as other programs write them. The right values are those of the programs that are
//! named: what they read from the same bytes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Int32Builder, ListBuilder, MapBuilder, StringBuilder};
use arrow_array::{ArrayRef, NullArray, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field};
use image::ImageFormat;

use crate::common::{
    Server, code, encoded, error_line, errors, gradient, ingest, jpeg, members, respond, summary, table,
};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes shards of local images of 40 x 30 pixels, `a.jpg` to `d.jpg`, from a table; returns the rows of the shard's table.
fn rows(name: &str, content: &[u8], more: &[&str]) -> Vec<std::collections::BTreeMap<String, String>> {
    let folder = tempfile::tempdir().unwrap();
    let output = shard(folder.path(), name, content, more);
    assert_eq!(code(&output), 0, "{name}: {}", errors(&output));
    table(&folder.path().join("out/00000.parquet"))
}

fn refusal(name: &str, content: &[u8]) -> String {
    let output = shard(tempfile::tempdir().unwrap().path(), name, content, &[]);
    assert_ne!(code(&output), 0);
    error_line(&output)
}

fn shard(folder: &Path, name: &str, content: &[u8], more: &[&str]) -> std::process::Output {
    for image in ["a", "b", "c", "d"] {
        fs::write(folder.join(image).with_extension("jpg"), jpeg(40, 30, 1)).unwrap();
    }
    let (input, out) = (folder.join(name), folder.join("out"));
    fs::write(&input, content).unwrap();
    let arguments = ["shard", text(&input), "--images", text(folder), "--out", text(&out), "--json"];
    ingest(&[&arguments[..], more].concat())
}

/// Caption and cause of failure of each row.
fn captions(name: &str, content: &[u8]) -> Vec<(String, String)> {
    let value = |row: &std::collections::BTreeMap<String, String>, column: &str| {
        row.get(column).cloned().unwrap_or_default()
    };
    rows(name, content, &[]).iter().map(|row| (value(row, "caption"), value(row, "error_message"))).collect()
}

fn fine(captions: &[&str]) -> Vec<(String, String)> {
    captions.iter().map(|&caption| (caption.to_owned(), String::new())).collect()
}

/// DuckDB reads four rows, too.
#[test]
fn a_quote_does_not_swallow_the_lines_after_it() {
    let tsv = "file\tcaption\na.jpg\t\"a quote at the start\nb.jpg\t\"in \"\"quotes\"\"\"\nc.jpg\t6\" wide\nd.jpg\t\"\n";
    let expected = fine(&["\"a quote at the start", "in \"quotes\"", "6\" wide", "\""]);
    assert_eq!(captions("t.tsv", tsv.as_bytes()), expected);
    // In a CSV a field may have several lines, so the end of the file decides.
    let csv = "file,caption\na.jpg,\"two\nlines\"\nb.jpg,\"never closed\nc.jpg,x\n";
    let found = captions("t.csv", csv.as_bytes());
    assert_eq!(found[0], ("two\nlines".to_owned(), String::new()));
    assert_eq!(found.len(), 2);
    assert!(found[1].1.contains("never closed"), "{found:?}");
}

/// `json.load` of Python reads these documents, and writes them.
#[test]
fn json_of_python_is_read() {
    let lines = "{\"file\": \"a.jpg\", \"caption\": \"NaN\", \"similarity\": NaN}\n\
                 {\"file\": \"b.jpg\", \"caption\": \"half \\ud83d\", \"similarity\": -Infinity}\n";
    let found = rows("t.jsonl", lines.as_bytes(), &["--save-additional-columns", "similarity"]);
    let of = |column: &str| found.iter().map(|row| row.get(column).cloned()).collect::<Vec<_>>();
    assert_eq!(of("caption"), [Some("NaN".to_owned()), Some("half \u{fffd}".to_owned())]);
    assert_eq!(of("similarity"), [None, None]);
    let array = format!("[{}]", lines.trim().replace('\n', ","));
    assert_eq!(captions("t.json", array.as_bytes()), fine(&["NaN", "half \u{fffd}"]));
    let coco = r#"{"info": {"version": NaN}, "images": [{"id": 1, "file_name": "a.jpg", "score": NaN}],
                   "annotations": [{"image_id": 1, "caption": "a dog"}]}"#;
    assert_eq!(captions("coco.json", coco.as_bytes()), fine(&["a dog"]));
}

#[test]
fn one_object_that_is_not_json_is_one_failed_row() {
    let array = r#"[{"file": "a.jpg", "caption": "one"}, {"file": "b.jpg", "caption": two}, {"file": "c.jpg", "caption": "}{"}]"#;
    let found = captions("t.json", array.as_bytes());
    assert_eq!(found.iter().map(|row| row.0.as_str()).collect::<Vec<_>>(), ["one", "", "}{"]);
    assert_eq!(found[1].1, "line is not JSON");
}

#[test]
fn a_column_may_be_missing_from_the_first_objects() {
    let lines = "{\"file\": \"a.jpg\"}\n{\"file\": \"b.jpg\", \"caption\": \"two\"}\n";
    let found = rows("t.jsonl", lines.as_bytes(), &["--max-failures", "1"]);
    assert_eq!(found[1]["caption"], "two");
    assert_eq!(found.len(), 2);
}

/// As pandas' `read_json` reads them: what its `to_json` writes by default, and columns of lists, as SBU is published.
#[test]
fn columns_instead_of_rows_are_read() {
    for document in [
        r#"{"file": {"0": "a.jpg", "1": "b.jpg"}, "caption": {"0": "one", "1": "two"}}"#,
        r#"{"file": ["a.jpg", "b.jpg"], "caption": ["one", "two"], "user": [1, NaN]}"#,
        r#"{"source": "x", "caption": ["one", "two"], "file": ["a.jpg", "b.jpg"]}"#,
    ] {
        assert_eq!(captions("t.json", document.as_bytes()), fine(&["one", "two"]), "{document}");
    }
    let line = refusal("t.json", br#"{"file": ["a.jpg", "b.jpg"], "caption": ["one"]}"#);
    assert!(line.contains("file 2, caption 1"), "{line}");
}

/// The layout of `dataset_coco.json`, as its README describes it; Flickr30k's has no `filepath`.
#[test]
fn karpathys_splits_are_read() {
    let image = |file: &str, split: &str, captions: &[&str]| {
        let sentences: Vec<serde_json::Value> = captions
            .iter()
            .map(|raw| serde_json::json!({"tokens": ["x"], "raw": raw, "sentid": 1}))
            .collect();
        serde_json::json!({"filename": file, "split": split, "sentences": sentences, "cocoid": 7})
    };
    let images = [
        image("a.jpg", "test", &["A dog.", "One more."]),
        image("b.jpg", "train", &["A cat."]),
        image("c.jpg", "restval", &["A bird."]),
    ];
    let file = serde_json::json!({ "images": images, "dataset": "flickr30k" }).to_string();
    let of = |split: &str| {
        let more = ["--split", split, "--save-additional-columns", "split,cocoid"];
        rows("dataset_flickr30k.json", file.as_bytes(), &more)
    };
    let test = of("test");
    assert_eq!(test.iter().map(|row| row["caption"].as_str()).collect::<Vec<_>>(), ["A dog.", "One more."]);
    assert_eq!((test[0]["split"].as_str(), test[0]["cocoid"].as_str()), ("test", "7"));
    assert_eq!(of("train,restval").len(), 2);
    assert_eq!(captions("all.json", file.as_bytes()).len(), 4);
    let folder = tempfile::tempdir().unwrap();
    let output = shard(folder.path(), "t.json", file.as_bytes(), &["--split", "dev"]);
    assert!(
        code(&output) == 2 && error_line(&output).contains("restval, test, train"),
        "{}",
        errors(&output)
    );
    let output = shard(folder.path(), "t.csv", b"file,caption\na.jpg,x\n", &["--split", "test"]);
    assert!(code(&output) == 2 && error_line(&output).contains("--split"), "{}", errors(&output));

    // COCO's files are in two folders.
    fs::create_dir(folder.path().join("val2014")).unwrap();
    fs::write(folder.path().join("val2014/x.jpg"), jpeg(40, 30, 1)).unwrap();
    let mut coco = image("x.jpg", "val", &["A bus."]);
    coco["filepath"] = "val2014".into();
    let file = serde_json::json!({ "images": [coco], "dataset": "coco" }).to_string();
    let output = shard(folder.path(), "dataset_coco.json", file.as_bytes(), &["--split", "val"]);
    assert_eq!(summary(&output)["successes"], 1, "{}", errors(&output));
}

/// The layouts of lists of URLs, as their authors publish them.
#[test]
fn published_lists_are_read_without_being_told() {
    let server = Server::start(|_, _, stream| respond(stream, "200 OK", &[], &jpeg(40, 30, 1)));
    let url = server.url("/a.jpg");
    let redcaps = serde_json::json!({
        "info": {"start_date": "2017-01-01", "note": "[\"annotations\": ["},
        "annotations": [
            {"image_id": "x", "author": "y", "image_url": url, "raw_caption": "A Dog!", "caption": "a dog", "subreddit": 3},
            {"image_id": "z", "author": "y", "image_url": url, "raw_caption": "Two", "caption": "two", "subreddit": 3},
        ],
    });
    let sbu =
        serde_json::json!({"image_urls": [url, url], "user_ids": ["1", "2"], "captions": ["a dog", "two"]});
    let wit = format!(
        "language\tpage_url\timage_url\tpage_title\tcaption_reference_description\tcaption_attribution_description\n\
         en\thttp://a.example\t{url}\tDog\ta dog\tEnglish: a dog\nen\thttp://a.example\t{url}\tDog\ttwo\t\n"
    );
    let cc12m = format!("{url}\ta dog\n{url}\ttwo\n");
    let cc3m = format!("a dog\t{url}\ntwo\t{url}\n");
    // The columns of LAION-400M, DataComp, Re-LAION and COYO; their types do not matter here.
    let lists = [
        "SAMPLE_ID,URL,TEXT,HEIGHT,WIDTH,LICENSE,NSFW,similarity",
        "uid,url,text,original_width,original_height,clip_b32_similarity_score,face_bboxes,sha256",
        "url,caption,similarity,hash,punsafe,pwatermark,key,status,error_message,width,height",
        "id,url,text,width,height,image_phash,text_length,clip_similarity_vitb32",
    ]
    .map(|header| {
        let row = |caption: &str| {
            let value = |name: &str| match name.to_ascii_lowercase().as_str() {
                "url" => url.clone(),
                "text" | "caption" => caption.to_owned(),
                _ => "1".to_owned(),
            };
            header.split(',').map(value).collect::<Vec<_>>().join(",")
        };
        format!("{header}\n{}\n{}\n", row("a dog"), row("two"))
    });
    let mut files = vec![
        ("dogs_2017.json", redcaps.to_string()),
        ("sbu-captions-all.json", sbu.to_string()),
        ("wit.tsv", wit),
        ("cc12m.tsv", cc12m),
        ("cc3m.tsv", cc3m),
    ];
    files.extend(lists.into_iter().map(|list| ("list.csv", list)));
    for (name, content) in files {
        let folder = tempfile::tempdir().unwrap();
        let (input, out) = (folder.path().join(name), folder.path().join("out"));
        fs::write(&input, &content).unwrap();
        let output = ingest(&["download", text(&input), "--out", text(&out), "--allow-private", "--json"]);
        assert_eq!(summary(&output)["successes"], 2, "{content}: {}", errors(&output));
        let found = table(&out.join("00000.parquet"));
        assert_eq!(
            (found[0]["caption"].as_str(), found[1]["caption"].as_str()),
            ("a dog", "two"),
            "{content}"
        );
    }
}

#[test]
fn a_large_window_is_named() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(b"{\"file\": \"a.jpg\", \"caption\": \"one\"}\n").unwrap();
    let line = refusal("t.jsonl.zst", &encoder.finish().unwrap());
    assert!(line.contains("256 MiB"), "{line}");
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    let mut file = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file
}

/// As pyarrow's `to_pylist`, written as JSON.
#[test]
fn nested_columns_of_parquet_are_json() {
    let mut tags = ListBuilder::new(StringBuilder::new());
    tags.append_value([Some("red"), Some("dog"), None]);
    let mut counts = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    counts.keys().append_value("é");
    counts.values().append_value(3);
    counts.append(true).unwrap();
    let inner: ArrayRef = Arc::new(StringArray::from(vec!["cc"]));
    let licence = StructArray::from(vec![(Arc::new(Field::new("name", DataType::Utf8, true)), inner)]);
    let file = parquet(vec![
        ("file", Arc::new(StringArray::from(vec!["a.jpg"]))),
        ("caption", Arc::new(StringArray::from(vec!["one"]))),
        ("tags", Arc::new(tags.finish())),
        ("counts", Arc::new(counts.finish())),
        ("licence", Arc::new(licence)),
    ]);
    let found = rows("t.parquet", &file, &["--save-additional-columns", "tags,counts,licence"]);
    assert_eq!(found[0]["tags"], r#"["red","dog",null]"#);
    assert_eq!(found[0]["counts"], r#"{"é":3}"#);
    assert_eq!(found[0]["licence"], r#"{"name":"cc"}"#);
}

/// img2dataset reads null captions, too. pandas writes the type null for a column without values.
#[test]
fn a_column_of_nulls_has_no_captions() {
    let file = parquet(vec![
        ("file", Arc::new(StringArray::from(vec!["a.jpg", "b.jpg"]))),
        ("caption", Arc::new(NullArray::new(2))),
    ]);
    let found = rows("t.parquet", &file, &["--max-failures", "1"]);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|row| !row.contains_key("caption")));
}

#[test]
fn full_paths_inside_the_image_folder() {
    let folder = tempfile::tempdir().unwrap();
    let csv = format!("filepath,caption\n{},one\n", text(&folder.path().join("a.jpg")));
    let output = shard(folder.path(), "t.csv", csv.as_bytes(), &[]);
    assert_eq!(summary(&output)["successes"], 1, "{}", errors(&output));
}

#[test]
fn folders_of_a_mac_and_text_of_windows() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    fs::create_dir_all(images.join("__MACOSX")).unwrap();
    fs::write(images.join("a.jpg"), jpeg(40, 30, 1)).unwrap();
    fs::write(images.join("a.txt"), "\u{feff}a dog").unwrap();
    fs::create_dir(images.join(".thumbnails")).unwrap();
    for other in ["._a.jpg", "__MACOSX/._a.jpg", "__MACOSX/b.jpg", ".thumbnails/a.jpg", ".hidden.jpg"] {
        fs::write(images.join(other), b"\0\x05\x16\x07").unwrap();
    }
    let out = folder.path().join("out");
    let output = ingest(&["shard", text(&images), "--out", text(&out)]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let found = table(&out.join("00000.parquet"));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["caption"], "a dog");

    let lines = folder.path().join("captions.txt");
    fs::write(&lines, "\u{feff}a dog\n\u{feff}a cat\n").unwrap();
    let output = ingest(&["tag", "--text", text(&lines)]);
    let first = String::from_utf8(output.stdout).unwrap().lines().next().unwrap().to_owned();
    assert!(first.starts_with(r#"{"text":"a dog""#), "{first}");
}

fn tagged(folder: &Path, name: &str, bytes: &[u8]) -> std::process::Output {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
    ingest(&["tag", text(folder), "--json"])
}

/// A tar with two samples.
fn tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in [("0.txt", "a red dog"), ("0.jpg", "x"), ("1.txt", "a cat"), ("1.jpg", "x")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, data.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// webdataset reads compressed tars by their content, whatever their names.
#[test]
fn compressed_shards_are_read_by_their_content() {
    let folder = tempfile::tempdir().unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar()).unwrap();
    let gz = gz.finish().unwrap();
    let zst = zstd::encode_all(tar().as_slice(), 1).unwrap();
    for (name, bytes) in [
        ("0.tar.gz", &gz),
        ("0.tgz", &gz),
        ("0.tar", &gz),
        ("0.tar.zst", &zst),
        ("00.tar", &zst),
        ("1.tar", &tar()),
    ] {
        let place = folder.path().join(format!("{name}-{}", bytes.len()));
        let output = tagged(&place, name, bytes);
        assert_eq!(code(&output), 0, "{name}: {}", errors(&output));
        assert_eq!(summary(&output)["captions"], 2, "{name}");
        let stem = name.split('.').next().unwrap();
        assert_eq!(table(&place.join(format!("{stem}.concepts.parquet")))[0]["concept"], "dog", "{name}");
    }
}

#[test]
fn sparse_members_are_named() {
    // A PAX header that says what GNU tar says of a sparse file, in front of the first member.
    let record = b"22 GNU.sparse.major=1\n";
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_path("x").unwrap();
    header.set_size(record.len() as u64);
    header.set_cksum();
    let mut pax = header.as_bytes().to_vec();
    pax.extend(record);
    pax.resize(1024, 0);
    pax.extend(tar());
    // The member's type is that of a sparse file in GNU's own format.
    let mut gnu = tar();
    gnu[156] = b'S';
    // One piece, of the 9 bytes from byte 0 on; the size of the whole file.
    gnu[386..410].copy_from_slice(b"00000000000\x0000000000011\0");
    gnu[483..495].copy_from_slice(b"00000000011\0");
    let sum: u32 = gnu[..512]
        .iter()
        .enumerate()
        .map(|(at, &byte)| u32::from(if (148..156).contains(&at) { b' ' } else { byte }))
        .sum();
    gnu[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("pax", pax), ("gnu", gnu)] {
        let output = tagged(&folder.path().join(name), "0.tar", &bytes);
        let line = error_line(&output);
        assert!(line.contains("sparse"), "{name}: {line}");
    }
}

/// Pillow applies the orientation of both files.
#[test]
fn exif_of_webp_with_the_prefix_of_jpeg() {
    let webp = encoded(&gradient(64, 40, 1), ImageFormat::WebP);
    // Little-endian TIFF with one entry: tag 0x0112 (orientation), SHORT, one value, 6.
    let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    for start in [0, 6] {
        let mut body = b"WEBPVP8X\x0a\0\0\0\x08\0\0\0".to_vec();
        body.extend([63, 0, 0, 39, 0, 0]);
        body.extend(&webp[12..]);
        body.extend(b"EXIF");
        body.extend(((exif.len() - start) as u32).to_le_bytes());
        body.extend(&exif[start..]);
        let mut file = b"RIFF".to_vec();
        file.extend((body.len() as u32).to_le_bytes());
        file.extend(body);
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images");
        fs::create_dir(&images).unwrap();
        fs::write(images.join("a.webp"), file).unwrap();
        let out = folder.path().join("out");
        let output =
            ingest(&["shard", text(&images), "--out", text(&out), "--no-captions", "--resize-mode", "no"]);
        assert_eq!(code(&output), 0, "{}", errors(&output));
        let row = &table(&out.join("00000.parquet"))[0];
        assert_eq!((row["width"].as_str(), row["height"].as_str()), ("40", "64"), "from byte {start}");
        assert!(row["exif"].contains("Orientation"), "from byte {start}");
    }
}

/// Pillow and OpenCV take the values of every JPEG in CMYK for inverted.
#[test]
fn cmyk_without_adobes_marker_has_the_same_colours() {
    let with = include_bytes!("../fixtures/cmyk.jpg");
    let marker =
        with.windows(9).position(|bytes| bytes[..2] == [0xFF, 0xEE] && &bytes[4..] == b"Adobe").unwrap();
    let length = 2 + usize::from(u16::from_be_bytes([with[marker + 2], with[marker + 3]]));
    let without = [&with[..marker], &with[marker + length..]].concat();
    let stored = |bytes: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images");
        fs::create_dir(&images).unwrap();
        fs::write(images.join("a.jpg"), bytes).unwrap();
        let out = folder.path().join("out");
        let more = ["--no-captions", "--resize-mode", "no", "--encode-format", "png"];
        let output = ingest(&[&["shard", text(&images), "--out", text(&out)], &more[..]].concat());
        assert_eq!(code(&output), 0, "{}", errors(&output));
        members(&out.join("00000.tar")).into_iter().find(|(name, _)| name.contains(".png")).unwrap().1
    };
    assert_eq!(stored(with), stored(&without));
}
