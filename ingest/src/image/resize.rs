//! The resize modes of img2dataset: which size a picture gets, what is cut off, what is padded.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use super::area;
use super::decode::Pixels;
use crate::sample::Problem;

/// Which side `size` bounds, and how the picture becomes a square, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Longer side to the size, padded with white to a square.
    Border,
    /// Shorter side to the size.
    KeepRatio,
    /// Longer side to the size.
    KeepRatioLargest,
    /// Shorter side to the size, then the square in the centre.
    CenterCrop,
    /// As it is.
    No,
}

/// What will be done to one picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    scaled: (u32, u32),
    shrink: bool,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    Pad(u32),
    Crop(u32),
}

impl Mode {
    /// None: the picture stays as it is.
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
        // Halves to even, as Python rounds; never away.
        let scaled = |side: u32| (f64::from(side) * scale).round_ties_even().max(1.0) as u32;
        let then = match self {
            Self::Border => Then::Pad(size),
            Self::CenterCrop => Then::Crop(size),
            _ => Then::Nothing,
        };
        Some(Plan { scaled: (scaled(width), scaled(height)), shrink, then })
    }
}

impl Plan {
    /// The size that the picture is shrunk to, if it is.
    pub(super) fn shrunk(&self) -> Option<(u32, u32)> {
        self.shrink.then_some(self.scaled)
    }

    /// Pixels of the largest picture made on the way.
    pub(super) fn largest(&self) -> u64 {
        let scaled = u64::from(self.scaled.0) * u64::from(self.scaled.1);
        match self.then {
            Then::Pad(size) => scaled.max(u64::from(size) * u64::from(size)),
            _ => scaled,
        }
    }

    /// To the size that the mode asks for.
    pub(super) fn scale(&self, pixels: Pixels) -> Result<Pixels, Problem> {
        let (width, height) = self.scaled;
        if (pixels.width, pixels.height) == self.scaled {
            Ok(pixels)
        } else if self.shrink {
            area::shrink(pixels, width, height)
        } else {
            enlarge(pixels, width, height)
        }
    }

    /// Padded or cropped to a square, where the mode says so.
    pub(super) fn frame(&self, scaled: Pixels) -> Pixels {
        match self.then {
            Then::Nothing => scaled,
            Then::Pad(size) => pad(&scaled, size),
            Then::Crop(size) => crop(&scaled, size),
        }
    }
}

/// Lanczos with three lobes.
fn enlarge(pixels: Pixels, width: u32, height: u32) -> Result<Pixels, Problem> {
    let data = vec![0; width as usize * height as usize * pixels.channels];
    let mut target = Pixels { width, height, channels: pixels.channels, data };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    resample(&mut Resizer::new(), &pixels, &mut target, &options)?;
    Ok(target)
}

/// Fills `target`, of as many channels as `source`: one (grey) or three.
pub(super) fn resample(
    resizer: &mut Resizer,
    source: &Pixels,
    target: &mut Pixels,
    options: &ResizeOptions,
) -> Result<(), Problem> {
    // For pixel types known at compile time: the compiler would write out every filter for thirteen types otherwise.
    fn of<P: PixelTrait>(
        resizer: &mut Resizer,
        source: &Pixels,
        target: &mut Pixels,
        options: &ResizeOptions,
    ) -> Option<()> {
        let source = TypedImageRef::<P>::from_buffer(source.width, source.height, &source.data).ok()?;
        let mut target = TypedImage::<P>::from_buffer(target.width, target.height, &mut target.data).ok()?;
        resizer.resize_typed(&source, &mut target, options).ok()
    }
    let done = if source.channels == 3 {
        of::<U8x3>(resizer, source, target, options)
    } else {
        of::<U8>(resizer, source, target, options)
    };
    done.ok_or_else(|| Problem::resize("resizing failed"))
}

/// White around, the odd pixel to the right and below.
fn pad(pixels: &Pixels, size: u32) -> Pixels {
    let channels = pixels.channels;
    let (left, top) = ((size - pixels.width.min(size)) / 2, (size - pixels.height.min(size)) / 2);
    let row = pixels.width as usize * channels;
    let mut data = vec![255; size as usize * size as usize * channels];
    for (index, line) in pixels.data.chunks_exact(row).enumerate() {
        let start = ((top as usize + index) * size as usize + left as usize) * channels;
        data[start..start + row].copy_from_slice(line);
    }
    Pixels { width: size, height: size, channels, data }
}

/// The square in the centre; of an odd margin the larger half is right and below.
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
        let picture = |width, height, data: &[u8]| Pixels { width, height, channels: 1, data: data.to_vec() };
        assert_eq!(pad(&picture(2, 1, &[1, 2]), 2).data, [1, 2, 255, 255]);
        assert_eq!(pad(&picture(3, 1, &[1, 2, 3]), 3).data, [255, 255, 255, 1, 2, 3, 255, 255, 255]);
        assert_eq!(crop(&picture(4, 1, &[1, 2, 3, 4]), 1).data, [2]);
        assert_eq!(crop(&picture(1, 3, &[1, 2, 3]), 1).data, [2]);
    }
}
