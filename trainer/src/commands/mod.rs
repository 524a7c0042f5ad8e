//! The commands of the program, one module each: what their options do, and what they print. `choices` has the values of options,
//! `options` what several commands share, and `console` prints what the library reports.

mod attention;
mod bench;
mod cache;
mod card;
mod choices;
mod console;
mod embed;
mod evaluate;
mod export;
mod options;
mod pca;
mod pretrain;
mod score;
mod segment;
mod serve;
mod similarity;
mod train;
mod weights;

pub(crate) use attention::{AttentionArgs, run as attention};
pub(crate) use bench::{BenchArgs, run as bench};
pub(crate) use cache::{CacheArgs, run as cache};
pub(crate) use card::{CardArgs, run as card};
pub(crate) use embed::{EmbedArgs, run as embed};
pub(crate) use evaluate::Eval;
pub(crate) use export::{ClassesArgs, ExportArgs, run as export, run_classes};
pub(crate) use pca::{PcaArgs, run as pca};
pub(crate) use pretrain::{PretrainArgs, run as pretrain};
pub(crate) use score::{ScoreArgs, run as score};
pub(crate) use segment::{SegmentArgs, run as segment};
pub(crate) use serve::{ServeArgs, run as serve};
pub(crate) use similarity::{SimilarityArgs, run as similarity};
pub(crate) use train::{TrainArgs, run as train};
pub(crate) use weights::{ConvertArgs, WeightsArgs, run as weights, run_convert};

use std::path::{Path, PathBuf};

use image::{GrayImage, RgbImage};
use program::UsageError;
use trainer::pictures;

/// Long side of the images on a sheet, in pixels.
const PANEL: u32 = 336;
/// Maximum number of images on one sheet.
const MAX_ON_SHEET: usize = 64;

/// The images of a sheet, each in its own size and in the size on the sheet.
fn for_sheet(inputs: &[PathBuf]) -> anyhow::Result<Vec<(RgbImage, RgbImage)>> {
    let paths = pictures::list(inputs)?;
    if paths.len() > MAX_ON_SHEET {
        let problem = format!("{} images are too many: a sheet holds at most {MAX_ON_SHEET}", paths.len());
        return Err(UsageError(problem).into());
    }
    paths
        .iter()
        .map(|path| {
            let photo = pictures::read(path)?;
            let shown = pictures::fit(&photo, PANEL);
            Ok((photo, shown))
        })
        .collect()
}

/// Writes a PNG; it appears under its final name when it is complete.
fn write_png(page: &RgbImage, path: &Path) -> anyhow::Result<()> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    page.write_to(&mut bytes, image::ImageFormat::Png)?;
    Ok(storage::write(path, bytes.into_inner())?)
}

/// The same for the only output of a command: what killed processes left of earlier attempts is removed.
fn write_sheet(page: &RgbImage, path: &Path) -> anyhow::Result<()> {
    disk::files::clear_leftovers_of(path);
    write_png(page, path)
}

/// Writes an 8-bit PNG of labels; it appears under its final name when it is complete.
fn write_mask(mask: &GrayImage, path: &Path) -> anyhow::Result<()> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    mask.write_to(&mut bytes, image::ImageFormat::Png)?;
    Ok(storage::write(path, bytes.into_inner())?)
}

/// The file name of an image, for titles.
fn title(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
