//! Splits canonical text into words, by the rules of the taggers' training data: "the dog's t-shirt, 3.5 mm" becomes
//! `the | dog | 's | t-shirt | , | 3.5 | mm`, and "don't" becomes `do | n't`. Text that was split so before, such as the
//! captions of CC3M ("the dog 's"), gives the same words.

/// One word or punctuation mark: bytes `start..end` of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// First byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Word {
    /// The text of the word; `text` is the text it was split from.
    pub fn of(self, text: &str) -> &str {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// Endings after an apostrophe that are separate words.
const CLITICS: [&[u8]; 7] = [b"s", b"ll", b"re", b"ve", b"m", b"d", b"t"];

/// Top-level domains and file extensions. A full stop before one of them does not end a word: "beach.jpg" is one word,
/// "beach.two" is three.
const SUFFIXES: [&[u8]; 17] = [
    b"com", b"org", b"net", b"edu", b"gov", b"info", b"html", b"htm", b"php", b"jpg", b"jpeg", b"png",
    b"gif", b"webp", b"pdf", b"mp4", b"zip",
];

/// Abbreviations that keep their full stop before another word.
const ABBREVIATIONS: [&[u8]; 41] = [
    b"mr", b"mrs", b"ms", b"dr", b"st", b"jr", b"sr", b"mt", b"ft", b"vs", b"lt", b"rev", b"gen", b"col",
    b"sgt", b"capt", b"gov", b"sen", b"prof", b"inc", b"ltd", b"co", b"corp", b"bros", b"jan", b"feb",
    b"apr", b"aug", b"sept", b"sep", b"oct", b"nov", b"dec", b"ave", b"blvd", b"vol", b"cu", b"sq", b"oz",
    b"lb", b"lbs",
];

/// No abbreviation is longer.
const MAX_ABBREVIATION: usize = 4;

/// Splits `text` into words. The spans are in order, do not overlap, lie on character boundaries and leave out only
/// whitespace. `words` is cleared first.
pub fn split(text: &str, words: &mut Vec<Word>) {
    words.clear();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        // Most words are letters from a to z before a space; the rest of the loop is slower.
        let letters = letters_end(bytes, at);
        if letters > at && bytes.get(letters).is_none_or(|&byte| byte == b' ') {
            words.push(Word { start: at as u32, end: letters as u32 });
            at = letters + 1;
            continue;
        }
        if is_space(bytes, at) {
            at += char_len(bytes[at]);
            continue;
        }
        let end = if in_word(text, at) {
            word_end(text, at)
        } else if is_clitic(text, at) {
            clitic_end(text, at)
        } else {
            mark_end(bytes, at)
        };
        words.push(Word { start: at as u32, end: end as u32 });
        at = end;
    }
}

/// Whether a word character is at `at`: a letter, a digit or an underscore.
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
    // Canonical text has no whitespace but the space; control characters separate words as well.
    bytes[at] <= b' '
}

/// Length in bytes of the apostrophe (' or ’) at `at`; 0 if there is none.
fn apostrophe(bytes: &[u8], at: usize) -> usize {
    match &bytes[at..] {
        [b'\'', ..] => 1,
        [0xe2, 0x80, 0x99, ..] => 3,
        _ => 0,
    }
}

/// Whether a clitic starts at `at`: "dog's", or after a space, "dog 's", but not in quotation marks, "the letter 's'".
fn is_clitic(text: &str, at: usize) -> bool {
    let bytes = text.as_bytes();
    if at == 0 || apostrophe(bytes, at) == 0 {
        return false;
    }
    let end = clitic_end(text, at);
    let after_space = || text[..at - 1].ends_with(char::is_alphanumeric) && apostrophe(bytes, end) == 0;
    end > at && (bytes[at - 1] > b' ' || after_space())
}

/// End of the clitic (such as 's) whose apostrophe is at `at`; `at` itself if there is none.
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

