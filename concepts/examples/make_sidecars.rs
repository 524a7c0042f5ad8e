//! Makes sidecars with any number of mentions, to benchmark programs that read them.
//!
//!     cargo run --release -p simzss-concepts --example make_sidecars -- DIR MENTIONS captions.txt..
//!
//! First, the captions (one per line) are tagged. Then synthetic captions are drawn: each has as many mentions as one
//! of the tagged captions, and each mention is a copy of a tagged one, so concepts keep their frequencies. One mention
//! in [`NEW`] joins two drawn heads to a compound instead, so that the number of distinct concepts grows with the text,
//! as in real datasets. DIR gets the parts and the `captions.json` of a tagged table. The same arguments give the same
//! files.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use concepts::sidecar::{Cut, Parts, Table, Writer};
use concepts::{Extractor, Mention, TaggerDescription, TaggerKind, canonical};
use disk::files::io_message;

/// One mention in this many is a new compound.
const NEW: u64 = 20;

/// Number of captions per part.
const PART: u32 = 100_000;

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let [folder, wanted, files @ ..] = arguments else {
        return Err("usage: make_sidecars DIR MENTIONS CAPTIONS.txt..".to_owned());
    };
    let wanted: u64 = wanted.parse().map_err(|_| format!("{wanted} is not a number of mentions"))?;
    let seen = Seen::tag(files)?;
    let folder = Path::new(folder);
    fs::create_dir_all(folder).map_err(|e| io_message(folder.display(), "create", &e))?;

    let tagger = TaggerDescription { name: "resampled".to_owned(), hash: String::new(), grammar: 0 };
    let mut random = Random(1);
    let made = captions_with(wanted, &seen);
    let mut parts = Parts::new(&tagger, Cut { part_size: PART, caption: None, key: None });
    parts.tables.push(Table { name: "drawn.txt".to_owned(), bytes: 0, rows: made });
    let (mut row, mut mentions) = (0, 0);
    for (number, footer) in (0..).zip(parts.footers()) {
        let samples = footer.samples;
        let mut writer = Writer::create(&Parts::path(folder, number), footer).map_err(|e| e.to_string())?;
        for sample in 0..samples {
            let (text, drawn) = seen.draw(row, &mut random);
            let key = format!("{row:09}");
            writer.push(sample, &key, &text, &drawn).map_err(|e| e.to_string())?;
            mentions += drawn.len() as u64;
            row += 1;
        }
        writer.finish().map_err(|e| e.to_string())?;
    }
    parts.write(folder).map_err(|e| e.to_string())?;
    println!(
        "{}: {mentions} mentions of {made} captions, {} parts",
        folder.display(),
        parts.footers().count()
    );
    Ok(())
}

/// Number of captions that have `wanted` mentions together.
fn captions_with(wanted: u64, seen: &Seen) -> u64 {
    let (mut rows, mut mentions) = (0, 0);
    while mentions < wanted {
        mentions += seen.length(rows) as u64;
        rows += 1;
    }
    rows
}

/// The mentions of the captions that were tagged.
struct Seen {
    /// The mentions, each with the text of its phrase.
    mentions: Vec<(String, Mention)>,
    /// Number of mentions of each caption.
    lengths: Vec<usize>,
}

impl Seen {
    fn tag(files: &[String]) -> Result<Self, String> {
        let extractor = Extractor::new(TaggerKind::default()).map_err(|e| e.to_string())?;
        let mut seen = Self { mentions: Vec::new(), lengths: Vec::new() };
        for path in files {
            let text = fs::read(path).map_err(|e| io_message(path, "read", &e))?;
            for line in String::from_utf8_lossy(&text).lines() {
                let text = canonical(line);
                let mentions = extractor.mentions(&text);
                seen.lengths.push(mentions.len());
                seen.mentions.extend(mentions.into_iter().map(|it| (text[it.phrase.clone()].to_owned(), it)));
            }
        }
        if seen.mentions.is_empty() {
            return Err("the captions have no mentions".to_owned());
        }
        Ok(seen)
    }

    /// Number of mentions of the caption in this row.
    fn length(&self, row: u64) -> usize {
        self.lengths[(Random(row).next() % self.lengths.len() as u64) as usize]
    }

    /// A caption made of phrases, and its mentions.
    fn draw(&self, row: u64, random: &mut Random) -> (String, Vec<Mention>) {
        let (mut text, mut mentions) = (String::new(), Vec::new());
        for _ in 0..self.length(row) {
            if !text.is_empty() {
                text.push_str(" and ");
            }
            let start = text.len();
            let (phrase, one) = self.any(random);
            if random.next().is_multiple_of(NEW) {
                let (first, second) = (&one.head, &self.any(random).1.head);
                text += &format!("{first} {second}");
                let head = start + first.len() + 1;
                mentions.push(Mention {
                    phrase: start..text.len(),
                    concept_span: start..text.len(),
                    head_span: head..text.len(),
                    concept: format!("{first} {second}"),
                    head: second.clone(),
                    tags: "NN NN".to_owned(),
                });
            } else {
                text += phrase;
                let moved = |span: &std::ops::Range<usize>| {
                    span.start - one.phrase.start + start..span.end - one.phrase.start + start
                };
                mentions.push(Mention {
                    phrase: moved(&one.phrase),
                    concept_span: moved(&one.concept_span),
                    head_span: moved(&one.head_span),
                    ..one.clone()
                });
            }
        }
        (text, mentions)
    }

    fn any(&self, random: &mut Random) -> &(String, Mention) {
        &self.mentions[(random.next() % self.mentions.len() as u64) as usize]
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
