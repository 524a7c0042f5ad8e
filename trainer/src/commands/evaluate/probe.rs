//! `trainer eval probe`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::Cursor;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tch::Device;

use trainer::checkpoint::Checkpoint;
use trainer::device;
use trainer::distributed::{FirstRank, Group, Launch};
use trainer::evaluation::SegmentationDataset;
use trainer::evaluation::probe::ladder::{Rung, climb};
use trainer::evaluation::probe::learned::{Learned, learn};
use trainer::evaluation::probe::linear::LinearSettings;
use trainer::evaluation::probe::neighbours;
use trainer::evaluation::probe::parts::Parts;
use trainer::evaluation::probe::recipe::STEPS;
use trainer::evaluation::protocol;
use trainer::evaluation::published_datasets::Background;
use trainer::evaluation::segmentation::{DecisionSettings, SegmentationScores};
use trainer::inference::fusion::Fusion;
use trainer::inference::segmenter::{Segmenter, WINDOW_BATCH};
use trainer::inference::window::Edges;
use trainer::{Error, Result, pictures, weights};

use super::parts::PartsArgs;
use super::{EvalModelArgs, write_results};
use crate::commands::console::Console;

/// What DINOv2's linear segmentation does otherwise; for readers of the results.
const DIFFERENCES: &str = "logistic regression to its optimum on selected patches with soft labels, without augmentation; DINOv2's linear \
    segmentation takes 40,000 steps of AdamW on augmented crops with up-sampled logits";

/// What the rung of DINOv2's recipe does otherwise than DINOv2.
const RECIPE_DIFFERENCES: &str = "crops have the side of this evaluation's window, scales are relative to its short side, and images are evaluated in its windows; DINOv2 has \
    crops and windows of 512 px with a stride of 341 px";

/// How long processes wait for each other: one may have a part more to do, and the first one learns alone.
const WAIT: Duration = Duration::from_hours(6);

/// The two sets, and how much is learned from the first.
#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// Dataset, as for `trainer eval segmentation`: a published one, or `folder`.
    #[arg(long, default_value = "folder")]
    dataset: String,
    /// Folder of the dataset that is evaluated.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder of the training set, in the same layout. A published dataset has a split `train` of its own in --data.
    #[arg(long, value_name = "DIR")]
    train: Option<PathBuf>,
    /// Evaluate only the first N images.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Learn from the first N images of the training set only.
    #[arg(long, value_name = "N")]
    train_limit: Option<usize>,
    /// Number of patches of the training set that are kept for nearest neighbours and the linear classifier: of every image the same
    /// number, those of rare classes first.
    #[arg(long, value_name = "N", default_value_t = 102_400)]
    memory: usize,
    /// Penalty on the squared weights of the linear classifier.
    #[arg(long, default_value_t = LinearSettings::default().penalty)]
    penalty: f64,
    /// Also train a linear classifier as DINOv2's linear segmentation does, for so many steps of 16 augmented crops (40000 there): the
    /// rung `recipe`. An interrupted training loses at most 500 steps [default: 0, no such rung]
    #[arg(long, value_name = "STEPS", default_value_t = 0, hide_default_value = true)]
    recipe: u64,
    /// Images per part: of each part a file is kept until all are done. An interrupted probe loses one part, and several processes
    /// share the parts.
    #[arg(long, value_name = "N", default_value_t = 256)]
    part: usize,
    /// Windows per forward pass, from one or several images.
    #[arg(long, default_value_t = WINDOW_BATCH)]
    batch: usize,
    /// Folder to write, on a local disk that all processes share: result.json, table.md, ladder.png, what was learned from the training set,
    /// and the counts of every part, with which the same command continues.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    model: EvalModelArgs,
    #[command(flatten)]
    parts: PartsArgs,
}

impl ProbeArgs {
    pub(super) fn run(&self, json: bool) -> Result<Value> {
        self.model.check()?;
        self.check()?;
        let launch = Launch::from_environment()?;
        let device = match &launch {
            Some(launch) => device::open_for_rank(&self.model.device, launch.local_rank)?,
            None => device::open(&self.model.device)?,
        };
        let group = match &launch {
            Some(launch) => Group::join(launch, device, WAIT)?,
            None => Group::alone(),
        };
        let result = self.probe(device, &group, json);
        if let Err(error) = &result {
            group.announce_failure(error);
        }
        result
    }

