//! What taggers need of the letters of a word, computed in one pass.

/// The letters of a word, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Letters {
    /// Hash of the word, with digits replaced by 0.
    pub(crate) hash: u32,
    /// The last four bytes, with digits replaced by 0; the upper bytes are 0 if the word is shorter.
    pub(crate) suffix: u32,
    /// The first two bytes, the kinds of characters, and the length up to eight.
    pub(crate) shape: u32,
}

impl Letters {
    #[inline]
    pub(crate) fn of(word: &str) -> Self {
        let bytes = word.as_bytes();
        if (1..=8).contains(&bytes.len())
            && let (eight, 16) = block(bytes)
        {
            return Self::of_block(eight, bytes.len());
        }
        Self::of_any(bytes)
    }

    /// Of the bytes `start..end` of a text. Faster than [`Letters::of`], because the bytes around the word are read too.
    #[inline]
    pub(crate) fn within(text: &str, start: usize, end: usize) -> Self {
        let (bytes, length) = (text.as_bytes(), end.wrapping_sub(start));
        if (1..=8).contains(&length) {
            let shift = 64 - 8 * length;
            let around = |eight: &[u8; 8]| u64::from_be_bytes(*eight);
            let before = bytes.get(..end).and_then(<[u8]>::last_chunk).map(|it| around(it) << shift >> shift);
            let after = || Some(around(bytes.get(start..)?.first_chunk()?) >> shift);
            if let Some(eight) = before.or_else(after)
                && are_letters(eight, length)
            {
                return Self::of_block(eight, length);
            }
        }
        Self::of(text.get(start..end).unwrap_or_default())
    }

    /// Of one to eight letters; see [`block`].
    fn of_block(block: u64, length: usize) -> Self {
        let first = (block >> (8 * length.saturating_sub(2))) as u32;
        Self {
            hash: fold(mix(mix(0, block), length as u64)),
            suffix: block as u32,
            shape: first << 16 | 16 << 8 | length as u32,
        }
    }

    fn of_any(bytes: &[u8]) -> Self {
        let (mut hash, mut suffix, mut kinds) = (0u64, 0u32, 0u32);
        for chunk in bytes.chunks(8) {
            let (block, kind) = block(chunk);
            kinds |= kind;
            suffix = if chunk.len() < 4 { suffix << (8 * chunk.len()) | block as u32 } else { block as u32 };
            hash = mix(hash, block);
        }
        let first = match *bytes {
            [] => 0,
            [only] => u32::from(digit_as_0(only)),
            [first, second, ..] => u32::from(digit_as_0(first)) << 8 | u32::from(digit_as_0(second)),
        };
        Self {
            hash: fold(mix(hash, bytes.len() as u64)),
            suffix,
            shape: first << 16 | kinds << 8 | bytes.len().min(8) as u32,
        }
    }
}

/// One to eight bytes as a number, the first one in the highest place, with digits replaced by 0; and the kinds of the
/// characters.
fn block(bytes: &[u8]) -> (u64, u32) {
    let (length, middle) = (bytes.len(), bytes.len() / 2);
    let shifted = |at: usize| u64::from(bytes[at]) << (8 * (length - 1 - at));
    // Without a loop, whose end the processor could not predict: the parts may overlap.
    let block = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_be_bytes(*first)) << (8 * (length - 4)) | u64::from(u32::from_be_bytes(*last))
        }
        _ => shifted(0) | shifted(middle) | shifted(length - 1),
    };
    if are_letters(block, length) {
        return (block, 16);
    }
    bytes.iter().fold((0, 0), |(block, kinds), &byte| {
        let kind = match byte {
            b'0'..=b'9' => 1,
            b'-' => 2,
            b'.' | b'\'' | b'&' => 4,
            0x80.. => 8,
            _ => 16,
        };
        (block << 8 | u64::from(digit_as_0(byte)), kinds | kind)
    })
}

/// Whether all bytes of a block are from 0x40 to 0x7f: letters, or other characters of the last kind in [`block`].
fn are_letters(block: u64, length: usize) -> bool {
    let used = u64::MAX >> (64 - 8 * length);
    (block ^ u64::from_ne_bytes([0x40; 8])) & u64::from_ne_bytes([0xc0; 8]) & used == 0
}

fn digit_as_0(byte: u8) -> u8 {
    if byte.is_ascii_digit() { b'0' } else { byte }
}

/// Multiplies a value into a hash; the constant is 2^64 / golden ratio.
pub(crate) fn mix(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Reduces a hash to 32 bits that depend on all of its bits.
pub(crate) fn fold(hash: u64) -> u32 {
    (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_shr(32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_are_0_and_kinds_and_suffix_are_those_of_the_bytes() {
        proptest!(ProptestConfig::with_cases(2_000), |(word in "[a-z0-9@_.'&\u{e9}-]{1,20}")| {
            let letters = Letters::of(&word);
            let zeros: Vec<u8> =
                word.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte }).collect();
            let suffix = zeros.iter().fold(0u64, |suffix, &byte| suffix << 8 | u64::from(byte)) as u32;
            prop_assert_eq!(letters.suffix, suffix);
            let kind = |byte: u8| match byte {
                b'0'..=b'9' => 1,
                b'-' => 2,
                b'.' | b'\'' | b'&' => 4,
                0x80.. => 8,
                _ => 16,
            };
            let kinds = word.bytes().fold(0, |kinds, byte| kinds | kind(byte));
            prop_assert_eq!(letters.shape >> 8 & 0xff, kinds);
            prop_assert_eq!(letters.shape >> 16, zeros.iter().take(2).fold(0, |it, &byte| it << 8 | u32::from(byte)));
            prop_assert_eq!(letters.hash, Letters::of(&String::from_utf8_lossy(&zeros)).hash);
            prop_assert_eq!(letters, Letters::of_any(word.as_bytes()));
            for (before, after) in [("", ""), ("a ", ""), ("", " b"), ("9 quick", "9 brown")] {
                let text = format!("{before}{word}{after}");
                prop_assert_eq!(letters, Letters::within(&text, before.len(), before.len() + word.len()));
            }
        });
    }
}
