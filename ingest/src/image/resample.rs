//! Computes pixels in another size, with a filter.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{PixelTrait, ResizeOptions, Resizer};

use super::pixels::Pixels;
use crate::problem::Problem;

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
