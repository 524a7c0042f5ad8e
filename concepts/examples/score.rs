//! Scores the extracted phrases on annotated captions, and measures the speed.
//!
//!     cargo run --release -p simzss-concepts --example score -- perceptron dev.jsonl [--errors]
//!     cargo run --release -p simzss-concepts --example score -- perceptron --speed captions.txt
//!     cargo run --release -p simzss-concepts --example score -- perceptron --show captions.txt
//!
//! A line of an annotated file is `{"text": .., "spans": [[start, end, head start, head end], ..]}`, with offsets in
//! characters. The output is precision, recall and F1 of phrases and of heads, with exact match of both ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use concepts::files::io_message;
use concepts::{Extractor, canonical};

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
    let [kind, rest @ ..] = arguments else {
        return Err(
            "usage: score TAGGER FILE.jsonl.. [--errors] | score TAGGER --speed|--show FILE.txt".to_owned()
        );
    };
    let kind = kind.parse().map_err(|e: concepts::Error| e.to_string())?;
    let extractor = Extractor::new(kind).map_err(|e| e.to_string())?;
    if let [flag, path] = rest
        && ["--speed", "--show"].contains(&flag.as_str())
    {
        let text = fs::read_to_string(path).map_err(|e| io_message(Path::new(path), "read", &e))?;
        if flag == "--show" {
            text.lines().for_each(|line| println!("{}", bracketed(&extractor, line)));
            return Ok(());
        }
        return speed(&extractor, &text);
    }
    let errors = rest.iter().any(|argument| argument == "--errors");
    for path in rest.iter().filter(|argument| *argument != "--errors") {
        let text = fs::read_to_string(path).map_err(|e| io_message(Path::new(path), "read", &e))?;
        let (spans, heads) = score(&extractor, &text, errors).map_err(|e| format!("{path}: {e}"))?;
        println!("{path}: spans {spans}; heads {heads}");
    }
    Ok(())
}

/// Counts of one kind of span.
#[derive(Default)]
struct Counts {
    right: usize,
    found: usize,
    wanted: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = |of: usize| 100.0 * self.right as f64 / of.max(1) as f64;
        let f1 = 200.0 * self.right as f64 / (self.found + self.wanted).max(1) as f64;
        write!(f, "P {:.1} R {:.1} F1 {f1:.1}", share(self.found), share(self.wanted))
    }
}

impl Counts {
    fn add(&mut self, found: &BTreeSet<(usize, usize)>, wanted: &BTreeSet<(usize, usize)>) {
        self.right += found.intersection(wanted).count();
        self.found += found.len();
        self.wanted += wanted.len();
    }
}

fn score(extractor: &Extractor, text: &str, errors: bool) -> Result<(Counts, Counts), String> {
    let (mut spans, mut heads) = (Counts::default(), Counts::default());
    for line in text.lines() {
        let caption: serde_json::Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let text = caption["text"].as_str().ok_or("a line without text")?.to_lowercase();
        let at = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(byte, _)| byte);
        let number = |value: &serde_json::Value| at(value.as_u64().unwrap_or_default() as usize);
        let (mut wanted, mut wanted_heads) = (BTreeSet::new(), BTreeSet::new());
        for span in caption["spans"].as_array().ok_or("a line without spans")? {
            wanted.insert((number(&span[0]), number(&span[1])));
            wanted_heads.insert((number(&span[2]), number(&span[3])));
        }
        let mentions = extractor.mentions(&text);
        let found: BTreeSet<_> = mentions.iter().map(|m| (m.phrase.start, m.phrase.end)).collect();
        let found_heads: BTreeSet<_> =
            mentions.iter().map(|m| (m.head_span.start, m.head_span.end)).collect();
        spans.add(&found, &wanted);
        heads.add(&found_heads, &wanted_heads);
        if errors && found != wanted {
            println!("{text}");
            for &(start, end) in found.difference(&wanted) {
                let tags = mentions.iter().find(|m| m.phrase == (start..end)).map_or("", |m| &m.tags);
                println!("    found  {:?} {tags}", &text[start..end]);
            }
            for &(start, end) in wanted.difference(&found) {
                println!("    wanted {:?}", &text[start..end]);
            }
        }
    }
    Ok((spans, heads))
}

/// The canonical text with its phrases in brackets, each followed by its concept if that differs from the text.
fn bracketed(extractor: &Extractor, line: &str) -> String {
    let text = canonical(line);
    let (mut out, mut at) = (String::new(), 0);
    for mention in extractor.mentions(&text) {
        let concept = &text[mention.concept_span.clone()];
        out += &text[at..mention.phrase.start];
        out += &format!("[{}]", &text[mention.phrase.clone()]);
        if concept != mention.concept {
            out += &format!("<{}>", mention.concept);
        }
        at = mention.phrase.end;
    }
    out + &text[at..]
}

/// Prints the number of captions per second on one core, from raw text to mentions.
fn speed(extractor: &Extractor, text: &str) -> Result<(), String> {
    let captions: Vec<&str> = text.lines().collect();
    let words: usize = captions.iter().map(|caption| caption.split(' ').count()).sum();
    let mut best = f64::INFINITY;
    let mut mentions = 0;
    for _ in 0..5 {
        let started = Instant::now();
        mentions =
            captions.iter().map(|caption| extractor.mentions(&canonical(caption)).len()).sum::<usize>();
        best = best.min(started.elapsed().as_secs_f64());
    }
    if captions.is_empty() {
        return Err("the file has no captions".to_owned());
    }
    let rate = captions.len() as f64 / best;
    println!(
        "{} captions, {words} words, {mentions} mentions: {rate:.0} captions/s on one core",
        captions.len()
    );
    Ok(())
}
