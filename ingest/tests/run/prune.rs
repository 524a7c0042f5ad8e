//! `ingest prune`, and what later commands make of removed samples.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use concepts::checksums::sha256;
use parquet::column::page::Page;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;
use tests::inject::{EVENTS, copy};

use crate::common::{
    Server, code, command, contents, error_line, errors, ingest, jpeg, members, respond, summary, table,
};

/// A set of 11 rows in shards of 4, of which row 5 failed and row 9 leads to another URL; tagged, and with a list of the URLs.
struct Set {
    server: Server,
    up: Arc<AtomicBool>,
    folder: tempfile::TempDir,
    path: PathBuf,
}

fn image(number: u32) -> Vec<u8> {
    jpeg(40 + number, 30, number)
}

impl Set {
    fn make(more: &[&str]) -> Self {
        let up = Arc::new(AtomicBool::new(false));
        let is_up = Arc::clone(&up);
        let server = Server::start(move |path, _, stream| {
            let number: u32 = path.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
            match path {
                "/photo-5.jpg" if !is_up.load(Ordering::Relaxed) => respond(stream, "503 Down", &[], b""),
                "/photo-9.jpg" => respond(stream, "302 Found", &["Location: /moved-9.jpg"], b""),
                _ => respond(stream, "200 OK", &["ETag: \"tag\""], &image(number)),
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let set = Self { path: folder.path().join("set"), server, up, folder };
        let output = set.download("set", more);
        assert_eq!(summary(&output)["successes"], 10, "{}", errors(&output));
        assert_eq!(code(&ingest(&["tag", set.path.to_str().unwrap()])), 0);
        set
    }

    fn url(&self, number: u32) -> String {
        self.server.url(&format!("/photo-{number}.jpg"))
    }

    /// A caption with words that no other has.
    fn caption(number: u32) -> String {
        format!("a dog and twenty-{number} crimson{number}x cars")
    }

    fn download(&self, out: &str, more: &[&str]) -> Output {
        let list = self.folder.path().join("list.csv");
        let rows: String = (0..11)
            .map(|number| format!("{},{},secret-{number}-\n", self.url(number), Self::caption(number)))
            .collect();
        fs::write(&list, format!("url,caption,alt\n{rows}")).unwrap();
        let out = self.folder.path().join(out);
        let mut arguments =
            vec!["download", list.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
        arguments.extend(["--allow-private", "--shard-size", "4", "--retries", "0", "--resize-mode", "no"]);
        arguments.extend(["--skip-reencode", "--save-additional-columns", "alt"]);
        arguments.extend(more);
        ingest(&arguments)
    }

    fn list(&self, name: &str, lines: &[String]) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The row of the sample with this number.
    fn row(set: &Path, number: usize) -> BTreeMap<String, String> {
        table(&set.join(format!("{:05}.parquet", number / 4)))[number % 4].clone()
    }
}

fn prune(set: &Path, more: &[&str]) -> Output {
    ingest(&[&["prune", set.to_str().unwrap(), "--json"], more].concat())
}

fn verify(set: &Path) {
    let output = ingest(&["verify", set.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
}

/// Whether a file of the folder has these bytes: as they are, or in a page of a Parquet file.
fn is_anywhere(set: &Path, bytes: &[u8]) -> bool {
    let has = |all: &[u8]| all.windows(bytes.len()).any(|window| window == bytes);
    fs::read_dir(set).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        let file = fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "zst") {
            return has(&zstd::decode_all(&file[..]).unwrap());
        }
        if has(&file) {
            return true;
        }
        if path.extension().is_none_or(|extension| extension != "parquet") {
            return false;
        }
        let reader = SerializedFileReader::new(fs::File::open(&path).unwrap()).unwrap();
        (0..reader.num_row_groups()).any(|group| {
            let group = reader.get_row_group(group).unwrap();
            (0..group.num_columns()).any(|column| {
                let pages = group.get_column_page_reader(column).unwrap();
                pages.map(Result::unwrap).any(|page: Page| has(page.buffer()))
            })
        })
    })
}

/// What would identify a sample.
fn traces(set: &Set, number: u32) -> [Vec<u8>; 5] {
    [
        image(number),
        format!("/photo-{number}.jpg").into_bytes(),
        Set::caption(number).into_bytes(),
        format!("crimson{number}x").into_bytes(),
        format!("secret-{number}-").into_bytes(),
    ]
    .map(|bytes| {
        assert!(is_anywhere(&set.path, &bytes), "the search finds what is there");
        bytes
    })
}

#[test]
fn nothing_is_left_of_a_removed_sample_but_hashes() {
    for more in [&[][..], &["--compress"]] {
        let set = Set::make(more);
        let removed: Vec<Vec<u8>> = [2, 6, 9].iter().flat_map(|&number| traces(&set, number)).collect();
        let (before, kept) = (Set::row(&set.path, 2), traces(&set, 3));
        // By URL, by hash of the URL, by the URL after redirects; and one that is not there.
        let urls = [
            set.url(2),
            sha256(set.url(6).as_bytes()),
            set.server.url("/moved-9.jpg"),
            set.server.url("/other-1"),
        ];
        let urls = set.list("urls.txt", &urls);
        let output = prune(&set.path, &["--urls", &urls]);
        assert_eq!(code(&output), 0, "{}", errors(&output));
        let counts = summary(&output);
        assert_eq!(
            [&counts["removed"], &counts["samples_removed"], &counts["shards_rewritten"]],
            [3, 3, 3],
            "{counts}"
        );
        for bytes in removed {
            assert!(!is_anywhere(&set.path, &bytes), "{}", String::from_utf8_lossy(&bytes));
        }
        assert!(kept.iter().all(|bytes| is_anywhere(&set.path, bytes)));
        verify(&set.path);
        let row = Set::row(&set.path, 2);
        let expected = [
            ("key", before["key"].clone()),
            ("status", "removed".into()),
            ("error_message", "removed".into()),
            ("sha256", sha256(&image(2))),
            ("url_sha256", sha256(set.url(2).as_bytes())),
            ("caption_sha256", sha256(Set::caption(2).as_bytes())),
        ];
        assert_eq!(row, expected.map(|(name, value)| (name.to_owned(), value)).into());
        assert_eq!(Set::row(&set.path, 3)["alt"], "secret-3-");
        let stats: Value =
            serde_json::from_slice(&fs::read(set.path.join("00001_stats.json")).unwrap()).unwrap();
        assert_eq!(
            [&stats["count"], &stats["successes"], &stats["removed"], &stats["failed_to_download"]],
            [4, 2, 1, 1]
        );
        assert_eq!(stats["status_dict"]["removed"], 1);
        // Once more, there is nothing to do.
        let now = contents(&set.path);
        let output = prune(&set.path, &["--urls", &urls]);
        assert_eq!(
            [&summary(&output)["removed"], &summary(&output)["removed_before"]],
            // Of the URL after redirects not even a hash is left.
            [0, 2],
            "{}",
            errors(&output)
        );
        assert!(contents(&set.path) == now);
        // Neither the download nor its repetition asks for them; what failed is there now.
        set.up.store(true, Ordering::Relaxed);
        let asked = set.server.requests();
        assert_eq!(summary(&set.download("set", more))["removed"], 3);
        assert_eq!(set.server.requests(), asked);
        let retried = ingest(&[
            "retry",
            set.path.to_str().unwrap(),
            "--allow-private",
            "--causes",
            "removed,503",
            "--json",
        ]);
        assert_eq!(
            [&summary(&retried)["successes"], &summary(&retried)["removed"]],
            [8, 3],
            "{}",
            errors(&retried)
        );
        assert_eq!((set.server.requests(), set.server.count("/photo-5.jpg")), (asked + 1, 2));
        assert_eq!(Set::row(&set.path, 2), row);
        assert_eq!(Set::row(&set.path, 6)["url_sha256"], sha256(set.url(6).as_bytes()));
    }
}

#[test]
fn a_list_keeps_urls_and_images_out_of_a_download() {
    let set = Set::make(&[]);
    let lines =
        [set.url(1), sha256(set.url(4).as_bytes()), sha256(&image(7)), set.server.url("/moved-9.jpg")];
    let list = set.list("deny.txt", &lines);
    let asked = set.server.requests();
    let output = set.download("denied", &["--deny", &list]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!([&summary(&output)["successes"], &summary(&output)["removed"]], [6, 4]);
    // Photo 9 is asked for twice, because of its redirect.
    assert_eq!(
        (set.server.requests() - asked, set.server.count("/photo-1.jpg"), set.server.count("/photo-4.jpg")),
        (10, 1, 1)
    );
    let denied = set.folder.path().join("denied");
    verify(&denied);
    for number in [1, 4, 7, 9] {
        let row = Set::row(&denied, number);
        assert_eq!(
            (row["status"].as_str(), row["error_message"].as_str()),
            ("removed", "on the list of --deny")
        );
        assert_eq!(row["url_sha256"], sha256(set.url(number as u32).as_bytes()));
        assert_eq!(
            (row.get("url"), row.get("caption"), row.get("alt"), row.get("final_url")),
            (None, None, None, None)
        );
        for bytes in traces(&set, number as u32) {
            assert!(!is_anywhere(&denied, &bytes), "{number}");
        }
    }
    // What one set has removed, another can be denied: the table of removed samples is a list.
    let table = denied.join("00001.parquet");
    let output = set.download("again", &["--deny", table.to_str().unwrap()]);
    assert_eq!([&summary(&output)["successes"], &summary(&output)["removed"]], [7, 4], "{}", errors(&output));
    let empty = set.list("deny.csv", &["link".to_owned(), "x".to_owned()]);
    let line = error_line(&set.download("wrong", &["--deny", &empty]));
    assert!(line.contains("deny.csv") && line.contains("url, url_sha256, sha256"), "{line}");
}

#[test]
fn a_row_that_cannot_be_read_keeps_no_text_if_its_url_is_denied() {
    let folder = tempfile::tempdir().unwrap();
    let [list, deny, out] = ["list.csv", "deny.txt", "out"].map(|name| folder.path().join(name));
    fs::write(&list, b"url,caption\nhttp://a.example/1.jpg,caf\xe9\nhttp://a.example/2.jpg,caf\xe9\n")
        .unwrap();
    fs::write(&deny, "http://a.example/1.jpg\n").unwrap();
    let mut arguments = vec!["download", list.to_str().unwrap(), "--out", out.to_str().unwrap()];
    arguments.extend(["--deny", deny.to_str().unwrap(), "--max-failures", "100%", "--json"]);
    let counts = summary(&ingest(&arguments));
    assert_eq!([&counts["removed"], &counts["failed_to_read"]], [1, 1], "{counts}");
    let rows = table(&out.join("00000.parquet"));
    let of =
        |row: usize| (rows[row]["status"].as_str(), rows[row].get("url"), rows[row].contains_key("caption"));
    assert_eq!(of(0), ("removed", None, false));
    assert_eq!(of(1), ("failed_to_read", Some(&"http://a.example/2.jpg".to_owned()), true));
    verify(&out);
}

#[test]
fn keys_that_are_not_there_are_refused_before_anything_is_written() {
    let set = Set::make(&[]);
    let before = contents(&set.path);
    let refused = |more: &[&str]| {
        let line = error_line(&prune(&set.path, more));
        assert!(contents(&set.path) == before, "{line}");
        line
    };
    let keys =
        |lines: &[&str]| set.list("keys.txt", &lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>());
    assert!(
        refused(&["--keys", &keys(&["000001", "000099"])]).contains("the key 000099, which no shard has")
    );
    let csv =
        |lines: &[&str]| set.list("keys.csv", &lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>());
    assert!(refused(&["--keys", &csv(&["shard,key", "00001,000001"])]).contains("000001, which"));
    assert!(
        refused(&["--keys", &csv(&["shard,key", "00007,000001"])])
            .contains("00007, which is not among the shards")
    );
    assert!(refused(&["--keys", &csv(&["id", "000001"])]).contains("no column \"key\""));
    assert!(
        refused(&["--keys", &csv(&["key,status", "000001,gone"]), "--status", "opted_out"])
            .contains("no key with the status")
    );
    assert_eq!(code(&prune(&set.path, &[])), 2);
    // What cannot be replaced as a whole, or is not understood.
    let good = keys(&["000001", "000011"]);
    let copied = |name: &str| {
        let path = set.folder.path().join(name);
        copy(&set.path, &path);
        path
    };
    let line = |set: &Path| {
        let before = contents(set);
        let line = error_line(&prune(set, &["--keys", &good]));
        assert!(contents(set) == before, "{line}");
        line
    };
    let other = copied("stale sidecar");
    fs::copy(set.path.join("00001.concepts.parquet"), other.join("00000.concepts.parquet")).unwrap();
    let told = line(&other);
    assert!(told.contains("00000.concepts.parquet"), "{told}");
    let other = copied("other signals");
    fs::copy(set.path.join("00001.hash.parquet"), other.join("00000.hash.parquet")).unwrap();
    assert!(line(&other).contains("00000.hash.parquet"));
    let other = copied("unknown file");
    fs::copy(set.path.join("00000.parquet"), other.join("00000.backup.parquet")).unwrap();
    assert!(line(&other).contains("00000.backup.parquet: not a file of signals"));
    let other = copied("no table");
    fs::remove_file(other.join("00002.parquet")).unwrap();
    assert!(line(&other).contains("00002.tar: has no table"));
    let other = copied("incomplete");
    fs::remove_file(other.join("00002_stats.json")).unwrap();
    assert!(line(&other).contains("incomplete"));
    let other = copied("damaged");
    fs::write(other.join("00001.tar"), b"damaged").unwrap();
    line(&other);
    // A failed row is removed, too; the keys of a table are those of its shards.
    let output = prune(
        &set.path,
        &[
            "--keys",
            &csv(&["shard,key,status", "00000,000001,gone", "00001,000011,gone", "00000,000002,changed"]),
            "--status",
            "gone",
        ],
    );
    let counts = summary(&output);
    assert_eq!([&counts["removed"], &counts["samples_removed"]], [2, 1], "{}", errors(&output));
    assert_eq!(Set::row(&set.path, 5)["status"], "removed");
    assert!(!Set::row(&set.path, 5).contains_key("url"));
    verify(&set.path);
}

#[test]
fn a_shard_whose_samples_are_all_removed_is_empty_and_still_read() {
    let set = Set::make(&[]);
    let urls = set.list("urls.txt", &(0..4).map(|number| set.url(number)).collect::<Vec<_>>());
    assert_eq!(code(&prune(&set.path, &["--urls", &urls])), 0);
    verify(&set.path);
    assert!(members(&set.path.join("00000.tar")).is_empty());
    assert_eq!(
        errors(&ingest(&["tag", set.path.to_str().unwrap()])),
        "nothing to do: 3 shards already complete\n"
    );
    let index = |shard: &str| {
        let archive = loader::shards::Archive::open(set.path.join(shard).as_path()).unwrap();
        loader::shards::Index::load(&archive).unwrap().len()
    };
    assert_eq!((index("00000.tar"), index("00001.tar")), (0, 3));
    let out = set.folder.path().join("out");
    let output = ingest(&["reshard", set.path.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"]);
    assert_eq!(summary(&output)["samples"], 6, "{}", errors(&output));
    verify(&out);
}

#[test]
fn a_prune_that_is_killed_or_fails_anywhere_loses_nothing_and_is_completed() {
    let set = Set::make(&[]);
    let urls = set.list("urls.txt", &[set.url(1), set.url(6)]);
    let arguments =
        |path: &Path| command(&["prune", path.to_str().unwrap(), "--urls", &urls, "--threads", "1"]);
    let pruned = set.folder.path().join("pruned");
    copy(&set.path, &pruned);
    assert!(arguments(&pruned).status().unwrap().success());
    let expected = contents(&pruned);
    let kept: Vec<Vec<u8>> = [0, 2, 3, 4, 7, 8, 9, 10].map(image).to_vec();
    for event in EVENTS {
        let count = tests::inject::each(event, Some(&set.path), &arguments, &|path, about| {
            // Whatever comes next finds all samples that stay, and the shards whole.
            let next = path.with_file_name("next");
            copy(path, &next);
            let tagged = ingest(&["tag", next.to_str().unwrap()]);
            assert_eq!(code(&tagged), 0, "{about}: {}", errors(&tagged));
            let verified = ingest(&["verify", next.to_str().unwrap()]);
            assert_eq!(code(&verified), 0, "{about}: {}", errors(&verified));
            let images: Vec<Vec<u8>> = (0..3)
                .flat_map(|shard| members(&next.join(format!("{shard:05}.tar"))))
                .filter_map(|(name, bytes)| name.strip_suffix(".jpg").map(|_| bytes))
                .collect();
            assert!(kept.iter().all(|image| images.contains(image)), "{about}");
            let output = arguments(path).output().unwrap();
            assert_eq!(code(&output), 0, "{about}: {}", errors(&output));
            assert!(contents(path) == expected, "{about}");
        });
        println!("prune, {event}: {count} points");
        assert!(count == 0 || count > 30, "{count}");
    }
}

#[test]
fn two_processes_prune_one_set() {
    let set = Set::make(&[]);
    let lists = [set.list("a.txt", &[set.url(1), set.url(6)]), set.list("b.txt", &[set.url(2), set.url(10)])];
    let mut running: Vec<_> = lists
        .iter()
        .map(|list| command(&["prune", set.path.to_str().unwrap(), "--urls", list]).spawn().unwrap())
        .collect();
    let ended: Vec<bool> = running.iter_mut().map(|process| process.wait().unwrap().success()).collect();
    assert_eq!(ended, [true, true]);
    verify(&set.path);
    for number in [1, 2, 6, 10] {
        assert_eq!(Set::row(&set.path, number)["status"], "removed", "{number}");
    }
}
