//! `trainer attention`: what the mentions of training samples are pooled from.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use trainer::attention::{Pooling, TaggedShard};
use trainer::checkpoint::Checkpoint;
use trainer::dense::{numbers, per_pixel};
use trainer::picture::{self, Panel};

use super::{PANEL, write_png};
use crate::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct AttentionArgs {
    /// A tagged shard.
    shard: PathBuf,
    /// Keys of samples, or their positions in the shard from 0, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    samples: Vec<String>,
    /// A run's folder (its newest checkpoint is used) or one checkpoint.
    #[arg(long)]
    checkpoint: PathBuf,
    /// The sheet, a PNG: a row for each sample, its crop and what each concept of its caption attends to.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &AttentionArgs) -> anyhow::Result<Value> {
    trainer::device::limit_threads(args.device.threads);
    let pooling = Pooling::open(&Checkpoint::open(&args.checkpoint)?, &args.device.device)?;
    let shard = TaggedShard::open(&args.shard)?;
    let (mut rows, mut told) = (Vec::new(), Vec::new());
    for name in &args.samples {
        let sample = shard.sample(name)?;
        let (crop, attentions) = pooling.attention(&sample)?;
        let shown = picture::fit(&crop, PANEL);
        println!("{}  {}", sample.key, sample.caption);
        let mut row = vec![Panel { title: sample.caption.clone(), picture: shown.clone(), scale: None }];
        let mut concepts = Vec::new();
        for attention in &attentions {
            let patches = attention.patches();
            let highest = numbers(&attention.weights).into_iter().fold(0.0, f32::max);
            println!("    {:<24} {patches:.0} patches", attention.concept);
            concepts.push(json!({ "concept": attention.concept, "patches": patches, "highest": highest }));
            let values = per_pixel(&attention.weights, shown.height(), shown.width());
            row.push(Panel {
                title: attention.concept.clone(),
                picture: picture::heat(&shown, &values, 0.0, highest),
                scale: Some((0.0, highest)),
            });
        }
        rows.push(row);
        told.push(json!({ "key": sample.key, "caption": sample.caption, "concepts": concepts }));
    }
    write_png(&picture::sheet(&rows)?, &args.out)?;
    println!("{}", args.out.display());
    Ok(json!({ "out": args.out, "samples": told }))
}
