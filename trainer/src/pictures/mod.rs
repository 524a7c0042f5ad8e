//! Pictures of what a model does: a segmentation drawn over its photograph with a legend ([`overlay`]), heat maps ([`heat()`]),
//! patch features as colours ([`pca`]), captions with their mentions ([`captions()`]), sheets of several images ([`sheet()`]), and scores as bars
//! ([`bars()`]).
//! `input` reads the photographs.

mod bars;
mod captions;
mod heat;
mod input;
mod lettering;
pub mod pca;
mod place;
mod sheet;

pub use bars::bars;
pub use captions::{Captioned, captions};
pub use heat::{heat, ramp};
pub use input::{Limits, list, photograph, read};
pub use sheet::{Panel, sheet};

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use crate::error::Result;
use lettering::{Lettering, TEXT_HEIGHT};
use place::Labels;

/// Opacity of the class colour in the overlay.
const OPACITY: f32 = 0.55;
/// Space around images and between the entries of the legend, in pixels.
const MARGIN: u32 = 12;
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([32, 32, 36]);
/// Images narrower than this many pixels are shown enlarged, so that there is room for the legend.
const MIN_WIDTH: u32 = 448;
/// Maximum side of a shown image, in pixels.
const MAX_SIDE: u32 = 1280;
/// Opacity of the white line between two segments.
const LINE: f32 = 0.7;
const ROW: u32 = 26;
const SWATCH: u32 = 16;

/// Colour of a class: eight colours that colour-blind readers can distinguish (Okabe and Ito, 2008), then the same colours lighter
/// and darker.
pub fn colour(class: usize) -> Rgb<u8> {
    const BASE: [[u8; 3]; 8] = [
        [230, 159, 0],
        [86, 180, 233],
        [0, 158, 115],
        [240, 228, 66],
        [0, 114, 178],
        [213, 94, 0],
        [204, 121, 167],
        [110, 110, 110],
    ];
    let base = BASE[class % BASE.len()];
    // Towards white, towards black, further towards white, ..
    let round = class / BASE.len();
    let (end, share) = match round {
        0 => (0.0, 0.0),
        _ => (
            if round % 2 == 1 { 255.0 } else { 0.0 },
            0.45 * (1.0 - 0.5f32.powi((round as i32 + 1) / 2)) + 0.225,
        ),
    };
    Rgb(base.map(|v| (f32::from(v) * (1.0 - share) + end * share).round() as u8))
}

/// The photograph in the size in which it is shown: small ones are enlarged, large ones reduced.
pub fn shown(photo: &RgbImage) -> RgbImage {
    let (width, height) = photo.dimensions();
    let long = width.max(height).max(1);
    let zoom = MIN_WIDTH.div_ceil(width.max(1)).min(MAX_SIDE / long);
    if zoom > 1 {
        return imageops::resize(photo, width * zoom, height * zoom, FilterType::CatmullRom);
    }
    if long > MAX_SIDE {
        let scaled = |side: u32| (side * MAX_SIDE / long).max(1);
        return imageops::resize(photo, scaled(width), scaled(height), FilterType::Triangle);
    }
    photo.clone()
}

/// The image, resized so that its long side has `side` pixels.
pub fn fit(picture: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let long = width.max(height).max(1);
    let scaled = |length: u32| (length * side / long).max(1);
    let filter = if long < side { FilterType::CatmullRom } else { FilterType::Triangle };
    imageops::resize(picture, scaled(width), scaled(height), filter)
}

