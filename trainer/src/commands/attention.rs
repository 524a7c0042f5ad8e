//! `trainer attention`: the attention weights of concept pooling for training samples.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use trainer::device::to_vec;
use trainer::inference::attention::{Pooling, TaggedShard};
use trainer::inference::dense::per_pixel;
use trainer::pictures::{self, Panel};

use super::options::RunArgs;
use super::{PANEL, write_sheet};

#[derive(Debug, Args)]
pub(crate) struct AttentionArgs {
    /// Tagged shard (NNNNN.tar with its NNNNN.concepts.parquet).
    shard: PathBuf,
    /// Samples to draw, separated by commas: keys, or positions in the shard, counted from 0.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    samples: Vec<String>,
    /// Image to write: one row per sample, with its crop and a heat map per concept of its caption.
    #[arg(long, value_name = "PNG")]
    out: PathBuf,
    #[command(flatten)]
    run: RunArgs,
}

pub(crate) fn run(args: &AttentionArgs) -> anyhow::Result<Value> {
    let pooling = Pooling::open(&args.run.open()?, &args.run.device.device)?;
    let shard = TaggedShard::open(&args.shard)?;
    let (mut rows, mut samples) = (Vec::new(), Vec::new());
    for name in &args.samples {
        let sample = shard.sample(name)?;
        let (crop, attentions) = pooling.attention(&sample)?;
        let shown = pictures::fit(&crop, PANEL);
        println!("{}  {}", sample.key, sample.caption);
        let mut row = vec![Panel { title: sample.caption.clone(), picture: shown.clone(), scale: None }];
        let mut concepts = Vec::new();
        for attention in &attentions {
            let patches = attention.patches();
            let highest = to_vec(&attention.weights).into_iter().fold(0.0, f32::max);
            println!("    {:<24} {patches:.0} patches", attention.concept);
            concepts.push(json!({ "concept": attention.concept, "patches": patches, "highest": highest }));
            let values = per_pixel(&attention.weights, shown.height(), shown.width());
            row.push(Panel {
                title: attention.concept.clone(),
                picture: pictures::heat(&shown, &values, 0.0, highest),
                scale: Some((0.0, highest)),
            });
        }
        rows.push(row);
        samples.push(json!({ "key": sample.key, "caption": sample.caption, "concepts": concepts }));
    }
    write_sheet(&pictures::sheet(&rows)?, &args.out)?;
    println!("{}", args.out.display());
    Ok(json!({ "out": args.out, "samples": samples }))
}
