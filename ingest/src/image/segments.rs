//! The header of a JPEG: size, number of channels, EXIF. Reads the markers as libjpeg does, which decodes the pixels later,
//! and copies nothing.

use crate::sample::Problem;

const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;
/// "APP1", the segment of EXIF.
const APPLICATION_1: u8 = 0xe1;

/// What comes before the EXIF block in its segment.
pub(super) const EXIF_PREFIX: &[u8] = b"Exif\0\0";

/// The header: what comes before the first scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segments<'a> {
    /// Width and height as stored.
    pub(super) size: (u32, u32),
    /// Whether the image has one channel.
    pub(super) grey: bool,
    /// The first EXIF block, starting with its TIFF header.
    pub(super) exif: Option<&'a [u8]>,
}

impl<'a> Segments<'a> {
    /// Reads up to the first scan.
    pub(super) fn read(jpeg: &'a [u8]) -> Result<Self, Problem> {
        let problem = |what| Err(Problem::resize(format!("Image decoding error: {what}")));
        let mut rest = jpeg.get(2..).unwrap_or_default();
        let (mut frame, mut exif) = (None, None);
        loop {
            let Some((marker, after)) = next_marker(rest) else { return problem("the file is truncated") };
            // These markers have no length.
            if matches!(marker, 0x01 | 0xd0..=0xd8) {
                rest = after;
                continue;
            }
            if marker == END_OF_IMAGE {
                return problem("damaged");
            }
            let Some((length, _)) = after.split_first_chunk() else {
                return problem("the file is truncated");
            };
            // The length includes its own two bytes.
            let length = usize::from(u16::from_be_bytes(*length)).max(2);
            let Some((segment, after)) = after.split_at_checked(length) else {
                return problem("the file is truncated");
            };
            let content = &segment[2..];
            match marker {
                START_OF_SCAN => {
                    // The end marker cannot occur inside a scan, so a file without it is truncated. (The decoder would
                    // fill the missing part with grey and report success.)
                    if !after.windows(2).rev().any(|pair| pair == [0xff, END_OF_IMAGE]) {
                        return problem("the file is truncated");
                    }
                    break;
                }
                APPLICATION_1 => exif = exif.or_else(|| content.strip_prefix(EXIF_PREFIX)),
                // "SOF" (start of frame), except three numbers of the range that have other meanings.
                0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => frame = frame.or(Some(content)),
                _ => {}
            }
            rest = after;
        }
        match frame {
            Some(&[8, h1, h0, w1, w0, channels, ..]) => {
                let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
                Ok(Self { size: (side(w1, w0), side(h1, h0)), grey: channels == 1, exif })
            }
            Some(&[_, _, _, _, _, _, ..]) => problem("unsupported variant of the file format"),
            _ => problem("damaged"),
        }
    }
}

/// The next marker, skipping other bytes, and the bytes after it.
fn next_marker(mut rest: &[u8]) -> Option<(u8, &[u8])> {
    loop {
        let start = rest.iter().position(|&byte| byte == 0xff)?;
        // Any number of 0xff bytes may precede a marker.
        let code = start + rest[start..].iter().position(|&byte| byte != 0xff)?;
        let (marker, after) = (rest[code], &rest[code + 1..]);
        if marker != 0 {
            return Some((marker, after));
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with the given segments and a scan of two bytes.
    fn jpeg(segments: &[(u8, &[u8])]) -> Vec<u8> {
        let mut file = vec![0xff, 0xd8];
        for (marker, content) in segments {
            file.extend([0xff, *marker]);
            file.extend((content.len() as u16 + 2).to_be_bytes());
            file.extend(*content);
        }
        file.extend([0xff, 0xda, 0, 2, 1, 2, 0xff, 0xd9]);
        file
    }

    fn cause(file: &[u8]) -> String {
        Segments::read(file).unwrap_err().cause
    }

    #[test]
    fn size_channels_and_the_first_exif_are_found() {
        let frame = [8, 1, 0, 2, 3, 1, 9, 9, 9];
        let file = jpeg(&[
            (0xe1, b"http://ns.adobe.com/"),
            (0xe1, b"Exif\0\0II"),
            (0xe1, b"Exif\0\0MM"),
            (0xc2, &frame),
        ]);
        let found = Segments::read(&file).unwrap();
        assert_eq!(found, Segments { size: (515, 256), grey: true, exif: Some(b"II") });
        // Garbage and fill bytes between segments.
        let mut odd = file[..2].to_vec();
        odd.extend([3, 0xff, 0, 7, 0xff, 0xff]);
        odd.extend(&file[2..]);
        assert_eq!(Segments::read(&odd).unwrap(), found);
    }

    #[test]
    fn every_truncated_file_is_detected() {
        // The end marker of a thumbnail is not the end of the file.
        let file = jpeg(&[(0xe1, b"Exif\0\0\xff\xd8\xff\xd9"), (0xc0, &[8, 0, 1, 0, 1, 3])]);
        Segments::read(&file).unwrap();
        for length in 0..file.len() {
            assert!(cause(&file[..length]).ends_with("truncated"), "{length} bytes");
        }
    }

    #[test]
    fn undecodable_files_have_a_cause() {
        assert!(cause(&jpeg(&[(0xc4, &[8, 0, 1, 0, 1, 3])])).ends_with("damaged"), "no frame");
        assert!(cause(&jpeg(&[(0xc0, &[8, 0, 1])])).ends_with("damaged"), "incomplete frame");
        assert!(cause(&jpeg(&[(0xc0, &[12, 0, 1, 0, 1, 3])])).contains("unsupported"), "12 bits per channel");
        assert!(cause(&[0xff, 0xd8, 0xff, 0xd9]).ends_with("damaged"), "no segments");
    }
}
