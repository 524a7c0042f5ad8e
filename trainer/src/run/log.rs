//! The log of a run: progress lines, `log.jsonl` and TensorBoard. Rank 0 writes it for all ranks.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loader::Position;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::events::Events;
use super::learner::StepOutput;
use super::summary::Summary;
use crate::device;
use crate::distributed::{FirstRank, Group};
use crate::error::{Error, Result, reading, writing};
use crate::method::objective::StepReport;
use crate::observer::{Observer, Progress};
use crate::settings::Settings;

/// One line of `log.jsonl`: means over all ranks and over the steps since the previous line.
#[derive(Debug, Serialize)]
struct Line {
    step: u64,
    loss: f64,
    contrastive: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    concept: Option<f64>,
    /// Mean over the steps with a mention; none if there was no such step.
    #[serde(skip_serializing_if = "Option::is_none")]
    concept_accuracy: Option<f64>,
    /// Of `objective.patch_weight`.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<f64>,
    /// Of `objective.separation_weight`.
    #[serde(skip_serializing_if = "Option::is_none")]
    separation: Option<f64>,
    /// Of `objective.image_negatives_weight`.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_negatives: Option<f64>,
    /// The concept loss on other images, of `objective.shortcut_check`.
    #[serde(skip_serializing_if = "Option::is_none")]
    concept_on_other_images: Option<f64>,
    /// Negatives per mention that were dropped, of `objective.doubtful`.
    #[serde(skip_serializing_if = "Option::is_none")]
    doubtful_negatives: Option<f64>,
    /// Mentions per mention that were added, of `objective.doubtful.added_weight`.
    #[serde(skip_serializing_if = "Option::is_none")]
    added_mentions: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gram: Option<f64>,
    logit_scale: f64,
    lr: f64,
    images_per_second: f64,
    /// Fraction of the time that rank 0 waited for batches.
    data_wait: f64,
    /// Peak memory of rank 0: of tensors on a GPU, of the whole process on a CPU.
    memory_gb: f64,
    /// Floating-point operations of the towers, 10^12 per second and rank.
    tflops: f64,
    /// Model FLOPs utilization (MFU): `tflops` / `peak_tflops`.
    #[serde(skip_serializing_if = "Option::is_none")]
    utilization: Option<f64>,
    seconds_left: f64,
}

/// A step that is not logged yet; its scalars are still on the device.
#[derive(Debug)]
struct Pending {
    report: StepReport,
    step: u64,
    position: Position,
    first_keys: Vec<String>,
}

/// Collects the measurements of the steps and writes them.
#[derive(Debug)]
pub(super) struct Log<'a> {
    observer: FirstRank<'a>,
    /// Only on rank 0.
    file: Option<File>,
    path: PathBuf,
    events: Option<Events>,
    progress: Box<dyn Progress>,
    every: u64,
    steps: u64,
    peak_tflops: f64,
    device: Device,
    started: Instant,
    pending: Vec<Pending>,
    pending_since: Instant,
    pending_wait: Duration,
    pending_operations: f64,
    images: u64,
    pending_images: u64,
    waited: Duration,
    first_loss: Option<f64>,
    last_loss: f64,
    captions_without_mention: u64,
    mentions: u64,
    mentions_left_out: u64,
    replaced: u64,
}

