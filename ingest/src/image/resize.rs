//! The resize modes of img2dataset: the size of the resized image, padding and cropping.

use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use loader::DecodeError;
use serde::{Deserialize, Serialize};

use super::decode::undecodable;
use super::pixels::Pixels;
use super::resample::resample;
use super::{area, buffer_pool};
use crate::problem::Problem;

/// Which side is resized to `size`, and how the image becomes a square, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Resize the longer side to the target size, then pad with white to a square.
    Border,
    /// Resize the shorter side to the target size.
    KeepRatio,
    /// Resize the longer side to the target size.
    KeepRatioLargest,
    /// Resize the shorter side to the target size, then crop the central square.
    CenterCrop,
    /// Do not resize.
    No,
}

/// How to resize one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    scaled: (u32, u32),
    shrink: bool,
    framing: Framing,
}

/// What follows the scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    Pad(u32),
    Crop(u32),
}

impl Mode {
    /// The plan for an image of this size; None if it stays unchanged.
    pub(super) fn plan(self, width: u32, height: u32, size: u32, only_if_bigger: bool) -> Option<Plan> {
        let bounded = match self {
            Self::No => return None,
            Self::KeepRatio | Self::CenterCrop => width.min(height),
            Self::Border | Self::KeepRatioLargest => width.max(height),
        };
        let shrink = bounded > size;
        if only_if_bigger && !shrink {
            return None;
        }
        let scale = f64::from(size) / f64::from(bounded);
        // Half to even, as Python rounds; at least one pixel.
        let scaled = |side: u32| (f64::from(side) * scale).round_ties_even().max(1.0) as u32;
        let framing = match self {
            Self::Border => Framing::Pad(size),
            Self::CenterCrop => Framing::Crop(size),
            _ => Framing::None,
        };
        Some(Plan { scaled: (scaled(width), scaled(height)), shrink, framing })
    }
}

impl Plan {
    /// The reduced size, if the image is reduced.
    pub(super) fn shrunk(&self) -> Option<(u32, u32)> {
        self.shrink.then_some(self.scaled)
    }

    /// Number of pixels of the largest intermediate image.
    pub(super) fn largest(&self) -> u64 {
        let scaled = u64::from(self.scaled.0) * u64::from(self.scaled.1);
        match self.framing {
            Framing::Pad(size) => scaled.max(u64::from(size) * u64::from(size)),
            _ => scaled,
        }
    }

    /// Scales the image, before padding or cropping.
    pub(super) fn scale(&self, pixels: Pixels) -> Result<Pixels, Problem> {
        let (width, height) = self.scaled;
        if (pixels.width, pixels.height) == self.scaled {
            Ok(pixels)
        } else if self.shrink {
            area::shrink(pixels, width, height)
        } else {
            enlarge(&pixels, width, height)
        }
    }

    /// Pads or crops the scaled image to a square, if the mode does.
    pub(super) fn frame(&self, scaled: Pixels) -> Result<Pixels, Problem> {
        match self.framing {
            Framing::None => Ok(scaled),
            Framing::Pad(size) => pad(&scaled, size).map_err(|error| undecodable(&error)),
            Framing::Crop(size) => Ok(crop(&scaled, size)),
        }
    }
}

/// Enlarges with the Lanczos3 filter.
fn enlarge(pixels: &Pixels, width: u32, height: u32) -> Result<Pixels, Problem> {
    let data = buffer_pool::take(width as usize * height as usize * pixels.channels)
        .map_err(|error| undecodable(&error))?;
    let mut target = Pixels { width, height, channels: pixels.channels, data };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    resample(&mut Resizer::new(), pixels, &mut target, &options)?;
    Ok(target)
}

/// Pads with white on all sides; an odd pixel goes to the right or bottom.
fn pad(pixels: &Pixels, size: u32) -> Result<Pixels, DecodeError> {
    let channels = pixels.channels;
    let (left, top) = ((size - pixels.width.min(size)) / 2, (size - pixels.height.min(size)) / 2);
    let row = pixels.width as usize * channels;
    let length = size as usize * size as usize * channels;
    let mut data = buffer_pool::with_room(length)?;
    data.resize(length, 255);
    for (index, line) in pixels.data.chunks_exact(row).enumerate() {
        let start = ((top as usize + index) * size as usize + left as usize) * channels;
        data[start..start + row].copy_from_slice(line);
    }
    Ok(Pixels { width: size, height: size, channels, data })
}

/// Crops the central square; of an odd margin the larger half is at the right or bottom.
fn crop(pixels: &Pixels, size: u32) -> Pixels {
    let channels = pixels.channels;
    let (left, top) = ((pixels.width - size) / 2, (pixels.height - size) / 2);
    let row = pixels.width as usize * channels;
    let keep = left as usize * channels..(left + size) as usize * channels;
    let data = pixels
        .data
        .chunks_exact(row)
        .skip(top as usize)
        .take(size as usize)
        .flat_map(|line| &line[keep.clone()])
        .copied()
        .collect();
    Pixels { width: size, height: size, channels, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_img2dataset() {
        let size = |mode: Mode, width, height| mode.plan(width, height, 256, false).unwrap().scaled;
        assert_eq!(size(Mode::KeepRatio, 640, 480), (341, 256));
        assert_eq!(size(Mode::CenterCrop, 480, 640), (256, 341));
        assert_eq!(size(Mode::KeepRatioLargest, 640, 480), (256, 192));
        assert_eq!(size(Mode::Border, 100, 50), (256, 128));
        // 512 x 5 -> 256 x 2.5 -> 2 (half to even), and never nothing.
        assert_eq!(size(Mode::Border, 512, 5), (256, 2));
        assert_eq!(size(Mode::Border, 60_000, 1), (256, 1));
        assert_eq!(Mode::No.plan(640, 480, 256, false), None);
        assert_eq!(Mode::Border.plan(256, 100, 256, true), None);
    }

    #[test]
    fn padding_is_white_and_centred_and_cropping_takes_the_centre() {
        let image = |width, height, data: &[u8]| Pixels { width, height, channels: 1, data: data.to_vec() };
        assert_eq!(pad(&image(2, 1, &[1, 2]), 2).unwrap().data, [1, 2, 255, 255]);
        assert_eq!(pad(&image(3, 1, &[1, 2, 3]), 3).unwrap().data, [255, 255, 255, 1, 2, 3, 255, 255, 255]);
        assert_eq!(crop(&image(4, 1, &[1, 2, 3, 4]), 1).data, [2]);
        assert_eq!(crop(&image(1, 3, &[1, 2, 3]), 1).data, [2]);
    }
}
