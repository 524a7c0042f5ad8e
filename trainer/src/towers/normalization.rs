//! How the images of a vision tower are normalized.

/// How the channels of an image (red, green, blue; values 0 to 1) are normalized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    /// Subtracted.
    pub mean: [f64; 3],
    /// Divided by after that.
    pub std: [f64; 3],
}

impl Normalization {
    /// The mean and standard deviation of ImageNet.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// The statistics with which OpenAI's CLIP was trained.
    pub const CLIP: Self = Self {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
    };
}