    /// What one of several processes does.
    fn probe(&self, device: Device, group: &Group, json: bool) -> Result<Value> {
        let mut set = SegmentationDataset::open(&self.dataset, &self.data, None)?;
        let mut training = self.training(&set)?;
        set.check_complete()?;
        training.check_complete()?;
        set.pairs.truncate(self.limit.unwrap_or(usize::MAX).max(1));
        training.pairs.truncate(self.train_limit.unwrap_or(usize::MAX).max(1));

        let observer = FirstRank::new(&Console, group);
        let (model, about) = self.model.open_on(device, &self.parts.dense())?;
        let parts = self.parts.parts(&model, &self.dataset, false);
        refuse_refinements(&parts)?;
        let decision = DecisionSettings {
            threshold: parts.threshold,
            scale: parts.scale.unwrap_or_else(|| model.text.logit_scale().double_value(&[])),
            batch: self.batch,
            readers: self.model.readers(),
            worst: 0,
        };
        let segmenter = parts.segmenter(model, &set)?;
        let source = self.source((&set, &training), &parts, &decision)?;
        let files = Parts::open(&self.out, &source, self.part, group)?;
        let linear = LinearSettings { penalty: self.penalty, ..LinearSettings::default() };
        let sizes = (self.batch, self.model.readers());
        let learned =
            learn(&training, &segmenter, (self.memory, &linear), sizes, &files, self.recipe, &observer)?;
        let rungs = climb(&set, &segmenter, &learned, &decision, &files, &observer)?;
        let result = self.result(&set, &training, &parts, (&segmenter, &learned), &rungs, &about);
        if group.is_first() {
            self.report(&set, &rungs, &result, json)?;
        }
        Ok(result)
    }

    /// Rejects options that cannot be, before anything is read.
    fn check(&self) -> Result<()> {
        self.parts.check(&self.dataset)?;
        let refuse = |name: &str, problem: &str| {
            Err(Error::Setting { name: name.to_owned(), problem: problem.to_owned() })
        };
        if storage::Location::from(&self.out).is_remote() {
            return refuse(
                "--out",
                "must be a folder on a local disk, where the probe keeps what it has learned",
            );
        }
        if self.memory == 0 {
            return refuse("--memory", "must be at least 1");
        }
        if !self.penalty.is_finite() || self.penalty <= 0.0 {
            return refuse("--penalty", "must be more than 0; without a penalty there may be no optimum");
        }
        if self.dataset == "folder" && self.train.is_none() {
            return refuse(
                "--train",
                "is missing: a folder has no training split of its own; give another folder with images/, masks/ and the same \
                 classes.txt",
            );
        }
        Ok(())
    }

    /// The training set, with the same classes as the evaluated one, none of whose images it has.
    fn training(&self, set: &SegmentationDataset) -> Result<SegmentationDataset> {
        let folder = self.train.as_ref().unwrap_or(&self.data);
        let split = (self.dataset != "folder").then_some("train");
        let training = SegmentationDataset::open(&self.dataset, folder, split)?;
        let names = |set: &SegmentationDataset| -> Vec<String> {
            set.classes.iter().map(|class| class.name.clone()).collect()
        };
        let (theirs, ours) = (names(&training), names(set));
        let refuse = |problem: String| Err(Error::Invalid { path: folder.clone(), problem });
        if theirs.len() != ours.len() {
            return refuse(format!("has {} classes, but {} has {}", theirs.len(), set.title, ours.len()));
        }
        if let Some((theirs, ours)) = theirs.iter().zip(&ours).find(|(theirs, ours)| theirs != ours) {
            return refuse(format!("has the class {theirs:?} where {} has {ours:?}", set.title));
        }
        let evaluated: BTreeSet<&PathBuf> = set.pairs.iter().map(|(image, _)| image).collect();
        if let Some((image, _)) = training.pairs.iter().find(|(image, _)| evaluated.contains(image)) {
            return refuse(format!(
                "is no training set: its image {} is evaluated, too; give other images",
                image.display()
            ));
        }
        Ok(training)
    }

    /// All that the result depends on.
    fn source(
        &self,
        (set, training): (&SegmentationDataset, &SegmentationDataset),
        parts: &protocol::Parts,
        decision: &DecisionSettings,
    ) -> Result<Value> {
        let (model, vision) = match (&self.model.clip, &self.model.checkpoint) {
            (Some(path), _) => (weights::sha256(path)?, String::new()),
            (None, path) => {
                let checkpoint = Checkpoint::open(&path.clone().unwrap_or_default())?;
                (checkpoint.model_sha256()?, checkpoint.state.vision)
            }
        };
        let (_, files) = self.parts.dense();
        let beside = files.given().map(|path| weights::sha256(path)).transpose()?;
        let images = |set: &SegmentationDataset| {
            let paths: Vec<String> = set.pairs.iter().map(|(image, _)| image.display().to_string()).collect();
            json!({ "count": paths.len(), "first": paths.first(), "last": paths.last() })
        };
        Ok(json!({
            "weights": model, "vision tower": vision, "dataset": set.name, "images": images(set),
            "training images": images(training), "classes": set.classes.iter().map(|class| &class.name).collect::<Vec<_>>(),
            "window": parts.window, "dense": parts.dense, "file beside": beside, "templates": parts.templates, "class vectors": parts.vectors,
            "class names": parts.names, "background": set.background, "threshold": decision.threshold,
            "memory": self.memory, "penalty": self.penalty, "recipe": self.recipe, "part": self.part,
        }))
    }

