//! Trains a text tower to match a frozen vision tower (SimZSS, LiT), evaluates the model, and segments images with it.
//!
//! The modules from the bottom up; each uses only those before it, and those on the same line do not use each other:
//!
//! | modules | what is in them |
//! |---|---|
//! | [`torch`] | functions of libtorch that `tch` does not offer: all unsafe code |
//! | `error`, `observer` | the one error type; where messages and progress go, and what stops the work |
//! | [`device`], [`distributed`], [`weights`] | where tensors are; the processes of a run; files of tensors |
//! | [`towers`] | the networks |
//! | [`method`] | the paper: losses, concept pooling, one step |
//! | [`settings`] | every setting of a run and its default |
//! | [`data`] | what a step is given |
//! | [`checkpoint`] | what is saved |
//! | [`inference`], [`pretrain`] | from a checkpoint and class names to labels; a small tower for tests |
//! | [`evaluation`], [`export`], [`pictures`] | scores; files for other programs; images to look at |
//! | [`run`], [`serve`] | the training loop and its log; the web page |
//!
//! `tests/tests/layers.rs` checks this order.

pub mod checkpoint;
pub mod data;
pub mod device;
pub mod distributed;
pub mod evaluation;
pub mod export;
pub mod inference;
pub mod method;
pub mod pictures;
pub mod pretrain;
pub mod run;
pub mod serve;
pub mod settings;
pub mod torch;
pub mod towers;
pub mod weights;

mod error;
mod observer;

pub use error::{Error, Result};
pub use observer::{Observer, Progress, Silent};
