//! Pictures for people: a segmentation laid over its photograph, with a legend.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use image::imageops::FilterType;
use image::{Rgb, RgbImage};

use crate::error::{Error, Result};

/// Share of the class's colour in the overlay; the rest is the photograph.
const OPACITY: f32 = 0.55;
/// Space around the picture and between the legend's entries, pixels.
const MARGIN: u32 = 12;
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([32, 32, 36]);
/// Pictures narrower than this are shown enlarged, so that the legend has room.
const LEAST_WIDTH: u32 = 448;
/// Share of white in the line between two segments.
const LINE: f32 = 0.7;
const TEXT_HEIGHT: f32 = 17.0;
const ROW: u32 = 26;
const SWATCH: u32 = 16;

/// Colour of a class: eight colours that colour-blind readers tell apart (Okabe and Ito, 2008), then the same
/// again lighter and darker.
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
    // Towards white, towards black, further towards each ...
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

/// The photograph as it is shown: small ones enlarged.
pub fn shown(photo: &RgbImage) -> RgbImage {
    let zoom = LEAST_WIDTH.div_ceil(photo.width().max(1)).max(1);
    match zoom {
        1 => photo.clone(),
        _ => image::imageops::resize(
            photo,
            photo.width() * zoom,
            photo.height() * zoom,
            FilterType::CatmullRom,
        ),
    }
}

/// The photograph, the same under its segmentation, and a legend of the classes found with their share of the
/// picture; `labels` has one class a pixel, row by row.
pub fn overlay(photo: &RgbImage, labels: &[u8], names: &[String]) -> Result<RgbImage> {
    let (width, height) = photo.dimensions();
    debug_assert_eq!(labels.len(), (width * height) as usize);

    let mut counts = vec![0u64; names.len()];
    for &label in labels {
        if let Some(count) = counts.get_mut(usize::from(label)) {
            *count += 1;
        }
    }
    let mut found: Vec<usize> = (0..names.len()).filter(|&class| counts[class] > 0).collect();
    found.sort_by_key(|&class| std::cmp::Reverse(counts[class]));
    let entries: Vec<(usize, String)> = found
        .into_iter()
        .map(|class| {
            let share = 100.0 * counts[class] as f64 / labels.len().max(1) as f64;
            let share = if share < 0.5 { "< 1".to_owned() } else { format!("{share:.0}") };
            (class, format!("{} {share} %", names[class]))
        })
        .collect();

    let font = Lettering::new()?;
    let page_width = 2 * width + 3 * MARGIN;
    let column = entries.iter().map(|(_, text)| font.width(text)).max().unwrap_or(0) + SWATCH + 3 * MARGIN;
    let columns = ((page_width - MARGIN) / column.max(1)).max(1);
    let rows = (entries.len() as u32).div_ceil(columns);
    let page_height = height + 2 * MARGIN + rows * ROW + if rows > 0 { MARGIN / 2 } else { 0 };
    let mut page = RgbImage::from_pixel(page_width, page_height, PAPER);

    for (x, y, pixel) in photo.enumerate_pixels() {
        let at = (y * width + x) as usize;
        let label = usize::from(labels[at]);
        let mut tinted = if label < names.len() { mix(*pixel, colour(label), OPACITY) } else { *pixel };
        let ends = x + 1 < width && labels[at] != labels[at + 1]
            || y + 1 < height && labels[at] != labels[at + width as usize];
        if ends {
            tinted = mix(tinted, PAPER, LINE);
        }
        page.put_pixel(MARGIN + x, MARGIN + y, *pixel);
        page.put_pixel(2 * MARGIN + width + x, MARGIN + y, tinted);
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

fn mix(under: Rgb<u8>, over: Rgb<u8>, share: f32) -> Rgb<u8> {
    let mut out = under;
    for (value, over) in out.0.iter_mut().zip(over.0) {
        *value = (f32::from(*value) * (1.0 - share) + f32::from(over) * share).round() as u8;
    }
    out
}

/// One size of one font (Ubuntu Light, Ubuntu Font Licence).
struct Lettering {
    font: FontRef<'static>,
}

impl Lettering {
    fn new() -> Result<Self> {
        let font = FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT)
            .map_err(|e| Error::Setting { name: "font".to_owned(), problem: e.to_string() })?;
        Ok(Self { font })
    }

    /// Places of the glyphs of a line whose top is at `y`.
    fn glyphs(&self, text: &str, x: f32, y: f32) -> Vec<ab_glyph::Glyph> {
        let font = self.font.as_scaled(PxScale::from(TEXT_HEIGHT));
        let mut pen = x;
        let mut last = None;
        text.chars()
            .map(|c| {
                let id = font.glyph_id(c);
                pen += last.map_or(0.0, |last| font.kern(last, id));
                let glyph = id.with_scale_and_position(TEXT_HEIGHT, point(pen, y + font.ascent()));
                pen += font.h_advance(id);
                last = Some(id);
                glyph
            })
            .collect()
    }

    fn width(&self, text: &str) -> u32 {
        let font = self.font.as_scaled(PxScale::from(TEXT_HEIGHT));
        text.chars().map(|c| font.h_advance(font.glyph_id(c))).sum::<f32>().ceil() as u32
    }

    fn draw(&self, page: &mut RgbImage, x: u32, y: u32, text: &str) {
        for glyph in self.glyphs(text, x as f32, y as f32) {
            let Some(outline) = self.font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            outline.draw(|dx, dy, coverage| {
                let (px, py) = (corner.x as i64 + i64::from(dx), corner.y as i64 + i64::from(dy));
                if px >= 0 && py >= 0 && (px as u32) < page.width() && (py as u32) < page.height() {
                    let pixel = page.get_pixel_mut(px as u32, py as u32);
                    *pixel = mix(*pixel, INK, coverage.min(1.0));
                }
            });
        }
    }
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
