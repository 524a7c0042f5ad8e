//! `tools report` on a small dataset with hostile texts: compared with counts by hand, opened in a browser, and its
//! metadata validated.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use concepts::sidecar::{self, Metadata, Writer};
use concepts::{Mention, TaggerDescription, canonical};
use image::{Rgb, RgbImage};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

fn tools(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tools")).args(arguments).output().unwrap()
}

fn summary(arguments: &[&str]) -> Value {
    let output = tools(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// Exit code and the error line of a run.
fn failure(arguments: &[&str]) -> (i32, String) {
    let output = tools(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    let line = text.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    (output.status.code().unwrap(), line.to_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Prints why a test cannot run here. In CI, where everything must be installed, the test fails instead.
fn skip(why: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
    println!("skipped: {why}");
}

/// A sample: image, caption, and mentions as (phrase in the canonical caption, concept).
struct Sample {
    image: Vec<u8>,
    caption: &'static str,
    mentions: Vec<(&'static str, &'static str)>,
}

fn jpeg(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    RgbImage::from_pixel(width, height, Rgb(colour)).write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

fn write_shard(path: &Path, samples: &[Sample]) {
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    for (at, sample) in samples.iter().enumerate() {
        for (extension, bytes) in [("jpg", sample.image.as_slice()), ("txt", sample.caption.as_bytes())] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, format!("{at:04}.{extension}"), bytes).unwrap();
        }
    }
    archive.finish().unwrap();
    drop(archive);
    let tagger = TaggerDescription { name: "hand".into(), hash: "0123".into(), grammar: 7 };
    let metadata = Metadata::new(&tagger, path, fs::metadata(path).unwrap().len());
    let mut writer = Writer::create(&sidecar::path_for(path), metadata).unwrap();
    for (at, sample) in samples.iter().enumerate() {
        let caption = canonical(sample.caption);
        let mention = |(phrase, concept): &(&str, &str)| {
            let start = caption.find(phrase).unwrap();
            let whole = start..start + phrase.len();
            Mention {
                phrase: whole.clone(),
                concept_span: whole.clone(),
                head_span: whole,
                concept: (*concept).to_owned(),
                head: (*concept).to_owned(),
                tags: "NN".to_owned(),
            }
        };
        let mentions: Vec<Mention> = sample.mentions.iter().map(mention).collect();
        writer.push(at as u32, &format!("{at:04}"), &caption, &mentions).unwrap();
    }
    writer.finish().unwrap();
}

/// A row of a shard's table: key, status, error message, caption, (width, height).
type Row = (&'static str, &'static str, Option<&'static str>, &'static str, Option<(i32, i32)>);

fn write_table(path: &Path, rows: &[Row]) {
    let texts = |of: fn(&Row) -> Option<&'static str>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    };
    let sides = |of: fn((i32, i32)) -> i32| -> ArrayRef {
        Arc::new(rows.iter().map(|row| row.4.map(of)).collect::<Int32Array>())
    };
    let batch = RecordBatch::try_from_iter_with_nullable([
        // A column name with characters that are not allowed in a URL.
        ("page title \"x\"", texts(|row| Some(row.0)), true),
        ("caption", texts(|row| Some(row.3)), true),
        ("key", texts(|row| Some(row.0)), true),
        ("status", texts(|row| Some(row.1)), true),
        ("error_message", texts(|row| row.2), true),
        ("width", sides(|size| size.0), true),
        ("height", sides(|size| size.1), true),
    ])
    .unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

const BREAKS_OUT: &str =
    "A crate </script><script>window.harmed = 1</script> & \"a pine tree\" {{data}} ' <!--";
const TURNS: &str = "a crate \u{202e}and more";
/// HTML as a concept.
const ELEMENT: &str = "<img src=x onerror=window.harmed=2>";
const NAMES_ELEMENT: &str = "the <img src=x onerror=window.harmed=2> again";
const CAUSE: &str = "no answer <script>window.harmed = 3</script>";

/// Two shards with hostile texts; the second one has no table.
pub(crate) fn hostile_set(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    write_shard(
        &folder.join("00000.tar"),
        &[
            Sample {
                image: jpeg(64, 48, [200, 30, 30]),
                caption: BREAKS_OUT,
                mentions: vec![("a crate", "crate"), ("a pine tree", "pine tree")],
            },
            Sample { image: b"not an image".to_vec(), caption: TURNS, mentions: vec![("a crate", "crate")] },
            Sample { image: jpeg(48, 64, [30, 30, 200]), caption: "so it goes", mentions: vec![] },
        ],
    );
    let success = |key, caption, size| (key, "success", None, caption, Some(size));
    write_table(
        &folder.join("00000.parquet"),
        &[
            success("0000", BREAKS_OUT, (64, 48)),
            ("0001", "failed_to_download", Some(CAUSE), "gone", None),
            success("0001", TURNS, (640, 480)),
            ("0003", "failed_to_resize", Some("too small"), "tiny", None),
            success("0002", "so it goes", (48, 64)),
            ("0005", "failed_to_download", Some(CAUSE), "gone", None),
            // Neither a sample nor an attempt that failed.
            ("0006", "removed", Some("removed"), "", None),
        ],
    );
    write_shard(
        &folder.join("00001.tar"),
        &[
            Sample {
                image: jpeg(50, 50, [30, 200, 30]),
                caption: NAMES_ELEMENT,
                mentions: vec![(ELEMENT, ELEMENT)],
            },
            Sample {
                image: jpeg(80, 40, [90, 90, 10]),
                caption: "a crate by a pine tree",
                mentions: vec![("a crate", "crate"), ("a pine tree", "pine tree")],
            },
        ],
    );
}

fn report(folder: &Path, more: &[&str]) -> (Value, String) {
    let page = folder.join("report.html");
    let shards = folder.join("set");
    let given = ["report", text(&shards), "--out", text(&page), "--json", "--name", "Mine <& yours>"];
    let summary = summary(&[&given[..], more].concat());
    (summary, fs::read_to_string(page).unwrap())
}

/// The data of the concept table that the page's script reads.
fn data(page: &str) -> Value {
    let json = page.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    serde_json::from_str(json).unwrap()
}

#[test]
fn the_page_shows_the_counts_of_the_dataset() {
    let place = tempfile::tempdir().unwrap();
    hostile_set(&place.path().join("set"));
    let classes = place.path().join("classes");
    fs::write(&classes, "crate\ntree\numbrella\n<b>bold</b>\n").unwrap();
    let (summary, page) = report(place.path(), &["--class-file", text(&classes)]);
    // Counted by hand in the shards above.
    for (name, value) in [
        ("shards", 2),
        ("samples", 5),
        ("attempts", 8),
        ("captions", 5),
        ("mentions", 6),
        ("samples_without_mention", 1),
        ("concepts", 3),
        // Two of "crate", two of "pine tree", one of the HTML element; the damaged image counts once.
        ("images", 5),
        ("images_skipped", 1),
        // "tree" is the last word of "a pine tree", so it is mentioned.
        ("classes_absent", 2),
        ("classes_rare", 0),
        ("bytes", page.len()),
    ] {
        assert_eq!(summary[name], value, "{name}");
    }
    assert_eq!(
        data(&page),
        json!({"samples": 5, "rows": [
            ["crate", 3, 3, 2, "pine tree", 2],
            ["pine tree", 2, 2, 2, "crate", 2],
            [ELEMENT, 1, 1, 1, "", 0],
        ]})
    );
    for part in [
        "<title>Mine &lt;&amp; yours&gt; ",
        "<dt>failed attempts</dt><dd>3<small>37.5%</small></dd>",
        "<dt>samples without a concept</dt><dd>1<small>20.0%</small></dd>",
        // log2(2 * 5 / (3 * 2)) = 0.74
        "<bdi>crate</bdi><span class=\"plus\">+</span><bdi>pine tree</bdi></th><td class=\"number\">2</td><td class=\"number\">0.7</td>",
        "<bdi>no answer &lt;script&gt;window.harmed = 3&lt;/script&gt;</bdi></th><td class=\"number\">2</td><td class=\"number\">25.0%</td>",
        "hand, grammar 7",
        "<bdi>umbrella</bdi>",
        "<bdi>&lt;b&gt;bold&lt;/b&gt;</bdi>",
        "1 image was skipped",
        // 3, 4, 5, 6 and 12 words.
        "<dt>half have at most</dt><dd>5 words</dd>",
        "<dt>longest</dt><dd>12 words</dd>",
    ] {
        assert!(page.contains(part), "{part:?} is missing");
    }
    assert!(!page.contains('\u{202e}'), "a character turns the text after it");
    // Only the page's own two scripts (code and data), none from a text.
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script").count(), 2);
    assert_eq!(page.matches("<img ").count(), 5);
    assert_eq!(page.matches("src=\"data:image/jpeg;base64,").count(), 5);
    for outside in ["http://", "https://", "@import", "url("] {
        assert!(!page.contains(outside), "{outside:?} is not in the page");
    }
}

#[test]
fn given_statistics_are_used_and_checked() {
    let place = tempfile::tempdir().unwrap();
    let (shards, statistics) = (place.path().join("set"), place.path().join("statistics"));
    hostile_set(&shards);
    assert!(tools(&["stats", text(&shards), "--out", text(&statistics)]).status.success());
    let (_, counted) = report(place.path(), &[]);
    let (_, read) = report(place.path(), &["--statistics", text(&statistics)]);
    assert!(counted == read, "the pages differ");

    fs::remove_file(shards.join("00001.tar")).unwrap();
    let page = place.path().join("other.html");
    let (code, line) =
        failure(&["report", text(&shards), "--out", text(&page), "--statistics", text(&statistics)]);
    assert!(
        code == 1
            && line.contains("statistics has the statistics of other shards (5 samples")
            && line.contains("tools stats"),
        "{line}"
    );
    assert!(!page.exists());
}

#[test]
fn links_with_guessed_temporary_names_lead_nowhere_and_leftovers_are_removed() {
    let place = tempfile::tempdir().unwrap();
    let set = place.path().join("set");
    hostile_set(&set);
    let out = place.path().join("shared");
    fs::create_dir(&out).unwrap();
    let victim = place.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    // Earlier versions named their temporary files after the process.
    let last = fs::read_to_string("/proc/sys/kernel/ns_last_pid").unwrap_or_default();
    let last: u32 = last.trim().parse().unwrap_or_else(|_| std::process::id());
    for more in 1..200 {
        std::os::unix::fs::symlink(&victim, out.join(format!(".tmp-{}-r.html", last + more))).unwrap();
    }
    fs::write(out.join(".tmp-left-r.html"), "half").unwrap();
    fs::write(out.join(".tmp-left-other.html"), "half").unwrap();
    let page = out.join("r.html");
    summary(&["report", text(&set), "--out", text(&page), "--json"]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(fs::symlink_metadata(&page).unwrap().is_file());
    assert!(!out.join(".tmp-left-r.html").exists() && out.join(".tmp-left-other.html").exists());
}

#[test]
fn errors_name_the_file_and_nothing_is_written() {
    let place = tempfile::tempdir().unwrap();
    let shards = place.path().join("set");
    let out = place.path().join("out");
    fs::create_dir(&out).unwrap();
    let page = out.join("report.html");
    hostile_set(&shards);
    let run = || failure(&["report", text(&shards), "--out", text(&page)]);

    // A table of a different number of samples.
    let table = fs::read(shards.join("00000.parquet")).unwrap();
    write_table(&shards.join("00000.parquet"), &[("0000", "success", None, "a", Some((1, 1)))]);
    let (code, line) = run();
    assert!(code == 1 && line.contains("00000.parquet has 1 samples"), "{line}");
    fs::write(shards.join("00000.parquet"), b"PAR1").unwrap();
    let (code, line) = run();
    assert!(code == 1 && line.contains("00000.parquet"), "{line}");
    fs::write(shards.join("00000.parquet"), table).unwrap();

    let tar = fs::read(shards.join("00001.tar")).unwrap();
    fs::copy(shards.join("00000.tar"), shards.join("00001.tar")).unwrap();
    let (code, line) = run();
    assert!(code == 1 && line.contains("00001.concepts.parquet") && line.contains("tag"), "{line}");
    fs::write(shards.join("00001.tar"), tar).unwrap();
    fs::remove_file(shards.join("00001.concepts.parquet")).unwrap();
    let (code, line) = run();
    assert!(code == 1 && line.contains("00001.tar has no sidecar") && line.contains("ingest tag"), "{line}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "a file was written");

    hostile_set(&shards);
    fs::write(out.join("croissant.json"), "{\"name\": \"precious\"}").unwrap();
    let (code, line) = run();
    assert!(code == 1 && line.contains("croissant.json was not written by `tools report`"), "{line}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    fs::remove_file(out.join("croissant.json")).unwrap();
    for _ in 0..2 {
        assert!(
            tools(&["report", text(&shards), "--out", text(&page)]).status.success(),
            "an earlier report is replaced"
        );
    }
    assert_eq!(failure(&["report", text(&shards), "--out", text(&out)]).0, 2);
    let (code, line) = failure(&["report", text(&shards), "--out", text(&place.path().join("no/page.html"))]);
    assert!(code == 1 && line.contains("no does not exist"), "{line}");
}

/// A dataset of one sample that mentions this many concepts, once each.
fn set_of_many(folder: &Path, concepts: usize) {
    fs::create_dir_all(folder).unwrap();
    let caption: &'static str =
        (0..concepts).map(|at| format!("object{at:05}")).collect::<Vec<_>>().join(" ").leak();
    let mentions = caption.split(' ').map(|word| (word, word)).collect();
    write_shard(&folder.join("00000.tar"), &[Sample { image: jpeg(9, 9, [1, 2, 3]), caption, mentions }]);
}

#[test]
fn the_number_of_concepts_in_the_table_is_limited() {
    let place = tempfile::tempdir().unwrap();
    set_of_many(&place.path().join("set"), 5_003);
    let (summary, page) = report(place.path(), &[]);
    assert_eq!(summary["concepts"], 5_003);
    assert_eq!(data(&page)["rows"].as_array().unwrap().len(), 5_000);
    assert!(page.contains(
        "The 5,000 most mentioned of 5,003 concepts. The other 3 are mentioned 1 time or less each"
    ));
}

#[test]
fn works_in_a_browser() {
    let Some(mut browser) = tests::browser::Browser::start() else {
        return skip("chromedriver and chromium are not installed");
    };
    let place = tempfile::tempdir().unwrap();
    hostile_set(&place.path().join("set"));
    report(place.path(), &[]);
    browser.open(&place.path().join("report.html"));
    let rows =
        "return [...document.querySelectorAll('#concepts tbody tr')].map(row => row.cells[1].textContent)";
    assert_eq!(browser.run(rows), json!(["crate", "pine tree", ELEMENT]));
    assert_eq!(
        browser.run("return [...document.images].map(image => image.naturalWidth > 0)"),
        json!([true, true, true, true, true])
    );

    browser.type_into("#search", "PINE");
    assert_eq!(browser.run(rows), json!(["pine tree"]));
    assert_eq!(browser.run("return document.getElementById('status').textContent"), "1 of 3 concepts match");
    browser.type_into("#search", " x");
    assert_eq!(browser.run(rows), json!([]));
    browser.run("const box = document.getElementById('search'); box.value = ''; box.dispatchEvent(new Event('input'))");
    // Numbers are sorted from the largest first, then from the smallest; names from a to z.
    for (order, wanted) in [
        ("mentions", json!(["crate", "pine tree", ELEMENT])),
        ("mentions", json!([ELEMENT, "pine tree", "crate"])),
        ("concept", json!([ELEMENT, "crate", "pine tree"])),
    ] {
        browser.click(&format!("[data-order={order}] button"));
        assert_eq!(browser.run(rows), wanted, "{order}");
    }
    let sorted =
        "return [...document.querySelectorAll('[aria-sort=ascending]')].map(head => head.dataset.order)";
    assert_eq!(browser.run(sorted), json!(["concept"]));

    for (width, height) in [(1280, 900), (390, 844), (320, 640)] {
        browser.resize(width, height);
        let fits = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.run(fits), 0, "the page is wider than a screen of {width} px");
    }
    assert_eq!(browser.errors(), Vec::<String>::new());
    assert_eq!(
        browser.run("return window.harmed ?? null"),
        Value::Null,
        "a text of the dataset was executed"
    );
    // The Content Security Policy blocks scripts even if they were inserted.
    browser.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.harmed = 4'}))");
    assert_eq!(browser.run("return window.harmed ?? null"), Value::Null);
    let refused = browser.errors();
    assert!(refused.len() == 1 && refused[0].contains("Content Security Policy"), "{refused:?}");

    set_of_many(&place.path().join("set2"), 130);
    let page = place.path().join("many.html");
    assert!(tools(&["report", text(&place.path().join("set2")), "--out", text(&page)]).status.success());
    browser.open(&page);
    let count = "return document.querySelectorAll('#concepts tbody tr').length";
    let mut counts = vec![browser.run(count)];
    for _ in 0..2 {
        browser.click("#more");
        counts.push(browser.run(count));
    }
    assert_eq!(json!(counts), json!([50, 100, 130]));
    assert_eq!(browser.run("return document.getElementById('more').hidden"), true);
    browser.type_into("#search", "object0001");
    assert_eq!(browser.run(count), 10);
    assert_eq!(browser.errors(), Vec::<String>::new());
}

/// A folder with mlcroissant, the reference validator; installed once per target folder.
fn checker() -> Option<PathBuf> {
    const PACKAGE: &str = "mlcroissant[parquet]==1.1.1";
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mlcroissant");
    if folder.join("installed").exists() {
        return Some(folder);
    }
    let target = text(&folder);
    let installed = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", target, PACKAGE])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        return None;
    }
    fs::write(folder.join("installed"), PACKAGE).unwrap();
    Some(folder)
}

#[test]
fn croissant_is_valid_and_loads() {
    let Some(checker) = checker() else { return skip("pip cannot install mlcroissant here") };
    let place = tempfile::tempdir().unwrap();
    hostile_set(&place.path().join("set"));
    report(place.path(), &["--license", "https://spdx.org/licenses/CC0-1.0.html", "--creator", "me"]);
    let program = r"
import json, sys
import mlcroissant
set = mlcroissant.Dataset(sys.argv[1])
text = lambda value: value.decode() if isinstance(value, bytes) else value
records = lambda name: [{key.split('/')[-1]: text(value) for key, value in record.items()} for record in set.records(name)]
print(json.dumps({
    'errors': list(set.metadata.ctx.issues.errors),
    'name': set.metadata.name,
    'samples': [[record['key'], record['status'], record['page_title__x_']] for record in records('samples')],
    'mentions': [[record['sample'], record['concept']] for record in records('mentions')],
}))
";
    let output = Command::new("python3")
        .args(["-c", program, text(&place.path().join("croissant.json"))])
        .env("PYTHONPATH", checker)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let loaded: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        loaded,
        json!({
            "errors": [],
            "name": "Mine <& yours>",
            "samples": [
                ["0000", "success", "0000"],
                ["0001", "failed_to_download", "0001"],
                ["0001", "success", "0001"],
                ["0003", "failed_to_resize", "0003"],
                ["0002", "success", "0002"],
                ["0005", "failed_to_download", "0005"],
                ["0006", "removed", "0006"],
            ],
            "mentions": [
                [0, "crate"], [0, "pine tree"], [1, "crate"],
                [0, ELEMENT], [1, "crate"], [1, "pine tree"],
            ],
        })
    );
}