    fn result(
        &self,
        set: &SegmentationDataset,
        training: &SegmentationDataset,
        parts: &protocol::Parts,
        (segmenter, learned): (&Segmenter, &Learned),
        rungs: &[(Rung, SegmentationScores)],
        about: &Value,
    ) -> Value {
        let of =
            |rung: Rung| rungs.iter().find(|(of, _)| *of == rung).map_or(f64::NAN, |(_, scores)| scores.miou);
        let share = |of_what: f64| (of_what > 0.0).then(|| of(Rung::Text) / of_what);
        // A background that is predicted by a threshold has no name.
        let unnamed = usize::from(set.background == Some(Background::Threshold));
        let named = learned.means.narrow(0, unnamed as i64, (set.classes.len() - unnamed) as i64);
        let cosines =
            (segmenter.class_vectors() * named).sum_dim_intlist([1i64].as_slice(), false, tch::Kind::Float);
        let classes: Vec<Value> = set
            .classes
            .iter()
            .enumerate()
            .map(|(number, class)| {
                let iou =
                    |(rung, scores): &(Rung, SegmentationScores)| (json!(rung), scores.classes[number].iou);
                let ious: serde_json::Map<String, Value> = rungs
                    .iter()
                    .map(iou)
                    .map(|(rung, iou)| (rung.as_str().unwrap_or_default().to_owned(), json!(iou)))
                    .collect();
                let named = number.checked_sub(unnamed);
                let cosine = named.map(|row| cosines.double_value(&[row as i64]));
                json!({ "class": class.name, "iou": ious, "cosine_of_name_and_mean": cosine })
            })
            .collect();
        json!({
            "task": "probe", "dataset": set.name, "title": set.title, "model": about,
            "images": set.pairs.len(), "training_images": training.pairs.len(),
            "protocol": {
                "background": set.background, "window": parts.window, "templates": parts.templates, "vectors": parts.vectors,
                "words": parts.names, "memory": learned.memory.0.size()[0], "neighbours": neighbours::NEIGHBOURS,
                "temperature": neighbours::TEMPERATURE, "penalty": self.penalty,
            },
            "linear": { "steps": learned.linear.steps, "gradient": learned.linear.gradient, "differs": DIFFERENCES },
            "recipe": learned.recipe.as_ref().map(|recipe| json!({
                "steps": recipe.steps, "published_steps": STEPS, "differs": RECIPE_DIFFERENCES,
            })),
            "rungs": rungs.iter().map(|(rung, scores)| json!({
                "rung": rung, "miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy,
            })).collect::<Vec<_>>(),
            "zero_shot_of_linear": share(of(Rung::Linear)),
            "zero_shot_of_recipe": share(of(Rung::Recipe)),
            "zero_shot_of_oracle": share(of(Rung::Oracle)),
            "classes": classes,
        })
    }

    /// Writes and prints the results.
    fn report(
        &self,
        set: &SegmentationDataset,
        rungs: &[(Rung, SegmentationScores)],
        result: &Value,
        json: bool,
    ) -> Result<()> {
        let mut table = "| | mIoU % | pixel accuracy % | zero-shot reaches |\n|---|---|---|---|\n".to_owned();
        let text = rungs.first().map_or(f64::NAN, |(_, scores)| scores.miou);
        for (rung, scores) in rungs {
            let _ = writeln!(
                table,
                "| {} | {:.2} | {:.2} | {:.0} % |",
                rung.title(),
                100.0 * scores.miou,
                100.0 * scores.pixel_accuracy,
                100.0 * text / scores.miou
            );
        }
        write_results(&self.out, result, &table)?;
        let values: Vec<(String, f64)> =
            rungs.iter().map(|(rung, scores)| (rung.title().to_owned(), scores.miou)).collect();
        let page = pictures::bars(&format!("{}: mIoU", set.title), &values)?;
        let path = self.out.join("ladder.png");
        let mut bytes = Cursor::new(Vec::new());
        page.write_to(&mut bytes, image::ImageFormat::Png)
            .map_err(|source| Error::Image { path: path.clone(), source })?;
        storage::replace(&path, bytes.into_inner())?;
        if !json {
            print!("{table}");
        }
        Ok(())
    }
}

/// Refuses the parts of a protocol that only similarities with words can have.
fn refuse_refinements(parts: &protocol::Parts) -> Result<()> {
    let refuse = |name: &str| {
        let problem =
            "cannot be used by a probe, whose other rungs have no similarities with words; leave it out"
                .to_owned();
        Err(Error::Setting { name: name.to_owned(), problem })
    };
    match parts {
        _ if parts.pamr > 0 => refuse("--pamr"),
        _ if parts.fusion != Fusion::Similarity => refuse("--fusion"),
        _ if parts.decision != protocol::Decision::Classes || parts.window.edges != Edges::Filled => {
            refuse("--protocol")
        }
        _ => Ok(()),
    }
}
