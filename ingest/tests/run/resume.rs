//! Runs that are killed, repeated or split over processes always make the same shards.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Server, code, command, contents, error_line, errors, ingest, jpeg, respond, summary};

const ROWS: usize = 60;

/// A list of images that arrive in a random order; some do not exist.
fn list(folder: &Path) -> (Server, PathBuf) {
    let server = Server::start(|path, before, stream| {
        let number: u32 = path[1..].parse().unwrap();
        // Later images overtake earlier ones, differently each time.
        thread::sleep(Duration::from_millis(u64::from((number * 37 + before as u32 * 13) % 40)));
        if number % 10 == 9 {
            respond(stream, "404 Not Found", &[], b"");
        } else {
            respond(stream, "200 OK", &[], &jpeg(80 + number, 60, number));
        }
    });
    let mut text = String::from("caption\turl\n");
    for number in 0..ROWS {
        text.push_str(&format!("image {number}\t{}\n", server.url(&format!("/{number}"))));
    }
    let input = folder.join("list.tsv");
    fs::write(&input, text).unwrap();
    (server, input)
}

fn arguments<'a>(input: &'a Path, out: &'a Path) -> Vec<&'a str> {
    let mut all = vec!["download", input.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
    all.extend(["--allow-private", "--shard-size", "8", "--image-size", "64", "--threads", "2"]);
    all
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, input) = list(folder.path());
    let whole = folder.path().join("whole");
    let output = ingest(&arguments(&input, &whole));
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(summary(&output)["successes"], ROWS * 9 / 10);
    let expected = contents(&whole);
    assert_eq!(expected.len(), 8 * 5 + 2);

    // Measure how long such a run takes, so that the kills are spread over all of it.
    let timed = folder.path().join("timed");
    let slow = |out: &Path| {
        let mut slow = arguments(&input, out);
        slow.extend(["--per-host", "3"]);
        command(&slow)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let started = Instant::now();
    slow(&timed).wait().unwrap();
    let whole_run = started.elapsed();

    let mut unfinished = 0;
    for number in 0..20u32 {
        // Multiples of the golden ratio are spread evenly and not in step with the shards.
        let moment = whole_run.mul_f64((f64::from(number) * 0.618_034).fract());
        let out = folder.path().join(format!("killed-{number}"));
        let mut child = slow(&out);
        thread::sleep(moment);
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        let before = if out.exists() { contents(&out) } else { std::collections::BTreeMap::default() };
        let finished: Vec<_> =
            before.keys().filter(|name| name.ends_with("_stats.json") && !name.contains(".tmp-")).collect();
        for name in &finished {
            assert_eq!(before[*name], expected[*name], "complete shards are final");
        }
        let output = ingest(&arguments(&input, &out));
        assert_eq!(code(&output), 0, "{}", errors(&output));
        assert_eq!(summary(&output)["shards_written"], 8 - finished.len(), "complete shards are kept");
        assert_eq!(summary(&output)["samples"], ROWS);
        assert!(contents(&out) == expected, "killed after {moment:?}");
        unfinished += u32::from(finished.len() < 8);
    }
    assert!(unfinished >= 15, "only {unfinished} of 20 runs were killed before their end");
}

#[test]
fn several_processes_together_make_what_one_makes() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, input) = list(folder.path());
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    assert_eq!(code(&ingest(&arguments(&input, &whole))), 0);
    // Of several jobs, none knows whether it is the last one.
    fs::remove_file(whole.join("index.parquet")).unwrap();
    let part = |index: &'static str| {
        let mut all = arguments(&input, &parts);
        all.extend(["--index", index, "--count", "3"]);
        command(&all)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    // At the same time, as on a cluster.
    let children = [part("0"), part("1"), part("2")];
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{}", errors(&output));
    }
    assert!(contents(&parts) == contents(&whole));
    // The same from the environment of a job array, with a part that is complete already.
    let output = command(&arguments(&input, &parts))
        .env("SLURM_ARRAY_TASK_ID", "5")
        .env("SLURM_ARRAY_TASK_MIN", "4")
        .env("SLURM_ARRAY_TASK_COUNT", "3")
        .output()
        .unwrap();
    assert_eq!(summary(&output)["shards"], 3, "{}", errors(&output));
    assert_eq!(summary(&output)["shards_written"], 0);
    let text = errors(&output);
    assert!(
        text.contains("job 1 of 3 (counted from 0), from the scheduler's environment variables"),
        "{text}"
    );
    assert!(text.contains("nothing to do: 3 shards already complete") && !text.contains("/s)"), "{text}");
}

