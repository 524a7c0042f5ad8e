//! Sidecars know their captions, and files their checksums: what changed is tagged again, and `verify` finds what is damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use concepts::sidecar::{CaptionCheck, Metadata, Sidecar, Writer};
use concepts::{Extractor, TaggerKind, canonical};

use crate::common::{code, contents, error_line, errors, ingest, jpeg, summary};

/// A tar of other tools: no table, no statistics.
fn foreign(path: &Path, captions: &[&str]) {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    for (index, caption) in captions.iter().enumerate() {
        let json = format!("{{\"key\": \"{index:04}\", \"caption\": \"{caption}\"}}");
        for (extension, bytes) in
            [("jpg", jpeg(16, 16, 1)), ("json", json.into_bytes()), ("txt", caption.as_bytes().to_vec())]
        {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("{index:04}.{extension}"), bytes.as_slice()).unwrap();
        }
    }
    tar.finish().unwrap();
}

/// Replaces the last occurrence of a text by another one of the same length. (In a tar of `ingest` a caption comes after its JSON.)
fn replace(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(from.len()).rposition(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(path, bytes).unwrap();
}

/// Ten local images in two shards.
fn packed(folder: &Path) -> PathBuf {
    let (images, out) = (folder.join("images"), folder.join("set"));
    fs::create_dir(&images).unwrap();
    for number in 0..10 {
        fs::write(images.join(format!("{number}.jpg")), jpeg(40, 30, number)).unwrap();
        fs::write(images.join(format!("{number}.txt")), format!("a dog and {number} red cars")).unwrap();
    }
    let arguments = ["shard", images.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let output = ingest(&[&arguments[..], &["--shard-size", "5", "--image-size", "32"]].concat());
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(code(&ingest(&["tag", out.to_str().unwrap()])), 0);
    out
}

#[test]
fn captions_that_changed_are_tagged_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let tar = folder.path().join("a.tar");
    foreign(&tar, &["two dogs on a bench", "running fast", "a red bus"]);
    foreign(&folder.path().join("b.tar"), &["a horse"]);
    let tag = |more: &[&str]| summary(&ingest(&[&["tag", path, "--json"], more].concat()));
    assert_eq!(tag(&[])["tagged"], 2);
    let first = fs::read(folder.path().join("a.concepts.parquet")).unwrap();
    assert_eq!(tag(&[])["tagged"], 0);
    for (from, to) in [("two dogs", "two cats"), ("running fast", "running slow")] {
        // The JSON keeps the old caption; a member's data follow its header.
        replace(&tar, from, to);
        let found = ingest(&["verify", path]);
        assert_eq!(code(&found), 1, "{to}");
        assert!(errors(&found).contains("other captions than those in the tar"), "{}", errors(&found));
        let counts = tag(&[]);
        assert_eq!((&counts["tagged"], &counts["replaced"]), (&1.into(), &1.into()), "{to}");
        assert_eq!(code(&ingest(&["verify", path])), 0, "{to}");
        assert_eq!(tag(&[])["tagged"], 0);
    }
    assert!(fs::read(folder.path().join("a.concepts.parquet")).unwrap() != first);
    // What is up to date is made again on request, to the same bytes.
    let before = contents(folder.path());
    let counts = tag(&["--force"]);
    assert_eq!((&counts["tagged"], &counts["replaced"]), (&2.into(), &0.into()));
    assert!(contents(folder.path()) == before);
    // A sidecar that was damaged, or whose checksum is missing.
    let sidecar = folder.path().join("a.concepts.parquet");
    let mut bytes = fs::read(&sidecar).unwrap();
    bytes[40] ^= 1;
    fs::write(&sidecar, bytes).unwrap();
    assert_eq!(tag(&[])["replaced"], 1);
    fs::remove_file(folder.path().join("a.sha256")).unwrap();
    assert_eq!(tag(&[])["tagged"], 0);
    assert!(contents(folder.path()) == before);
}

/// The loader reads the captions of such shards from their tables.
#[test]
fn captions_of_a_table_must_be_those_of_the_tar() {
    let folder = tempfile::tempdir().unwrap();
    let set = packed(folder.path());
    let path = set.to_str().unwrap();
    assert_eq!(code(&ingest(&["verify", path])), 0);
    replace(&set.join("00001.tar"), "a dog and 7 red cars", "a dog and 7 red buns");
    let found = ingest(&["verify", path]);
    assert!(errors(&found).contains("differs from the one in the tar"), "{}", errors(&found));
    let refused = ingest(&["tag", path]);
    assert_eq!(code(&refused), 1);
    let line = error_line(&refused);
    assert!(line.contains("00001.parquet: its captions are not those in 00001.tar"), "{line}");
}

#[test]
fn sidecars_of_version_1_are_kept_with_one_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let captions = ["two dogs on a bench", "running fast"];
    let extractor = Extractor::new(TaggerKind::default()).unwrap();
    for name in ["a.tar", "b.tar"] {
        let tar = folder.path().join(name);
        foreign(&tar, &captions);
        let metadata = Metadata::new(&extractor.description(), &tar, fs::metadata(&tar).unwrap().len());
        // As the last version wrote them: without checks.
        let mut writer = Writer::create(&concepts::sidecar::path_for(&tar), metadata).unwrap();
        for (sample, caption) in (0..).zip(captions) {
            writer.tag(sample, &format!("{sample:04}"), &[canonical(caption)], &extractor).unwrap();
        }
        assert_eq!(writer.finish().unwrap().version, 1);
    }
    let output = ingest(&["tag", path, "--json"]);
    assert_eq!((&summary(&output)["tagged"], &summary(&output)["unchecked"]), (&0.into(), &2.into()));
    let warnings = errors(&output).matches("warning: kept 2 sidecars of version 1").count();
    assert_eq!(warnings, 1, "{}", errors(&output));
    let verified = ingest(&["verify", path, "--json"]);
    assert_eq!((code(&verified), summary(&verified)["notes"].as_array().unwrap().len()), (0, 1));
    // As far as their mentions tell, they must be of these captions.
    replace(&folder.path().join("b.tar"), "two dogs", "two cats");
    let output = ingest(&["tag", path, "--json"]);
    assert_eq!((&summary(&output)["replaced"], &summary(&output)["unchecked"]), (&1.into(), &1.into()));
    assert_eq!(summary(&ingest(&["tag", path, "--json", "--force"]))["tagged"], 2);
    let sidecar = Sidecar::open(&folder.path().join("a.concepts.parquet")).unwrap();
    assert_eq!(sidecar.has_captions(1, CaptionCheck::of(b"running fast")), Some(true));
    assert_eq!(errors(&ingest(&["tag", path])), "nothing to do: 2 shards already complete\n");
}

