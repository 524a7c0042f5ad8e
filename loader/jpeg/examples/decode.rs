//! How fast photos are decoded: `cargo run --release -p simzss-jpeg --example decode -- FOLDER [PASSES [KIND]]`, where FOLDER
//! has JPEGs. The figures are of the fastest of 3 passes, or PASSES, in millions of stored pixels per second. Kinds:
//!
//! - whole: all pixels, as Pillow decodes them
//! - region: the middle of the image, half of each side
//! - half: at half the size
//! - eighth: at an eighth of the size, which is little more than Huffman decoding

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use jpeg::{Area, Decoder, Limits, Request};

const LIMITS: Limits = Limits { pixels: 100_000_000, memory: 1 << 30, work: 1 << 30, scans: 100 };

fn request(kind: &str, width: u32, height: u32) -> Request {
    let middle =
        Area { left: width / 4, top: height / 4, width: width.div_ceil(2), height: height.div_ceil(2) };
    match kind {
        "region" => Request { area: Some(middle), ..Request::WHOLE },
        "half" => Request { eighths: 4, ..Request::WHOLE },
        "eighth" => Request { eighths: 1, ..Request::WHOLE },
        _ => Request::WHOLE,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("which folder?")?;
    let passes: usize = arguments.next().map_or(Ok(3), |passes| passes.parse())?;
    let only = arguments.next();

    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jpg") {
            files.push(path);
        }
    }
    files.sort();
    let files = files.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;

    let mut decoder = Decoder::new(LIMITS);
    let mut buffer = Vec::new();
    for kind in ["whole", "region", "half", "eighth"] {
        if only.as_ref().is_some_and(|only| only != kind) {
            continue;
        }
        let mut fastest = Duration::MAX;
        let mut stored = 0;
        for _ in 0..passes {
            let started = Instant::now();
            stored = 0;
            for file in &files {
                let decoded = decoder.decode(file, buffer, |width, height| {
                    stored += u64::from(width) * u64::from(height);
                    request(kind, width, height)
                })?;
                buffer = decoded.pixels;
            }
            fastest = fastest.min(started.elapsed());
        }
        println!("{kind:8}{:8.1}", stored as f64 / 1e6 / fastest.as_secs_f64());
    }
    Ok(())
}