impl<'a> Log<'a> {
    /// Opens the log of a run that has taken `step` steps; new lines are appended. Lines of later steps, which a stopped
    /// run wrote after its last checkpoint, are removed, because these steps come again.
    pub(super) fn open(
        settings: &Settings,
        step: u64,
        device: Device,
        group: &Group,
        observer: FirstRank<'a>,
    ) -> Result<Self> {
        let path = settings.out.join("log.jsonl");
        let (mut file, mut events) = (None, None);
        if group.is_first() {
            cut(&path, step)?;
            file = Some(OpenOptions::new().create(true).append(true).open(&path).map_err(writing(&path))?);
            if settings.tensorboard {
                events = Some(Events::create(&settings.out.join("tensorboard"), step)?);
            }
        }
        let mut progress = observer.progress("training", "steps", settings.steps);
        progress.advance(step, &String::new);
        let now = Instant::now();
        Ok(Self {
            observer,
            file,
            path,
            events,
            progress,
            every: settings.log_every,
            steps: settings.steps,
            peak_tflops: settings.peak_tflops,
            device,
            started: now,
            pending: Vec::new(),
            pending_since: now,
            pending_wait: Duration::ZERO,
            pending_operations: 0.0,
            images: 0,
            pending_images: 0,
            waited: Duration::ZERO,
            first_loss: None,
            last_loss: f64::NAN,
            captions_without_mention: 0,
            mentions: 0,
            mentions_left_out: 0,
            replaced: 0,
        })
    }

    /// Adds a step, and writes a line every `log_every` steps.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if the loss of a step since the previous line is NaN or infinite.
    pub(super) fn record(&mut self, output: StepOutput, logit_scale: &Tensor, group: &Group) -> Result<()> {
        let StepOutput { step, report, lr, batch, operations } = output;
        if report.concept.is_some() {
            let offsets = batch.mentions.offsets.windows(2);
            self.captions_without_mention += offsets.filter(|of_row| of_row[0] == of_row[1]).count() as u64;
        }
        self.mentions += batch.mentions.len() as u64;
        self.mentions_left_out += u64::from(batch.counters.mentions_left_out);
        for broken in &batch.counters.skipped {
            self.replaced += 1;
            self.observer.this_rank.message(&format!(
                "cannot read sample {} of {}, replaced by another: {}",
                broken.key,
                broken.shard.display(),
                broken.cause
            ));
        }
        self.images += batch.size as u64;
        self.pending_images += batch.size as u64;
        self.waited += batch.counters.waited;
        self.pending_wait += batch.counters.waited;
        self.pending_operations += operations;
        let first_keys = batch.keys.iter().take(5).cloned().collect();
        self.pending.push(Pending { report, step, position: batch.position, first_keys });
        let line = if step.is_multiple_of(self.every) || step == self.steps {
            Some(self.line(step, lr, logit_scale, group)?)
        } else {
            None
        };
        let loss = self.last_loss;
        self.progress.advance(1, &|| line.as_ref().map_or_else(|| last_loss(loss), Line::message));
        Ok(())
    }

