//! Options of image processing: size, file type, filters, hashes.

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
pub(crate) struct ImageOptions {
    /// How to resize images.
    #[arg(long, value_enum, default_value_t = Mode::Border)]
    resize_mode: Mode,
    /// Target size in pixels; --resize-mode says of which side.
    #[arg(long, default_value_t = 256, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=16_384))]
    image_size: u32,
    /// Resize only images that are larger than --image-size; leave smaller ones unchanged.
    #[arg(long)]
    resize_only_if_bigger: bool,
    /// Decode every JPEG at full size, as img2dataset does. By default, a JPEG that is reduced to half its size or less is
    /// decoded directly at 1/2, 1/4 or 1/8 size. That is faster and changes pixel values by 2 to 3 (of 255) on average
    /// (measured on 490 photos of 640 x 480, reduced to 112 to 224 pixels: PSNR 35 dB, worst image 24 dB).
    #[arg(long)]
    exact: bool,
    /// File type of the images in the shards (webp is lossless).
    #[arg(long, value_enum, default_value_t = FileType::Jpg)]
    encode_format: FileType,
    /// jpg: quality 1-100 [default: 95]; png: compression level 0-9 [default: 6]
    #[arg(long, value_name = "QUALITY")]
    encode_quality: Option<u8>,
    /// Store the original file when it already has the output file type and needs no change.
    #[arg(long)]
    skip_reencode: bool,
    /// Do not rotate images by their EXIF orientation (img2dataset does not).
    #[arg(long)]
    ignore_orientation: bool,
    /// Reject images whose shorter side has fewer pixels.
    #[arg(long, default_value_t = 0, value_name = "PIXELS")]
    min_image_size: u32,
    /// Reject images with more pixels (width x height).
    #[arg(long, value_name = "PIXELS")]
    max_image_area: Option<u64>,
    /// Reject images whose longer side is more than this many times the shorter side.
    #[arg(long, value_name = "RATIO")]
    max_aspect_ratio: Option<f64>,
    /// Reject images whose header declares more pixels, before decoding them (decompression-bomb limit), and images that
    /// resizing would make larger. Decoding takes 3 bytes of memory per pixel and thread.
    #[arg(long, default_value_t = 100_000_000, value_name = "PIXELS")]
    max_pixels: u64,
    /// Hash of the original file, stored in the tables and .json files.
    #[arg(long, value_enum, default_value_t = Hash::Sha256)]
    compute_hash: Hash,
    /// Write no NNNNN.hash.parquet: neither perceptual hashes of the images nor languages of the captions. The hashes take up to
    /// half of the time of the cores when images are stored as they are; `ingest hash` can make them later.
    #[arg(long)]
    no_perceptual_hash: bool,
}

impl ImageOptions {
    pub(crate) fn settings(&self, columns: &Columns) -> Result<image::Settings, Error> {
        if columns.verify_hash.is_some() && self.compute_hash == Hash::None {
            let problem = "--verify-hash needs a hash: set --compute-hash to md5, sha256 or sha512";
            return Err(Error::Usage(problem.to_owned()));
        }
        let bad = |problem: &str| Err(Error::Usage(format!("--encode-quality: {problem}")));
        let encoding = match (self.encode_format, self.encode_quality) {
            (FileType::Jpg, quality) => match quality.unwrap_or(95) {
                quality @ 1..=100 => Encoding::Jpg(quality),
                _ => return bad("jpg takes a quality from 1 to 100"),
            },
            (FileType::Png, level) => match level.unwrap_or(6) {
                level @ 0..=9 => Encoding::Png(level),
                _ => return bad("png takes a compression level from 0 to 9"),
            },
            (FileType::Webp, None) => Encoding::Webp,
            (FileType::Webp, Some(_)) => return bad("webp is lossless and takes no quality"),
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
            perceptual_hash: !self.no_perceptual_hash,
        })
    }
}
