//! Any bytes as an image file: the result is an image of the expected size, or an error.

use ingest::image::{Encoding, Mode, Settings};
use ingest::rows::Row;

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let [choice, bytes @ ..] = bytes else { return };
    let modes = [Mode::Border, Mode::KeepRatio, Mode::KeepRatioLargest, Mode::CenterCrop, Mode::No];
    let mode = modes[usize::from(choice % 5)];
    // Small limits, because large images would only make the fuzzer slow.
    let settings = Settings {
        mode,
        size: 16,
        only_if_bigger: choice & 0x40 != 0,
        encoding: if choice & 0x80 != 0 { Encoding::Png(1) } else { Encoding::Jpg(90) },
        max_pixels: 1 << 20,
        ..Settings::default()
    };
    let row = Row { boxes: vec![[0.2, 0.2, 0.7, 0.7]], ..Row::default() };
    if let Ok(picture) = settings.process(bytes, &row) {
        assert!(picture.width > 0 && picture.height > 0 && !picture.bytes.is_empty());
        assert!(
            u64::from(picture.original_width) * u64::from(picture.original_height) <= settings.max_pixels
        );
        if matches!(mode, Mode::Border | Mode::CenterCrop) && !settings.only_if_bigger {
            assert_eq!((picture.width, picture.height), (16, 16));
        }
    }
}
