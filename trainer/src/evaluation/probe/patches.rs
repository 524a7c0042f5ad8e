//! The patches of a dataset with the classes of their pixels, and a selection of them of a bounded size.

use std::ops::Range;
use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::evaluation::SegmentationDataset;
use crate::evaluation::confusion::IGNORED;
use crate::evaluation::masks::Mask;
use crate::evaluation::segmentation::in_groups;
use crate::inference::cut::Cut;
use crate::inference::segmenter::Segmenter;
use crate::observer::Observer;
use crate::weights::{self, Weights};

/// Patches with the classes of their pixels.
#[derive(Debug)]
pub struct Patches {
    /// L2-normalized features, [M, d], float32 on the CPU.
    pub features: Tensor,
    /// For each patch, the share of each class in its pixels that count: [M, C], float32 on the CPU; every row sums to 1.
    pub shares: Tensor,
    /// The sum of the features of all patches, each with the share of the class: [C, d]. Also of those that were not selected.
    pub sums: Tensor,
}

/// For each window of an image, the number of pixels of each class in each patch: [P, C]. `grid`: patches per side of a window.
///
/// The mask is resized with the image, by nearest neighbour (PyTorch's `nearest-exact`).
pub fn counts(cut: &Cut, mask: &Mask, classes: i64, grid: i64) -> Vec<Tensor> {
    let labels = Tensor::from_slice(&mask.labels).view([1, 1, mask.height.into(), mask.width.into()]);
    let resize = |plane: &Tensor, height: i64, width: i64| {
        plane.internal_upsample_nearest_exact2d([height, width], None, None)
    };
    let resized = resize(&labels.to_kind(Kind::Float), cut.height, cut.width).squeeze_dim(0).squeeze_dim(0);
    let of_window = |plane: Tensor| {
        // Windows that are stretched to whole patches.
        let side = (plane.size()[0] + grid - 1) / grid * grid;
        let plane = if side == plane.size()[0] {
            plane
        } else {
            resize(&plane.unsqueeze(0).unsqueeze(0), side, side).squeeze_dim(0).squeeze_dim(0)
        };
        let patch = side / grid;
        let pixels = plane.reshape([grid, patch, grid, patch]).permute([0, 2, 1, 3]);
        let pixels = pixels.reshape([grid * grid, -1]).to_kind(Kind::Int64);
        let first = Tensor::arange(grid * grid, (Kind::Int64, pixels.device())).unsqueeze(1) * 256;
        let counted = (pixels + first).reshape([-1]).bincount::<Tensor>(None, grid * grid * 256);
        counted.view([grid * grid, 256]).narrow(1, 0, classes)
    };
    cut.planes(&resized, f64::from(IGNORED)).into_iter().map(of_window).collect()
}

/// The shares of the classes in the pixels of patches that count; zeros where none does.
pub fn shares(counts: &Tensor) -> Tensor {
    let counts = counts.to_kind(Kind::Float);
    &counts / counts.sum_dim_intlist([1i64].as_slice(), true, Kind::Float).clamp_min(1.0)
}

/// The patches of these images of a dataset, at most `most` of each image, those of rare classes first.
pub fn collect(
    set: &SegmentationDataset,
    images: Range<usize>,
    segmenter: &Segmenter,
    most: usize,
    sizes: (usize, usize),
    observer: &dyn Observer,
    each: &mut dyn FnMut(),
) -> Result<Patches> {
    let classes = set.classes.len() as i64;
    let (mut features, mut labels) = (Vec::new(), Vec::new());
    let mut sums = Tensor::zeros([] as [i64; 0], (Kind::Float, Device::Cpu));
    in_groups(set, images, segmenter, sizes, observer, &mut |samples| {
        let images: Vec<_> = samples.iter().map(|sample| &sample.image).collect();
        let (cuts, grids) = segmenter.windows_scored(&images, sizes.0, &|patches| patches.transpose(1, 2));
        let mut grids = grids.into_iter();
        for (sample, cut) in samples.iter().zip(&cuts) {
            let own: Vec<Tensor> = grids.by_ref().take(cut.windows.len()).collect();
            let grid = own[0].size()[1];
            let patches: Vec<Tensor> =
                own.iter().map(|window| window.flatten(1, 2).transpose(0, 1)).collect();
            let patches = Tensor::cat(&patches, 0).to_device(Device::Cpu);
            let shares = shares(&Tensor::cat(&counts(cut, &sample.mask, classes, grid), 0));
            sums = &sums + shares.transpose(0, 1).matmul(&patches);
            let chosen = Tensor::from_slice(&select(&shares, most, sample.at as u64));
            features.push(patches.index_select(0, &chosen));
            labels.push(shares.index_select(0, &chosen));
            each();
        }
        Ok(())
    })?;
    Ok(Patches { features: Tensor::cat(&features, 0), shares: Tensor::cat(&labels, 0), sums })
}

impl Patches {
    /// Writes them to a file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let all = [("features", &self.features), ("shares", &self.shares), ("sums", &self.sums)];
        let named: Vec<(String, Tensor)> =
            all.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).into();
        weights::write(path, &named)
    }

    /// Reads files that [`Patches::write`] wrote, and joins them.
    pub fn read(paths: &[PathBuf]) -> Result<Self> {
        let (mut features, mut shares, mut sums) = (Vec::new(), Vec::new(), Vec::new());
        for path in paths {
            let mut saved = Weights::read(path, Device::Cpu)?;
            for (name, parts) in [("features", &mut features), ("shares", &mut shares), ("sums", &mut sums)] {
                let size = saved.size(name)?;
                parts.push(saved.take(name, &size)?);
            }
        }
        let sums = Tensor::stack(&sums, 0).sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
        Ok(Self { features: Tensor::cat(&features, 0), shares: Tensor::cat(&shares, 0), sums })
    }
}

/// The patches of image number `image` that are kept, in ascending order: at most `most` of those with a class, first those with the
/// smallest product of a random number and the frequencies of their classes in the image.
fn select(shares: &Tensor, most: usize, image: u64) -> Vec<i64> {
    let there = shares.gt(0.0).to_kind(Kind::Float);
    let frequencies = there.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
    let weights = Vec::<f32>::try_from(there.matmul(&frequencies)).unwrap_or_default();
    let mut random = ChaCha8Rng::seed_from_u64(image);
    let drawn = weights.iter().map(|weight| f64::from(*weight) * (f64::from(random.next_u32()) + 1.0));
    let mut ranked: Vec<(f64, i64)> = drawn.zip(0..).filter(|(score, _)| *score > 0.0).collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut kept: Vec<i64> = ranked.into_iter().take(most).map(|(_, patch)| patch).collect();
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_classes_come_first_and_patches_without_a_class_never() {
        // 90 patches of class 0, 5 of class 1, 5 without a class.
        let rows: Vec<f32> = (0..100)
            .flat_map(|patch| match patch {
                0..90 => [1.0, 0.0],
                90..95 => [0.0, 1.0],
                _ => [0.0, 0.0],
            })
            .collect();
        let shares = Tensor::from_slice(&rows).view([100, 2]);
        let kept = select(&shares, 10, 3);
        assert_eq!((kept.len(), kept.clone()), (10, select(&shares, 10, 3)));
        assert!(kept.iter().filter(|patch| (90..95).contains(*patch)).count() >= 3, "{kept:?}");
        assert_ne!(kept, select(&shares, 10, 4), "another image");
        assert_eq!(select(&shares, 1000, 3), (0..95).collect::<Vec<_>>());
    }
}
