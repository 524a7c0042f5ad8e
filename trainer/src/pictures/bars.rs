//! A page of horizontal bars: one line per value, from 0 to 100 %.

use image::{Rgb, RgbImage};

use super::lettering::Lettering;
use super::{MARGIN, PAPER, ROW, SWATCH, colour};
use crate::error::Result;

/// Length of a bar of 100 %, in pixels.
const FULL: u32 = 400;
const TRACK: Rgb<u8> = Rgb([232, 232, 236]);

/// Draws a title, and a bar with its name and its value for each fraction of 1.
pub fn bars(title: &str, values: &[(String, f64)]) -> Result<RgbImage> {
    let font = Lettering::new()?;
    let names = values.iter().map(|(name, _)| font.width(name)).max().unwrap_or(0);
    let start = MARGIN + names + MARGIN;
    let width = (start + FULL + MARGIN + font.width("100.00 %") + MARGIN).max(font.width(title) + 2 * MARGIN);
    let height = MARGIN + ROW + values.len() as u32 * ROW + MARGIN;
    let mut page = RgbImage::from_pixel(width, height, PAPER);
    font.draw(&mut page, MARGIN, MARGIN, title);
    for (number, (name, value)) in values.iter().enumerate() {
        let y = MARGIN + ROW * (number as u32 + 1);
        font.draw(&mut page, MARGIN, y, name);
        let filled = (value.clamp(0.0, 1.0) * f64::from(FULL)).round() as u32;
        for dx in 0..FULL {
            let ink = if dx < filled { colour(4) } else { TRACK };
            for dy in 0..SWATCH {
                page.put_pixel(start + dx, y + 1 + dy, ink);
            }
        }
        font.draw(&mut page, start + FULL + MARGIN, y, &format!("{:.2} %", 100.0 * value));
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let values = [("none", 0.0), ("a quarter", 0.25), ("all", 1.0), ("not known", f64::NAN)];
        let page = bars("title", &values.map(|(name, value)| (name.to_owned(), value))).unwrap();
        let lengths: Vec<usize> = (1..=4)
            .map(|line| {
                let y = MARGIN + ROW * line + 1 + SWATCH / 2;
                (0..page.width()).filter(|&x| *page.get_pixel(x, y) == colour(4)).count()
            })
            .collect();
        assert_eq!(lengths, [0, 100, 400, 0]);
    }
}
