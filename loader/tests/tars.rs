//! The samples of a tar: of tars that Python wrote, compared with webdataset's reader, and of damaged tars.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{TarFile, damage};
use loader::Error;
use loader::shards::{self, Archive, StoredCaptions};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Keys, extensions and bytes of every sample, compared with webdataset's own reader.
#[test]
fn python_tars_have_the_samples_that_webdataset_finds() {
    let json = fs::read_to_string(fixtures().join("webdataset_tars.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&json).unwrap();
    let plain = tempfile::tempdir().unwrap();
    for (name, samples) in expected.as_object().unwrap() {
        let packed = fixtures().join(format!("{name}.tar.zst"));
        let unpacked = plain.path().join(format!("{name}.tar"));
        fs::write(&unpacked, zstd::decode_all(fs::File::open(&packed).unwrap()).unwrap()).unwrap();
        for path in [packed, unpacked] {
            let archive = Archive::open(&path).unwrap();
            let found = archive.samples().unwrap();
            assert_eq!(found.len(), samples.as_array().unwrap().len(), "{name}");
            // One pass over the file finds the same captions.
            let captions = captions(&path).unwrap();
            assert_eq!(captions.len(), found.len(), "{name}");
            for ((key, caption), expected) in captions.iter().zip(samples.as_array().unwrap()) {
                let caption =
                    caption.as_ref().map(|bytes| bytes.iter().map(|b| format!("{b:02x}")).collect());
                let expected_caption: Option<String> = expected["members"]["txt"].as_str().map(str::to_owned);
                assert_eq!((key.as_str(), caption), (expected["key"].as_str().unwrap(), expected_caption));
            }
            for (sample, expected) in found.iter().zip(samples.as_array().unwrap()) {
                assert_eq!(sample.key, expected["key"].as_str().unwrap(), "{name}");
                let members = expected["members"].as_object().unwrap();
                assert_eq!(sample.members.len(), members.len(), "{name}: {}", sample.key);
                for member in &sample.members {
                    let bytes = archive.read(member.offset, member.length).unwrap();
                    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    assert_eq!(members[&member.extension], hex, "{name}: {}", sample.key);
                }
            }
        }
    }
}

/// A sample's key and caption.
type Captioned = (String, Option<Vec<u8>>);

/// The keys and captions of all samples, read in one pass.
fn captions(path: &Path) -> Result<Vec<Captioned>, Error> {
    let mut all = Vec::new();
    let samples = shards::captions(path, None, |key, captions| -> Result<(), Error> {
        let StoredCaptions::Text(caption) = captions else { panic!("not from a field") };
        all.push((key.to_owned(), caption.map(<[u8]>::to_vec)));
        Ok(())
    })?;
    assert_eq!(samples, all.len() as u64);
    Ok(all)
}

fn tar_with(folder: &Path, members: &[(&str, &[u8])]) -> PathBuf {
    let path = folder.join("00000.tar");
    let mut tar = TarFile::create(&path);
    for (name, data) in members {
        tar.add(name, data);
    }
    tar.finish();
    path
}

#[test]
fn damaged_tars_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let write = || tar_with(folder.path(), &[("a.jpg", &[1; 2000]), ("a.txt", b"x"), ("b.jpg", &[2; 2000])]);
    let error = |path: &Path| Archive::open(path).unwrap().samples().unwrap_err().to_string();
    let refused = |change: fn(&mut Vec<u8>), part: &str| {
        let path = write();
        damage(&path, change);
        for error in [error(&path), captions(&path).unwrap_err().to_string()] {
            assert!(error.contains("00000.tar") && error.contains(part), "{error}");
        }
    };
    // a.jpg: header, 4 blocks; a.txt: header, 1 block; b.jpg: header at block 7.
    refused(|bytes| bytes.truncate(8 * 512 + 100), "truncated inside b.jpg");
    refused(|bytes| bytes.truncate(7 * 512 + 100), "damaged after a.txt");
    refused(|bytes| bytes[7 * 512] = b'X', "damaged after a.txt");
    refused(|bytes| bytes[0] = b'X', "damaged at its start");

    let path = tar_with(folder.path(), &[("a.jpg", b"1"), ("a.JPG", b"2")]);
    let twice = "sample a has two members with the extension jpg";
    assert!(error(&path).contains(twice));
    assert!(captions(&path).unwrap_err().to_string().contains(twice));
}

/// A tar that ends after its last member, without the closing blocks, is complete: Python reads it, too.
#[test]
fn closing_blocks_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = tar_with(folder.path(), &[("a.jpg", &[1; 2000])]);
    damage(&path, |bytes| bytes.truncate(5 * 512));
    assert_eq!(Archive::open(&path).unwrap().samples().unwrap().len(), 1);
    damage(&path, Vec::clear);
    // An empty file is not even a tar without members, which has closing blocks.
    let error = Archive::open(&path).unwrap().samples().unwrap_err().to_string();
    assert!(error.contains("00000.tar: it is empty"), "{error}");
    assert!(captions(&path).unwrap_err().to_string().contains("it is empty"));
    damage(&path, |bytes| bytes.resize(1024, 0));
    assert!(Archive::open(&path).unwrap().samples().unwrap().is_empty());
}

#[test]
fn damaged_compression_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let plain = tar_with(folder.path(), &[("a.jpg", &[1; 2000])]);
    let packed = folder.path().join("00000.tar.zst");
    fs::write(&packed, zstd::encode_all(&*fs::read(&plain).unwrap(), 1).unwrap()).unwrap();
    assert_eq!(Archive::open(&packed).unwrap().samples().unwrap().len(), 1);
    damage(&packed, |bytes| bytes.truncate(bytes.len() - 4));
    let error = Archive::open(&packed).unwrap_err().to_string();
    assert!(error.contains("00000.tar.zst") && error.contains("decompressed"), "{error}");
    let error = captions(&packed).unwrap_err().to_string();
    assert!(error.contains("00000.tar.zst"), "{error}");
    // The same when the compressed tar itself is truncated.
    let cut = &fs::read(&plain).unwrap()[..1000];
    fs::write(&packed, zstd::encode_all(cut, 1).unwrap()).unwrap();
    assert!(captions(&packed).unwrap_err().to_string().contains("00000.tar.zst"));
}

#[test]
fn reads_beyond_the_end_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::open(tar_with(folder.path(), &[("a.jpg", &[1; 10])])).unwrap();
    assert_eq!(archive.read(512, 10).unwrap(), [1; 10]);
    assert!(archive.read(archive.len() - 1, 2).is_err());
    assert!(archive.read(u64::MAX, 2).is_err());
}
