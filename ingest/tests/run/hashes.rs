//! Hashes of the original files and boxes to blur: the effect of the columns, also in a retry.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::common::{Server, code, contents, errors, ingest, jpeg, members, respond, summary, table};

fn run(command: &str, folder: &Path, more: &[&str]) -> Output {
    let (input, out) = (folder.join("list.csv"), folder.join("out"));
    let (input, out) = (input.to_str().unwrap(), out.to_str().unwrap());
    let mut arguments = match command {
        "download" => vec!["download", input, "--out", out, "--image-size", "64"],
        other => vec![other, out],
    };
    arguments.extend(["--allow-private", "--json", "--retries", "0"]);
    arguments.extend(more);
    ingest(&arguments)
}

/// MD5 by the program `md5sum`.
fn md5(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bytes");
    fs::write(&path, bytes).unwrap();
    let output = std::process::Command::new("md5sum").arg(&path).output().unwrap();
    String::from_utf8_lossy(&output.stdout)[..32].to_owned()
}

#[test]
fn a_wrong_hash_is_a_failure_also_in_a_retry() {
    let changed = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&changed);
    let server = Server::start(move |path, _, stream| match path {
        "/changed" if seen.load(Ordering::Relaxed) => respond(stream, "200 OK", &[], &jpeg(60, 50, 9)),
        _ => respond(stream, "200 OK", &[], &jpeg(60, 50, 1)),
    });
    let folder = tempfile::tempdir().unwrap();
    let right = md5(&jpeg(60, 50, 1));
    let rows = [("/same", right.to_uppercase()), ("/changed", right.clone()), ("/unknown", String::new())];
    let rows: String =
        rows.iter().map(|(path, hash)| format!("{},of it,{hash}\n", server.url(path))).collect();
    fs::write(folder.path().join("list.csv"), format!("url,caption,checksum\n{rows}")).unwrap();
    let more = ["--verify-hash", "checksum", "--compute-hash", "md5"];
    let output = run("download", folder.path(), &more);
    assert_eq!(summary(&output)["causes"]["hash mismatch"], 1, "{}", errors(&output));
    assert!(!errors(&output).contains("warning"), "one mismatch in two is no reason for a warning");
    let out = folder.path().join("out");
    let rows = table(&out.join("00000.parquet"));
    assert_eq!(rows[1]["status"], "failed_to_download");
    assert_eq!([&rows[0]["md5"], &rows[1]["md5"], &rows[2]["md5"]], [&right, &right, &right]);
    assert!(!rows[0].contains_key("sha256") && !rows[0].contains_key("checksum"));
    let json: Value = serde_json::from_slice(&members(&out.join("00000.tar"))[1].1).unwrap();
    assert_eq!(json["md5"], right.as_str());

    // While the image is still another one, the retry fails too; with the right image it succeeds.
    let again = run("retry", folder.path(), &["--causes", "hash mismatch"]);
    assert_eq!(summary(&again)["causes"]["hash mismatch"], 1, "{}", errors(&again));
    changed.store(false, Ordering::Relaxed);
    let again = run("retry", folder.path(), &["--causes", "hash mismatch"]);
    assert_eq!(summary(&again)["successes"], 3, "{}", errors(&again));
    let retried = contents(&out);
    fs::remove_dir_all(&out).unwrap();
    run("download", folder.path(), &more);
    assert!(contents(&out) == retried, "the result is that of a run without the mismatch");
}

