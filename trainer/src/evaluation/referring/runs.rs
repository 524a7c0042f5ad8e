//! Run lengths as COCO stores them: as numbers, or packed into a string.

/// Unpacks run lengths: five bits a character from 48 on, the lowest first, the sixth says that more follow; from the third length on,
/// the difference to the length two before is stored. An error is the rest of a sentence about the string.
pub(super) fn unpacked(text: &str) -> Result<Vec<u32>, String> {
    let mut counts: Vec<i64> = Vec::new();
    let (mut value, mut shift) = (0i64, 0);
    for byte in text.bytes() {
        let digit = i64::from(byte) - 48;
        if !(0..64).contains(&digit) || shift > 30 {
            return Err("has a string of run lengths that is damaged".to_owned());
        }
        value |= (digit & 31) << shift;
        shift += 5;
        if digit & 32 != 0 {
            continue;
        }
        if digit & 16 != 0 {
            // The number is negative.
            value |= -1 << shift;
        }
        if counts.len() > 2 {
            value += counts[counts.len() - 2];
        }
        counts.push(value);
        (value, shift) = (0, 0);
    }
    let lengths: Option<Vec<u32>> = counts.into_iter().map(|count| u32::try_from(count).ok()).collect();
    lengths.filter(|_| shift == 0).ok_or_else(|| "has a string of run lengths that is damaged".to_owned())
}

/// Refuses run lengths of another number of pixels.
pub(super) fn check(counts: &[u32], width: u32, height: u32) -> Result<(), String> {
    let sum: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let pixels = u64::from(width) * u64::from(height);
    if sum == pixels {
        return Ok(());
    }
    Err(format!("has run lengths of {sum} pixels, but its image has {pixels}"))
}

/// The mask of run lengths that were checked, row by row.
pub(super) fn mask(counts: &[u32], width: u32, height: u32) -> Vec<bool> {
    let (width, height) = (width as usize, height as usize);
    let mut mask = vec![false; width * height];
    let mut at = 0;
    for (run, &length) in counts.iter().enumerate() {
        if run % 2 == 1 {
            (at..at + length as usize).for_each(|at| mask[at % height * width + at / height] = true);
        }
        at += length as usize;
    }
    mask
}
