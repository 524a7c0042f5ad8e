//! Trains an embedded tagger from tagged sentences and writes its model file, or prints the rules of a model.
//!
//!     cargo run --release -p simzss-concepts --example train_tagger -- perceptron OUT.bin masc.tsv 1 captions.tsv 1 ..
//!     cargo run --release -p simzss-concepts --example train_tagger -- brill OUT.bin masc.tsv 1 captions.tsv 1 ..
//!     cargo run --release -p simzss-concepts --example train_tagger -- brill OUT.bin --teacher perceptron.bin masc.tsv 1 ..
//!     cargo run --release -p simzss-concepts --example train_tagger -- --show brill.bin
//!
//! The number after each file says how often it is used. A file has one word per line: word, TAB, tag (further columns
//! are ignored), with an empty line after each sentence. With a teacher, the tags in the files are replaced by those
//! that the teacher gives. The same files give the same model, byte for byte.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use concepts::TaggerKind;
use concepts::training::{self, BrillOptions, PerceptronOptions, Sentence};
use disk::files::io_message;

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
    match arguments {
        [flag, model] if flag == "--show" => show(model),
        [kind, out, flag, teacher, inputs @ ..] if flag == "--teacher" && !inputs.is_empty() => {
            train(kind, out, inputs, Some(teacher))
        }
        [kind, out, inputs @ ..] if !inputs.is_empty() => train(kind, out, inputs, None),
        _ => {
            Err("usage: train_tagger brill|perceptron OUT.bin [--teacher PERCEPTRON.bin] FILE.tsv TIMES .. \
                  | train_tagger --show MODEL.bin"
                .to_owned())
        }
    }
}

/// Prints the rules of a transformation-based model, one per line, in the order in which they are applied.
fn show(path: &str) -> Result<(), String> {
    let model = fs::read(path).map_err(|e| io_message(path, "read", &e))?;
    let rules = training::brill_rules(&model).map_err(|e| format!("{path}: {e}"))?;
    let mut out = io::stdout().lock();
    let written = rules.iter().try_for_each(|rule| writeln!(out, "{rule}"));
    match written {
        // The reader, such as `head`, has closed the pipe.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|e| format!("cannot write to standard output: {e}")),
    }
}

fn train(kind: &str, out: &str, inputs: &[String], teacher: Option<&str>) -> Result<(), String> {
    let kind: TaggerKind = kind.parse().map_err(|e: concepts::Error| e.to_string())?;
    let mut sentences = read(inputs)?;
    if let Some(path) = teacher {
        let model = fs::read(path).map_err(|e| io_message(path, "read", &e))?;
        training::retag(&mut sentences, &model).map_err(|e| format!("{path}: {e}"))?;
    }
    let report = |unit: &'static str| {
        move |number: usize, wrong: f64| {
            eprintln!("{unit} {number}: {:.2} % of the words have a wrong tag", wrong * 100.0);
        }
    };
    let bytes = match kind {
        TaggerKind::Brill => training::brill(&sentences, BrillOptions::default(), report("rules")),
        TaggerKind::Perceptron => {
            training::perceptron(&sentences, PerceptronOptions::default(), report("epoch"))
        }
        TaggerKind::Nlprule => {
            return Err("nlprule cannot be trained here; choose one of brill, perceptron".to_owned());
        }
    };
    eprintln!("{out}: {} bytes", bytes.len());
    disk::files::write_atomic(Path::new(out), &bytes).map_err(|e| io_message(out, "write", &e))
}

/// The sentences of all files, repeated as often as the number after each file says.
fn read(inputs: &[String]) -> Result<Vec<Sentence>, String> {
    let mut sentences = Vec::new();
    for input in inputs.chunks(2) {
        let [path, times] = input else {
            return Err("after every file, give the number of times it is used".to_owned());
        };
        let times: usize = times.parse().map_err(|_| format!("{times} is not a number"))?;
        let text = fs::read_to_string(path).map_err(|e| io_message(path, "read", &e))?;
        let read = training::sentences(&text).map_err(|e| format!("{path}: {e}"))?;
        eprintln!("{path}: {} sentences, {} words", read.len(), read.iter().map(Vec::len).sum::<usize>());
        for _ in 0..times {
            sentences.extend_from_slice(&read);
        }
    }
    Ok(sentences)
}
