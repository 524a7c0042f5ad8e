//! The texts of protocol 0, and those of Python 2, whose encoding a pickle does not say.

/// UTF-8 where the bytes are that, otherwise Latin-1.
pub(super) fn decoded(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| e.into_bytes().into_iter().map(char::from).collect())
}

/// A string of Python 2 as a literal in quotes: `'it\'s'`, `"caf\xc3\xa9"`.
pub(super) fn string(line: &[u8]) -> Result<String, String> {
    let inside = match line {
        [first, inside @ .., last] if first == last && matches!(first, b'\'' | b'"') => inside,
        _ => return Err("is damaged: a string has no quotes".to_owned()),
    };
    let mut bytes = Vec::with_capacity(inside.len());
    let mut rest = inside.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b'x') => bytes.push(hexadecimal(&mut rest, 2)? as u8),
            Some(kept @ (b'\\' | b'\'' | b'"')) => bytes.push(kept),
            _ => return Err(BAD_ESCAPE.to_owned()),
        }
    }
    Ok(decoded(bytes))
}

/// A unicode string: Latin-1, in which a backslash begins `\uXXXX` or `\UXXXXXXXX`, and another one stands for itself. Two surrogates
/// are one character.
pub(super) fn unicode(line: &[u8]) -> Result<String, String> {
    let mut units: Vec<u16> = Vec::with_capacity(line.len());
    let mut rest = line.iter().copied();
    while let Some(byte) = rest.next() {
        let escape = if byte == b'\\' { rest.clone().next() } else { None };
        let digits = match escape {
            Some(b'u') => 4,
            Some(b'U') => 8,
            _ => {
                units.push(u16::from(byte));
                continue;
            }
        };
        rest.next();
        let code = hexadecimal(&mut rest, digits)?;
        match u16::try_from(code) {
            Ok(unit) => units.push(unit),
            Err(_) => {
                units.extend_from_slice(char::from_u32(code).ok_or(BAD_ESCAPE)?.encode_utf16(&mut [0; 2]));
            }
        }
    }
    Ok(String::from_utf16_lossy(&units))
}

const BAD_ESCAPE: &str = "is damaged: a string has an escape that Python does not write";

fn hexadecimal(bytes: &mut impl Iterator<Item = u8>, digits: usize) -> Result<u32, String> {
    let digit = |_| char::from(bytes.next()?).to_digit(16);
    let digits: Option<Vec<u32>> = (0..digits).map(digit).collect();
    Ok(digits.ok_or(BAD_ESCAPE)?.into_iter().fold(0, |code, digit| code << 4 | digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that Python 2 writes for these strings.
    #[test]
    fn literals_are_read_as_python_writes_them() {
        for (line, text) in [
            (&b"'left car'"[..], "left car"),
            (br#"'the dog\'s "bowl"\n'"#, "the dog's \"bowl\"\n"),
            (br#""the dog's""#, "the dog's"),
            (br"'caf\xc3\xa9'", "café"),
            (br"'caf\xe9'", "café"),
        ] {
            assert_eq!(string(line).unwrap(), text);
        }
        for line in [&b"'open"[..], b"", b"'", br"'\q'", br"'\x4'"] {
            assert!(string(line).is_err(), "{line:?}");
        }
        for (line, text) in [
            (&b"caf\xe9"[..], "café"),
            (br"\u2019s \ud83d\ude00 a\b", "\u{2019}s \u{1f600} a\\b"),
            (br"\U0001f600", "\u{1f600}"),
        ] {
            assert_eq!(unicode(line).unwrap(), text);
        }
        assert!(unicode(br"\u20").is_err() && unicode(br"\UFFFFFFFF").is_err());
    }
}
