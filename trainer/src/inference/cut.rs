//! The windows of an image, and the scores of the image from theirs.

use tch::{Kind, Tensor};

use super::fusion::Fusion;
use super::pamr::Pamr;

/// The windows of an image.
#[derive(Debug)]
pub struct Cut {
    /// Height of the resized image.
    pub height: i64,
    /// Width of the resized image.
    pub width: i64,
    /// Height and width of a window in the image.
    pub(super) size: (i64, i64),
    pub(super) full: (i64, i64),
    /// Where a window without its frame begins in the one that a tower is given; `None` if the scores of that are stretched over the
    /// window.
    pub(super) inside: Option<(i64, i64)>,
    pub(super) corners: Vec<(i64, i64)>,
    /// The windows as a tower is given them, each [1, h, w, 3], all of one size.
    pub windows: Vec<Tensor>,
}

impl Cut {
    /// The parts of a plane of labels of the resized image, [h, w], that lie in the windows. Where the image is filled up, they are
    /// `filling`.
    pub fn planes(&self, labels: &Tensor, filling: f64) -> Vec<Tensor> {
        let below = [0, self.full.1 - self.width, 0, self.full.0 - self.height];
        let full = labels.constant_pad_nd(below) + self.outside(labels) * filling;
        let part = |&(y, x): &(i64, i64)| full.narrow(0, y, self.size.0).narrow(1, x, self.size.1);
        self.corners.iter().map(part).collect()
    }

    /// 1 where the image is filled up, 0 elsewhere.
    fn outside(&self, like: &Tensor) -> Tensor {
        let outside = Tensor::ones([self.full.0, self.full.1], (like.kind(), like.device()));
        let _ = outside.narrow(0, 0, self.height).narrow(1, 0, self.width).zero_();
        outside
    }

    /// Scores of the resized image, [C, h, w], from the patch scores of its windows, [C, rows, columns] each. `pamr` refines the scores
    /// of each window by its pixels.
    pub fn blend(&self, grids: &[Tensor], fusion: Fusion, pamr: Option<&Pamr>) -> Tensor {
        let classes = grids[0].size()[0];
        let options = (Kind::Float, grids[0].device());
        let sums = Tensor::zeros([classes, self.full.0, self.full.1], options);
        let counts = Tensor::zeros([1, self.full.0, self.full.1], options);
        let (rows, columns) = self.size;
        for ((grid, window), &(y, x)) in grids.iter().zip(&self.windows).zip(&self.corners) {
            let place = |t: &Tensor| t.narrow(1, y, rows).narrow(2, x, columns);
            let scores = match self.inside {
                None => fusion.scores(grid, [rows, columns], window, pamr),
                Some((above, left)) => {
                    let size = [window.size()[1], window.size()[2]];
                    let scores = fusion.scores(grid, size, window, pamr);
                    scores.narrow(1, above, rows).narrow(2, left, columns)
                }
            };
            let _ = place(&sums).g_add_(&scores);
            let _ = place(&counts).g_add_scalar_(1.0);
        }
        let _ = sums.shallow_clone().g_div_(&counts);
        sums.narrow(1, 0, self.height).narrow(2, 0, self.width)
    }
}
