//! A sample: a row of the input with its image, on the way to a row of a shard's table.

use crate::image::EncodedImage;
use crate::problem::Problem;
use crate::request::Request;
use crate::rows::Row;
use crate::signals::Language;

/// A processed sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Number of its shard.
    pub shard: u32,
    /// Its position in the shard's rows, from 0.
    pub index: u32,
    /// The row of the input.
    pub row: Row,
    /// What the request for its image taught.
    pub request: Request,
    /// The language of its caption, if it has an image and a language.
    pub(crate) language: Option<Language>,
    /// The image, or why there is none.
    pub outcome: Result<EncodedImage, Problem>,
}
