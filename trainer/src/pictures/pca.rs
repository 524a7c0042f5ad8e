//! Patch features as colours: the first three principal components are red, green and blue.

use tch::{Kind, Tensor};

/// Fraction of the values at each end that is clipped: otherwise outliers would make all other colours grey.
const TAIL: f64 = 0.02;

/// Colours of the patches of several images, with the same components for all: [rows, columns, d] each -> [rows, columns, 3],
/// 0..1.
///
/// The components are eigenvectors of the covariance of all patches, in float64; each is scaled from its 2nd to its 98th
/// percentile. The sign of a component is arbitrary; it is chosen so that the largest weight is positive, which makes the result
/// reproducible.
pub fn colours(pictures: &[Tensor]) -> Vec<Tensor> {
    tch::no_grad(|| {
        let flat = |picture: &Tensor| picture.flatten(0, 1).to_kind(Kind::Double);
        let all = Tensor::cat(&pictures.iter().map(flat).collect::<Vec<_>>(), 0);
        let mean = all.mean_dim([0i64].as_slice(), true, Kind::Double);
        let centred = &all - &mean;
        let covariance = centred.transpose(0, 1).matmul(&centred);
        // Eigenvalues are in ascending order.
        let (_, vectors) = covariance.linalg_eigh("L");
        let width = vectors.size()[1];
        let first: Vec<Tensor> = (0..3.min(width))
            .map(|i| {
                let vector = vectors.select(1, width - 1 - i);
                let largest = vector.abs().argmax(0, false).int64_value(&[]);
                let sign = if vector.double_value(&[largest]) < 0.0 { -1.0 } else { 1.0 };
                vector * sign
            })
            .collect();
        let basis = Tensor::stack(&first, 1);
        let components = centred.matmul(&basis);
        let ends = |at: f64| components.quantile_scalar(at, 0, true, "linear");
        let (low, high) = (ends(TAIL), ends(1.0 - TAIL));
        let span = (&high - &low).clamp_min(1e-12);
        pictures
            .iter()
            .map(|picture| {
                let size = picture.size();
                let values = ((flat(picture) - &mean).matmul(&basis) - &low) / &span;
                values.clamp(0.0, 1.0).to_kind(Kind::Float).reshape([size[0], size[1], -1])
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_direction_of_most_variance_comes_first_and_is_shared() {
        // Features vary mainly along (0, 3, 0, 0): the first component orders them.
        let along = |values: &[f64]| {
            let rows: Vec<f64> = values.iter().flat_map(|&v| [0.01 * v * v, 3.0 * v, 0.5, 0.0]).collect();
            Tensor::from_slice(&rows).view([1, -1, 4])
        };
        let colours = colours(&[along(&[-1.0, 0.0, 1.0]), along(&[0.0, 0.5])]);
        let red = |picture: usize, column: i64| colours[picture].double_value(&[0, column, 0]);
        assert_eq!(colours[0].size(), [1, 3, 3]);
        assert!(red(0, 0) < 0.05 && red(0, 2) > 0.95, "the ends of the range");
        assert!((red(0, 1) - red(1, 0)).abs() < 1e-6, "the same feature, the same colour in every picture");
        assert!(red(1, 1) > red(1, 0) && red(1, 1) < red(0, 2));
    }
}
