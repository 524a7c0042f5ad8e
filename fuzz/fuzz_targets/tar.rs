//! Any bytes as a shard.

#![no_main]

mod scratch;

use libfuzzer_sys::fuzz_target;
use loader::shards::tar::{Archive, captions};

fuzz_target!(|bytes: &[u8]| {
    let path = scratch::file("t.tar", bytes);
    // Opening reads no byte of the file, and the file was written just before.
    let archive = Archive::open(path.as_path()).expect("the file is there");
    let mut found = Vec::new();
    let walked = captions(path.as_path(), |key, caption| -> Result<(), loader::Error> {
        found.push((key.to_owned(), caption.map(<[u8]>::to_vec)));
        Ok(())
    });
    let Ok(samples) = archive.samples() else { return };
    for sample in &samples {
        for member in &sample.members {
            assert!(member.offset + member.length <= archive.len(), "{member:?}");
        }
    }
    // Both ways of reading must agree: if only one of them fails, that is a bug.
    walked.expect("what has samples can be walked");
    let read: Vec<_> = samples
        .iter()
        .map(|sample| {
            // Checked above.
            let caption = sample.caption().map(|m| archive.read(m.offset, m.length).expect("inside"));
            (sample.key.clone(), caption)
        })
        .collect();
    assert_eq!(read, found);
});
