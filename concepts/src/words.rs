//! Canonical text to words, as the taggers' training data has them: "the dog's t-shirt, 3.5 mm" is
//! `the | dog | 's | t-shirt | , | 3.5 | mm`.

/// One word or mark: bytes `start..end` of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// First byte.
    pub start: u32,
    /// Byte after the last.
    pub end: u32,
}

impl Word {
    /// The word in its text.
    pub fn of(self, text: &str) -> &str {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// Endings that are words of their own, after an apostrophe.
const CLITICS: [&[u8]; 7] = [b"s", b"ll", b"re", b"ve", b"m", b"d", b"t"];

/// What follows the last full stop of an address or of a file's name. (That alone tells "beach.jpg" from
/// "beach.two".)
const SUFFIXES: [&[u8]; 17] = [
    b"com", b"org", b"net", b"edu", b"gov", b"info", b"html", b"htm", b"php", b"jpg", b"jpeg", b"png",
    b"gif", b"webp", b"pdf", b"mp4", b"zip",
];

/// Cuts `text` into words. Spans are in order, do not overlap, lie on character boundaries and leave out only
/// whitespace. `words` is cleared first.
pub fn split(text: &str, words: &mut Vec<Word>) {
    words.clear();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if is_space(bytes, at) {
            at += char_len(bytes[at]);
            continue;
        }
        let end = if in_word(text, at) {
            word_end(text, at)
        } else if apostrophe(bytes, at) > 0 && !follows_space(bytes, at) && clitic_end(text, at) > at {
            clitic_end(text, at)
        } else {
            mark_end(bytes, at)
        };
        words.push(Word { start: at as u32, end: end as u32 });
        at = end;
    }
}

/// Letters and digits; characters beyond ASCII count unless they are punctuation or space.
fn in_word(text: &str, at: usize) -> bool {
    let byte = text.as_bytes()[at];
    if byte < 0x80 {
        return byte.is_ascii_alphanumeric() || byte == b'_';
    }
    text[at..].chars().next().is_some_and(|c| c.is_alphanumeric() || is_mark_within_words(c))
}

/// Combining accents and joiners that scripts use inside words.
fn is_mark_within_words(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{200c}' | '\u{200d}' | '\u{900}'..='\u{dff}' | '\u{e00}'..='\u{eff}')
}

fn is_space(bytes: &[u8], at: usize) -> bool {
    // Canonical text has no other whitespace; control characters separate words just as well.
    bytes[at] <= b' '
}

/// Length in bytes of the apostrophe at `at`: ' or ’; 0 when there is none.
fn apostrophe(bytes: &[u8], at: usize) -> usize {
    match &bytes[at..] {
        [b'\'', ..] => 1,
        [0xe2, 0x80, 0x99, ..] => 3,
        _ => 0,
    }
}

fn follows_space(bytes: &[u8], at: usize) -> bool {
    at == 0 || bytes[at - 1] <= b' '
}

/// End of a clitic whose apostrophe stands at `at`; `at` itself when there is none.
fn clitic_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let letters = at + apostrophe(bytes, at);
    CLITICS
        .iter()
        .map(|clitic| (letters + clitic.len(), clitic))
        .find(|&(end, clitic)| {
            bytes[letters..].starts_with(clitic) && (end == bytes.len() || !in_word(text, end))
        })
        .map_or(at, |(end, _)| end)
}

fn word_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = start;
    while at < bytes.len() {
        if bytes[at].is_ascii_alphanumeric() || (bytes[at] >= b' ' && in_word(text, at)) {
            at += char_len(bytes[at]);
            continue;
        }
        // A joint holds a word together when letters or digits follow it at once.
        let joint = match bytes[at] {
            b'-' | b'&' => 1,
            b'.' if bytes[at - 1].is_ascii_digit() || at - start == 1 || bytes[at - 2] == b'.' => 1,
            b'.' if names_file_or_site(text, at + 1) => 1,
            b',' if bytes[at - 1].is_ascii_digit() && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => 1,
            _ if clitic_end(text, at) > at => break,
            _ => apostrophe(bytes, at),
        };
        if joint == 0 || at + joint >= bytes.len() || !in_word(text, at + joint) {
            break;
        }
        at += joint;
    }
    // "u.s." and "a.m." keep their last full stop.
    if at < bytes.len() && bytes[at] == b'.' && at - start >= 3 && bytes[at - 2] == b'.' {
        at += 1;
    }
    at
}

/// Labels of a host's name that are looked at: few, so that a text of full stops takes no longer than another.
const MOST_LABELS: usize = 4;

/// Whether a suffix starts at `at`, or after a label or two more: "photo.jpg", "shop.example.com".
fn names_file_or_site(text: &str, mut at: usize) -> bool {
    /// Longer than every suffix, as long as most names.
    const LONGEST_LABEL: usize = 32;
    let bytes = text.as_bytes();
    for _ in 0..MOST_LABELS {
        let label = bytes[at..].iter().take(LONGEST_LABEL);
        let end = at + label.take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
        if SUFFIXES.contains(&&bytes[at..end]) && (end == bytes.len() || !in_word(text, end)) {
            return true;
        }
        if end == at || bytes.get(end) != Some(&b'.') {
            return false;
        }
        at = end + 1;
    }
    false
}

/// A mark is one character, or a run of the same one: "...", "--".
fn mark_end(bytes: &[u8], start: usize) -> usize {
    let length = char_len(bytes[start]);
    let mark = &bytes[start..start + length];
    let mut end = start + length;
    while bytes[end..].starts_with(mark) {
        end += length;
    }
    end
}

/// Bytes of the UTF-8 character that starts with `lead`.
fn char_len(lead: u8) -> usize {
    match lead {
        0..0xc0 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        split(text, &mut words);
        words.into_iter().map(|word| word.of(text)).collect()
    }

    #[test]
    fn words_are_those_of_the_training_data() {
        assert_eq!(cut("the dog's t-shirt, 3.5 mm"), ["the", "dog", "'s", "t-shirt", ",", "3.5", "mm"]);
        assert_eq!(
            cut("men’s shoes (1,000 pcs)..."),
            ["men", "’s", "shoes", "(", "1,000", "pcs", ")", "..."]
        );
        assert_eq!(
            cut("rock'n'roll dogs' u.s. b&w end."),
            ["rock'n'roll", "dogs", "'", "u.s.", "b&w", "end", "."]
        );
        assert_eq!(cut("multi- colored and/or x-"), ["multi", "-", "colored", "and", "/", "or", "x", "-"]);
        assert_eq!(cut("a 'quoted' word -- café"), ["a", "'", "quoted", "'", "word", "--", "café"]);
        assert_eq!(
            cut("alabama.jpg, shop.john-lewis.com."),
            ["alabama.jpg", ",", "shop.john-lewis.com", "."]
        );
        assert_eq!(
            cut("a beach.two dogs. come.on net.ball"),
            ["a", "beach", ".", "two", "dogs", ".", "come", ".", "on", "net", ".", "ball"]
        );
        assert_eq!(cut(""), [""; 0]);
    }
}
