//! The files of the images of shards, and their checks.

use loader::Loader;
use loader::shards::{Archive, Index, image_check};

use crate::error::{Error, Result};

/// The files of the images of a loader's shards. One shard is open at a time: the loader gives the samples of a shard one after
/// another.
#[derive(Debug)]
pub(super) struct ImageFiles<'a> {
    loader: &'a Loader,
    /// Number of each shard's first sample.
    starts: Vec<u64>,
    open: Option<(usize, Archive, Index)>,
}

impl<'a> ImageFiles<'a> {
    /// Opens nothing yet.
    pub(super) fn new(loader: &'a Loader) -> Self {
        let starts = loader.shard_samples().iter().scan(0, |next, &samples| {
            let start = *next;
            *next += u64::from(samples);
            Some(start)
        });
        Self { loader, starts: starts.collect(), open: None }
    }

    /// The check of the image of a sample, whose number counts over all shards in order.
    pub(super) fn check(&mut self, number: u64) -> Result<u64> {
        let shard = self.starts.partition_point(|&start| start <= number).saturating_sub(1);
        let path = &self.loader.settings().shards[shard];
        let (archive, index) = match self.open.take() {
            Some((open, archive, index)) if open == shard => (archive, index),
            _ => {
                let archive = Archive::open(path)?;
                let index = Index::load(&archive)?;
                (archive, index)
            }
        };
        let check = check_of(&archive, &index, (number - self.starts[shard]) as u32)?;
        self.open = Some((shard, archive, index));
        Ok(check)
    }
}

/// The check of the image of a sample.
pub(super) fn check_of(archive: &Archive, index: &Index, sample: u32) -> Result<u64> {
    let Some((offset, length)) = index.image(sample) else {
        let problem = format!("sample {} has no image", index.key(sample));
        return Err(Error::Invalid { path: archive.location().as_name(), problem });
    };
    Ok(image_check(&archive.read(offset, length)?))
}
