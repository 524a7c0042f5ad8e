//! `data:` URLs (RFC 2397), which contain the image themselves.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Failure;

/// As web browsers decode: padding may be missing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes of a `data:` URL, at most `most`; `None` if this is another URL.
pub(super) fn decode(url: &str, most: u64) -> Option<Result<Vec<u8>, Failure>> {
    let url = url.trim_start();
    let content = url.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("data:")).map(|_| &url[5..])?;
    let Some((kind, data)) = content.split_once(',') else { return Some(Err(Failure::BadDataUrl)) };
    let data = data.split('#').next().unwrap_or_default();
    // Decoding makes it shorter.
    if data.len() as u64 / 4 > most {
        return Some(Err(Failure::TooLarge));
    }
    let mut bytes = unescaped(data);
    let encoded =
        kind.trim_end().rsplit(';').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64"));
    if encoded {
        bytes.retain(|byte| !byte.is_ascii_whitespace());
        match BASE64.decode(&bytes) {
            Ok(decoded) => bytes = decoded,
            Err(_) => return Some(Err(Failure::BadDataUrl)),
        }
    }
    Some(match bytes.len() as u64 {
        0 => Err(Failure::Empty),
        length if length > most => Err(Failure::TooLarge),
        _ => Ok(bytes),
    })
}

/// Replaces `%41` by its byte.
fn unescaped(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let (text, mut at) = (text.as_bytes(), 0);
    let mut bytes = Vec::with_capacity(text.len());
    while let Some(&byte) = text.get(at) {
        if byte == b'%'
            && let (Some(high), Some(low)) = (digit(text.get(at + 1)), digit(text.get(at + 2)))
        {
            bytes.push((high * 16 + low) as u8);
            at += 3;
        } else {
            bytes.push(byte);
            at += 1;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_urls_are_decoded() {
        // The last with the escapes that a URL needs, and without padding.
        for url in [
            "data:image/gif;base64,R0lGODlhAQ==",
            " DATA:;BASE64,R0lGODlhAQ==",
            "data:image/gif;charset=x;base64,R0lG ODlh\nAQ",
            "data:image/gif,GIF89a%01",
            "data:;base64,%52%30lGODlhAQ%3D%3D#fragment",
        ] {
            assert_eq!(decode(url, 7).unwrap().unwrap(), b"GIF89a\x01", "{url}");
            assert_eq!(decode(url, 6).unwrap(), Err(Failure::TooLarge), "{url}");
        }
        for url in ["data:image/gif;base64", "data:;base64,R0lG?", "data:;base64,A"] {
            assert_eq!(decode(url, 99).unwrap(), Err(Failure::BadDataUrl), "{url}");
        }
        assert_eq!(decode("data:,", 99).unwrap(), Err(Failure::Empty));
        assert!(decode("https://a.example/data:,x", 99).is_none() && decode("é", 99).is_none());
    }
}
