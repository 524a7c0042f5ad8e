//! The overview sheet: the first scenes, each with its mask to the right and its caption below.

use anyhow::Result;
use image::ExtendedColorType;

use super::classes::CLASSES;
use super::{Arguments, font, png, scene};

/// Maximum number of scenes on a sheet.
const MAX_SCENES: u64 = 24;
/// Scenes per row.
const COLUMNS: usize = 4;

/// Minimum width and height of a scene on the sheet, pixels. Smaller scenes are drawn again at this size.
const MIN_SIZE: u32 = 224;

const MARGIN: usize = 12;
const CAPTION_LINES: usize = 3;
const PAPER: [u8; 3] = [250, 249, 246];
const TEXT: [u8; 3] = [52, 50, 48];

/// Draws the first scenes of a dataset; returns a PNG.
pub(super) fn draw(arguments: &Arguments) -> Result<Vec<u8>> {
    let size = arguments.size.max(MIN_SIZE) as usize;
    let count = arguments.count.min(MAX_SCENES) as usize;
    let columns = COLUMNS.min(count);
    let (tile_width, tile_height) = (2 * size + MARGIN, size + 6 + CAPTION_LINES * font::LINE + MARGIN);
    let legend_height = MARGIN + font::LINE * CLASSES.len().div_ceil(legend_columns(columns * tile_width));
    let mut page = Page::new(
        columns * tile_width + MARGIN,
        count.div_ceil(columns) * tile_height + legend_height + MARGIN,
    );
    for number in 0..count {
        let (scene, captions) = scene(arguments, number as u64, size);
        let (left, top) = (MARGIN + number % columns * tile_width, MARGIN + number / columns * tile_height);
        for y in 0..size {
            for x in 0..size {
                let at = y * size + x;
                page.set(left + x, top + y, [0, 1, 2].map(|c| scene.pixels[3 * at + c]));
                page.set(left + size + x, top + y, CLASSES[usize::from(scene.mask[at])].colour);
            }
        }
        let caption = captions.first().map_or("", |caption| caption.text.as_str());
        let lines = font::wrap(caption, 2 * size, CAPTION_LINES);
        for (number, line) in lines.iter().enumerate() {
            page.text(left, top + size + 6 + number * font::LINE, line);
        }
    }
    let top = MARGIN + count.div_ceil(columns) * tile_height;
    let across = legend_columns(columns * tile_width);
    for (number, class) in CLASSES.iter().enumerate() {
        let (x, y) = (MARGIN + number % across * LEGEND_WIDTH, top + number / across * font::LINE);
        for dy in 0..font::LINE - 4 {
            for dx in 0..font::LINE - 4 {
                page.set(x + dx, y + dy, class.colour);
            }
        }
        page.text(x + font::LINE + 2, y, class.name);
    }
    png(&page.pixels, page.width as u32, page.height as u32, ExtendedColorType::Rgb8)
}

/// Width of a colour swatch and the longest class name, pixels.
const LEGEND_WIDTH: usize = 168;

fn legend_columns(width: usize) -> usize {
    (width / LEGEND_WIDTH).max(1)
}

struct Page {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Page {
    fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: PAPER.repeat(width * height) }
    }

    fn set(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        if x < self.width && y < self.height {
            let at = 3 * (y * self.width + x);
            self.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }

    fn text(&mut self, left: usize, top: usize, line: &str) {
        font::dots(line, |x, y| self.set(left + x, top + y, TEXT));
    }
}
