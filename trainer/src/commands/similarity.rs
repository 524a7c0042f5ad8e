//! `trainer similarity`: heat maps of the similarity between images and phrases.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tch::Tensor;
use trainer::device::to_vec;
use trainer::inference::dense::{DenseVision, per_pixel};
use trainer::inference::word_vectors::WordVectors;
use trainer::pictures::{self, Panel};

use super::options::{PrecisionArgs, PromptArgs, RunArgs, WindowArgs};
use super::{for_sheet, title, write_sheet};

#[derive(Debug, Args)]
pub(crate) struct SimilarityArgs {
    /// Images (jpg, png, webp), folders of images, or patterns such as "photos/*.jpg".
    #[arg(required = true, value_name = "IMAGES")]
    pictures: Vec<PathBuf>,
    /// Phrase to compare the images with, such as "a red ball"; may be repeated.
    #[arg(long = "phrase", required = true, value_name = "PHRASE")]
    phrases: Vec<String>,
    /// Image to write: one row per input image, one column per phrase. Each column has its own colour scale.
    #[arg(long, value_name = "PNG")]
    out: PathBuf,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    window: WindowArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    prompts: PromptArgs,
}

pub(crate) fn run(args: &SimilarityArgs) -> anyhow::Result<Value> {
    let checkpoint = args.run.open()?;
    let settings = args.run.settings(Some((&args.window, &args.precision)), Some(&args.prompts));
    let vision = DenseVision::open(&checkpoint, &settings)?;
    let mut text = WordVectors::open(&checkpoint, vision.width(), &settings)?;
    let vectors = text.of(&args.phrases)?;
    let pictures = for_sheet(&args.pictures)?;
    // [rows, columns, phrases] per image
    let similarities: Vec<Tensor> =
        pictures.iter().map(|(photo, _)| vision.features(photo).matmul(&vectors.transpose(0, 1))).collect();
    let ranges: Vec<(f32, f32)> = (0..args.phrases.len())
        .map(|phrase| {
            let all = similarities.iter().flat_map(|grid| to_vec(&grid.select(2, phrase as i64)));
            all.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            })
        })
        .collect();
    let mut rows = Vec::new();
    for (((_, shown), grid), path) in pictures.iter().zip(&similarities).zip(pictures::list(&args.pictures)?)
    {
        let mut row = vec![Panel { title: title(&path), picture: shown.clone(), scale: None }];
        for (phrase, name) in args.phrases.iter().enumerate() {
            let (low, high) = ranges[phrase];
            let values = per_pixel(&grid.select(2, phrase as i64), shown.height(), shown.width());
            row.push(Panel {
                title: name.clone(),
                picture: pictures::heat(shown, &values, low, high),
                scale: Some((low, high)),
            });
        }
        rows.push(row);
    }
    write_sheet(&pictures::sheet(&rows)?, &args.out)?;
    println!("{}", args.out.display());
    let phrases: Vec<Value> = args
        .phrases
        .iter()
        .zip(&ranges)
        .map(|(phrase, (low, high))| json!({ "phrase": phrase, "lowest": low, "highest": high }))
        .collect();
    Ok(json!({ "out": args.out, "pictures": pictures.len(), "phrases": phrases }))
}
