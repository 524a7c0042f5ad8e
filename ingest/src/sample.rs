//! A sample: a row of the input with its image, on the way to a row of a shard's table.

use crate::image::EncodedImage;
use crate::problem::Problem;
use crate::rows::Row;

/// A processed sample.
#[derive(Debug)]
pub struct Sample {
    /// Number of its shard.
    pub shard: u32,
    /// Its position in the shard's rows, from 0.
    pub index: u32,
    /// The row of the input.
    pub row: Row,
    /// The image, or why there is none.
    pub outcome: Result<EncodedImage, Problem>,
}
