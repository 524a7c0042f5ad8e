//! Scores phrases on annotated captions, and measures the speed of a tagger.
//!
//!     cargo run --release -p simzss-concepts --example score -- perceptron concepts/gold/coco-test.tsv [--errors]
//!     cargo run --release -p simzss-concepts --example score -- --found FOUND.tsv concepts/gold/coco-test.tsv [--errors]
//!     cargo run --release -p simzss-concepts --example score -- perceptron --speed captions.txt
//!     cargo run --release -p simzss-concepts --example score -- perceptron --show captions.txt
//!
//! The output is precision, recall and F1 of phrases and of heads, with exact match of both ends, and the number of
//! errors of each kind ([`gold::Kind`]). [`gold::read`] describes the files. With `--found`, the phrases of another
//! program are scored, from a file with the same captions in the same order.

mod gold;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use concepts::{Extractor, canonical};
use disk::files::io_message;

use gold::{Caption, Kind};

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
    let errors = arguments.iter().any(|argument| argument == "--errors");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).filter(|it| *it != "--errors").collect();
    match arguments[..] {
        ["--found", found, wanted] => {
            let (found, captions) = (gold::read(Path::new(found))?, gold::read(Path::new(wanted))?);
            if let Some((found, wanted)) = found.iter().zip(&captions).find(|(one, two)| one.text != two.text)
            {
                return Err(format!(
                    "the files have different captions: {:?}, {:?}",
                    found.text, wanted.text
                ));
            }
            if found.len() != captions.len() {
                return Err(format!("the files have {} and {} captions", found.len(), captions.len()));
            }
            print(wanted, &found, &captions, errors);
            Ok(())
        }
        [kind, "--speed", path] => speed(&extractor(kind)?, &text(path)?),
        [kind, "--show", path] => {
            let extractor = extractor(kind)?;
            text(path)?.lines().for_each(|line| println!("{}", bracketed(&extractor, line)));
            Ok(())
        }
        [kind, ref paths @ ..] if !paths.is_empty() => {
            let extractor = extractor(kind)?;
            for path in paths {
                let captions = gold::read(Path::new(path))?;
                print(path, &gold::tagged(&extractor, &captions), &captions, errors);
            }
            Ok(())
        }
        _ => {
            Err("usage: score TAGGER FILE.. [--errors] | score --found FILE FILE [--errors] | score TAGGER \
                  --speed|--show FILE.txt"
                .to_owned())
        }
    }
}

fn extractor(kind: &str) -> Result<Extractor, String> {
    let kind = kind.parse().map_err(|e: concepts::Error| e.to_string())?;
    Extractor::new(kind).map_err(|e| e.to_string())
}

fn text(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| io_message(path, "read", &e))
}

/// Prints the score of a file, after the captions with errors if wanted.
fn print(path: &str, found: &[Caption], wanted: &[Caption], errors: bool) {
    let score = gold::score(found, wanted, |found, wanted| {
        if errors {
            println!("{}", wanted.text);
            let of = |span: &gold::Span| &wanted.text[span.0..span.1];
            found.phrases.difference(&wanted.phrases).for_each(|span| println!("    found  {:?}", of(span)));
            wanted.phrases.difference(&found.phrases).for_each(|span| println!("    wanted {:?}", of(span)));
        }
    });
    let count = |kind: Kind| score.kinds.get(&kind).copied().unwrap_or_default();
    let kinds = Kind::ALL.map(|kind| format!("{} {}", kind.name(), count(kind))).join(", ");
    println!("{path}: phrases {}; heads {}; errors: {kinds}", score.phrases, score.heads);
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
