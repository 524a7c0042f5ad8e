//! The EXIF block of a WebP file.

/// The `EXIF` chunk, as far as it is in the file. (The decoder of pixels allocates what the chunk claims to have.)
pub(super) fn exif(file: &[u8]) -> Option<&[u8]> {
    // "RIFF", the length of the file, "WEBP"; then chunks: name, length, data, padded to an even length.
    let mut rest = file.get(12..)?;
    while let [a, b, c, d, l0, l1, l2, l3, after @ ..] = rest {
        let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
        let data = &after[..length.min(after.len())];
        if [*a, *b, *c, *d] == *b"EXIF" {
            return Some(data);
        }
        rest = after.get(length.checked_next_multiple_of(2)?..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::exif;

    #[test]
    fn the_chunk_is_found_and_never_exceeds_the_file() {
        let file = |claimed: u32| {
            let mut file = b"RIFF\0\0\0\0WEBPVP8X\x03\0\0\0abc\0EXIF".to_vec();
            file.extend(claimed.to_le_bytes());
            file.extend(b"II*\0more");
            file
        };
        assert_eq!(exif(&file(4)), Some(&b"II*\0"[..]));
        assert_eq!(exif(&file(u32::MAX)), Some(&b"II*\0more"[..]));
        assert_eq!(exif(b"RIFF\0\0\0\0WEBPVP8X\xff\xff\xff\xff"), None);
        assert_eq!(exif(b"RIFF"), None);
    }
}