/// The photograph; next to it the photograph under its segmentation, with class names on the largest segments; and a legend of the
/// classes with their fraction of the area. `labels` has one class per pixel, row by row; 255 (or any number without a class) is
/// background.
pub fn overlay(photo: &RgbImage, labels: &[u8], names: &[String]) -> Result<RgbImage> {
    let (width, height) = photo.dimensions();
    debug_assert_eq!(labels.len(), (width * height) as usize);
    let entries = legend(labels, names);
    let font = Lettering::new()?;
    let page_width = 2 * width + 3 * MARGIN;
    let column = entries.iter().map(|(_, text)| font.width(text)).max().unwrap_or(0) + SWATCH + 3 * MARGIN;
    let columns = ((page_width - MARGIN) / column.max(1)).max(1);
    let rows = (entries.len() as u32).div_ceil(columns);
    let page_height = height + 2 * MARGIN + rows * ROW + if rows > 0 { MARGIN / 2 } else { 0 };
    let mut page = RgbImage::from_pixel(page_width, page_height, PAPER);
    imageops::replace(&mut page, photo, MARGIN.into(), MARGIN.into());
    imageops::replace(
        &mut page,
        &tinted(photo, labels, names.len()),
        (2 * MARGIN + width).into(),
        MARGIN.into(),
    );

    let labels = Labels { width, height, labels };
    for (class, place) in labels.places(names.len()).into_iter().enumerate() {
        let Some((x, y, room)) = place else { continue };
        let half = font.width(&names[class]) / 2;
        // Only if the segment is high enough for the text and the text does not leave the image.
        if room as f32 >= 0.8 * TEXT_HEIGHT && x >= half && x + half <= width {
            font.label(&mut page, 2 * MARGIN + width + x, MARGIN + y, &names[class]);
        }
    }
    for (index, (class, text)) in entries.iter().enumerate() {
        let index = index as u32;
        let x = MARGIN + (index % columns) * column;
        let y = 2 * MARGIN + height + (index / columns) * ROW;
        for dy in 0..SWATCH {
            for dx in 0..SWATCH {
                if x + dx < page_width && y + dy < page_height {
                    page.put_pixel(x + dx, y + dy, colour(*class));
                }
            }
        }
        font.draw(&mut page, x + SWATCH + MARGIN / 2, y, text);
    }
    Ok(page)
}

/// The classes in the image, largest area first, with their text in the legend.
fn legend(labels: &[u8], names: &[String]) -> Vec<(usize, String)> {
    let mut counts = vec![0u64; names.len()];
    for &label in labels {
        if let Some(count) = counts.get_mut(usize::from(label)) {
            *count += 1;
        }
    }
    let mut found: Vec<usize> = (0..names.len()).filter(|&class| counts[class] > 0).collect();
    found.sort_by_key(|&class| std::cmp::Reverse(counts[class]));
    let line = |class: usize| {
        let share = 100.0 * counts[class] as f64 / labels.len().max(1) as f64;
        let share = if share < 0.5 { "< 1".to_owned() } else { format!("{share:.0}") };
        (class, format!("{} {share} %", names[class]))
    };
    found.into_iter().map(line).collect()
}

/// The photograph with the colours of its classes, and a line between segments.
fn tinted(photo: &RgbImage, labels: &[u8], classes: usize) -> RgbImage {
    let (width, height) = photo.dimensions();
    let mut out = photo.clone();
    for (x, y, pixel) in out.enumerate_pixels_mut() {
        let at = (y * width + x) as usize;
        let label = usize::from(labels[at]);
        if label < classes {
            *pixel = mix(*pixel, colour(label), OPACITY);
        }
        let ends = x + 1 < width && labels[at] != labels[at + 1]
            || y + 1 < height && labels[at] != labels[at + width as usize];
        if ends {
            *pixel = mix(*pixel, PAPER, LINE);
        }
    }
    out
}

fn mix(under: Rgb<u8>, over: Rgb<u8>, share: f32) -> Rgb<u8> {
    let mut out = under;
    for (value, over) in out.0.iter_mut().zip(over.0) {
        *value = (f32::from(*value) * (1.0 - share) + f32::from(over) * share).round() as u8;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_of_many_classes_differ() {
        let colours: std::collections::BTreeSet<[u8; 3]> = (0..40).map(|class| colour(class).0).collect();
        assert_eq!(colours.len(), 40);
    }

    #[test]
    fn the_overlay_shows_photo_tint_and_legend() {
        let photo = RgbImage::from_pixel(500, 300, Rgb([100, 100, 100]));
        let labels: Vec<u8> = (0..500 * 300).map(|i| u8::from(i % 500 >= 250)).collect();
        let page = overlay(&photo, &labels, &["left".to_owned(), "right".to_owned()]).unwrap();
        assert_eq!(*page.get_pixel(MARGIN + 10, MARGIN + 10), Rgb([100, 100, 100]));
        let tinted = |x| *page.get_pixel(2 * MARGIN + 500 + x, MARGIN + 10);
        assert_eq!(tinted(10), mix(Rgb([100; 3]), colour(0), OPACITY));
        assert_eq!(tinted(490), mix(Rgb([100; 3]), colour(1), OPACITY));
        let legend = (0..page.width()).any(|x| *page.get_pixel(x, 300 + 2 * MARGIN + 4) == colour(0));
        assert!(legend, "the legend has the first class's swatch");
    }
}
