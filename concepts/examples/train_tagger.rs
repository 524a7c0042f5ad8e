//! Trains an embedded tagger from tagged sentences and writes its model file.
//!
//!     cargo run --release -p concepts --example train_tagger -- perceptron OUT.bin masc.tsv 1 captions.tsv 1 ..
//!
//! Each file is followed by how often it is used. A file has one token a line, token TAB tag (more columns are
//! ignored), an empty line after a sentence. The same files give the same bytes.

use std::fs;
use std::process::ExitCode;

use concepts::tagger::Tag;
use concepts::training::{PerceptronOptions, Sentence, perceptron};

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
    let [kind, out, inputs @ ..] = arguments else {
        return Err("usage: train_tagger perceptron OUT.bin FILE.tsv TIMES ..".to_owned());
    };
    let mut sentences = Vec::new();
    for input in inputs.chunks(2) {
        let [path, times] = input else {
            return Err("every file is followed by how often it is used".to_owned());
        };
        let times: usize = times.parse().map_err(|_| format!("{times}: not a number"))?;
        let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
        let read = read(&text).map_err(|e| format!("{path}: {e}"))?;
        eprintln!("{path}: {} sentences, {} words", read.len(), read.iter().map(Vec::len).sum::<usize>());
        for _ in 0..times {
            sentences.extend_from_slice(&read);
        }
    }
    let report =
        |epoch: usize, wrong: f64| eprintln!("epoch {epoch}: {:.2} % of the words wrong", wrong * 100.0);
    let bytes = match kind.as_str() {
        "perceptron" => perceptron(&sentences, PerceptronOptions::default(), report),
        _ => return Err(format!("{kind}: no such tagger; there is: perceptron")),
    };
    eprintln!("{out}: {} bytes", bytes.len());
    fs::write(out, bytes).map_err(|e| format!("{out}: {e}"))
}

/// Sentences of a token table, in lower case, hyphenated words whole.
fn read(text: &str) -> Result<Vec<Sentence>, String> {
    let mut sentences = Vec::new();
    let mut sentence: Sentence = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut columns = line.split('\t');
        let word = columns.next().unwrap_or_default().to_lowercase();
        if word.is_empty() {
            if !sentence.is_empty() {
                sentences.push(std::mem::take(&mut sentence));
            }
            continue;
        }
        let name = columns.next().unwrap_or_default();
        let tag = Tag::from_name(name).ok_or_else(|| format!("line {}: no tag {name:?}", number + 1))?;
        // "Gore- Bush" is one word of ours.
        let joins = word.starts_with(char::is_alphanumeric);
        match sentence.last_mut() {
            Some((last, last_tag))
                if joins && last.len() > 1 && last.ends_with('-') && !last.ends_with("--") =>
            {
                last.push_str(&word);
                *last_tag = tag;
            }
            _ => {
                let tag = correct(&word, tag);
                sentence.push((word, tag));
            }
        }
    }
    if !sentence.is_empty() {
        sentences.push(sentence);
    }
    Ok(sentences)
}

/// Mends what the corpora tag against their own rules.
fn correct(word: &str, tag: Tag) -> Tag {
    match word {
        "'s" | "’s" if tag != Tag::VBZ => Tag::POS,
        "'" | "’" if tag != Tag::POS => Tag::CLOSE_QUOTE,
        _ => tag,
    }
}
