//! A checkpoint in numbers: segmentation, classification and retrieval, under protocols whose every part is a setting.
//!
//! Segmentation, in the order of its way: [`classes`] (names and synonyms), [`published_sets`] and
//! [`datasets`] (which set lies where),
//! [`masks`] (label conversions), [`segmentation`] (the loop), [`labels`] (scores to labels), [`confusion`] (the
//! metrics), [`table`] (beside the paper's rows). [`classification`] and [`retrieval`] share [`image_sets`].
//! [`command`] is what `trainer eval` offers.

pub mod classes;
pub mod classification;
pub mod command;
pub mod confusion;
pub mod datasets;
pub mod image_batches;
pub mod image_sets;
pub mod labels;
pub mod masks;
pub mod pamr;
pub mod periodic;
pub mod published;
pub mod published_sets;
pub mod ranking;
pub mod retrieval;
pub mod segmentation;
pub mod table;

pub use datasets::SegmentationSet;
pub use labels::bytes;
