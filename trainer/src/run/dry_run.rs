//! The first steps of a run, to learn what the whole would need.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::first_batch;
use super::setup::{Run, settled};
use crate::device;
use crate::distributed::{FirstRank, Group};
use crate::error::Result;
use crate::observer::Observer;
use crate::settings::Settings;

/// Time and memory that a run would need, measured on its first steps.
#[derive(Debug, Clone, Serialize)]
pub struct Estimate {
    /// Seconds per step, after the first step.
    pub seconds_per_step: f64,
    /// Hours of the whole run.
    pub hours: f64,
    /// Peak memory in bytes: of tensors on a GPU, of the process on a CPU.
    pub memory: u64,
    /// Number of trained parameters.
    pub parameters: usize,
    /// Number of samples in the dataset.
    pub samples: u64,
    /// Steps per epoch.
    pub steps_per_epoch: u64,
    /// Number of concepts in the vocabulary (bank).
    pub bank: usize,
    /// Loss of the first step.
    pub first_loss: f64,
}

/// Steps of a dry run; the first one is a warm-up and is not timed.
const DRY_STEPS: u64 = 4;

/// Takes a few steps of a run and returns what the run would need. Writes nothing except an image of the first batch.
pub fn dry_run(settings: &Settings, picture: &Path, observer: &dyn Observer) -> Result<Estimate> {
    let device = device::open(&settings.device)?;
    device::limit_threads(settings.threads);
    let group = Group::alone();
    let settings = &settled(settings, None, device, &group, observer)?;
    let mut run = Run::prepare(settings, &group, device, FirstRank::new(observer, &group), true)?;
    let mut prefetcher = run.prefetcher()?;
    let first = run.step(&mut prefetcher, &group)?;
    first_batch::draw(&first.batch, &run.loader, picture)?;
    let first_loss = first.report.loss.double_value(&[]);
    let started = Instant::now();
    for _ in 1..DRY_STEPS {
        let output = run.step(&mut prefetcher, &group)?;
        // Waits for the device.
        let _ = output.report.loss.double_value(&[]);
    }
    let seconds_per_step = started.elapsed().as_secs_f64() / (DRY_STEPS - 1) as f64;
    Ok(Estimate {
        seconds_per_step,
        hours: seconds_per_step * settings.steps as f64 / 3600.0,
        memory: device::peak_memory(device),
        parameters: run.learner.trained_numbers(),
        samples: run.loader.samples(),
        steps_per_epoch: run.loader.steps_per_epoch(),
        bank: run.bank,
        first_loss,
    })
}
