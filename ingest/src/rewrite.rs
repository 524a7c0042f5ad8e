//! Writes samples of complete shards into new shards, byte by byte as they are, with what belongs to them: rows of tables, mentions
//! and signals. `ingest reshard` makes other shards of them, `ingest prune` the same shards without some samples.

pub(crate) mod companions;
pub(crate) mod mentions;
pub(crate) mod samples;
pub(crate) mod tables;

use std::path::Path;

use arrow_array::RecordBatch;
use bytes::Bytes;
use loader::shards::signals::{self, Signals};
use loader::shards::{self, IMAGE_EXTENSIONS, MemberData};
use storage::Location;

use self::companions::Carried;
use self::mentions::Mentions;
use self::samples::Samples;
use self::tables::{Origin, interleaved};
use crate::error::Error;
use crate::parallel::StopFlag;
use crate::shard::tar::TarWriter;

/// The tar of a new shard, which is complete but for its name.
pub(crate) struct Tar {
    pub(crate) sha256: String,
    /// Size of its file.
    pub(crate) bytes: u64,
    /// Offset and length of the image of each sample in the uncompressed tar, bytes.
    pub(crate) images: Vec<Option<(u64, u64)>>,
}

/// Writes the tar at `path`. `confirm` is called before it gets its name.
///
/// # Errors
/// A sample cannot be read or written, or that of `confirm`.
pub(crate) fn write_tar(
    path: &Path,
    sources: &[Samples],
    order: &[Origin],
    stop: &StopFlag,
    confirm: impl FnOnce() -> Result<(), Error>,
) -> Result<Tar, Error> {
    let mut tar = TarWriter::create(path).map_err(Error::file("write", path))?;
    let mut images = Vec::with_capacity(order.len());
    for &(source, sample) in order {
        stop.check()?;
        let members = sources[source].members(sample)?;
        let image = IMAGE_EXTENSIONS
            .iter()
            .find_map(|extension| members.iter().position(|member| member.extension == *extension));
        let mut place = None;
        for (number, MemberData { name, data, .. }) in members.iter().enumerate() {
            let start = tar.add(name, data).map_err(Error::file("write", path))?;
            if Some(number) == image {
                place = Some((start, data.len() as u64));
            }
        }
        images.push(place);
    }
    confirm()?;
    let sha256 = tar.commit().map_err(Error::file("write", path))?;
    let bytes = std::fs::metadata(path).map_err(Error::file("read", path))?.len();
    Ok(Tar { sha256, bytes, images })
}

/// The signals and the sidecar of the new shard `shard`, whose tar is written: what is carried from the sources.
///
/// # Errors
/// They cannot be written.
pub(crate) fn companions(
    shard: &Location,
    tar: &Tar,
    sources: &[Samples],
    order: &[Origin],
    carried: &Carried,
) -> Result<Vec<(Location, Bytes)>, Error> {
    let mut files = Vec::new();
    let keys = || order.iter().map(|&(source, sample)| sources[source].key(sample));
    for (number, producer) in carried.producers.iter().enumerate() {
        let path = signals::path(shard, producer);
        let all: Vec<&RecordBatch> = sources.iter().map(|source| &source.signals[number].1).collect();
        let rows = interleaved(&path, &all, order)?;
        // All sources have signals of the same settings.
        let Some(source) = sources.first() else { continue };
        let mut about = source.signals[number].0.clone();
        about.shard = shard.file_name().into_owned();
        (about.shard_bytes, about.shard_sha256) = (tar.bytes, Some(tar.sha256.clone()));
        let rows = tables::plain(&rows).map_err(Error::parquet("write", &path))?;
        files.push((path.clone(), Signals::new(about, keys(), rows)?.to_bytes(&path)?));
    }
    if carried.mentions {
        let path = shards::sidecar_path(shard);
        let all: Vec<&Mentions> = sources.iter().filter_map(|source| source.mentions.as_ref()).collect();
        let bytes = mentions::sidecar(&path, shard, tar.bytes, &all, order, keys())?;
        files.push((path, bytes));
    }
    Ok(files)
}
