//! Draws lines of text.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use image::{Rgb, RgbImage};

use super::{INK, PAPER, mix};
use crate::error::{Error, Result};

/// Height of the letters, in pixels.
pub(super) const TEXT_HEIGHT: f32 = 17.0;

/// A font in one size: Ubuntu Light (Ubuntu Font Licence).
pub(super) struct Lettering {
    font: FontRef<'static>,
}

impl Lettering {
    pub(super) fn new() -> Result<Self> {
        let font = FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT)
            .map_err(|e| Error::Failed(format!("cannot read the embedded font: {e}")))?;
        Ok(Self { font })
    }

    /// The glyphs of a line whose top is at `y`, with their positions.
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

    /// Width of a line of text, in pixels.
    pub(super) fn width(&self, text: &str) -> u32 {
        let font = self.font.as_scaled(PxScale::from(TEXT_HEIGHT));
        text.chars().map(|c| font.h_advance(font.glyph_id(c))).sum::<f32>().ceil() as u32
    }

    /// The line of text, shortened with an ellipsis if it is wider than `width` pixels.
    pub(super) fn shortened(&self, text: &str, width: u32) -> String {
        if self.width(text) <= width {
            return text.to_owned();
        }
        let mut kept: Vec<char> = text.chars().collect();
        while !kept.is_empty() && self.width(&kept.iter().chain(&['…']).collect::<String>()) > width {
            kept.pop();
        }
        kept.into_iter().chain(['…']).collect()
    }

    /// Draws a line of text with its top left corner at (x, y).
    pub(super) fn draw(&self, page: &mut RgbImage, x: u32, y: u32, text: &str) {
        self.ink(page, x as f32, y as f32, text, INK);
    }

    /// Draws a line of text with its centre at (x, y), with a white outline, so that it is legible on any colour.
    pub(super) fn label(&self, page: &mut RgbImage, x: u32, y: u32, text: &str) {
        let (left, top) = (x as f32 - self.width(text) as f32 / 2.0, y as f32 - TEXT_HEIGHT / 2.0);
        for (dx, dy) in [
            (-1.5, 0.0),
            (1.5, 0.0),
            (0.0, -1.5),
            (0.0, 1.5),
            (-1.0, -1.0),
            (1.0, -1.0),
            (-1.0, 1.0),
            (1.0, 1.0),
        ] {
            self.ink(page, left + dx, top + dy, text, PAPER);
        }
        self.ink(page, left, top, text, INK);
    }

    fn ink(&self, page: &mut RgbImage, x: f32, y: f32, text: &str, ink: Rgb<u8>) {
        for glyph in self.glyphs(text, x, y) {
            let Some(outline) = self.font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            outline.draw(|dx, dy, coverage| {
                let (px, py) = (corner.x as i64 + i64::from(dx), corner.y as i64 + i64::from(dy));
                if px >= 0 && py >= 0 && (px as u32) < page.width() && (py as u32) < page.height() {
                    let pixel = page.get_pixel_mut(px as u32, py as u32);
                    *pixel = mix(*pixel, ink, coverage.min(1.0));
                }
            });
        }
    }
}
