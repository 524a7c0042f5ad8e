//! Trains a text tower to match a frozen vision tower (SimZSS, LiT), evaluates the model, and segments images with it.
//!
//! Read in this order: [`settings`] (of a run), [`towers`], [`pooling`] and [`losses`] (the method), [`objective`] (one step),
//! [`train`] (the loop), [`segmenter`] and [`evaluation`] (the results), [`picture`] and [`serve`] (visualization), [`export`] and
//! [`card`] (files for others).

// Without panics; see `loader/src/lines.rs`.
#[macro_use(eprintln, print, println)]
extern crate loader;

pub mod anomaly;
pub mod attention;
pub mod bench;
pub mod cache;
pub mod card;
pub mod checkpoint;
pub mod class_vectors;
pub mod data;
pub mod dense;
pub mod device;
pub mod evaluation;
pub mod events;
pub mod export;
pub mod fair_share;
pub mod feature_cache;
pub mod first_batch;
pub mod group;
pub mod launch;
pub mod learner;
pub mod log;
pub mod losses;
pub mod model;
pub mod objective;
pub mod opencv;
pub mod operations;
pub mod optimizer;
pub mod pca;
pub mod picture;
pub mod pooling;
pub mod pretrain;
pub mod run_data;
pub mod segmentation;
pub mod segmenter;
pub mod serve;
pub mod settings;
pub mod templates;
pub mod torch;
pub mod towers;
pub mod train;
pub mod vision_source;
pub mod weights;
pub mod window;
pub mod words;

mod error;

pub use error::{Error, Result};
