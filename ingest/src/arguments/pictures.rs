//! What happens to pictures.

use clap::{Args, ValueEnum};
use ingest::Error;
use ingest::image::{self, Encoding, Hash, Mode};

use super::Columns;

#[derive(Clone, Copy, ValueEnum)]
enum FileType {
    Jpg,
    Png,
    Webp,
}

#[derive(Args)]
#[allow(clippy::struct_excessive_bools)] // Each is an option of its own.
pub(crate) struct Pictures {
    /// What happens to the picture's size.
    #[arg(long, value_enum, default_value_t = Mode::Border)]
    resize_mode: Mode,
    /// Pixels of the side that the mode speaks of.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    image_size: u32,
    /// Leaves smaller pictures as they are.
    #[arg(long)]
    resize_only_if_bigger: bool,
    /// Decodes every JPEG at full size, as img2dataset does. Without it those that are shrunk to half or less are decoded
    /// at a half, a quarter or an eighth of their size, which saves most of the work behind unpacking and changes values
    /// by 2 to 3 of 255 on average (490 photographs of 640 x 480 at 112 to 224 pixels: PSNR 35 dB, the worst 24).
    #[arg(long)]
    exact: bool,
    /// File type in the shards (webp: without loss).
    #[arg(long, value_enum, default_value_t = FileType::Jpg)]
    encode_format: FileType,
    /// jpg: quality 1-100 [default: 95]; png: compression 0-9 [default: 6]
    #[arg(long)]
    encode_quality: Option<u8>,
    /// Keeps the original file when it has that type already and nothing had to change.
    #[arg(long)]
    skip_reencode: bool,
    /// Leaves pictures as the camera's sensor saw them, as img2dataset does.
    #[arg(long)]
    ignore_orientation: bool,
    /// Turns away pictures with a shorter side of fewer pixels.
    #[arg(long, default_value_t = 0, value_name = "PIXELS")]
    min_image_size: u32,
    /// Turns away pictures of more pixels.
    #[arg(long, value_name = "PIXELS")]
    max_image_area: Option<u64>,
    /// Turns away pictures that are longer than this many times their other side.
    #[arg(long, value_name = "RATIO")]
    max_aspect_ratio: Option<f64>,
    /// Never decodes pictures that claim more pixels, nor makes them: 3 bytes a pixel and thread is the memory it takes.
    #[arg(long, default_value_t = 100_000_000, value_name = "PIXELS")]
    max_pixels: u64,
    /// Hash of the original bytes in tables and JSON members.
    #[arg(long, value_enum, default_value_t = Hash::Sha256)]
    compute_hash: Hash,
}

impl Pictures {
    pub(crate) fn settings(&self, columns: &Columns) -> Result<image::Settings, Error> {
        if columns.verify_hash.is_some() && self.compute_hash == Hash::None {
            let problem = "--verify-hash compares with --compute-hash, which must not be none";
            return Err(Error::Usage(problem.to_owned()));
        }
        let bad = |problem: &str| Err(Error::Usage(format!("--encode-quality: {problem}")));
        let encoding = match (self.encode_format, self.encode_quality) {
            (FileType::Jpg, quality) => match quality.unwrap_or(95) {
                quality @ 1..=100 => Encoding::Jpg(quality),
                _ => return bad("jpg takes 1 to 100"),
            },
            (FileType::Png, level) => match level.unwrap_or(6) {
                level @ 0..=9 => Encoding::Png(level),
                _ => return bad("png takes 0 to 9, the effort of compressing"),
            },
            (FileType::Webp, None) => Encoding::Webp,
            (FileType::Webp, Some(_)) => return bad("webp is written without loss"),
        };
        Ok(image::Settings {
            mode: self.resize_mode,
            size: self.image_size,
            only_if_bigger: self.resize_only_if_bigger,
            exact: self.exact,
            encoding,
            skip_reencode: self.skip_reencode,
            ignore_orientation: self.ignore_orientation,
            min_side: self.min_image_size,
            max_area: self.max_image_area,
            max_aspect: self.max_aspect_ratio,
            max_pixels: self.max_pixels,
            hash: self.compute_hash,
            blur: columns.blur_bbox_col.clone(),
        })
    }
}