    /// Means since the previous line. Only here does the host wait for the device.
    fn line(&mut self, step: u64, lr: f64, logit_scale: &Tensor, group: &Group) -> Result<Line> {
        // [quantities, steps], summed over the ranks in one call.
        let column = |part: &dyn Fn(&StepReport) -> Option<&Tensor>| {
            let values: Option<Vec<Tensor>> =
                self.pending.iter().map(|p| Some(part(&p.report)?.to_kind(Kind::Double))).collect();
            values.map(|values| Tensor::stack(&values, 0))
        };
        let columns: Vec<Option<Tensor>> = vec![
            column(&|r| Some(&r.loss)),
            column(&|r| Some(&r.contrastive)),
            column(&|r| r.concept.as_ref()),
            column(&|r| r.concept_accuracy.as_ref()),
            column(&|r| r.patch.as_ref()),
            column(&|r| r.separation.as_ref()),
            column(&|r| r.image_negatives.as_ref()),
            column(&|r| r.other_image.as_ref()),
            column(&|r| r.doubtful.as_ref()),
            column(&|r| r.added.as_ref()),
            column(&|r| r.gram.as_ref()),
        ];
        let present: Vec<&Tensor> = columns.iter().flatten().collect();
        let concepts: Vec<f64> = self.pending.iter().map(|p| p.report.concepts as f64).collect();
        let sums = group.watch(|| Tensor::stack(&present, 0).to_device(Device::Cpu));
        let sums = Tensor::cat(&[sums, Tensor::from_slice(&concepts).unsqueeze(0)], 0);
        group.sum(std::slice::from_ref(&sums))?;
        let losses = Vec::<f64>::try_from(sums.get(0))?;
        self.check(&losses)?;
        if self.first_loss.is_none() {
            self.first_loss = losses.first().copied();
        }
        let mut means =
            Vec::<f64>::try_from(sums.mean_dim([1i64].as_slice(), false, Kind::Double))?.into_iter();
        let mut next = |there: bool| if there { means.next() } else { None };
        let loss = next(true).unwrap_or(f64::NAN);
        // A step without mentions has no accuracy; its report says 0.
        let mentioned = sums.select(0, -1).gt(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        let elapsed = self.pending_since.elapsed().as_secs_f64().max(1e-9);
        let tflops = self.pending_operations / elapsed / 1e12;
        let line = Line {
            step,
            loss,
            contrastive: next(true).unwrap_or(f64::NAN),
            concept: next(columns[2].is_some()),
            concept_accuracy: next(columns[3].is_some())
                .filter(|_| mentioned > 0.0)
                .map(|accuracy| accuracy / mentioned),
            patch: next(columns[4].is_some()),
            separation: next(columns[5].is_some()),
            image_negatives: next(columns[6].is_some()),
            concept_on_other_images: next(columns[7].is_some()),
            doubtful_negatives: next(columns[8].is_some()),
            added_mentions: next(columns[9].is_some()),
            gram: next(columns[10].is_some()),
            logit_scale: logit_scale.double_value(&[]),
            lr,
            images_per_second: self.pending_images as f64 * group.world() as f64 / elapsed,
            data_wait: self.pending_wait.as_secs_f64() / elapsed,
            memory_gb: device::peak_memory(self.device) as f64 / 1e9,
            tflops,
            utilization: (self.peak_tflops > 0.0).then(|| tflops / self.peak_tflops),
            seconds_left: elapsed / self.pending.len() as f64 * self.steps.saturating_sub(step) as f64,
        };
        self.last_loss = loss;
        self.pending.clear();
        self.pending_since = Instant::now();
        self.pending_wait = Duration::ZERO;
        self.pending_operations = 0.0;
        self.pending_images = 0;
        if let Some(file) = &mut self.file {
            let mut text = serde_json::to_string(&line).unwrap_or_default();
            text.push('\n');
            file.write_all(text.as_bytes()).map_err(writing(&self.path))?;
        }
        if let Some(events) = &mut self.events {
            events.scalars(step, &line.scalars())?;
        }
        Ok(line)
    }

    /// Checks this rank's losses of the steps since the last line, before a checkpoint is saved.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if one of them is NaN or infinite.
    pub(super) fn check_losses(&self) -> Result<()> {
        let losses: Vec<f64> = self.pending.iter().map(|p| p.report.loss.double_value(&[])).collect();
        self.check(&losses)
    }

    fn check(&self, losses: &[f64]) -> Result<()> {
        match self.pending.iter().zip(losses).find(|(_, loss)| !loss.is_finite()) {
            None => Ok(()),
            Some((bad, loss)) => Err(Error::NotFinite {
                step: bad.step,
                loss: *loss,
                position: bad.position,
                samples: bad.first_keys.join(", "),
            }),
        }
    }

    /// Adds the scores of a checkpoint.
    pub(super) fn scored(&mut self, step: u64, miou: f64, pixel_accuracy: f64) -> Result<()> {
        self.observer.message(&format!(
            "step {step}: mIoU {:.2} %, pixel accuracy {:.2} %",
            100.0 * miou,
            100.0 * pixel_accuracy
        ));
        if let Some(events) = &mut self.events {
            events
                .scalars(step, &[("evaluation/miou", miou), ("evaluation/pixel_accuracy", pixel_accuracy)])?;
        }
        // The time of the evaluation does not count as training time.
        self.pending_since = Instant::now();
        Ok(())
    }

    /// Ends the log and returns the summary of the run.
    pub(super) fn finish(
        self,
        settings: &Settings,
        step: u64,
        interrupted: bool,
        bank: usize,
        checkpoint: PathBuf,
        group: &Group,
    ) -> Summary {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let loss = last_loss(self.last_loss);
        let separator = if loss.is_empty() { "" } else { ", " };
        self.progress.finish(&format!("{loss}{separator}{}", checkpoint.display()));
        Summary {
            objective: settings.objective.name.to_string(),
            steps: step,
            interrupted,
            ranks: group.world(),
            images_per_second: self.images as f64 * group.world() as f64 / seconds,
            data_wait: self.waited.as_secs_f64() / seconds,
            first_loss: self.first_loss.unwrap_or(f64::NAN),
            last_loss: self.last_loss,
            captions: self.images,
            captions_without_mention: self.captions_without_mention,
            mentions: self.mentions,
            mentions_left_out: self.mentions_left_out,
            replaced: self.replaced,
            bank,
            checkpoint,
        }
    }
}

impl Line {
    fn message(&self) -> String {
        let accuracy = self
            .concept_accuracy
            .map_or(String::new(), |accuracy| format!(", concept accuracy {accuracy:.2}"));
        let concept =
            self.concept.map_or(String::new(), |loss| format!(" (concept loss {loss:.3}{accuracy})"));
        let gram = self.gram.map_or(String::new(), |loss| format!(", Gram loss {loss:.1e}"));
        let used = self.utilization.map_or(String::new(), |used| format!(", MFU {:.0} %", 100.0 * used));
        let left = Duration::from_secs(self.seconds_left as u64);
        format!(
            "loss {:.3}{concept}{gram}, logit scale {:.1}, lr {:.1e}, {:.0} images/s, waiting for data {:.0} %, {:.1} GB{used}, {} left",
            self.loss,
            self.logit_scale,
            self.lr,
            self.images_per_second,
            100.0 * self.data_wait,
            self.memory_gb,
            indicatif::HumanDuration(left)
        )
    }

