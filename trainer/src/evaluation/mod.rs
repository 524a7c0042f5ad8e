//! Scores of models: segmentation, classification and retrieval, with protocols whose parts can all be chosen.
//!
//! Segmentation, in the order of the steps: [`published_datasets`] and [`datasets`] (folder layouts), [`masks`] (label
//! conversions), [`segmentation`] (the loop), [`confusion`] (metrics); [`predictions`] scores label maps of other programs
//! instead; [`probe`] compares the score with what the features allow; [`protocol`] has the published protocols by name (`protocol_parts`: their parts; `baselines`: those of methods
//! without training); [`periodic`] is the evaluation of checkpoints during training.
//! [`classification`] and [`retrieval`] share [`image_datasets`], [`image_batches`] and [`ranking`]. [`table`] writes tables
//! together with the [`published_results`]. [`referring`] scores masks of expressions. [`agreement`] scores captions instead of models. (Scores become labels in
//! [`inference`](crate::inference).)

pub mod agreement;
mod baselines;
pub mod classification;
pub mod confusion;
pub mod datasets;
pub mod image_batches;
pub mod image_datasets;
pub mod masks;
pub mod periodic;
pub mod predictions;
pub mod probe;
pub mod protocol;
mod protocol_parts;
pub mod published_datasets;
pub mod published_results;
pub mod ranking;
pub mod referring;
pub mod retrieval;
pub mod segmentation;
pub mod table;

pub use datasets::SegmentationDataset;
