//! Images, captions and names that are made to end a run, to fill the memory, to copy other files of the machine, or to write
//! to the terminal.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::{code, error_line, errors, ingest, jpeg, summary, table};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs the program with 4 GB of address space: what allocates more is killed by the system's allocator.
fn limited(arguments: &[&str]) -> Output {
    let shell = "ulimit -v 4194304; exec \"$0\" \"$@\"";
    Command::new("sh").args(["-c", shell, env!("CARGO_BIN_EXE_ingest")]).args(arguments).output().unwrap()
}

fn chunk(name: &str, data: &[u8]) -> Vec<u8> {
    let mut sum = flate2::Crc::new();
    sum.update(name.as_bytes());
    sum.update(data);
    [&(data.len() as u32).to_be_bytes()[..], name.as_bytes(), data, &sum.sum().to_be_bytes()].concat()
}

fn zlib(parts: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for part in parts {
        encoder.write_all(&part).unwrap();
    }
    encoder.finish().unwrap()
}

/// A PNG of one pixel with another chunk.
fn png(other: &[u8]) -> Vec<u8> {
    let header = [&1u32.to_be_bytes()[..], &1u32.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let pixels = chunk("IDAT", &zlib([vec![0, 9, 9, 9]]));
    [b"\x89PNG\r\n\x1a\n", &chunk("IHDR", &header)[..], other, &pixels, &chunk("IEND", &[])].concat()
}

#[test]
fn one_image_never_ends_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    fs::create_dir(&images).unwrap();
    // 35 bytes: a frame of 65,535 x 65,535 pixels on a screen of one.
    let mut gif = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0".to_vec();
    gif.extend([2, 1, 0x44, 0, b';']);
    // 65,000 fields that share one value: a megabyte of texts of no length.
    let count = 65_000u16;
    let mut exif = b"II*\0\x08\0\0\0".to_vec();
    exif.extend(count.to_le_bytes());
    for _ in 0..count {
        exif.extend([0x0e, 0x01, 2, 0]);
        exif.extend((1u32 << 20).to_le_bytes());
        exif.extend((14 + 12 * u32::from(count)).to_le_bytes());
    }
    exif.resize(exif.len() + 4 + (1 << 20), 0);
    // Five gigabytes of a colour profile.
    let profile = [b"a\0\0".to_vec(), zlib((0..5 << 10).map(|_| vec![0; 1 << 20]))].concat();
    for (name, bytes) in [
        ("gif", gif),
        ("exif", png(&chunk("eXIf", &exif))),
        ("profile", png(&chunk("iCCP", &profile))),
        ("plain", jpeg(40, 30, 1)),
    ] {
        fs::write(images.join(name).with_extension("jpg"), bytes).unwrap();
    }
    let out = folder.path().join("out");
    let output = limited(&["shard", text(&images), "--out", text(&out), "--no-captions", "--json"]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(summary(&output)["successes"], 3, "{}", errors(&output));
    assert!(errors(&output).contains("1  Image decoding error: too large"), "{}", errors(&output));
}

#[test]
fn captions_are_read_from_files_of_the_folder_alone() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    fs::create_dir(&images).unwrap();
    fs::write(folder.path().join("secret"), "a secret").unwrap();
    for name in ["fine", "inside", "outside", "pipe", "zero", "long", "pipe image"] {
        fs::write(images.join(format!("{name}.jpg")), jpeg(40, 30, 1)).unwrap();
    }
    fs::write(images.join("fine.txt"), "a dog").unwrap();
    symlink("fine.txt", images.join("inside.txt")).unwrap();
    symlink(folder.path().join("secret"), images.join("outside.txt")).unwrap();
    symlink("/dev/zero", images.join("zero.txt")).unwrap();
    fs::write(images.join("long.txt"), vec![b'x'; (1 << 20) + 1]).unwrap();
    fs::remove_file(images.join("pipe image.jpg")).unwrap();
    fs::write(images.join("pipe image.txt"), "a cat").unwrap();
    for pipe in ["pipe.txt", "pipe image.jpg"] {
        assert!(Command::new("mkfifo").arg(images.join(pipe)).status().unwrap().success());
    }
    let out = folder.path().join("out");
    let mut run = Command::new(env!("CARGO_BIN_EXE_ingest"));
    run.args(["shard", text(&images), "--out", text(&out), "--max-failures", "9"]);
    let mut child = run.spawn().unwrap();
    // Nobody writes to the pipes, so a program that waits for it never ends.
    for waited in 0.. {
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(0));
            break;
        }
        if waited == 600 {
            child.kill().unwrap();
            panic!("the program waits for a pipe");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let found: Vec<(String, String)> = table(&out.join("00000.parquet"))
        .into_iter()
        .map(|row| {
            let value = |name: &str| row.get(name).cloned().unwrap_or_default();
            (
                value("url"),
                if value("status") == "success" { value("caption") } else { value("error_message") },
            )
        })
        .collect();
    let expected = [
        ("fine.jpg", "a dog"),
        ("inside.jpg", "a dog"),
        ("long.jpg", "caption file is larger than 1 MiB"),
        ("outside.jpg", "caption file is a link out of the image folder"),
        ("pipe image.jpg", "not a file"),
        ("pipe.jpg", "caption file is not a regular file"),
        ("zero.jpg", "caption file is a link out of the image folder"),
    ];
    assert_eq!(found, expected.map(|(file, text)| (file.to_owned(), text.to_owned())));
}