    fn scalars(&self) -> Vec<(&'static str, f64)> {
        let mut out = vec![
            ("loss/total", self.loss),
            ("loss/contrastive", self.contrastive),
            ("logit_scale", self.logit_scale),
            ("lr", self.lr),
            ("speed/images_per_second", self.images_per_second),
            ("speed/data_wait", self.data_wait),
            ("speed/tflops", self.tflops),
            ("memory_gb", self.memory_gb),
        ];
        out.extend(self.concept.map(|loss| ("loss/concept", loss)));
        out.extend(self.concept_accuracy.map(|accuracy| ("concept_accuracy", accuracy)));
        out.extend(self.patch.map(|loss| ("loss/patch", loss)));
        out.extend(self.separation.map(|loss| ("loss/separation", loss)));
        out.extend(self.image_negatives.map(|loss| ("loss/image_negatives", loss)));
        out.extend(self.concept_on_other_images.map(|loss| ("loss/concept_on_other_images", loss)));
        out.extend(self.doubtful_negatives.map(|count| ("doubtful_negatives", count)));
        out.extend(self.added_mentions.map(|count| ("added_mentions", count)));
        out.extend(self.gram.map(|loss| ("loss/gram", loss)));
        out.extend(self.utilization.map(|used| ("speed/utilization", used)));
        out
    }
}

/// Removes the lines of steps after `step` from a log, and a last line that a killed run could not finish.
fn cut(path: &Path, step: u64) -> Result<()> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.map_err(reading(path))?,
    };
    let stays = |line: &&[u8]| {
        let line: Option<serde_json::Value> = serde_json::from_slice(line).ok();
        line.and_then(|line| line["step"].as_u64()).is_none_or(|of| of <= step)
    };
    let lines = text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let kept = lines.filter(stays).collect::<Vec<_>>().concat();
    if kept.len() == text.len() {
        return Ok(());
    }
    disk::files::write_atomic(path, &kept).map_err(writing(path))
}

