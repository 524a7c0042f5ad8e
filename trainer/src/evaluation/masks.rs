//! Reads masks as the datasets publish them, and converts their values to labels.

use std::io::Cursor;
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use super::confusion::IGNORED;
use crate::error::{Error, Result};

/// Maximum memory for decoding a mask: far more than any published mask needs.
const DECODER_MEMORY: usize = 512 << 20;

/// The meaning of the values in a mask, as the usual tools for each dataset convert them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// Class indices; 255 does not count (PASCAL VOC, and prepared masks of any dataset).
    Indices,
    /// 0 is "other" and does not count; class i is stored as i + 1 (ADE20K).
    FromOne,
    /// The raw ids of COCO-Stuff: 0 to 181, of which 171 are in use; 255 is unlabelled.
    CocoStuff,
    /// COCO-Object from the same raw ids, as GroupViT's converter: the 80 thing classes from 1 on; everything else, including
    /// unlabelled pixels, is background.
    CocoObject,
    /// The label ids of Cityscapes, of which 19 are evaluated.
    Cityscapes,
    /// Class indices; the first value after the classes is "unlabelled" (CamVid).
    LastUnlabelled,
}

/// Raw ids of COCO-Stuff (label id - 1) that are not used in the 2017 release.
const COCO_UNUSED: [u8; 11] = [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90];
/// The first raw id of a stuff class in COCO-Stuff.
const COCO_STUFF: u8 = 91;
/// Label ids of Cityscapes that have a training id, in the order of the training ids.
const CITYSCAPES: [u8; 19] = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33];
/// Highest label id of Cityscapes. (The licence plate has id -1, stored as 255.)
const CITYSCAPES_LAST: u8 = 33;

/// For each value in a mask: a class index, [`IGNORED`], or `None` for values that must not occur.
pub type Table = [Option<u8>; 256];

impl Conversion {
    /// The table for a dataset with `classes` classes.
    pub fn table(self, classes: usize) -> Table {
        let mut table = [None; 256];
        table[usize::from(IGNORED)] = Some(IGNORED);
        let count = classes.min(255);
        match self {
            Self::Indices => (0..count).for_each(|class| table[class] = Some(class as u8)),
            Self::LastUnlabelled => {
                (0..count).for_each(|class| table[class] = Some(class as u8));
                table[count] = Some(IGNORED);
            }
            Self::FromOne => {
                table[0] = Some(IGNORED);
                (0..count.min(254)).for_each(|class| table[class + 1] = Some(class as u8));
            }
            Self::CocoStuff | Self::CocoObject => {
                let used = (0..=181u8).filter(|id| !COCO_UNUSED.contains(id));
                for (class, id) in used.enumerate() {
                    let value = match self {
                        Self::CocoStuff => class as u8,
                        _ if id < COCO_STUFF => class as u8 + 1,
                        _ => 0,
                    };
                    table[usize::from(id)] = Some(value);
                }
                if self == Self::CocoObject {
                    table[usize::from(IGNORED)] = Some(0);
                }
            }
            Self::Cityscapes => {
                (0..=CITYSCAPES_LAST).for_each(|id| table[usize::from(id)] = Some(IGNORED));
                for (class, id) in CITYSCAPES.iter().enumerate() {
                    table[usize::from(*id)] = Some(class as u8);
                }
            }
        }
        table
    }
}

/// The same table, where class 0, background, does not count, and the other indices are one lower.
pub fn without_background(table: &Table) -> Table {
    table.map(|value| match value {
        Some(0) => Some(IGNORED),
        Some(class) if class != IGNORED => Some(class - 1),
        other => other,
    })
}

/// One label per pixel, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The labels.
    pub labels: Vec<u8>,
}

