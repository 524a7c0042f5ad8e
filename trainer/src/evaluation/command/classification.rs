//! `trainer eval classification` and `trainer eval retrieval`: both compare whole images with whole sentences.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::super::image_sets::ImageSet;
use super::super::{classification, retrieval, table};
use super::{EvalModelArgs, write_results};
use crate::class_vectors::{ClassVectors, class_vectors};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::templates;

/// Images that go through the tower together.
const BATCH: usize = 64;
/// Captions an image that the usual splits have.
const CAPTIONS: usize = 5;

/// How images are read, and where results go.
#[derive(Debug, Args)]
struct ImageArgs {
    /// Split of the sets: its folder's name.
    #[arg(long, default_value = "test")]
    split: String,
    /// Side of the square that images are cut to [default: the training size].
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    size: u32,
    /// Images that go through the tower together.
    #[arg(long, default_value_t = BATCH)]
    batch: usize,
    /// Folder for result.json and table.md.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    model: EvalModelArgs,
}

impl ImageArgs {
    fn side(&self, model: &Model) -> Result<u32> {
        let size = if self.size == 0 { model.size } else { i64::from(self.size) };
        let patch = model.vision.patch();
        match u32::try_from(size) {
            Ok(side) if side > 0 && size % patch == 0 => Ok(side),
            _ => Err(Error::Setting {
                name: "size".to_owned(),
                problem: format!("{size} px does not divide into patches of {patch} px"),
            }),
        }
    }
}

/// Sets with classes.
#[derive(Debug, Args)]
pub struct ClassificationArgs {
    /// Folders of sets: WebDataset as the CLIP benchmark publishes it (classnames.txt, test/0.tar ..), or a folder a
    /// class as ImageNet's (val/n01440764/..; a classnames.txt beside it names other classes).
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
}

impl ClassificationArgs {
    pub(super) fn run(&self) -> Result<Value> {
        let args = &self.images;
        // All sets are opened first: a wrong path should not end a run of hours.
        let sets: Vec<ImageSet> = self
            .data
            .iter()
            .map(|folder| ImageSet::classification(folder, &args.split))
            .collect::<Result<_>>()?;
        let (model, about) = args.model.open()?;
        let size = args.side(&model)?;
        let by = args.model.class_vectors.unwrap_or(ClassVectors::Caption);
        let mut results = Vec::new();
        for set in &sets {
            let (named, templates) = match (&args.model.templates, &set.templates) {
                (None, Some(own)) => ("the set's own", own.clone()),
                (name, _) => {
                    let name = name.as_deref().unwrap_or("imagenet");
                    (name, templates::read(name)?)
                }
            };
            let vectors = class_vectors(&model.text, &set.classes, &templates, by, model.kind)?;
            let scores =
                classification::evaluate(set, &model, &vectors, size, args.batch, args.model.readers())?;
            println!(
                "{}: top-1 {:.2} %, top-5 {:.2} %, mean per class {:.2} %, {} images, {} classes",
                set.name,
                100.0 * scores.top1,
                100.0 * scores.top5,
                100.0 * scores.mean_per_class,
                scores.images,
                scores.classes
            );
            results.push(json!({
                "task": "classification", "dataset": set.name, "split": args.split, "model": about,
                "protocol": { "size": size, "templates": named, "vectors": by }, "scores": scores,
            }));
        }
        let mean = |score: &str| {
            results.iter().filter_map(|result| result["scores"][score].as_f64()).sum::<f64>()
                / results.len() as f64
        };
        let (top1, top5, per_class) = (mean("top1"), mean("top5"), mean("mean_per_class"));
        println!(
            "mean over {} sets: top-1 {:.2} %, top-5 {:.2} %",
            results.len(),
            100.0 * top1,
            100.0 * top5
        );
        if let Some(out) = &args.out {
            write_results(out, &json!(results), &table::markdown(&results))?;
        }
        let mean = json!({ "top1": top1, "top5": top5, "mean_per_class": per_class });
        Ok(json!({ "mean": mean, "results": results }))
    }
}

/// A set with captions.
#[derive(Debug, Args)]
pub struct RetrievalArgs {
    /// Folder of WebDataset shards whose .txt has a caption a line; or captions as COCO's JSON, or JSON lines of
    /// `file` and `captions`, with --images.
    #[arg(long)]
    data: PathBuf,
    /// Folder of the images that a file of captions names.
    #[arg(long = "images", value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Captions taken of each image in a file, the first ones.
    #[arg(long, default_value_t = CAPTIONS)]
    captions: usize,
    #[command(flatten)]
    images: ImageArgs,
}

impl RetrievalArgs {
    pub(super) fn run(&self) -> Result<Value> {
        let args = &self.images;
        let set = match &self.folder {
            Some(images) => ImageSet::captions(&self.data, images, self.captions.max(1))?,
            None if self.data.is_file() => {
                return Err(Error::Setting {
                    name: "images".to_owned(),
                    problem: format!("{} holds captions; name the folder of its images", self.data.display()),
                });
            }
            None => ImageSet::captioned_shards(&self.data, &args.split)?,
        };
        let (model, about) = args.model.open()?;
        let size = args.side(&model)?;
        let scores = retrieval::evaluate(&set, &model, size, args.batch, args.model.readers())?;
        for (way, recall) in
            [("image to text", scores.image_to_text), ("text to image", scores.text_to_image)]
        {
            let [r1, r5, r10] = [recall.r1, recall.r5, recall.r10].map(|share| 100.0 * share);
            println!("{way}: R@1 {r1:.2} %, R@5 {r5:.2} %, R@10 {r10:.2} %");
        }
        println!("{} images, {} captions", scores.images, scores.captions);
        let result = json!({
            "task": "retrieval", "dataset": set.name, "split": args.split, "model": about,
            "protocol": { "size": size }, "scores": scores,
        });
        if let Some(out) = &args.out {
            write_results(out, &result, &table::markdown(std::slice::from_ref(&result)))?;
        }
        Ok(result)
    }
}