/// The progress message between two lines: empty until there is a first loss.
fn last_loss(loss: f64) -> String {
    if loss.is_nan() { String::new() } else { format!("loss {loss:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Silent;

    #[test]
    fn there_is_no_loss_before_the_first_line() {
        assert_eq!(last_loss(f64::NAN), "");
        assert_eq!(last_loss(6.1416), "loss 6.142");
    }

    /// A step with this accuracy, or without mentions.
    fn step(step: u64, accuracy: Option<f64>) -> StepOutput {
        let report = StepReport {
            loss: Tensor::from(2.0),
            contrastive: Tensor::from(1.0),
            concept: Some(Tensor::from(accuracy.map_or(0.0, |_| 1.0))),
            concept_accuracy: Some(Tensor::from(accuracy.unwrap_or(0.0))),
            patch: None,
            separation: None,
            image_negatives: None,
            other_image: None,
            doubtful: None,
            added: None,
            gram: None,
            concepts: if accuracy.is_some() { 3 } else { 0 },
        };
        let mut batch = loader::Batch::default();
        batch.size = 1;
        batch.mentions.push_row([]);
        StepOutput { step, report, lr: 0.1, batch, operations: 0.0 }
    }

    #[test]
    fn a_step_without_mentions_has_no_accuracy() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_owned();
        let settings = Settings { out, steps: 9, log_every: 3, tensorboard: false, ..Settings::default() };
        let group = Group::alone();
        let mut log = Log::open(&settings, 0, Device::Cpu, &group, FirstRank::new(&Silent, &group)).unwrap();
        let accuracies = [Some(0.5), None, Some(1.0), None, None, None, Some(0.0), Some(0.25), Some(0.5)];
        for (number, accuracy) in (1..).zip(accuracies) {
            log.record(step(number, accuracy), &Tensor::from(14.0), &group).unwrap();
        }
        let text = std::fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |field: &str| {
            let rounded = |line: &serde_json::Value| Some((line[field].as_f64()? * 1e9).round() / 1e9);
            lines.iter().map(rounded).collect::<Vec<_>>()
        };
        assert_eq!(of("concept_accuracy"), [Some(0.75), None, Some(0.25)], "steps with accuracy 0 count");
        assert_eq!(of("concept"), [Some(0.666_666_667), Some(0.0), Some(1.0)]);
    }

    #[test]
    fn lines_after_the_last_checkpoint_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        cut(&path, 5).unwrap();
        assert!(!path.exists());
        let lines: Vec<String> = (1..=8).map(|step| format!("{{\"step\":{step},\"loss\":0.5}}\n")).collect();
        for (step, left) in [(8, 8), (5, 5), (0, 0)] {
            // Killed while it wrote a line.
            fs::write(&path, lines.concat() + "{\"step\":9,\"lo").unwrap();
            cut(&path, step).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), lines[..left].concat());
        }
    }

    #[test]
    fn the_message_names_its_figures() {
        let line = Line {
            step: 15,
            loss: 6.142,
            contrastive: 6.0,
            concept: Some(2.21),
            concept_accuracy: Some(0.37),
            patch: None,
            separation: None,
            image_negatives: None,
            concept_on_other_images: None,
            doubtful_negatives: None,
            added_mentions: None,
            gram: None,
            logit_scale: 14.1,
            lr: 6.4e-4,
            images_per_second: 217.0,
            data_wait: 0.0,
            memory_gb: 0.5,
            tflops: 0.1,
            utilization: None,
            seconds_left: 4.0,
        };
        let expected = "loss 6.142 (concept loss 2.210, concept accuracy 0.37), logit scale 14.1, lr 6.4e-4, 217 images/s, \
                        waiting for data 0 %, 0.5 GB, 4 seconds left";
        assert_eq!(line.message(), expected);
        let without = Line { concept_accuracy: None, ..line };
        assert_eq!(without.message(), expected.replace(", concept accuracy 0.37", ""));
    }
}
