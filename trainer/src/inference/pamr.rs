//! Pixel-adaptive mask refinement (Araslanov & Roth, CVPR 2020): scores are averaged repeatedly over neighbouring pixels of similar
//! colour, so that the borders of segments move to edges in the image. As in TCL's evaluation, each window of an image is refined
//! before the windows are averaged.

use serde::Serialize;
use tch::{Kind, Tensor};

/// The eight neighbours, as (down, right) steps.
const NEIGHBOURS: [(i64, i64); 8] = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)];
/// Temperature: the unit of colour differences, as a fraction of the local standard deviation.
const TEMPERATURE: f64 = 0.1;

/// Parameters of the refinement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pamr {
    /// Number of iterations.
    pub iterations: usize,
    /// Distances to the neighbours in pixels.
    pub dilations: Vec<i64>,
}

impl Pamr {
    /// The distances in the papers.
    pub const DILATIONS: [i64; 6] = [1, 2, 4, 8, 12, 24];
    /// Those of NACLIP.
    pub const NACLIPS_DILATIONS: [i64; 2] = [8, 16];

    /// Refines `scores`, [C, h, w], with `image`, [3, h, w], whose values may have any linear scale; both float32.
    pub fn refine(&self, image: &Tensor, scores: &Tensor) -> Tensor {
        tch::no_grad(|| {
            let weights = self.weights(image);
            let mut refined = scores.shallow_clone();
            for _ in 0..self.iterations {
                let sum = Tensor::zeros_like(&refined);
                for (i, neighbour) in self.neighbours(&refined).enumerate() {
                    let _ = sum.shallow_clone().addcmul_(&neighbour, &weights.get(i as i64));
                }
                refined = sum;
            }
            refined
        })
    }

    /// Weight of every neighbour of every pixel, [neighbours, h, w]: softmax of the negative colour difference, which is measured in
    /// local standard deviations and averaged over the channels.
    fn weights(&self, image: &Tensor) -> Tensor {
        let around: Vec<Tensor> = self.neighbours(image).collect();
        // The pixel itself counts once per distance in the standard deviation.
        let with_centre: Vec<Tensor> = around
            .iter()
            .map(Tensor::shallow_clone)
            .chain(self.dilations.iter().map(|_| image.shallow_clone()))
            .collect();
        let deviation = Tensor::stack(&with_centre, 0).std_dim([0i64].as_slice(), true, false);
        let unit = deviation * TEMPERATURE + 1e-8;
        let differences: Vec<Tensor> = around
            .iter()
            .map(|neighbour| {
                -((image - neighbour).abs() / &unit).mean_dim([0i64].as_slice(), false, Kind::Float)
            })
            .collect();
        Tensor::stack(&differences, 0).softmax(0, Kind::Float)
    }

    /// The image shifted so that each pixel has the value of a neighbour; at the border, the border pixel is repeated.
    fn neighbours<'a>(&'a self, picture: &'a Tensor) -> impl Iterator<Item = Tensor> + 'a {
        let (height, width) = (picture.size()[1], picture.size()[2]);
        self.dilations.iter().flat_map(move |&distance| {
            let padded = picture.unsqueeze(0).replication_pad2d([distance; 4]).squeeze_dim(0);
            NEIGHBOURS.iter().map(move |(down, right)| {
                let (y, x) = (distance * (1 + down), distance * (1 + right));
                padded.narrow(1, y, height).narrow(2, x, width)
            })
        })
    }
}
