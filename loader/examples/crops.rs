//! Writes decoded photos and their crops, for `tools/bench/pillow.py`, which compares them with Pillow's. Each record
//! is a line, `FILE KIND LEFT TOP WIDTH HEIGHT SIZE BYTES`, and then the pixels.

use std::io::{self, Write};

use loader::images::{CropRegion, Preprocessor, View, centre_crop, decode};
use loader::{Crop, Decoding, ImageSettings, SampleId};

const SIZE: u32 = 224;
const RATIO: (f32, f32) = (3.0 / 4.0, 4.0 / 3.0);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut preprocessor = Preprocessor::default();
    for (number, file) in std::env::args().skip(1).enumerate() {
        let bytes = std::fs::read(&file)?;
        let image = decode(&bytes)?;
        let (width, height) = image.dimensions();
        let mut write = |kind: &str, [left, top, w, h]: [u32; 4], size: u32, pixels: &[u8]| {
            writeln!(out, "{file} {kind} {left} {top} {w} {h} {size} {}", pixels.len())?;
            out.write_all(pixels)
        };
        write("decoded", [0, 0, width, height], 0, &image)?;
        write("centre", [0, 0, width, height], SIZE, &centre_crop(&image, SIZE)?)?;
        for (kind, scale) in [("large", (0.9, 1.0)), ("any", (0.08, 1.0)), ("small", (0.002, 0.02))] {
            let settings = ImageSettings::new(Crop::RandomResized { size: SIZE, scale, ratio: RATIO }, 0.0);
            let sample = SampleId { shard: 0, sample: number as u32 };
            let view = View::choose(&settings, (0, 0, sample), width, height);
            let CropRegion::CropThenResize { left, top, width, height } = view.region else {
                return Err("not cropped before it is resized".into());
            };
            let mut row = vec![0; (SIZE * SIZE * 3) as usize];
            preprocessor.preprocess(&bytes, Decoding::Exact, SIZE, |_, _| view, &mut row)?;
            write(kind, [left, top, width, height], SIZE, &row)?;
        }
    }
    Ok(out.flush()?)
}