/// Reads a PNG of indices, greyscale or with a palette (its colours are ignored), and converts its values.
pub fn read(path: &Path, table: &Table) -> Result<Mask> {
    let mut mask = read_indices(path)?;
    for label in &mut mask.labels {
        *label = table[usize::from(*label)].ok_or_else(|| Error::Invalid {
            path: path.to_owned(),
            problem: format!("has a pixel of value {label}, which is not a class of this dataset"),
        })?;
    }
    Ok(mask)
}

/// The values as they are stored.
pub(super) fn read_indices(path: &Path) -> Result<Mask> {
    let invalid = |problem: String| Error::Invalid { path: path.to_owned(), problem };
    let unreadable = |e: png::DecodingError| invalid(format!("cannot be decoded as PNG: {e}"));
    let file = Cursor::new(storage::read(path)?);
    let mut decoder = Decoder::new_with_limits(file, Limits { bytes: DECODER_MEMORY });
    // Palette indices instead of colours; values of less than 8 bits stay packed.
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(unreadable)?;
    let (colour, depth) = reader.output_color_type();
    let bits = match depth {
        _ if !matches!(colour, ColorType::Grayscale | ColorType::Indexed) => None,
        BitDepth::One => Some(1),
        BitDepth::Two => Some(2),
        BitDepth::Four => Some(4),
        BitDepth::Eight => Some(8),
        BitDepth::Sixteen => None,
    };
    let Some(bits) = bits else {
        let is = format!("is {colour:?} with {depth:?} bits");
        return Err(invalid(format!("{is}; a mask must have one channel of class indices, up to 8 bits")));
    };
    let size = reader.output_buffer_size().filter(|&size| size <= DECODER_MEMORY);
    let mut bytes = vec![0; size.ok_or_else(|| invalid("is too large for a mask".to_owned()))?];
    let info = reader.next_frame(&mut bytes).map_err(unreadable)?;
    let (width, height) = (info.width, info.height);
    let labels = match bits {
        8 => {
            bytes.truncate(width as usize * height as usize);
            bytes
        }
        _ => bytes
            .chunks(info.line_size)
            .take(height as usize)
            .flat_map(|row| unpack(row, bits, width))
            .collect(),
    };
    Ok(Mask { width, height, labels })
}

/// The values of a packed row; the first value is in the highest bits.
fn unpack(row: &[u8], bits: usize, width: u32) -> impl Iterator<Item = u8> + '_ {
    let each = 8 / bits;
    (0..width as usize).map(move |x| {
        let byte = u32::from(row[x / each]) << (bits * (x % each)) & 0xFF;
        (byte >> (8 - bits)) as u8
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn packed_rows_are_unpacked() {
        assert_eq!(unpack(&[0b1011_0001], 1, 8).collect::<Vec<_>>(), [1, 0, 1, 1, 0, 0, 0, 1]);
        assert_eq!(unpack(&[0b1011_0001, 0b0100_0000], 2, 5).collect::<Vec<_>>(), [2, 3, 0, 1, 1]);
        assert_eq!(unpack(&[0xA7, 0x30], 4, 3).collect::<Vec<_>>(), [10, 7, 3]);
    }

    #[test]
    fn a_palette_is_ignored_and_wrong_values_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        let mut encoder = png::Encoder::new(File::create(&path).unwrap(), 3, 1);
        encoder.set_color(ColorType::Indexed);
        encoder.set_palette([9, 9, 9, 200, 0, 0].repeat(128));
        encoder.write_header().unwrap().write_image_data(&[0, 2, 255]).unwrap();
        let mask = read(&path, &Conversion::Indices.table(3)).unwrap();
        assert_eq!((mask.width, mask.height, mask.labels), (3, 1, vec![0, 2, 255]));
        let mask = read(&path, &without_background(&Conversion::Indices.table(3))).unwrap();
        assert_eq!(mask.labels, [255, 1, 255]);
        let error = read(&path, &Conversion::Indices.table(2)).unwrap_err().to_string();
        assert!(error.contains("mask.png") && error.contains("value 2"), "{error}");
    }
}
