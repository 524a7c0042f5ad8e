//! A full disk: the run stops with one error line and leaves no partial files; with free space it resumes.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Server, code, contents, error_line, errors, ingest, jpeg, respond, summary};

/// A small tmpfs, unmounted when dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    /// None, with the reason printed, if mounting is not possible.
    fn mount(at: &'a Path, size: &str) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(at)),
            Ok(output) => {
                eprintln!(
                    "skipped: cannot mount a tmpfs: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                None
            }
            Err(error) => {
                eprintln!("skipped: cannot run mount: {error}");
                None
            }
        }
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(self.0).status().unwrap().success());
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_stops_the_run_and_free_space_resumes_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("small");
    let Some(disk) = Disk::mount(&at, "400k") else { return };
    let server = Server::start(|path, _, stream| {
        let number: u32 = path[1..].parse().unwrap();
        respond(stream, "200 OK", &[], &jpeg(200, 150, number));
    });
    let input = folder.path().join("urls.txt");
    let urls: String = (0..60).map(|number| server.url(&format!("/{number}\n"))).collect();
    fs::write(&input, urls).unwrap();
    let run = |out: &Path| {
        let mut arguments =
            vec!["download", input.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
        arguments.extend(["--allow-private", "--shard-size", "10", "--image-size", "160"]);
        arguments.extend(["--encode-format", "png", "--encode-quality", "1"]);
        ingest(&arguments)
    };
    let reference = folder.path().join("reference");
    assert_eq!(summary(&run(&reference))["successes"], 60);
    let expected = contents(&reference);
    let bytes: usize = expected.values().map(Vec::len).sum();
    assert!(bytes > 600_000, "{bytes} bytes would fit on the disk");

    let out = at.join("out");
    for _ in 0..2 {
        let full = run(&out);
        assert_eq!(code(&full), 1, "{}", errors(&full));
        let line = error_line(&full);
        assert!(line.contains("No space left") && line.contains("small"), "{line}");
        let left = contents(&out);
        let partial: Vec<&String> = left.keys().filter(|name| name.starts_with(".tmp-")).collect();
        assert!(partial.is_empty(), "{partial:?}");
        for (name, bytes) in &left {
            let stats = format!("{}_stats.json", &name[..5]);
            if left.contains_key(&stats) {
                assert!(*bytes == expected[name], "{name} is final");
            }
        }
    }
    disk.resize("8m");
    let resumed = run(&out);
    assert_eq!(code(&resumed), 0, "{}", errors(&resumed));
    assert_eq!(summary(&resumed)["successes"], 60);
    assert!(contents(&out) == expected);
}