/// The end of the letters from a to z that start at `at`, eight at a time.
fn letters_end(bytes: &[u8], mut at: usize) -> usize {
    const fn eight(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    while let Some(next) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let next = u64::from_le_bytes(*next);
        // The sums set a byte's highest bit from a on, and from after z on; no sum exceeds its byte.
        let low = next & eight(0x7f);
        let letters = (low + eight(0x80 - b'a')) & !(low + eight(0x7f - b'z')) & !next;
        let others = !letters & eight(0x80);
        if others != 0 {
            return at + others.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + bytes[at..].iter().take_while(|byte| byte.is_ascii_lowercase()).count()
}

fn word_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = start;
    loop {
        at = letters_end(bytes, at);
        if at == bytes.len() {
            break;
        }
        if bytes[at].is_ascii_alphanumeric() || (bytes[at] >= b' ' && in_word(text, at)) {
            at += char_len(bytes[at]);
            continue;
        }
        if is_space(bytes, at) {
            break;
        }
        // These characters join two parts of a word if a letter or digit follows directly.
        let joint = match bytes[at] {
            b'-' | b'&' => 1,
            b'.' if bytes[at - 1].is_ascii_digit() || at - start == 1 || bytes[at - 2] == b'.' => 1,
            b'.' if names_file_or_site(text, at + 1) => 1,
            b',' if bytes[at - 1].is_ascii_digit() && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => 1,
            // "n't" is a word of its own.
            _ if clitic_end(text, at) > at
                && bytes[at - 1] == b'n'
                && text[..clitic_end(text, at)].ends_with('t') =>
            {
                return if at - start == 1 { clitic_end(text, at) } else { at - 1 };
            }
            _ if clitic_end(text, at) > at => break,
            _ => apostrophe(bytes, at),
        };
        if joint == 0 || at + joint >= bytes.len() || !in_word(text, at + joint) {
            break;
        }
        at += joint;
    }
    if at < bytes.len() && bytes[at] == b'.' && keeps_full_stop(text, start, at) {
        at += 1;
    }
    at
}

/// Whether the full stop at `end` belongs to the word before it: "u.s.", "mrs. smith", "f. scott fitzgerald", and at the
/// end of the text "acme inc.".
fn keeps_full_stop(text: &str, start: usize, end: usize) -> bool {
    let bytes = text.as_bytes();
    let more = bytes.get(end + 1) == Some(&b' ') && end + 2 < bytes.len();
    match &bytes[start..end] {
        [.., b'.', _] => end - start >= 3,
        b"inc" | b"ltd" | b"corp" | b"co" if end + 1 == bytes.len() => true,
        [initial] => more && initial.is_ascii_alphabetic() && bytes[end + 2].is_ascii_alphabetic(),
        word => more && word.len() <= MAX_ABBREVIATION && ABBREVIATIONS.contains(&word),
    }
}

/// Maximum number of labels of a host name that are checked, so that a text full of full stops does not take long.
const MAX_LABELS: usize = 4;

/// Whether one of [`SUFFIXES`] starts at `at`, or after a few more labels: "photo.jpg", "shop.example.com".
fn names_file_or_site(text: &str, mut at: usize) -> bool {
    /// Longer than every suffix, and as long as most labels.
    const MAX_LABEL_LENGTH: usize = 32;
    let bytes = text.as_bytes();
    for _ in 0..MAX_LABELS {
        let label = bytes[at..].iter().take(MAX_LABEL_LENGTH);
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

/// End of a mark: one character, or a run of the same character such as "..." or "--".
fn mark_end(bytes: &[u8], start: usize) -> usize {
    let length = char_len(bytes[start]);
    let mark = &bytes[start..start + length];
    let mut end = start + length;
    while bytes[end..].starts_with(mark) {
        end += length;
    }
    end
}

/// Number of bytes of the UTF-8 character that starts with the byte `lead`.
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
    fn letters_end_at_the_first_other_byte() {
        for other in (0..=0xff).filter(|byte: &u8| !byte.is_ascii_lowercase()) {
            for length in 0..20 {
                let mut bytes = vec![b'a' + length as u8; 24];
                bytes[length..].fill(other);
                assert_eq!(letters_end(&bytes, 0), length);
                assert_eq!(letters_end(&bytes[..length], length / 2), length);
            }
        }
    }

    #[test]
    fn words_are_split_as_in_the_training_data() {
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
        assert_eq!(
            cut("mrs. smith, r. r. martin, nov. 18 on 5th st."),
            ["mrs.", "smith", ",", "r.", "r.", "martin", ",", "nov.", "18", "on", "5th", "st", "."]
        );
        assert_eq!(
            cut("acme inc. acme co., acme inc."),
            ["acme", "inc.", "acme", "co", ".", ",", "acme", "inc."]
        );
        assert_eq!(cut("i don't, can’t"), ["i", "do", "n't", ",", "ca", "n’t"]);
        assert_eq!(
            cut("mother 's day, i 've not 's'; it is n't"),
            ["mother", "'s", "day", ",", "i", "'ve", "not", "'", "s", "'", ";", "it", "is", "n't"]
        );
        assert_eq!(cut(""), [""; 0]);
    }
}
