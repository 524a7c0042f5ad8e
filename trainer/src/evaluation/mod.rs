//! Evaluation: segmentation, classification and retrieval, with protocols whose parts are all options.
//!
//! Segmentation, in the order of the steps: [`classes`] (names and synonyms), [`published_datasets`] and [`datasets`] (folder
//! layouts), [`masks`] (label conversions), [`segmentation`] (the loop), [`labels`] (scores to labels), [`confusion`] (metrics),
//! [`table`] (tables together with the published results). [`classification`] and [`retrieval`] share [`image_datasets`].
//! [`command`] is the command line of `trainer eval`.

pub mod classes;
pub mod classification;
pub mod command;
pub mod confusion;
pub mod datasets;
pub mod image_batches;
pub mod image_datasets;
pub mod labels;
pub mod masks;
pub mod pamr;
pub mod periodic;
pub mod published;
pub mod published_datasets;
pub mod ranking;
pub mod retrieval;
pub mod segmentation;
pub mod table;

pub use datasets::SegmentationDataset;
pub use labels::bytes;