#[test]
fn checksums_are_those_of_sha256sum_and_find_what_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let set = packed(folder.path());
    let path = set.to_str().unwrap();
    let sums = fs::read_to_string(set.join("00000.sha256")).unwrap();
    let names: Vec<&str> = sums.lines().map(|line| &line[66..]).collect();
    assert_eq!(names, ["00000.concepts.parquet", "00000.hash.parquet", "00000.parquet", "00000.tar"]);
    let sha256sum = || {
        let mut command = Command::new("sha256sum");
        command.args(["--strict", "--quiet", "-c", "00000.sha256", "00001.sha256"]).current_dir(&set);
        command.output().map(|output| output.status.success())
    };
    if let Ok(passed) = sha256sum() {
        assert!(passed);
    }
    let verified = summary(&ingest(&["verify", path, "--json"]));
    assert_eq!((&verified["images"], &verified["checksums"]), (&10.into(), &8.into()));
    let quick = summary(&ingest(&["verify", path, "--json", "--quick"]));
    assert_eq!((&quick["images"], &quick["checksums"]), (&0.into(), &6.into()));

    // A bit of an image's pixels, of a JSON, of a phrase, of a table: all leave valid files, most of the time.
    let tar = fs::read(set.join("00000.tar")).unwrap();
    let find = |text: &[u8]| tar.windows(text.len()).position(|window| window == text).unwrap();
    let damages = [
        ("00000.tar", 512 + 400, false),
        ("00000.tar", find(b"\"original_width\"") + 19, true),
        ("00000.concepts.parquet", 60, true),
        ("00000.parquet", 70, true),
    ];
    for (name, at, quickly) in damages {
        let file = set.join(name);
        let whole = fs::read(&file).unwrap();
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&file, damaged).unwrap();
        let found = ingest(&["verify", path]);
        assert_eq!(code(&found), 1, "{name} {at}");
        assert!(errors(&found).contains(&format!("{name}: damaged: its SHA-256")), "{}", errors(&found));
        if name != "00000.tar" && quickly {
            assert_eq!(code(&ingest(&["verify", path, "--quick"])), 1, "{name} {at}");
        }
        fs::write(&file, whole).unwrap();
    }
    assert_eq!(code(&ingest(&["verify", path])), 0);
    // A file that is named, but gone.
    fs::rename(set.join("00001.concepts.parquet"), folder.path().join("x")).unwrap();
    let found = ingest(&["verify", path]);
    assert!(errors(&found).contains("00001.concepts.parquet does not exist"), "{}", errors(&found));
}

