//! What the index of a set says of a shard, from the shard.

use concepts::sidecar::CaptionChecks;
use storage::Location;

use crate::Error;
use crate::shards::index::Index;
use crate::shards::set_index::Described;
use crate::shards::sidecar;
use crate::shards::tar::Archive;

/// Reads what the [index of a set](super::set_index) says of a shard: from its table if that has the positions of the images,
/// otherwise from the headers of the tar; and the footer of its sidecar.
///
/// # Errors
/// The shard, its table or its sidecar cannot be read, or they do not match.
pub fn describe(shard: &Location) -> Result<Described, Error> {
    let (described, _) = describe_without_sidecar(shard)?;
    let sidecar = match sidecar::metadata(shard) {
        Ok(metadata) => Some(metadata),
        Err(Error::NoSidecar { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(Described { sidecar, ..described })
}

/// The same without the sidecar, and the checks of the captions as by [`sidecar::table_captions`].
///
/// # Errors
/// As [`describe`].
pub fn describe_without_sidecar(shard: &Location) -> Result<(Described, Option<CaptionChecks>), Error> {
    let bytes = storage::length(shard)?;
    let (index, captions) = if let Some(index) = Index::from_its_table(shard)? {
        index.refuse_other_count(shard)?;
        let captions = index.caption_checks();
        (index, captions)
    } else {
        (Index::load(&Archive::open(shard)?)?, None)
    };
    let (samples, content) = (index.len() as u32, index.identity());
    Ok((Described { samples, bytes, content, sidecar: None }, captions))
}
