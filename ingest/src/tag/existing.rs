//! Whether a sidecar that exists is the one that tagging would write.

use concepts::canonical_into;
use concepts::sidecar::{Metadata, Sidecar};
use loader::shards::{self, StoredCaptions};
use storage::Location;

use crate::dataset::sums;
use crate::error::Error;
use crate::parallel::StopFlag;

/// The sidecar that was found for a shard.
pub(super) enum Existing {
    Missing,
    Stale,
    /// Of an older version of canonical text.
    Older,
    /// Current, but the user wants it made again.
    Forced,
    Current(Box<Metadata>),
}

/// Reads the sidecar at `path`, if any. It is current if its footer equals `metadata` (source, tagger, grammar, canonical
/// text), as far as can be seen without reading the captions.
pub(super) fn existing_sidecar(path: &Location, metadata: &Metadata) -> Result<Existing, Error> {
    let footer = match path {
        Location::Local(path) if path.exists() => Sidecar::read_metadata(path),
        Location::Local(_) => return Ok(Existing::Missing),
        Location::Remote(_) => match storage::read(path) {
            Ok(bytes) => Sidecar::from_bytes(&path.as_name(), bytes).map(|sidecar| sidecar.metadata),
            Err(error) if storage::is_missing(&error) => return Ok(Existing::Missing),
            Err(error) => return Err(error.into()),
        },
    };
    match footer {
        Ok(found) if found.uncounted() == metadata.uncounted() => Ok(Existing::Current(Box::new(found))),
        Ok(found) if found.canonical < metadata.canonical => Ok(Existing::Older),
        _ => Ok(Existing::Stale),
    }
}

/// Compares a sidecar, whose footer is `found`, with the captions of its shard, and with its checksum, which is added if it is
/// missing. The result is `Current` or `Stale`.
pub(super) fn compare(
    path: &Location,
    target: &Location,
    found: Box<Metadata>,
    stop: &StopFlag,
) -> Result<Existing, Error> {
    let bytes = storage::read(target)?;
    let sums_path = shards::sums_path(path);
    let agrees = sums::agree(&sums_path, target, &bytes)?;
    let Ok(sidecar) = Sidecar::from_bytes(&target.as_name(), bytes.clone()) else {
        return Ok(Existing::Stale);
    };
    let (mut sample, mut fits) = (0, agrees != Some(false));
    let mut text = String::new();
    let field = found.field.as_deref();
    let checks = loader::shards::caption_checks(path, field, |key, captions| -> Result<(), Error> {
        stop.check()?;
        // An undamaged sidecar with checks needs no more than these.
        if agrees != Some(true) || sidecar.metadata.captions.is_none() {
            fits = fits && describes(&sidecar, sample, key, captions, &mut text);
        }
        sample += 1;
        Ok(())
    })?;
    fits =
        fits && sample == found.samples && found.refuse_unless_captions(&target.as_name(), &checks).is_ok();
    if !fits {
        return Ok(Existing::Stale);
    }
    if agrees.is_none() {
        sums::add(&sums_path, target, concepts::checksums::sha256(&bytes))?;
    }
    Ok(Existing::Current(found))
}

/// Whether the mentions of a sample have its key, and are in its captions. `text` is a buffer.
pub(crate) fn describes(
    sidecar: &Sidecar,
    sample: u32,
    key: &str,
    captions: StoredCaptions<'_>,
    text: &mut String,
) -> bool {
    let mut mentions = sidecar.mentions(sample).peekable();
    if mentions.peek().is_none() {
        return true;
    }
    let captions = captions.texts();
    let mut normalised = None;
    mentions.all(|mention| {
        let Some(caption) = captions.get(mention.caption as usize) else { return false };
        if normalised != Some(mention.caption) {
            canonical_into(caption, text);
            normalised = Some(mention.caption);
        }
        let span = mention.phrase_span;
        mention.key == key && text.get(span.start as usize..span.end as usize) == Some(mention.phrase)
    })
}
