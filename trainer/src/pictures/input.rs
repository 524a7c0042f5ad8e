//! Input images: finds the files, and decodes them upright and within limits.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use disk::foreign_files::{is_hidden_entry, read_regular};
use image::RgbImage;
use loader::images::{EXTENSIONS, ImageFile, to_rgb, upright};

use crate::error::{Error, Result, reading};

/// Limits for an image, checked before it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of the file in bytes.
    pub bytes: u64,
    /// Maximum number of pixels, according to the header of the file.
    pub pixels: u64,
    /// Maximum ratio of the long side to the short side.
    pub ratio: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 256 << 20, pixels: 150_000_000, ratio: 20 }
    }
}

impl Limits {
    fn check(&self, width: u32, height: u32) -> std::result::Result<(), String> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.pixels {
            let millions = |pixels: u64| pixels as f64 / 1e6;
            return Err(format!(
                "has {width} x {height} pixels, {:.0} million; the limit is {:.0} million",
                millions(pixels),
                millions(self.pixels)
            ));
        }
        let (short, long) = (width.min(height), width.max(height));
        if short == 0 || long > self.ratio * short {
            return Err(format!(
                "is too narrow, {width} x {height} pixels; one side may be at most {} times as long as the other",
                self.ratio
            ));
        }
        Ok(())
    }
}

/// Decodes an image of any [`Format`](loader::images::Format) and applies its EXIF orientation.
///
/// # Errors
/// Why this cannot be decoded, as the rest of a sentence. Sizes are checked in the header, before decoding.
pub fn photograph(bytes: &[u8], limits: &Limits) -> std::result::Result<RgbImage, String> {
    if bytes.len() as u64 > limits.bytes {
        return Err(format!("is larger than {} MB", limits.bytes >> 20));
    }
    let unreadable = |refusal| format!("is not an image that can be read: {refusal}");
    let file = ImageFile::open(bytes).map_err(unreadable)?;
    let (width, height) = file.size;
    limits.check(width, height)?;
    let orientation = file.orientation();
    let picture = file.decode().and_then(|image| upright(image, orientation)).and_then(to_rgb);
    picture.map_err(unreadable)
}

/// Reads an image file with [`photograph`] and the default limits.
pub fn read(path: &Path) -> Result<RgbImage> {
    let limits = Limits::default();
    let too_large = || format!("is larger than {} MB", limits.bytes >> 20);
    let decoded = if storage::Location::from(path).is_remote() {
        let file = storage::Source::open(path)?;
        if file.len() > limits.bytes {
            Err(too_large())
        } else {
            photograph(&file.read(0, file.len())?, &limits)
        }
    } else {
        match read_regular(path, limits.bytes) {
            Ok(bytes) => photograph(&bytes, &limits),
            Err(error) if error.kind() == ErrorKind::FileTooLarge => Err(too_large()),
            Err(error) => return Err(reading(path)(error)),
        }
    };
    decoded.map_err(|problem| Error::Invalid { path: path.to_owned(), problem })
}

/// The image files of some inputs: files, folders (the image files directly in them), and patterns such as
/// `photos/**/*.jpg`, on disk or at addresses. Each file appears once; the files of an input are sorted by name.
pub fn list(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for input in inputs {
        let mut found = if storage::Location::from(input).is_remote() {
            remote(input)?
        } else if input.is_dir() {
            let entries = fs::read_dir(input).map_err(reading(input))?;
            let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| entry.map(|e| e.path())).collect();
            paths
                .map_err(reading(input))?
                .into_iter()
                .filter(|path| is_picture(path) && !is_hidden_entry(path))
                .collect()
        } else if input.exists() {
            vec![input.clone()]
        } else {
            matches(input)?
        };
        let is_folder = input.is_dir() || storage::Location::from(input).is_remote();
        if found.is_empty() && is_folder {
            let problem = "contains no images (jpg, png, webp, gif, bmp, tiff)".to_owned();
            return Err(Error::Invalid { path: input.clone(), problem });
        }
        if found.is_empty() {
            return Err(Error::Missing { path: input.clone() });
        }
        found.sort();
        out.extend(found.into_iter().filter(|path| seen.insert(path.clone())));
    }
    Ok(out)
}

