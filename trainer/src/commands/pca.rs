//! `trainer pca`: the principal components of patch features as colours.

use std::path::PathBuf;

use clap::Args;
use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use trainer::inference::dense::{DenseVision, per_pixel};
use trainer::pictures::{self, Panel, pca};

use super::options::{PrecisionArgs, RunArgs, WindowArgs};
use super::{for_sheet, title, write_sheet};

#[derive(Debug, Args)]
pub(crate) struct PcaArgs {
    /// Images (jpg, png, webp), folders of images, or patterns such as "photos/*.jpg". Equal colours mean similar features, in all
    /// of them.
    #[arg(required = true, value_name = "IMAGES")]
    pictures: Vec<PathBuf>,
    /// Image to write: each input next to the colours of its patches.
    #[arg(long, value_name = "PNG")]
    out: PathBuf,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    window: WindowArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
}

pub(crate) fn run(args: &PcaArgs) -> anyhow::Result<Value> {
    let vision = DenseVision::open(
        &args.run.open()?,
        &args.run.settings(Some((&args.window, &args.precision)), None),
    )?;
    let pictures = for_sheet(&args.pictures)?;
    let features: Vec<_> = pictures.iter().map(|(photo, _)| vision.features(photo)).collect();
    let mut panels = Vec::new();
    for (((_, shown), colours), path) in
        pictures.iter().zip(pca::colours(&features)).zip(pictures::list(&args.pictures)?)
    {
        let channels: Vec<Vec<f32>> = (0..colours.size()[2])
            .map(|channel| per_pixel(&colours.select(2, channel), shown.height(), shown.width()))
            .collect();
        let coloured = RgbImage::from_fn(shown.width(), shown.height(), |x, y| {
            let at = (y * shown.width() + x) as usize;
            let value = |channel: usize| channels.get(channel).map_or(0.0, |values| values[at]);
            Rgb([0, 1, 2].map(|channel| (255.0 * value(channel)).round() as u8))
        });
        panels.push(Panel { title: title(&path), picture: shown.clone(), scale: None });
        panels.push(Panel { title: "features".to_owned(), picture: coloured, scale: None });
    }
    // Two images per row.
    let mut rows: Vec<Vec<Panel>> = Vec::new();
    for panel in panels {
        match rows.last_mut() {
            Some(row) if row.len() < 4 => row.push(panel),
            _ => rows.push(vec![panel]),
        }
    }
    write_sheet(&pictures::sheet(&rows)?, &args.out)?;
    println!("{}", args.out.display());
    Ok(json!({ "out": args.out, "pictures": pictures.len() }))
}
