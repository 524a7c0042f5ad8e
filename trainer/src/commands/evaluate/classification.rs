//! `trainer eval classification` and `trainer eval retrieval`: both compare whole images with whole captions.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use trainer::evaluation::image_datasets::ImageDataset;
use trainer::evaluation::{classification, retrieval, table};
use trainer::inference::class_vectors::{ClassVectors, ComparedWith, class_vectors};
use trainer::inference::model::Model;
use trainer::inference::templates;
use trainer::{Error, Result};

use super::{EvalModelArgs, write_results};
use crate::commands::choices;
use crate::commands::console::Console;

/// Images per forward pass.
const BATCH: usize = 64;
/// Captions per image in the usual test splits.
const CAPTIONS: usize = 5;
/// Default of `--split`.
const SPLIT: &str = "test";

/// How images are read, and where results are written.
#[derive(Debug, Args)]
struct ImageArgs {
    /// Split to evaluate: name of a folder in the dataset, or of a split in Karpathy's file [default: test, if there is one].
    #[arg(long)]
    split: Option<String>,
    /// Resize the short side of the images to this many pixels and crop the centre [default: the image size in training].
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    size: u32,
    /// Images per forward pass.
    #[arg(long, default_value_t = BATCH)]
    batch: usize,
    /// Folder to write: result.json and table.md.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    model: EvalModelArgs,
}

impl ImageArgs {
    /// The split of a dataset; an error if it has no folder for the one that was asked for.
    fn split(&self, folder: &Path) -> Result<&str> {
        match self.split.as_deref() {
            Some(split) if !storage::is_folder(folder.join(split))? => {
                Err(Error::Missing { path: folder.join(split) })
            }
            split => Ok(split.unwrap_or(SPLIT)),
        }
    }

    fn side(&self, model: &Model) -> Result<u32> {
        let size = if self.size == 0 { model.size } else { i64::from(self.size) };
        let patch = model.vision.patch();
        match u32::try_from(size) {
            Ok(side) if side > 0 && size % patch == 0 => Ok(side),
            _ => Err(Error::Setting {
                name: "--size".to_owned(),
                problem: format!("is {size} px; it must be a multiple of the patch size, {patch} px"),
            }),
        }
    }
}

/// Datasets with classes.
#[derive(Debug, Args)]
pub(crate) struct ClassificationArgs {
    /// Folders of the datasets. Either WebDataset shards as the CLIP benchmark publishes them (classnames.txt, test/0.tar, ..), or
    /// one folder per class as ImageNet (val/n01440764/..); class names are then the folder names, or the lines of classnames.txt.
    #[arg(long, required = true, num_args = 1.., value_name = "DIRS")]
    data: Vec<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
    /// Prompt templates for the class names: `imagenet` (the 80 of CLIP), `simple` ("a photo of a {}.") or a file with one
    /// template per line [default: the templates of the dataset if it has some, otherwise imagenet].
    #[arg(long)]
    templates: Option<String>,
    /// Embedding of a class, which is compared with that of the whole image.
    #[arg(long, value_parser = choices::class_vectors(), default_value = "caption")]
    class_vectors: ClassVectors,
}

impl ClassificationArgs {
    pub(super) fn run(&self) -> Result<Value> {
        let args = &self.images;
        args.model.check()?;
        // All datasets are opened first, so that a wrong path is found before hours of evaluation.
        let sets: Vec<ImageDataset> = self
            .data
            .iter()
            .map(|folder| ImageDataset::classification(folder, args.split(folder)?))
            .collect::<Result<_>>()?;
        let (model, about) = args.model.open(&Default::default())?;
        let size = args.side(&model)?;
        let by = self.class_vectors;
        let mut results = Vec::new();
        for set in &sets {
            let (named, templates) = match (&self.templates, &set.templates) {
                (None, Some(own)) => ("of the dataset", own.clone()),
                (name, _) => {
                    let name = name.as_deref().unwrap_or("imagenet");
                    (name, templates::read(name)?)
                }
            };
            let vectors =
                class_vectors(&model.text, &set.classes, &templates, by, ComparedWith::Images, model.kind)?;
            let scores = classification::evaluate(
                set,
                &model,
                &vectors,
                size,
                args.batch,
                args.model.readers(),
                &Console,
            )?;
            println!(
                "{}: top-1 {:.2} %, top-5 {:.2} %, mean per-class accuracy {:.2} %, {} images, {} classes",
                set.name,
                100.0 * scores.top1,
                100.0 * scores.top5,
                100.0 * scores.mean_per_class,
                scores.images,
                scores.classes
            );
            results.push(json!({
                "task": "classification", "dataset": set.name, "split": args.split.as_deref().unwrap_or(SPLIT), "model": about,
                "protocol": { "size": size, "templates": named, "vectors": by }, "scores": scores,
            }));
        }
        let mean = |score: &str| {
            results.iter().filter_map(|result| result["scores"][score].as_f64()).sum::<f64>()
                / results.len() as f64
        };
        let (top1, top5, per_class) = (mean("top1"), mean("top5"), mean("mean_per_class"));
        println!(
            "mean over {} datasets: top-1 {:.2} %, top-5 {:.2} %",
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

/// A dataset with captions.
#[derive(Debug, Args)]
pub(crate) struct RetrievalArgs {
    /// Folder of WebDataset shards whose .txt files have one caption per line. Or, with --images, a file of captions: COCO JSON,
    /// Karpathy's splits of COCO or Flickr30k, or JSON lines with `file` and `captions`.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Folder of the images that belong to a file of captions.
    #[arg(long = "images", value_name = "DIR")]
    folder: Option<PathBuf>,
    /// With --images: maximum number of captions per image; the first ones are used.
    #[arg(long, default_value_t = CAPTIONS, requires = "folder")]
    captions: usize,
    #[command(flatten)]
    images: ImageArgs,
}

impl RetrievalArgs {
    pub(super) fn run(&self) -> Result<Value> {
        let args = &self.images;
        args.model.check()?;
        let set = match &self.folder {
            Some(images) => {
                ImageDataset::captions(&self.data, images, self.captions.max(1), args.split.as_deref())?
            }
            None if self.data.is_file() || is_remote_file(&self.data) => {
                return Err(Error::Usage(format!(
                    "{} is a file of captions; add --images DIR, the folder of its images",
                    self.data.display()
                )));
            }
            None => ImageDataset::captioned_shards(&self.data, args.split(&self.data)?)?,
        };
        let (model, about) = args.model.open(&Default::default())?;
        let size = args.side(&model)?;
        let scores = retrieval::evaluate(&set, &model, size, args.batch, args.model.readers(), &Console)?;
        for (way, recall) in
            [("image to text", scores.image_to_text), ("text to image", scores.text_to_image)]
        {
            let [r1, r5, r10] = [recall.r1, recall.r5, recall.r10].map(|share| 100.0 * share);
            println!("{way}: R@1 {r1:.2} %, R@5 {r5:.2} %, R@10 {r10:.2} %");
        }
        println!("{} images, {} captions", scores.images, scores.captions);
        let result = json!({
            "task": "retrieval", "dataset": set.name, "split": args.split.as_deref().unwrap_or(SPLIT), "model": about,
            "protocol": { "size": size }, "scores": scores,
        });
        if let Some(out) = &args.out {
            write_results(out, &result, &table::markdown(std::slice::from_ref(&result)))?;
        }
        Ok(result)
    }
}

/// Whether an address is that of a file of captions, by its extension.
fn is_remote_file(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    storage::Location::from(path).is_remote() && (extension == "json" || extension == "jsonl")
}
