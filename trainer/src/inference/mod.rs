//! From a checkpoint and class names to the labels of pixels. [`model`] opens the two towers; class names ([`class_list`], and
//! [`classes`] of a dataset) become embeddings ([`templates`], [`class_vectors`], [`word_vectors`]); [`window`] cuts an image into a [`cut`]
//! (resized as by [`opencv`] or [`pillow`]), [`segmenter`] scores every pixel ([`fusion`] says how; [`pamr`] refines the scores),
//! and [`labels`], [`names`] and [`segmentation`] decide on classes; [`referring`] finds what expressions mean. [`dense`] computes the patch features
//! of whole images, [`attention`]
//! the weights of concept pooling.

pub mod attention;
pub mod class_list;
pub mod class_vectors;
pub mod classes;
pub mod cut;
pub mod dense;
pub mod fusion;
pub mod labels;
pub mod model;
pub mod names;
pub mod opencv;
pub mod pamr;
pub mod pillow;
pub mod referring;
pub mod segmentation;
pub mod segmenter;
pub mod templates;
pub mod window;
pub mod word_vectors;