#[test]
fn a_folder_holds_one_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let (server, input) = list(folder.path());
    let out = folder.path().join("out");
    assert_eq!(code(&ingest(&arguments(&input, &out))), 0);
    let before = contents(&out);
    let asked = server.count("/0");

    let mut other = arguments(&input, &out);
    let size = other.iter().position(|&word| word == "64").unwrap();
    other[size] = "128";
    let refused = ingest(&other);
    assert_eq!(code(&refused), 1);
    assert!(error_line(&refused).contains("image.size was 64, now 128"), "{}", error_line(&refused));

    fs::write(&input, "url\tcaption\nhttp://127.0.0.1:1/x\tanother list\n").unwrap();
    let refused = ingest(&arguments(&input, &out));
    assert_eq!(code(&refused), 1);
    assert!(error_line(&refused).contains("already holds another dataset"));
    assert!(contents(&out) == before && server.count("/0") == asked, "nothing was touched");

    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("00000.tar"), [0; 1024]).unwrap();
    let refused = ingest(&arguments(&input, &foreign));
    assert_eq!(code(&refused), 1);
    assert!(error_line(&refused).contains("it has 00000.tar, but no ingest.json"));
}

#[test]
fn verify_finds_every_kind_of_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, input) = list(folder.path());
    let out = folder.path().join("out");
    assert_eq!(code(&ingest(&arguments(&input, &out))), 0);
    let out_text = out.to_str().unwrap();
    let tagged = ingest(&["tag", out_text, "--json"]);
    assert_eq!(code(&tagged), 0, "{}", errors(&tagged));
    let verify = || ingest(&["verify", out_text, "--json"]);
    let whole = verify();
    assert_eq!(code(&whole), 0, "{}", errors(&whole));
    assert_eq!(summary(&whole)["samples"], ROWS * 9 / 10);
    assert_eq!(summary(&whole)["sidecars"], 8);

    // One damage at a time; the message must name it.
    type Break = fn(&Path);
    let damages: [(&str, Break, &str); 9] = [
        ("00001.tar", |tar| truncate(tar, 3000), "00001.tar"),
        ("00001.tar", |tar| fs::remove_file(tar).unwrap(), "missing"),
        ("00001.tar", |tar| flip(tar, 600), "damaged"),
        ("00001.parquet", |table| truncate(table, 100), "00001.parquet"),
        ("00001.parquet", |table| fs::remove_file(table).unwrap(), "00001.parquet"),
        (
            "00001.parquet",
            |table| _ = fs::copy(table.with_file_name("00002.parquet"), table).unwrap(),
            "00001",
        ),
        ("00001_stats.json", |stats| fs::remove_file(stats).unwrap(), "incomplete"),
        ("00001_stats.json", |stats| fs::write(stats, b"{").unwrap(), "00001_stats.json"),
        (
            "00001.concepts.parquet",
            |it| _ = fs::copy(it.with_file_name("00002.concepts.parquet"), it).unwrap(),
            "00001.concepts.parquet",
        ),
    ];
    for (name, damage, says) in damages {
        let path = out.join(name);
        let original = fs::read(&path).unwrap();
        damage(&path);
        let found = verify();
        assert_eq!(code(&found), 1, "{name}: {says}");
        assert!(errors(&found).contains(says), "{name}: {says}: {}", errors(&found));
        fs::write(&path, original).unwrap();
    }
    assert_eq!(code(&verify()), 0);
}

fn truncate(path: &Path, length: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Damages the first bytes of the first image.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    for byte in &mut bytes[512..at] {
        *byte ^= 0xff;
    }
    fs::write(path, bytes).unwrap();
}