/// The images at an address: a file, a folder, or a pattern.
fn remote(input: &Path) -> Result<Vec<PathBuf>> {
    let text = input.to_string_lossy();
    if let Some(special) = text.find(['*', '?', '[']) {
        let invalid = |e: glob::PatternError| Error::Invalid {
            path: input.to_owned(),
            problem: format!("is not a valid pattern: {e}"),
        };
        let pattern = glob::Pattern::new(&text).map_err(invalid)?;
        let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
        let below = text[..special].rsplit_once('/').map_or("", |(folder, _)| folder);
        let files = storage::list_all(Path::new(below))?.into_iter().map(PathBuf::from);
        return Ok(files
            .filter(|file| pattern.matches_path_with(file, options) && is_picture(file))
            .collect());
    }
    if is_picture(input) {
        return Ok(vec![input.to_owned()]);
    }
    let files = storage::list(input)?.into_iter().map(PathBuf::from);
    Ok(files.filter(|path| is_picture(path) && !is_hidden_entry(path)).collect())
}

fn matches(pattern: &Path) -> Result<Vec<PathBuf>> {
    let invalid = |problem: String| Error::Invalid { path: pattern.to_owned(), problem };
    let text = pattern.to_str().ok_or_else(|| invalid("is not valid UTF-8".to_owned()))?;
    let paths = glob::glob(text).map_err(|e| invalid(format!("is not a valid pattern: {e}")))?;
    Ok(paths.flatten().filter(|path| path.is_file() && is_picture(path)).collect())
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use image::Rgb;

    fn png(picture: &RgbImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn files_folders_and_patterns() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("deep")).unwrap();
        for name in ["b.jpg", "a.PNG", "notes.txt", "deep/c.webp"] {
            fs::write(at(name), b"").unwrap();
        }
        assert_eq!(list(&[folder.path().to_owned()]).unwrap(), [at("a.PNG"), at("b.jpg")]);
        assert_eq!(list(&[at("**/*.webp"), at("deep")]).unwrap(), [at("deep/c.webp")]);
        assert_eq!(list(&[at("b.jpg"), at("*")]).unwrap(), [at("b.jpg"), at("a.PNG")]);
        assert!(list(&[at("*.gif")]).unwrap_err().to_string().contains("*.gif"));
        assert!(list(&[at("gone.jpg")]).unwrap_err().to_string().contains("gone.jpg"));
    }

    #[test]
    fn sizes_are_refused_by_the_header() {
        let limits = Limits { pixels: 1000, ratio: 4, ..Limits::default() };
        let refused = |picture: &RgbImage| photograph(&png(picture), &limits).unwrap_err();
        assert!(refused(&RgbImage::new(40, 30)).contains("40 x 30"));
        assert!(refused(&RgbImage::new(50, 10)).contains("narrow"));
        assert_eq!(photograph(&png(&RgbImage::new(30, 20)), &limits).unwrap().dimensions(), (30, 20));
        // A header that claims 60,000 x 60,000 pixels.
        let mut bomb = png(&RgbImage::new(8, 8));
        bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        assert!(photograph(&bomb, &Limits::default()).is_err());
        assert!(photograph(b"GIF89a and more", &limits).is_err());
        assert!(photograph(b"", &limits).unwrap_err().contains("0 bytes"));
    }

    #[test]
    fn photographs_of_turned_cameras_stand_upright() {
        // Left half red, right half blue; orientation 6 means: rotate clockwise, then red is at the top.
        let picture =
            RgbImage::from_fn(32, 16, |x, _| if x < 16 { Rgb([250, 0, 0]) } else { Rgb([0, 0, 250]) });
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
        let jpeg = bytes.into_inner();
        // Little-endian TIFF with one entry: tag 0x0112, SHORT, one value, 6.
        let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let mut turned = jpeg[..2].to_vec();
        turned.extend([0xFF, 0xE1, 0, exif.len() as u8 + 2]);
        turned.extend(exif);
        turned.extend(&jpeg[2..]);
        let upright = photograph(&turned, &Limits::default()).unwrap();
        assert_eq!(upright.dimensions(), (16, 32));
        assert!(upright.get_pixel(8, 4).0[0] > 200 && upright.get_pixel(8, 28).0[2] > 200);
    }
}
