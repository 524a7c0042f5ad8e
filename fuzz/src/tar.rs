//! Any bytes as a shard.

use loader::shards::{Archive, StoredCaptions, captions};

use crate::scratch;

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let file = scratch::file("t.tar", bytes);
    let path = file.path();
    // Opening decompresses the file.
    let Ok(archive) = Archive::open(path) else { return };
    let mut found = Vec::new();
    let walked = captions(path, None, |key, captions| -> Result<(), loader::Error> {
        // Without a field, captions are texts: anything else is a bug, which the fuzzer must find.
        let StoredCaptions::Text(caption) = captions else { panic!("they are from no field") };
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
}
