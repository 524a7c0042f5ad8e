//! `trainer similarity`: where a picture is like a phrase.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tch::Tensor;
use trainer::checkpoint::Checkpoint;
use trainer::dense::{DenseVision, numbers, per_pixel};
use trainer::picture::{self, Panel};
use trainer::words::WordVectors;

use super::{for_sheet, title, write_png};
use crate::ModelArgs;

#[derive(Debug, Args)]
pub(crate) struct SimilarityArgs {
    /// Pictures (jpg, png, webp), folders of them, or patterns.
    #[arg(required = true)]
    pictures: Vec<PathBuf>,
    /// What to compare with, as "a red ball"; may be repeated.
    #[arg(long = "phrase", required = true)]
    phrases: Vec<String>,
    /// The sheet, a PNG: a row for each picture, a column for each phrase. Colours have one scale a phrase.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

pub(crate) fn run(args: &SimilarityArgs) -> anyhow::Result<Value> {
    let checkpoint = Checkpoint::open(&args.model.checkpoint)?;
    let settings = args.model.settings();
    let vision = DenseVision::open(&checkpoint, &settings)?;
    let mut text = WordVectors::open(&checkpoint, vision.width(), &settings)?;
    let vectors = text.of(&args.phrases)?;
    let pictures = for_sheet(&args.pictures)?;
    // [rows, columns, phrases] a picture
    let similarities: Vec<Tensor> =
        pictures.iter().map(|(photo, _)| vision.features(photo).matmul(&vectors.transpose(0, 1))).collect();
    let ranges: Vec<(f32, f32)> = (0..args.phrases.len())
        .map(|phrase| {
            let all = similarities.iter().flat_map(|grid| numbers(&grid.select(2, phrase as i64)));
            all.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            })
        })
        .collect();
    let mut rows = Vec::new();
    for (((_, shown), grid), path) in pictures.iter().zip(&similarities).zip(picture::list(&args.pictures)?) {
        let mut row = vec![Panel { title: title(&path), picture: shown.clone(), scale: None }];
        for (phrase, name) in args.phrases.iter().enumerate() {
            let (low, high) = ranges[phrase];
            let values = per_pixel(&grid.select(2, phrase as i64), shown.height(), shown.width());
            row.push(Panel {
                title: name.clone(),
                picture: picture::heat(shown, &values, low, high),
                scale: Some((low, high)),
            });
        }
        rows.push(row);
    }
    write_png(&picture::sheet(&rows)?, &args.out)?;
    println!("{}", args.out.display());
    let phrases: Vec<Value> = args
        .phrases
        .iter()
        .zip(&ranges)
        .map(|(phrase, (low, high))| json!({ "phrase": phrase, "lowest": low, "highest": high }))
        .collect();
    Ok(json!({ "out": args.out, "pictures": pictures.len(), "phrases": phrases }))
}
