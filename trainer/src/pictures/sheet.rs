//! Several images on one page, each with a title and, for heat maps, its colour scale.

use image::RgbImage;

use super::heat::ramp;
use super::lettering::Lettering;
use super::{MARGIN, PAPER, ROW, SWATCH};
use crate::error::Result;

/// One image of a sheet.
#[derive(Debug)]
pub struct Panel {
    /// The text under it.
    pub title: String,
    /// The image.
    pub picture: RgbImage,
    /// For heat maps: the values at the dark and the light end of the colour scale.
    pub scale: Option<(f32, f32)>,
}

/// Width of the colour bar, in pixels.
const BAR: u32 = 96;

/// A page with rows of panels, aligned at their top left corners. A row is as high as its highest panel.
pub fn sheet(rows: &[Vec<Panel>]) -> Result<RgbImage> {
    let font = Lettering::new()?;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<u32> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|panel| panel.picture.width())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let heights: Vec<u32> = rows
        .iter()
        .map(|row| {
            let lines = if row.iter().any(|panel| panel.scale.is_some()) { 2 } else { 1 };
            row.iter().map(|panel| panel.picture.height()).max().unwrap_or(0) + MARGIN / 2 + lines * ROW
        })
        .collect();
    let page_width = widths.iter().map(|width| width + MARGIN).sum::<u32>() + MARGIN;
    let page_height = heights.iter().map(|height| height + MARGIN).sum::<u32>() + MARGIN;
    let mut page = RgbImage::from_pixel(page_width, page_height, PAPER);
    let mut y = MARGIN;
    for (row, height) in rows.iter().zip(&heights) {
        let mut x = MARGIN;
        for (panel, width) in row.iter().zip(&widths) {
            image::imageops::replace(&mut page, &panel.picture, x.into(), y.into());
            let below = y + panel.picture.height() + MARGIN / 2;
            font.draw(&mut page, x, below, &font.shortened(&panel.title, *width));
            if let Some((low, high)) = panel.scale {
                let (low, high) = (format!("{low:.2}"), format!("{high:.2}"));
                let bar = x + font.width(&low) + MARGIN / 2;
                font.draw(&mut page, x, below + ROW, &low);
                for dx in 0..BAR.min(page_width.saturating_sub(bar)) {
                    for dy in 0..SWATCH {
                        page.put_pixel(bar + dx, below + ROW + 1 + dy, ramp(dx as f32 / (BAR - 1) as f32));
                    }
                }
                font.draw(&mut page, bar + BAR + MARGIN / 2, below + ROW, &high);
            }
            x += width + MARGIN;
        }
        y += height + MARGIN;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn panels_stand_in_rows_and_columns() {
        let panel = |width, height, colour| Panel {
            title: "a title that is much longer than its picture is wide".to_owned(),
            picture: RgbImage::from_pixel(width, height, Rgb([colour; 3])),
            scale: None,
        };
        let page = sheet(&[vec![panel(50, 40, 1), panel(30, 20, 2)], vec![panel(60, 10, 3)]]).unwrap();
        assert_eq!(page.width(), 60 + 30 + 3 * MARGIN);
        assert_eq!(page.get_pixel(MARGIN, MARGIN).0, [1; 3]);
        assert_eq!(page.get_pixel(60 + 2 * MARGIN, MARGIN).0, [2; 3]);
        assert_eq!(page.get_pixel(MARGIN, 40 + ROW + MARGIN / 2 + 2 * MARGIN).0, [3; 3]);
    }
}
