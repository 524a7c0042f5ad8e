//! A training: what happens in it, and what is written when. `setup` opens everything that a run needs, `start` the weights that
//! it starts with, `learner` takes one step, and [`train()`] is the loop around it; `log` writes progress, `log.jsonl` and
//! TensorBoard's files (`events`). [`dry_run()`] and `bench` measure steps. `fair_share` leaves cores to other programs,
//! `anomaly` saves a batch whose loss is not finite, and `first_batch` draws the first one.

mod anomaly;
mod bench;
mod dry_run;
mod events;
mod fair_share;
mod first_batch;
mod learner;
mod log;
mod setup;
mod start;
mod summary;
mod train;

pub use bench::{Captions, Measured, measure_run, measure_synthetic};
pub use dry_run::{Estimate, dry_run};
pub use summary::Summary;
pub use train::train;
