//! The header of a JPEG: size, number of channels, EXIF. Reads the markers as libjpeg does, which decodes the pixels later,
//! and copies nothing.

use super::{DecodeError, EXIF_PREFIX};

const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;
/// "APP1", the segment of EXIF.
const APPLICATION_1: u8 = 0xe1;

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
    pub(super) fn read(jpeg: &'a [u8]) -> Result<Self, DecodeError> {
        let (mut frame, mut exif) = (None, None);
        let mut rest = jpeg.get(2..).unwrap_or_default();
        loop {
            let (marker, content) = next_segment(&mut rest)?;
            match marker {
                START_OF_SCAN => {
                    // The end marker cannot occur inside a scan, so a file without it is truncated. (The decoder would
                    // fill the missing part with grey and report success.)
                    if !rest.windows(2).rev().any(|pair| pair == [0xff, END_OF_IMAGE]) {
                        return Err(DecodeError::Truncated);
                    }
                    break;
                }
                APPLICATION_1 => exif = exif.or_else(|| content.strip_prefix(EXIF_PREFIX)),
                marker if is_frame(marker) => frame = frame.or(Some(content)),
                _ => {}
            }
        }
        let (size, grey) = size_of(frame.unwrap_or_default())?;
        Ok(Self { size, grey, exif })
    }

    /// Width and height, from the first bytes of a file.
    pub(super) fn size(start: &[u8]) -> Result<(u32, u32), DecodeError> {
        let mut rest = start.get(2..).unwrap_or_default();
        loop {
            match next_segment(&mut rest)? {
                (START_OF_SCAN, _) => return Err(damaged("it has no size")),
                (marker, content) if is_frame(marker) => return Ok(size_of(content)?.0),
                _ => {}
            }
        }
    }
}

fn damaged(how: &str) -> DecodeError {
    DecodeError::Damaged(format!("a damaged JPEG: {how}"))
}

/// "SOF" (start of frame): all markers of their range but three that have other meanings.
fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc)
}

/// Width and height, and whether there is one channel, from the content of a frame's segment.
fn size_of(frame: &[u8]) -> Result<((u32, u32), bool), DecodeError> {
    match *frame {
        [8, h1, h0, w1, w0, channels, ..] => {
            let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
            Ok(((side(w1, w0), side(h1, h0)), channels == 1))
        }
        [_, _, _, _, _, _, ..] => Err(DecodeError::Variant),
        _ => Err(damaged("it has no size")),
    }
}

/// The marker and the content of the next segment; `rest` is then what follows it.
fn next_segment<'a>(rest: &mut &'a [u8]) -> Result<(u8, &'a [u8]), DecodeError> {
    loop {
        let (marker, after) = next_marker(rest).ok_or(DecodeError::Truncated)?;
        // These markers have no length.
        if matches!(marker, 0x01 | 0xd0..=0xd8) {
            *rest = after;
            continue;
        }
        if marker == END_OF_IMAGE {
            return Err(damaged("it ends before its pixels"));
        }
        let (length, _) = after.split_first_chunk().ok_or(DecodeError::Truncated)?;
        // The length includes its own two bytes.
        let length = usize::from(u16::from_be_bytes(*length)).max(2);
        let (segment, after) = after.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        *rest = after;
        return Ok((marker, &segment[2..]));
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
        Segments::read(file).unwrap_err().kind()
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
