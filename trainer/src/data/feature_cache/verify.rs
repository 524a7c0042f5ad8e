//! Compares a folder of features with its checks and with the images.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use loader::shards::{Archive, Index, image_check};
use serde::Serialize;

use super::header::{CHECK_BYTES, CHECKS, CacheHeader, HEADER, OLDEST_VERSION, TOKENS, check_size, checked};
use super::images::check_of;
use storage::Location;

use crate::error::{Error, Result, reading};
use crate::observer::Observer;

/// What [`verify`] compared.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// Number of samples.
    pub samples: i64,
    /// Number of shards.
    pub shards: usize,
}

/// Compares every row of features in a folder with its check, and every image of the shards with that from which they were
/// computed. Computes no features.
///
/// # Errors
/// Something differs, or the folder is of version 1, which has no checks.
pub fn verify(folder: &Path, shards: &[Location], observer: &dyn Observer) -> Result<Verified> {
    let header = CacheHeader::read(folder)?;
    let invalid = |path: &Path, problem: String| Error::Invalid { path: path.to_owned(), problem };
    if header.version == OLDEST_VERSION {
        let problem = format!("is of version {OLDEST_VERSION}, which has no checks; run trainer cache again");
        return Err(invalid(&folder.join(HEADER), problem));
    }
    let checks = checked(folder, CHECKS)?;
    if checks.len() as u64 != CHECK_BYTES * header.samples as u64 {
        let problem =
            "does not have the number of samples of the features; run trainer cache again".to_owned();
        return Err(invalid(&folder.join(CHECKS), problem));
    }
    let mut checks =
        checks.chunks_exact(8).map(|check| u64::from_le_bytes(check.try_into().unwrap_or_default()));
    let path = folder.join(TOKENS);
    check_size(&path, &header)?;
    let named: Vec<String> = shards.iter().map(|shard| shard.file_name().into_owned()).collect();
    if named != header.shards.iter().map(|shard| shard.name.clone()).collect::<Vec<_>>() {
        let problem = "was made with other shards; give the same in the same order".to_owned();
        return Err(invalid(&folder.join(HEADER), problem));
    }
    let mut features = BufReader::with_capacity(1 << 20, File::open(&path).map_err(reading(&path))?);
    let mut row = vec![0; header.row_bytes() as usize];
    let mut progress = observer.progress("verifying features", "images", header.samples as u64);
    for (shard, cached) in shards.iter().zip(&header.shards) {
        let archive = Archive::open(shard)?;
        let index = Index::load(&archive)?;
        if index.len() as u64 != cached.samples {
            let problem = format!(
                "has {} samples, but had {} when the features were computed",
                index.len(),
                cached.samples
            );
            return Err(invalid(&shard.as_name(), problem));
        }
        if let Some(what) = cached.content.and_then(|content| content.difference(&index.identity(), false)) {
            let problem = format!("has {what} than when the features were computed; run trainer cache again");
            return Err(invalid(&shard.as_name(), problem));
        }
        for sample in 0..index.len() as u32 {
            let (Some(image), Some(expected)) = (checks.next(), checks.next()) else { break };
            let key = index.key(sample);
            if check_of(&archive, &index, sample)? != image {
                let problem = format!(
                    "the image of sample {key} has changed since the features were computed; run trainer cache again"
                );
                return Err(invalid(&shard.as_name(), problem));
            }
            features.read_exact(&mut row).map_err(reading(&path))?;
            if image_check(&row) != expected {
                let problem = format!(
                    "the features of sample {key} of {} are damaged; run trainer cache again",
                    shard.display()
                );
                return Err(invalid(&path, problem));
            }
            progress.advance(1, &String::new);
        }
        if observer.interrupted() {
            return Err(Error::interrupted("not all features were compared"));
        }
    }
    progress.finish(&folder.display().to_string());
    Ok(Verified { samples: header.samples, shards: shards.len() })
}
