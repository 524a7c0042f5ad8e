//! Writes a folder of features.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use concepts::checksums::{Checksums, sha256};
use loader::Identity;
use loader::shards::image_check;
use tch::{Device, Kind, Tensor};

use super::header::{CHECK_BYTES, CHECKS, CHECKSUMS, CacheHeader, HEADER, TOKENS};
use crate::error::{Error, Result, writing};

/// Writes a folder of features; samples may come in any order. The folder appears under its final name when it is complete.
#[derive(Debug)]
pub struct CacheWriter {
    out: PathBuf,
    temporary: PathBuf,
    /// As long as it is open, other processes see that the folder is in use.
    _held: File,
    file: File,
    checks: Vec<u8>,
    header: CacheHeader,
    written: i64,
}

impl CacheWriter {
    /// Starts in a temporary folder next to `out`, which must not exist.
    pub fn create(out: &Path, header: CacheHeader) -> Result<Self> {
        if out.exists() {
            let problem = "exists already; remove it or choose another --out".to_owned();
            return Err(Error::Invalid { path: out.to_owned(), problem });
        }
        disk::files::clear_leftovers_of(out);
        let (temporary, held) = disk::files::temporary_folder(out).map_err(writing(out))?;
        let path = temporary.join(TOKENS);
        let file = File::create(&path).map_err(writing(&path))?;
        let checks = vec![0; (CHECK_BYTES * header.samples as u64) as usize];
        Ok(Self { out: out.to_owned(), temporary, _held: held, file, checks, header, written: 0 })
    }

    /// Writes the features of the samples with these numbers, which count over all shards in order, and with these checks of
    /// their images: [samples, 1 + N, d_v], or [samples, heads, d_v] for head means.
    pub fn put(&mut self, samples: &[i64], images: &[u64], features: &Tensor) -> Result<()> {
        let features = features.to_kind(Kind::BFloat16).to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0; features.numel() * 2];
        features.f_copy_data_u8(&mut bytes, features.numel())?;
        let row = self.header.row_bytes();
        for ((&sample, &image), bytes) in samples.iter().zip(images).zip(bytes.chunks_exact(row as usize)) {
            self.file.write_all_at(bytes, sample as u64 * row).map_err(writing(&self.temporary))?;
            let at = (CHECK_BYTES * sample as u64) as usize;
            self.checks[at..at + 8].copy_from_slice(&image.to_le_bytes());
            self.checks[at + 8..at + 16].copy_from_slice(&image_check(bytes).to_le_bytes());
            self.written += 1;
        }
        Ok(())
    }

    /// Renames the folder to its final name. `opened` says what the indices of the shards say.
    pub fn finish(mut self, opened: &[(u32, Identity)]) -> Result<()> {
        if self.written != self.header.samples {
            let problem = format!("only {} of {} samples were computed", self.written, self.header.samples);
            return Err(Error::Invalid { path: self.out.clone(), problem });
        }
        for &(shard, content) in opened {
            if let Some(shard) = self.header.shards.get_mut(shard as usize) {
                shard.content = Some(content);
            }
        }
        let header =
            serde_json::to_vec_pretty(&self.header).map_err(|e| writing(&self.temporary)(e.into()))?;
        let mut sums = Checksums::default();
        sums.set(CHECKS, sha256(&self.checks));
        sums.set(HEADER, sha256(&header));
        let sums = sums.text().into_bytes();
        self.file.sync_all().map_err(writing(&self.temporary))?;
        for (name, bytes) in [(CHECKS, &self.checks), (CHECKSUMS, &sums), (HEADER, &header)] {
            disk::files::write_atomic(&self.temporary.join(name), bytes).map_err(writing(&self.temporary))?;
        }
        fs::rename(&self.temporary, &self.out).map_err(writing(&self.out))?;
        disk::files::sync_parent(&self.out).map_err(writing(&self.out))
    }
}

impl Drop for CacheWriter {
    fn drop(&mut self) {
        // After `finish` it is gone already.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}
