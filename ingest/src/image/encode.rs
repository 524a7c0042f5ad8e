//! The output file types.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use serde::{Deserialize, Serialize};

use super::pixels::Pixels;
use crate::problem::Problem;

/// File type of the images in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// JPEG with quality 1 to 100.
    Jpg(u8),
    /// PNG with compression level 0 to 9.
    Png(u8),
    /// Lossless WebP.
    Webp,
}

impl Encoding {
    /// File extension of the images in the tar.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpg(_) => "jpg",
            Self::Png(_) => "png",
            Self::Webp => "webp",
        }
    }

    pub(super) fn encode(self, pixels: &Pixels) -> Result<Vec<u8>, Problem> {
        let color = if pixels.channels == 3 { ExtendedColorType::Rgb8 } else { ExtendedColorType::L8 };
        let (data, width, height) = (pixels.data.as_slice(), pixels.width, pixels.height);
        let mut bytes = Vec::with_capacity(data.len() / 4);
        match self {
            Self::Jpg(quality) => {
                return loader::jpeg::encode(data, width, height, quality)
                    .map_err(|_| Problem::resize("cannot be encoded as jpg"));
            }
            Self::Png(level) => {
                let compression = CompressionType::Level(level);
                PngEncoder::new_with_quality(&mut bytes, compression, FilterType::Adaptive)
                    .write_image(data, width, height, color)
            }
            Self::Webp => WebPEncoder::new_lossless(&mut bytes).write_image(data, width, height, color),
        }
        .map_err(|_| Problem::resize(format!("cannot be encoded as {}", self.extension())))?;
        Ok(bytes)
    }
}