#[test]
fn names_of_members_are_not_obeyed_by_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for _ in 0..2 {
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        tar.append_data(&mut header, "a\u{1b}]0;title\u{7}.txt", &b"x"[..]).unwrap();
    }
    fs::write(folder.path().join("0.tar"), tar.into_inner().unwrap()).unwrap();
    let output = ingest(&["tag", text(folder.path())]);
    let line = error_line(&output);
    assert!(line.contains("a⟨U+001B⟩]0;title⟨U+0007⟩"), "{line:?}");
}

/// 16 MiB and more without a line break, from a file of a few kilobytes.
#[test]
fn a_line_without_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, start) in [("t.csv.zst", "url,caption\nhttp://a.example,"), ("q.csv.zst", "url,caption\n\"")] {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(start.as_bytes()).unwrap();
        for _ in 0..64 {
            encoder.write_all(&vec![b'x'; 1 << 20]).unwrap();
        }
        let input = folder.path().join(name);
        fs::write(&input, encoder.finish().unwrap()).unwrap();
        let output =
            ingest(&["download", text(&input), "--out", text(&folder.path().join(format!("{name}-out")))]);
        assert!(
            code(&output) == 1 && error_line(&output).contains("more than 16 MiB"),
            "{}",
            errors(&output)
        );
    }
}

/// 384 MiB of zeros in a file of some kilobytes.
#[test]
fn a_shard_that_decompresses_without_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_path("0.jpg").unwrap();
    header.set_size(4 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    encoder.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 24];
    for _ in 0..24 {
        encoder.write_all(&zeros).unwrap();
    }
    fs::write(folder.path().join("0.tar.zst"), encoder.finish().unwrap()).unwrap();
    let output = ingest(&["verify", text(folder.path())]);
    assert!(code(&output) == 1 && errors(&output).contains("200 times its size"), "{}", errors(&output));
}

/// What is left is a complete tar, but for the mark of its end.
#[test]
fn a_tar_without_a_mark_of_its_end_is_named() {
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["0.jpg", "0.txt", "1.jpg", "1.txt"] {
        let image = jpeg(8, 8, 1);
        let mut header = tar::Header::new_gnu();
        header.set_size(image.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, image.as_slice()).unwrap();
    }
    let whole = tar.into_inner().unwrap();
    let member = (whole.len() - 1024) / 4;
    let folder = tempfile::tempdir().unwrap();
    let verified = |length: usize| {
        fs::write(folder.path().join("0.tar"), &whole[..length]).unwrap();
        ingest(&["verify", text(folder.path())])
    };
    assert_eq!(code(&verified(whole.len())), 0);
    for length in [2 * member, 4 * member] {
        let output = verified(length);
        assert!(code(&output) == 1 && errors(&output).contains("no mark of the end"), "{}", errors(&output));
    }
}
