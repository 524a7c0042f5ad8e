//! Captions next to their images, with marks under some of their words.

use std::ops::Range;

use image::{Rgb, RgbImage};

use super::lettering::Lettering;
use super::{MARGIN, PAPER, ROW, colour, fit};
use crate::error::Result;

/// An image and its caption.
#[derive(Debug)]
pub struct Captioned {
    /// The image, which is drawn small.
    pub picture: RgbImage,
    /// The caption.
    pub text: String,
    /// Marks: the byte range in the caption, the text under the mark, and the number of its colour.
    pub marks: Vec<(Range<usize>, String, usize)>,
}

/// Side of the small images, in pixels.
const SIDE: u32 = 96;
/// Thickness of a mark, in pixels.
const MARK: u32 = 3;

/// A page with one caption per row, next to its image.
pub fn captions(rows: &[Captioned]) -> Result<RgbImage> {
    let font = Lettering::new()?;
    let text_width = |row: &Captioned| {
        let under =
            row.marks.iter().map(|(span, name, _)| font.width(before(&row.text, span)) + font.width(name));
        under.chain([font.width(&row.text)]).max().unwrap_or(0)
    };
    let width = 3 * MARGIN + SIDE + rows.iter().map(text_width).max().unwrap_or(0);
    let height = MARGIN + rows.len() as u32 * (SIDE + MARGIN);
    let mut page = RgbImage::from_pixel(width, height, PAPER);
    for (number, row) in rows.iter().enumerate() {
        let (x, y) = (2 * MARGIN + SIDE, MARGIN + number as u32 * (SIDE + MARGIN));
        image::imageops::replace(&mut page, &fit(&row.picture, SIDE), MARGIN.into(), y.into());
        font.draw(&mut page, x, y, &row.text);
        // Texts under neighbouring marks are on different lines, so that they do not overlap.
        for (place, (span, name, label)) in row.marks.iter().enumerate() {
            let left = x + font.width(before(&row.text, span));
            let length = font.width(row.text.get(span.clone()).unwrap_or_default());
            bar(&mut page, left, y + ROW, length, colour(*label));
            font.draw(&mut page, left, y + ROW + 2 * MARK + (place as u32 % 3) * ROW, name);
        }
    }
    Ok(page)
}

fn before<'a>(text: &'a str, span: &Range<usize>) -> &'a str {
    text.get(..span.start).unwrap_or_default()
}

fn bar(page: &mut RgbImage, left: u32, top: u32, length: u32, colour: Rgb<u8>) {
    for x in left..(left + length).min(page.width()) {
        for y in top..(top + MARK).min(page.height()) {
            page.put_pixel(x, y, colour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_lies_under_its_words_in_its_colour() {
        let row = Captioned {
            picture: RgbImage::from_pixel(200, 100, Rgb([9; 3])),
            text: "a red ball".to_owned(),
            marks: vec![(2..10, "red ball".to_owned(), 4)],
        };
        let page = captions(&[row]).unwrap();
        let marked: Vec<u32> =
            (0..page.width()).filter(|&x| *page.get_pixel(x, MARGIN + ROW + 1) == colour(4)).collect();
        let font = Lettering::new().unwrap();
        assert_eq!(marked.len() as u32, font.width("red ball"));
        assert_eq!(marked[0], 2 * MARGIN + SIDE + font.width("a "));
        assert_eq!(page.get_pixel(MARGIN, MARGIN).0, [9; 3]);
    }
}
