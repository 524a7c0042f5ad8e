//! How much one image may cost ([`crate::images`]). These limits hold wherever an image is decoded: in `ingest`, the loader,
//! `trainer` and its page. Memory is what the decoder and the decoded pixels take.

use jpeg::Limits;

use crate::decode_error::DecodeError;

/// Maximum side of an image, pixels.
const MAX_SIDE: u32 = 65_535;

/// Maximum number of pixels of an image: 512 MiB as RGB. Pillow refuses the same.
const MAX_PIXELS: u64 = (512 << 20) / 3;

/// Maximum memory for decoding an image, bytes, including its pixels.
pub(crate) const MAX_MEMORY: u64 = 1 << 30;

/// Maximum number of samples that the scans of a JPEG visit, over all scans. A progressive photo visits each of its pixels
/// up to 16 times.
const MAX_WORK: u64 = 1 << 30;

/// Maximum number of scans of a JPEG, more than any encoder writes; Chromium stops at the same number.
const MAX_SCANS: u32 = 100;

/// The limits of an image for a decoder of JPEGs.
pub const JPEG_LIMITS: Limits =
    Limits { pixels: MAX_PIXELS, memory: MAX_MEMORY, work: MAX_WORK, scans: MAX_SCANS };

/// Refuses an image by the size in its header.
pub(crate) fn check_size(width: u32, height: u32) -> Result<(), DecodeError> {
    if width == 0 || height == 0 {
        return Err(DecodeError::NoPixels);
    }
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DecodeError::TooLarge(format!(
            "an image of {width} x {height} pixels, which is too large"
        )));
    }
    Ok(())
}

/// Refuses an image that takes `bytes` of memory.
pub(crate) fn check_memory(bytes: u64) -> Result<(), DecodeError> {
    if bytes > MAX_MEMORY {
        let most = MAX_MEMORY >> 20;
        return Err(DecodeError::TooLarge(format!(
            "an image that is too large: decoding it takes more than {most} MB"
        )));
    }
    Ok(())
}

/// Makes room for `additional` values. That there is no memory left is a failure of this image, not of the program.
pub(crate) fn reserve<T>(buffer: &mut Vec<T>, additional: usize) -> Result<(), DecodeError> {
    buffer.try_reserve_exact(additional).map_err(|_| DecodeError::Memory)
}

/// Makes a buffer at least `length` bytes long; new bytes are 0.
pub(crate) fn lengthen(buffer: &mut Vec<u8>, length: usize) -> Result<(), DecodeError> {
    if buffer.len() < length {
        reserve(buffer, length - buffer.len())?;
        buffer.resize(length, 0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_memory_are_limited() {
        assert_eq!(check_size(65_535, 2_730), Ok(()));
        assert!(matches!(check_size(65_535, 2_731), Err(DecodeError::TooLarge(_))));
        assert!(matches!(check_size(65_536, 1), Err(DecodeError::TooLarge(_))));
        assert_eq!(check_size(0, 9), Err(DecodeError::NoPixels));
        assert!(check_memory(MAX_MEMORY).is_ok() && check_memory(MAX_MEMORY + 1).is_err());
    }

    #[test]
    fn memory_that_there_is_not_is_an_error() {
        assert_eq!(lengthen(&mut Vec::new(), isize::MAX as usize), Err(DecodeError::Memory));
        let mut buffer = vec![7; 3];
        assert_eq!(lengthen(&mut buffer, 5), Ok(()));
        assert_eq!(lengthen(&mut buffer, 2), Ok(()));
        assert_eq!(buffer, [7, 7, 7, 0, 0]);
    }
}
