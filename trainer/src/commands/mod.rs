//! The commands that make things to look at and to take away.

mod attention;
mod bench;
mod card;
mod embed;
mod export;
mod pca;
mod segment;
mod serve;
mod similarity;
mod weights;

pub(crate) use attention::{AttentionArgs, run as attention};
pub(crate) use bench::{BenchArgs, run as bench};
pub(crate) use card::{CardArgs, run as card};
pub(crate) use embed::{EmbedArgs, run as embed};
pub(crate) use export::{ClassesArgs, ExportArgs, run as export, run_classes};
pub(crate) use pca::{PcaArgs, run as pca};
pub(crate) use segment::{SegmentArgs, run as segment};
pub(crate) use serve::{ServeArgs, run as serve};
pub(crate) use similarity::{SimilarityArgs, run as similarity};
pub(crate) use weights::{ConvertArgs, WeightsArgs, run as weights, run_convert};

use std::path::{Path, PathBuf};

use anyhow::Context;
use image::{GrayImage, RgbImage};
use loader::program::UsageError;
use trainer::picture;
use trainer::words::WordList;

/// Pictures of a sheet are brought to this long side, pixels.
const PANEL: u32 = 336;
/// Most pictures on one sheet.
const MOST_ON_SHEET: usize = 64;

/// The classes of `--classes` or `--class-file`.
fn classes(line: Option<&str>, file: Option<&Path>) -> anyhow::Result<WordList> {
    match (line, file) {
        (Some(line), None) => {
            WordList::parse(line).map_err(|problem| UsageError(format!("--classes {problem}")).into())
        }
        (None, Some(file)) => Ok(WordList::read(file)?),
        _ => {
            Err(UsageError("give either --classes \"cat|kitten, sofa\" or --class-file FILE".to_owned())
                .into())
        }
    }
}

/// The pictures of a sheet, each as it is and as it is shown there.
fn for_sheet(inputs: &[PathBuf]) -> anyhow::Result<Vec<(RgbImage, RgbImage)>> {
    let paths = picture::list(inputs)?;
    if paths.len() > MOST_ON_SHEET {
        return Err(UsageError(format!("{} pictures, and a sheet holds {MOST_ON_SHEET}", paths.len())).into());
    }
    paths
        .iter()
        .map(|path| {
            let photo = picture::read(path)?;
            let shown = picture::fit(&photo, PANEL);
            Ok((photo, shown))
        })
        .collect()
}

/// Whole or not at all.
fn write_png(page: &RgbImage, path: &Path) -> anyhow::Result<()> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    page.write_to(&mut bytes, image::ImageFormat::Png)?;
    concepts::files::write_atomic(path, bytes.get_ref()).with_context(|| path.display().to_string())
}

/// An 8-bit PNG of labels, whole or not at all.
fn write_mask(mask: &GrayImage, path: &Path) -> anyhow::Result<()> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    mask.write_to(&mut bytes, image::ImageFormat::Png)?;
    concepts::files::write_atomic(path, bytes.get_ref()).with_context(|| path.display().to_string())
}

/// The file name of a picture, for titles.
fn title(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
