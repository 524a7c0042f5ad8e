//! Annotated captions, and the comparison of phrases with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use concepts::{Extractor, canonical};
use disk::files::io_message;

/// A span of bytes of a caption's canonical text: start and end.
pub(crate) type Span = (usize, usize);

/// A caption with the phrases that an annotator or a program has marked.
#[derive(Debug)]
pub(crate) struct Caption {
    /// The canonical text.
    pub(crate) text: String,
    pub(crate) phrases: BTreeSet<Span>,
    pub(crate) heads: BTreeSet<Span>,
}

/// Reads annotated captions: one per line, with its phrases in square brackets, and optionally with an identifier and
/// a TAB before it. A file whose name ends in `.jsonl` has lines such as
/// `{"text": .., "spans": [[start, end, head start, head end], ..]}`, with offsets in characters. Empty lines and lines
/// that start with # are skipped.
pub(crate) fn read(path: &Path) -> Result<Vec<Caption>, String> {
    let text = fs::read_to_string(path).map_err(|e| io_message(path.display(), "read", &e))?;
    let json = path.extension().is_some_and(|extension| extension == "jsonl");
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            let caption = if json { from_json(line) } else { from_brackets(line) };
            caption.map_err(|error| format!("{}:{}: {error}", path.display(), number + 1))
        })
        .collect()
}

fn from_json(line: &str) -> Result<Caption, String> {
    let value: serde_json::Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let text = value["text"].as_str().ok_or("it has no text")?.to_lowercase();
    let byte = |index: &serde_json::Value| {
        let index = index.as_u64().unwrap_or_default() as usize;
        text.char_indices().nth(index).map_or(text.len(), |(byte, _)| byte)
    };
    let (mut phrases, mut heads) = (BTreeSet::new(), BTreeSet::new());
    for span in value["spans"].as_array().ok_or("it has no spans")? {
        phrases.insert((byte(&span[0]), byte(&span[1])));
        heads.insert((byte(&span[2]), byte(&span[3])));
    }
    Ok(Caption { text, phrases, heads })
}

/// "[A dog] on [grass]"; the head of a phrase is its last word.
pub(crate) fn from_brackets(line: &str) -> Result<Caption, String> {
    let marked = line.split_once('\t').map_or(line, |(_, marked)| marked);
    let mut caption = Caption { text: String::new(), phrases: BTreeSet::new(), heads: BTreeSet::new() };
    let mut open = None;
    for c in marked.to_lowercase().chars() {
        let at = caption.text.len();
        match (c, open) {
            ('[', None) => open = Some(at),
            (']', Some(start)) if start < at => {
                let head = caption.text[start..].rfind(' ').map_or(start, |space| start + space + 1);
                caption.phrases.insert((start, at));
                caption.heads.insert((head, at));
                open = None;
            }
            ('[' | ']', _) => return Err("its brackets do not match".to_owned()),
            (c, _) => caption.text.push(c),
        }
    }
    if open.is_some() {
        return Err("its brackets do not match".to_owned());
    }
    // Otherwise the spans would not be those of the text that taggers get.
    if canonical(&caption.text) != caption.text {
        return Err(format!("it is not canonical text; write {:?}", canonical(&caption.text)));
    }
    Ok(caption)
}

/// The captions with the phrases that a tagger finds in them.
pub(crate) fn tagged(extractor: &Extractor, captions: &[Caption]) -> Vec<Caption> {
    let tag = |caption: &Caption| {
        let mentions = extractor.mentions(&caption.text);
        Caption {
            text: caption.text.clone(),
            phrases: mentions.iter().map(|mention| (mention.phrase.start, mention.phrase.end)).collect(),
            heads: mentions.iter().map(|mention| (mention.head_span.start, mention.head_span.end)).collect(),
        }
    };
    captions.iter().map(tag).collect()
}

/// Counts of one kind of span.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) right: usize,
    pub(crate) found: usize,
    pub(crate) wanted: usize,
}

impl Counts {
    fn add(&mut self, found: &BTreeSet<Span>, wanted: &BTreeSet<Span>) {
        self.right += found.intersection(wanted).count();
        self.found += found.len();
        self.wanted += wanted.len();
    }

    /// F1 in percent.
    pub(crate) fn f1(self) -> f64 {
        200.0 * self.right as f64 / (self.found + self.wanted).max(1) as f64
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |of: usize| 100.0 * self.right as f64 / of.max(1) as f64;
        write!(f, "P {:.1} R {:.1} F1 {:.1}", share(self.found), share(self.wanted), self.f1())
    }
}

/// How phrases differ from those wanted, one count per place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Nothing was found where a phrase was wanted.
    Missed,
    /// A phrase was found where none was wanted.
    Extra,
    /// The phrase starts at another word, its head is right.
    Start,
    /// The phrase ends at another word.
    End,
    /// One phrase was found as several.
    Split,
    /// Several phrases were found as one.
    Merged,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Missed, Self::Extra, Self::Start, Self::End, Self::Split, Self::Merged];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Extra => "extra",
            Self::Start => "start",
            Self::End => "end",
            Self::Split => "split",
            Self::Merged => "merged",
        }
    }
}

/// The result for some captions.
#[derive(Debug, Default)]
pub(crate) struct Score {
    pub(crate) phrases: Counts,
    pub(crate) heads: Counts,
    pub(crate) kinds: BTreeMap<Kind, usize>,
}

/// Compares captions in the same order, and calls `each` with those whose phrases differ.
pub(crate) fn score(
    found: &[Caption],
    wanted: &[Caption],
    mut each: impl FnMut(&Caption, &Caption),
) -> Score {
    let mut score = Score::default();
    for (found, wanted) in found.iter().zip(wanted) {
        score.phrases.add(&found.phrases, &wanted.phrases);
        score.heads.add(&found.heads, &wanted.heads);
        for kind in kinds(&found.phrases, &wanted.phrases) {
            *score.kinds.entry(kind).or_default() += 1;
        }
        if found.phrases != wanted.phrases {
            each(found, wanted);
        }
    }
    score
}

fn kinds(found: &BTreeSet<Span>, wanted: &BTreeSet<Span>) -> Vec<Kind> {
    let overlapping = |one: Span, others: &BTreeSet<Span>| -> Vec<Span> {
        others.iter().copied().filter(|other| other.0 < one.1 && one.0 < other.1).collect()
    };
    let mut kinds = Vec::new();
    for &one in wanted.difference(found) {
        kinds.extend(match overlapping(one, found)[..] {
            [] => Some(Kind::Missed),
            // Counted below, once for all phrases that were merged.
            [other] if overlapping(other, wanted).len() > 1 => None,
            [other] if other.1 == one.1 => Some(Kind::Start),
            [_] => Some(Kind::End),
            [..] => Some(Kind::Split),
        });
    }
    for &one in found.difference(wanted) {
        match overlapping(one, wanted)[..] {
            [] => kinds.push(Kind::Extra),
            [_] => {}
            [..] => kinds.push(Kind::Merged),
        }
    }
    kinds
}