#[test]
fn a_list_of_wrong_hashes_gives_a_warning() {
    let server = Server::start(|_, _, stream| respond(stream, "200 OK", &[], &jpeg(60, 50, 1)));
    let folder = tempfile::tempdir().unwrap();
    let md5 = md5(&jpeg(60, 50, 1));
    let rows: String = (0..120).map(|i| format!("{},c,{md5}\n", server.url(&format!("/{i}")))).collect();
    fs::write(folder.path().join("list.csv"), format!("url,caption,md5\n{rows}")).unwrap();
    let output = run("download", folder.path(), &["--verify-hash", "md5"]);
    assert_eq!(summary(&output)["causes"]["hash mismatch"], 120);
    let text = errors(&output);
    let early = text.find("warning: 100 of 100 images have another hash");
    assert!(early.is_some() && text.contains("warning: 120 of 120"), "{text}");
    let none = run("download", folder.path(), &["--verify-hash", "md5", "--compute-hash", "none"]);
    assert_eq!(code(&none), 2, "{}", errors(&none));
}

#[test]
fn boxes_from_csv_and_parquet_are_blurred_and_invalid_boxes_fail() {
    // Alternating black and white pixels: blurred regions are grey.
    let chessboard =
        image::GrayImage::from_fn(64, 64, |x, y| image::Luma([if (x + y) % 2 == 0 { 0 } else { 255 }]));
    let mut png = std::io::Cursor::new(Vec::new());
    chessboard.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let png = png.into_inner();
    let server = Server::start(move |_, _, stream| respond(stream, "200 OK", &[], &png));
    let folder = tempfile::tempdir().unwrap();
    let url = server.url("/x");
    let rows = [r#""[[0.5, 0, 1, 0.5]]""#, "", "nonsense"];
    let rows: String = rows.iter().map(|boxes| format!("{url},c,{boxes}\n")).collect();
    fs::write(folder.path().join("list.csv"), format!("url,caption,faces\n{rows}")).unwrap();
    let more = ["--blur-bbox-col", "faces", "--resize-mode", "no", "--encode-format", "png"];
    let output = run("download", folder.path(), &more);
    assert_eq!(summary(&output)["successes"], 2, "{}", errors(&output));
    let out = folder.path().join("out");
    let members = members(&out.join("00000.tar"));
    let stored = |index: usize| image::load_from_memory(&members[index * 3].1).unwrap().to_luma8();
    let (blurred, plain) = (stored(0), stored(1));
    assert_eq!(plain, chessboard);
    assert!(blurred.get_pixel(50, 14).0[0].abs_diff(127) < 20, "inside: {:?}", blurred.get_pixel(50, 14));
    assert_eq!(blurred.get_pixel(5, 60), chessboard.get_pixel(5, 60), "outside");
    let rows = table(&out.join("00000.parquet"));
    assert_eq!(rows[0]["faces"], "[[0.5, 0, 1, 0.5]]");
    assert_eq!(rows[2]["error_message"], "boxes are not lists of left, top, right, bottom between 0 and 1");

    // The same from lists of numbers in parquet.
    parquet(&folder.path().join("list.parquet"), &url);
    let from_parquet = folder.path().join("from-parquet");
    let input = folder.path().join("list.parquet");
    let mut arguments = vec!["download", input.to_str().unwrap(), "--out", from_parquet.to_str().unwrap()];
    arguments.extend(["--allow-private", "--json"]);
    arguments.extend(more);
    let output = ingest(&arguments);
    assert_eq!(summary(&output)["successes"], 1, "{}", errors(&output));
    let again = crate::common::members(&from_parquet.join("00000.tar"));
    assert!(again[0].1 == members[0].1);
}

/// One row with one box, as a list of lists.
fn parquet(path: &Path, url: &str) {
    use arrow_array::builder::{Float64Builder, ListBuilder};
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    let mut boxes = ListBuilder::new(ListBuilder::new(Float64Builder::new()));
    boxes.values().values().append_slice(&[0.5, 0.0, 1.0, 0.5]);
    boxes.values().append(true);
    boxes.append(true);
    let columns: [(&str, ArrayRef); 3] = [
        ("url", Arc::new(StringArray::from(vec![url]))),
        ("caption", Arc::new(StringArray::from(vec!["c"]))),
        ("faces", Arc::new(boxes.finish())),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ::parquet::arrow::ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None)
            .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}
