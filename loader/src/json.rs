//! JSON as other programs write it.
//!
//! Python's `json` writes `NaN` and `Infinity`, which JSON does not have, and text that was cut inside an emoji has half of
//! a surrogate pair (`"\\ud83d"`), which UTF-8 cannot hold. pandas, DuckDB and Python read both.

use serde::de::DeserializeOwned;

/// Parses a JSON document. `NaN`, `Infinity` and `-Infinity` are read as null; half of a surrogate pair is read as U+FFFD,
/// the replacement character.
///
/// # Errors
/// Those of [`serde_json::from_slice`] for anything else that is not JSON or not a `T`.
pub fn parse<T: DeserializeOwned>(document: &[u8]) -> serde_json::Result<T> {
    match serde_json::from_slice(document) {
        // Rare, so that the document is looked at again only when it has to be.
        Err(error) if error.is_syntax() => match repaired(document) {
            Some(document) => serde_json::from_slice(&document),
            None => Err(error),
        },
        result => result,
    }
}

/// The document as standard JSON; `None` if it has nothing to repair.
fn repaired(document: &[u8]) -> Option<Vec<u8>> {
    let mut to = Vec::with_capacity(document.len());
    let mut at = 0;
    let mut in_text = false;
    let mut changed = false;
    while let Some(&byte) = document.get(at) {
        let rest = &document[at..];
        let mut length = 1;
        if in_text {
            if byte == b'\\' {
                length = 2;
                if let Some(unit) = code_unit(rest) {
                    length = 6;
                    let low = rest.get(6..).and_then(code_unit).is_some_and(|low| LOW.contains(&low));
                    if HIGH.contains(&unit) && low {
                        length = 12;
                    } else if HIGH.contains(&unit) || LOW.contains(&unit) {
                        to.extend_from_slice(b"\\ufffd");
                        at += length;
                        changed = true;
                        continue;
                    }
                }
            } else if byte == b'"' {
                in_text = false;
            }
        } else if byte == b'"' {
            in_text = true;
        } else if let Some(word) = NOT_FINITE.iter().find(|word| rest.starts_with(word)) {
            to.extend_from_slice(b"null");
            at += word.len();
            changed = true;
            continue;
        }
        let end = (at + length).min(document.len());
        to.extend_from_slice(&document[at..end]);
        at = end;
    }
    changed.then_some(to)
}

const NOT_FINITE: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// The halves of a surrogate pair.
const HIGH: std::ops::Range<u16> = 0xD800..0xDC00;
const LOW: std::ops::Range<u16> = 0xDC00..0xE000;

/// The UTF-16 code unit of an escape such as `\ud83d` at the start of `text`.
fn code_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit: u16, &digit| Some(unit << 4 | (digit as char).to_digit(16)? as u16))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_python_writes_is_read() {
        for (document, expected) in [
            (r#"{"a": NaN, "b": [Infinity, -Infinity, 1]}"#, json!({"a": null, "b": [null, null, 1]})),
            (r#"{"a": "NaN \\ NaN", "b": NaN}"#, json!({"a": "NaN \\ NaN", "b": null})),
            (
                r#"["\ud83d", "x\ude00y", "\ud83d\ude00", "\ud83d\u0041"]"#,
                json!(["\u{fffd}", "x\u{fffd}y", "😀", "\u{fffd}A"]),
            ),
            (r#"["\\ud83d", NaN]"#, json!(["\\ud83d", null])),
            (r#""\"NaN\ud83d""#, json!("\"NaN\u{fffd}")),
        ] {
            assert_eq!(parse::<Value>(document.as_bytes()).unwrap(), expected, "{document}");
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        for document in ["", "{", "[NaN", "nan", r#""\ud8"#, r#""\"#, "{\"a\": NaNs}", "[1,]", "\"\u{1}\""] {
            assert!(parse::<Value>(document.as_bytes()).is_err(), "{document}");
        }
        // The error is about the document as it is, not about the repaired one.
        assert_eq!(parse::<Vec<u8>>(b"[1, x]").unwrap_err().column(), 5);
    }
}
