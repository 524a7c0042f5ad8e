//! Visual words: clusters of patches by simple statistics, and an embedding for each from its co-occurrence with neighbours.

use tch::{Device, Kind, Tensor};

use crate::towers::unit;

/// Number of visual words (clusters).
const WORDS: i64 = 256;
/// Number of patches for k-means.
const SAMPLE: i64 = 40_000;
const ITERATIONS: usize = 20;
/// Number of eigenvectors of the co-occurrence matrix that are kept.
const DIRECTIONS: i64 = 64;
/// Exponent that smooths the counts of neighbours, as for context words in word2vec.
const SMOOTHING: f64 = 0.75;

/// A fitted vocabulary.
pub(super) struct Words {
    patch: i64,
    device: Device,
    /// Mean and standard deviation of the statistics, [8] each.
    mean: Tensor,
    deviation: Tensor,
    /// Cluster centres of the standardized statistics, [WORDS, 8].
    centres: Tensor,
    /// Embeddings of the words, L2-normalized, [WORDS, DIRECTIONS].
    vectors: Tensor,
    /// Mean target before the rotation, [DIRECTIONS].
    offset: Tensor,
    /// Orthonormal rows, [DIRECTIONS, width].
    rotation: Tensor,
}

impl Words {
    /// Clusters the patches of `images` (0..255, [B, H, W, 3]) and computes embeddings for tokens of `width`.
    pub(super) fn fit(images: &Tensor, patch: i64, width: i64, device: Device) -> Self {
        let statistics = statistics(images, patch);
        let size = statistics.size();
        let flat = statistics.reshape([-1, size[3]]);
        let mean = flat.mean_dim([0i64].as_slice(), false, Kind::Float);
        let deviation = flat.std_dim([0i64].as_slice(), false, false).clamp_min(1e-6);
        let flat = (flat - &mean) / &deviation;
        let sample = Tensor::randperm(flat.size()[0], (Kind::Int64, Device::Cpu));
        let sample = flat.index_select(0, &sample.narrow(0, 0, SAMPLE.min(flat.size()[0])));
        let centres = k_means(&sample);
        let words = nearest(&flat, &centres).view([size[0], size[1], size[2]]);
        let vectors = vectors(&words);
        let directions = vectors.size()[1];
        let (rotation, _) =
            Tensor::linalg_qr(&Tensor::randn([width, directions], (Kind::Float, Device::Cpu)), "reduced");
        let mut fitted = Self {
            patch,
            device,
            mean,
            deviation,
            centres,
            vectors,
            offset: Tensor::zeros([directions], (Kind::Float, Device::Cpu)),
            rotation: rotation.transpose(0, 1),
        };
        fitted.offset = fitted.in_context(&words).mean_dim([0i64, 1].as_slice(), false, Kind::Float);
        fitted
    }

    /// The targets for the patches of some images: L2-normalized, [B, N, width], on the device of the tower.
    pub(super) fn targets(&self, images: &Tensor) -> Tensor {
        let statistics = (statistics(images, self.patch) - &self.mean) / &self.deviation;
        let size = statistics.size();
        let words =
            nearest(&statistics.reshape([-1, size[3]]), &self.centres).view([size[0], size[1], size[2]]);
        let centred = self.in_context(&words) - &self.offset;
        unit(&centred.matmul(&self.rotation)).to_device(self.device)
    }

    /// The embedding of each patch plus the mean of the embeddings around it, L2-normalized: [B, N, DIRECTIONS].
    fn in_context(&self, words: &Tensor) -> Tensor {
        let size = words.size();
        let own = self.vectors.index_select(0, &words.reshape([-1])).view([size[0], size[1], size[2], -1]);
        let own = own.permute([0, 3, 1, 2]);
        let around = own.avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None);
        unit(&(own + around).flatten(2, 3).transpose(1, 2))
    }
}

