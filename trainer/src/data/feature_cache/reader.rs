//! Reads features during training.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use loader::{Expected, Identity, ImageBuffer, Loader, RowBuffer};
use tch::{Device, Kind, Tensor};

use super::header::{CacheHeader, HEADER, OLDEST_VERSION, TOKENS, check_size};
use crate::error::{Error, Result, reading};
use crate::observer::Observer;
use crate::torch::PinnedBuffer;
use crate::towers::VisionFeatures;

/// Features on disk.
#[derive(Debug)]
pub struct FeatureCache {
    folder: PathBuf,
    file: File,
    header: CacheHeader,
}

impl FeatureCache {
    /// Opens a folder that [`CacheWriter`](super::CacheWriter) wrote; an error if it was not made from what `expected` describes.
    pub fn open(folder: &Path, expected: &CacheHeader) -> Result<Self> {
        let header = CacheHeader::read(folder)?;
        if let Some(what) = header.difference(expected) {
            let problem = format!("was made with {what}; run trainer cache again");
            return Err(Error::Invalid { path: folder.join(HEADER), problem });
        }
        let path = folder.join(TOKENS);
        check_size(&path, &header)?;
        let file = File::open(&path).map_err(reading(&path))?;
        Ok(Self { folder: folder.to_owned(), file, header })
    }

    /// Makes the loader reject shards with other images than those that the features are of.
    pub fn expect_its_images(&self, loader: &Loader, observer: &dyn Observer) -> Result<()> {
        let shards: Vec<Option<Identity>> = self.header.shards.iter().map(|shard| shard.content).collect();
        if shards.iter().any(Option::is_none) {
            observer.message(&format!(
                "warning: {} is of version {OLDEST_VERSION}, which cannot tell whether images have changed since; run trainer \
                 cache again to be sure",
                self.folder.display()
            ));
        }
        let since =
            format!("the features in {} were computed; run trainer cache again", self.folder.display());
        Ok(loader.expect(Expected { shards, captions: false, since })?)
    }

    /// A buffer on the host for the features of at most so many samples, from which `device` can copy.
    pub fn buffer(&self, samples: usize, with_patches: bool, device: Device) -> Result<FeatureBuffer> {
        let memory = |bytes: u64| {
            PinnedBuffer::for_device((samples * bytes as usize).max(1), device).map_err(Error::Failed)
        };
        let patches = if with_patches { self.patch_bytes() } else { 0 };
        Ok(FeatureBuffer { first: memory(self.first_bytes())?, patches: memory(patches)? })
    }

    /// Reads the class tokens or the head means of the samples with these numbers, which count over all shards in order, and the
    /// patches of the `with_patches` among them (indices into `samples`), on `threads` threads.
    pub fn read(
        &self,
        samples: &[u64],
        with_patches: &[u32],
        buffer: &mut FeatureBuffer,
        threads: usize,
    ) -> Result<()> {
        let [row, first, patches] = [self.header.row_bytes(), self.first_bytes(), self.patch_bytes()];
        let firsts = buffer.first.lend(samples.len(), first as usize);
        let grids = buffer.patches.lend(with_patches.len(), patches as usize);
        let whole = firsts.len() == samples.len() && grids.len() == with_patches.len();
        let mut pieces: Vec<(u64, Box<dyn RowBuffer>)> = Vec::with_capacity(firsts.len() + grids.len());
        let lent = firsts.len();
        pieces.extend(samples.iter().map(|sample| sample * row).zip(firsts));
        pieces.extend(with_patches.iter().map(|&at| samples[at as usize] * row + first).zip(grids));
        let done = if whole {
            read_pieces(&self.file, &mut pieces, threads).map_err(reading(&self.folder.join(TOKENS)))
        } else {
            Err(Error::Failed("the buffer of the cached features is too small for a batch".to_owned()))
        };
        let mut pieces: Vec<Box<dyn RowBuffer>> = pieces.into_iter().map(|(_, piece)| piece).collect();
        buffer.patches.take_back(pieces.split_off(lent));
        buffer.first.take_back(pieces);
        done
    }

    /// What [`read`](Self::read) put into the buffer, in bfloat16 on the host: class tokens [B, d_v] and patches [R, N, d_v].
    pub fn features(&self, buffer: &FeatureBuffer, samples: usize, with_patches: usize) -> VisionFeatures {
        let CacheHeader { patches, width, .. } = self.header;
        VisionFeatures {
            class: bfloat16(&buffer.first, [samples as i64, 1, width]).squeeze_dim(1),
            patches: bfloat16(&buffer.patches, [with_patches as i64, patches, width]),
        }
    }

    /// Whether it holds head means, and no tokens.
    pub fn holds_head_means(&self) -> bool {
        self.header.heads > 0
    }

    /// The same for head means: [B, heads, d_v].
    pub fn head_means(&self, buffer: &FeatureBuffer, samples: usize) -> Tensor {
        bfloat16(&buffer.first, [samples as i64, self.header.heads, self.header.width])
    }

    /// The largest shapes of what [`features`](Self::features) or [`head_means`](Self::head_means) gives for batches of so many samples.
    pub fn shapes(&self, samples: i64, with_patches: bool) -> impl Iterator<Item = Vec<i64>> {
        let CacheHeader { patches, width, heads, .. } = self.header;
        let first = if heads > 0 { vec![samples, heads, width] } else { vec![samples, width] };
        [Some(first), with_patches.then(|| vec![samples, patches, width])].into_iter().flatten()
    }

    /// Bytes per sample of what is read of every sample: its class token, or its head means.
    fn first_bytes(&self) -> u64 {
        if self.holds_head_means() { self.header.row_bytes() } else { 2 * self.header.width as u64 }
    }

    fn patch_bytes(&self) -> u64 {
        self.header.row_bytes() - self.first_bytes()
    }
}

/// Memory on the host for the features of a batch.
#[derive(Debug)]
pub struct FeatureBuffer {
    /// Class tokens or head means.
    first: PinnedBuffer,
    patches: PinnedBuffer,
}

fn bfloat16(memory: &PinnedBuffer, shape: [i64; 3]) -> Tensor {
    memory.tensor(&[shape[0], shape[1], 2 * shape[2]]).view_dtype(Kind::BFloat16)
}

/// Reads parts of a file, each from its place, on several threads.
fn read_pieces(file: &File, pieces: &mut [(u64, Box<dyn RowBuffer>)], threads: usize) -> std::io::Result<()> {
    // In turns: class tokens, which are short, come before patches.
    let threads = threads.clamp(1, pieces.len().max(1));
    let mut shares: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    for (number, piece) in pieces.iter_mut().enumerate() {
        shares[number % threads].push(piece);
    }
    std::thread::scope(|scope| {
        let read = |share: Vec<&mut (u64, Box<dyn RowBuffer>)>| {
            share.into_iter().try_for_each(|(at, piece)| file.read_exact_at((**piece).as_mut(), *at))
        };
        let reading: Vec<_> = shares.into_iter().map(|share| scope.spawn(move || read(share))).collect();
        let failed = || std::io::Error::other("a thread that reads features has failed");
        reading.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(failed())))
    })
}
