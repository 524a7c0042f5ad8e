//! An image of the first batch of a run, to inspect before the run is started: crops, captions, mentions.

use std::io::Cursor;
use std::path::Path;

use image::RgbImage;
use loader::{Batch, Loader};

use crate::error::{Result, encoding};
use crate::pictures::{Captioned, captions};

/// Number of rows that are drawn.
const SHOWN: usize = 16;

/// Draws the first rows of a batch: the crops that the tower processes, their captions, and under each mention of the vocabulary
/// its concept. If the batch has no images (with cached features), the crops are black.
pub(super) fn draw(batch: &Batch, loader: &Loader, out: &Path) -> Result<()> {
    let settings = loader.settings();
    let side = settings.options.size;
    let bytes = side as usize * side as usize * 3;
    let rows: Vec<Captioned> = (0..batch.size.min(SHOWN))
        .map(|row| {
            let pixels = batch.images.get(row * bytes..(row + 1) * bytes).map(<[u8]>::to_vec);
            let picture = pixels.and_then(|pixels| RgbImage::from_raw(side, side, pixels));
            let marks = batch
                .mentions
                .of_row(row)
                .map(|mention| {
                    let name =
                        settings.bank.as_ref().and_then(|(bank, _)| bank.names().get(mention.label as usize));
                    let span = mention.span.start as usize..mention.span.end as usize;
                    (span, name.cloned().unwrap_or_default(), mention.label as usize)
                })
                .collect();
            Captioned {
                picture: picture.unwrap_or_else(|| RgbImage::new(side, side)),
                text: batch.captions[row].clone(),
                marks,
            }
        })
        .collect();
    let mut png = Cursor::new(Vec::new());
    captions(&rows)?.write_to(&mut png, image::ImageFormat::Png).map_err(encoding(out))?;
    Ok(storage::replace(out, png.into_inner())?)
}