#[test]
fn without_checksums_images_and_json_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let tar = folder.path().join("a.tar");
    foreign(&tar, &["two dogs on a bench", "a red bus"]);
    let whole = fs::read(&tar).unwrap();
    assert_eq!(code(&ingest(&["verify", path])), 0);
    let image = jpeg(16, 16, 1).len();
    let verify = |change: &dyn Fn(&mut Vec<u8>), quick: bool| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(&tar, bytes).unwrap();
        let arguments = ["verify", path, "--quick"];
        let found = ingest(&arguments[..if quick { 3 } else { 2 }]);
        (code(&found), errors(&found))
    };
    // The last bytes of the image, with its marker for the end.
    let cut = |bytes: &mut Vec<u8>| bytes[512 + image / 2..512 + image].fill(0);
    let (code, told) = verify(&cut, false);
    assert!(code == 1 && told.contains("a.tar: the image of sample 0000 is damaged"), "{told}");
    assert_eq!(verify(&cut, true).0, 0);
    let json = whole.windows(6).position(|window| window == b"{\"key\"").unwrap();
    let (code, told) = verify(&|bytes: &mut Vec<u8>| bytes[json] = b'[', true);
    assert!(code == 1 && told.contains("the JSON of sample 0000 is damaged"), "{told}");
}

/// As img2dataset writes them without any re-encoding: no sizes, and the hash is that of the stored file.
#[test]
fn images_are_compared_with_the_hashes_of_the_table() {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int32Array, RecordBatch, StringArray};
    use sha2::{Digest, Sha256};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    foreign(&folder.path().join("00000.tar"), &["two dogs", "a red bus"]);
    let write = |image: &[u8]| {
        let hash: String = Sha256::digest(image).iter().map(|byte| format!("{byte:02x}")).collect();
        let text = |values: [&str; 2]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
        let columns = [
            ("caption", text(["two dogs", "a red bus"])),
            ("url", text(["http://a/0", "http://a/1"])),
            ("key", text(["0000", "0001"])),
            ("status", text(["success", "success"])),
            ("width", Arc::new(Int32Array::from(vec![None, None])) as ArrayRef),
            ("sha256", text([&hash, &hash])),
        ];
        let columns = columns.map(|(name, column)| (name, column, true));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let file = fs::File::create(folder.path().join("00000.parquet")).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        ingest(&["verify", path, "--json"])
    };
    let output = write(&jpeg(16, 16, 1));
    assert_eq!((code(&output), &summary(&output)["hashes"]), (0, &2.into()), "{}", errors(&output));
    let output = write(&jpeg(16, 16, 2));
    assert_eq!(code(&output), 1);
    let told = errors(&output);
    assert!(told.contains("the image of sample 0001 does not have the hash in the table"), "{told}");
}

/// Two captions of an image in a field of its JSON. `ingest` writes the columns of its input there, too.
#[test]
fn captions_of_a_field_are_tagged_each_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let shard = folder.path().join("00000.tar");
    let mut tar = tar::Builder::new(fs::File::create(&shard).unwrap());
    let fields = [r#""new": ["a red bus", "two dogs"]"#, r#""new": "a horse""#, r#""new": 3"#];
    for (number, field) in fields.iter().enumerate() {
        let json = format!("{{\"key\": \"{number}\", {field}}}").into_bytes();
        for (extension, bytes) in [("jpg", jpeg(16, 16, 1)), ("json", json), ("txt", b"a cat".to_vec())] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("{number}.{extension}"), bytes.as_slice()).unwrap();
        }
    }
    tar.finish().unwrap();
    let tag = |captions: &str| ingest(&["tag", path, "--captions", captions, "--json"]);

    let wrong = tag("json:newer");
    assert_eq!(code(&wrong), 1);
    let line = error_line(&wrong);
    assert!(
        line.contains("no sample has captions in the field \"newer\"") && line.contains("sample 0"),
        "{line}"
    );
    assert_eq!(code(&tag("html")), 2);
    assert!(!contents(folder.path()).iter().any(|(name, _)| name.contains("concepts")));

    let output = tag("json:new");
    let counts = summary(&output);
    assert_eq!((&counts["captions"], &counts["mentions"]), (&3.into(), &3.into()), "{counts}");
    assert_eq!(counts["without_field"], 1);
    assert!(errors(&output).contains("1 sample without a text or a list of texts in the field \"new\""));
    let sidecar = Sidecar::open(&folder.path().join("00000.concepts.parquet")).unwrap();
    let of = |sample| -> Vec<(u32, String)> {
        sidecar.mentions(sample).map(|mention| (mention.caption, mention.concept.to_owned())).collect()
    };
    assert_eq!((of(0), of(1)), (vec![(0, "bus".into()), (1, "dog".into())], vec![(0, "horse".into())]));
    assert_eq!(of(2), []);
    assert_eq!(code(&ingest(&["verify", path])), 0);
    assert_eq!(summary(&tag("json:new"))["tagged"], 0);

    // Another text of the same length, although it has the same mentions.
    replace(&shard, "two dogs", "our dogs");
    let verified = ingest(&["verify", path]);
    assert_eq!(code(&verified), 1);
    assert!(errors(&verified).contains("other captions"), "{}", errors(&verified));
    assert_eq!(summary(&tag("json:new"))["replaced"], 1);
    assert_eq!(code(&ingest(&["verify", path])), 0);
    // The .txt members instead.
    assert_eq!(summary(&tag("txt"))["replaced"], 1);
    assert_eq!(summary(&tag("txt"))["tagged"], 0);
}