/// Statistics of every patch: mean and standard deviation of the logarithm of each colour channel, and mean change of brightness
/// along x and y: [B, H, W, 3], 0..255 -> [B, H / patch, W / patch, 8]. Logarithms, because light is multiplicative.
fn statistics(images: &Tensor, patch: i64) -> Tensor {
    let colours = (images.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0 + 0.05).log();
    let pool = |x: &Tensor| x.avg_pool2d([patch, patch], [patch, patch], [0, 0], false, true, None);
    let mean = pool(&colours);
    let deviation = (pool(&colours.square()) - mean.square()).clamp_min(1e-6).sqrt();
    let brightness = colours.mean_dim([1i64].as_slice(), true, Kind::Float);
    let change = |dim: i64| {
        let length = brightness.size()[dim as usize];
        let steps = (brightness.narrow(dim, 1, length - 1) - brightness.narrow(dim, 0, length - 1)).abs();
        // The last row or column is repeated, so that every patch is complete.
        pool(&Tensor::cat(&[&steps, &steps.narrow(dim, length - 2, 1)], dim))
    };
    Tensor::cat(&[mean, deviation, change(3), change(2)], 1).permute([0, 2, 3, 1])
}

/// Index of the nearest cluster centre, [n].
fn nearest(points: &Tensor, centres: &Tensor) -> Tensor {
    let half_norms = centres.square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float) * 0.5;
    let indices: Vec<Tensor> = points
        .split(50_000, 0)
        .iter()
        .map(|some| (some.matmul(&centres.transpose(0, 1)) - &half_norms).argmax(1, false))
        .collect();
    Tensor::cat(&indices, 0)
}

/// k-means by Lloyd's algorithm, starting from random points. A centre without points is replaced by a random point.
fn k_means(points: &Tensor) -> Tensor {
    let count = points.size()[0];
    let words = WORDS.min(count);
    let random = || points.index_select(0, &Tensor::randint(count, [words], (Kind::Int64, Device::Cpu)));
    let mut centres = random();
    for _ in 0..ITERATIONS {
        let word = nearest(points, &centres);
        let counts = Tensor::zeros([words], (Kind::Float, Device::Cpu))
            .index_add(0, &word, &Tensor::ones([count], (Kind::Float, Device::Cpu)))
            .unsqueeze(1);
        let means = centres.zeros_like().index_add(0, &word, points) / counts.clamp_min(1.0);
        centres = means.where_self(&counts.gt(0.0), &random());
    }
    centres
}

/// Embeddings of the words from how often they are neighbours in `words` ([B, h, w]): the leading eigenvectors of the positive
/// pointwise mutual information (Levy and Goldberg, 2014).
fn vectors(words: &Tensor) -> Tensor {
    let count = WORDS;
    let (height, width) = (words.size()[1], words.size()[2]);
    let mut together = Tensor::zeros([count * count], (Kind::Float, Device::Cpu));
    // Four of the eight neighbours; the table is made symmetric afterwards.
    for (dy, dx) in [(0, 1), (1, -1), (1, 0), (1, 1)] {
        let first = |d: i64| if d < 0 { -d } else { 0 };
        let (h, w) = (height - dy, width - i64::abs(dx));
        let here = words.narrow(1, 0, h).narrow(2, first(dx), w);
        let there = words.narrow(1, dy, h).narrow(2, first(-dx), w);
        let pairs: Tensor = here * count + there;
        together += pairs.reshape([-1]).bincount::<Tensor>(None, count * count).to_kind(Kind::Float);
    }
    let together = together.view([count, count]);
    let together = &together + together.transpose(0, 1);
    let total = together.sum(Kind::Float);
    let each = together.sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    let smoothed = each.pow_tensor_scalar(SMOOTHING);
    let smoothed = &smoothed / smoothed.sum(Kind::Float) * &total;
    let expected = each.unsqueeze(1) * smoothed.unsqueeze(0) / &total;
    let information = (together / expected.clamp_min(1e-9)).clamp_min(1e-9).log().clamp_min(0.0);
    let information = (&information + information.transpose(0, 1)) / 2.0;
    let (values, vectors) = information.linalg_eigh("L");
    let (values, vectors) =
        (values.narrow(0, count - DIRECTIONS, DIRECTIONS), vectors.narrow(1, count - DIRECTIONS, DIRECTIONS));
    unit(&(vectors * values.clamp_min(0.0).sqrt()))
}
